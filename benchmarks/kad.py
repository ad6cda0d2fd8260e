"""Kademlia: published figures beside ours, and what lookups and tables cost. CPU time, one core.

python benchmarks/kad.py                 everything, about three minutes
python benchmarks/kad.py --full          all 10,000 lookups of the published table, larger networks
python benchmarks/kad.py --only hops     hops, growth, disjoint, health, churn, lookups or table
python benchmarks/kad.py --seed 7        another network

hops, growth and disjoint run the real lookup machine against tables that are filled from the truth
(kad_network.py), as those who published the figures did. health, churn and lookups run whole
nodes in the simulator.
"""

import argparse
import gc
import math
import random
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from statistics import mean, median, stdev
from time import perf_counter, process_time

sys.path.insert(0, str(Path(__file__).parent.parent / "core"))
sys.path.insert(0, str(Path(__file__).parent.parent / "runtimes"))
sys.path.insert(0, str(Path(__file__).parent))

from kad_network import CLOSER, Network
from results import written

from anyp2p.sim import Host, World
from anyp2p_core.errors import Error
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.keys import Key, key_of, nearest
from anyp2p_core.kad.query import State, Walk
from anyp2p_core.kad.table import Table
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

PUBLISHED = {10: 2.165, 20: 1.926, 30: 1.868, 50: 1.806, 100: 1.692}
"""ProbeLab RFM19.1, random buckets, N = 25,000, 10,000 lookups."""
PORT = "/ip4/0.0.0.0/tcp/4001"
RESULTS = Path(__file__).parent / "RESULTS-kad.md"


def show(*cells: object) -> None:
    print("  " + "  ".join(str(cell).rjust(11) for cell in cells), flush=True)


def hops(seed: int, full: bool) -> None:
    """The first peer that is asked and is one of the 20 closest: how many hops away is it?"""
    lookups = 10_000 if full else 1000
    print(f"hops by bucket size: N = 25,000, {lookups} lookups each, concurrency 10, seed {seed}")
    if not full:
        print("  (published: 10,000 lookups; --full takes as many)")
    show("bucket k", "published", "ours", "+-95 %", "ratio", "asked")
    for k, published in PUBLISHED.items():
        network, draw = Network(25_000, k, seed), random.Random(seed)
        walk = Walk(alpha=10, beta=3)
        counts, asked = [], []
        for _ in range(lookups):
            own, target = draw.choice(network.keys), draw.getrandbits(256)
            close = set(nearest(network.keys, target, CLOSER))
            if own in close:
                counts.append(0)
                continue
            query = network.lookup(own, target, walk)
            first = next(hop for hop in query.asked if network.key_of[hop.peer] in close)
            counts.append(first.depth + 1)
            asked.append(len(query.asked))
        ours = mean(counts)
        error = 1.96 * stdev(counts) / math.sqrt(lookups)
        show(k, f"{published:.3f}", f"{ours:.3f}", f"{error:.3f}", f"{ours / published:.3f}",
             f"{mean(asked):.1f}")  # fmt: skip


def growth(seed: int, full: bool) -> None:
    """Hops against the number of peers."""
    sizes = (100, 300, 1000, 3000, 10_000, *((30_000, 100_000) if full else ()))
    print(f"hops by network size: bucket 20, 500 lookups each, seed {seed}")
    show("N", "first of 20", "the closest", "asked", "found", "us CPU")
    points = []
    for size in sizes:
        network, draw = Network(size, 20, seed), random.Random(seed)
        first_hops, last_hops, asked, right = [], [], [], 0
        spent = 0.0
        for _ in range(500):
            own, target = draw.choice(network.keys), draw.getrandbits(256)
            close = [key for key in nearest(network.keys, target, CLOSER + 1) if key != own]
            close = close[:CLOSER]
            network.lookup(own, target, Walk())  # makes the tables
            started = process_time()
            query = network.lookup(own, target, Walk())
            spent += process_time() - started
            depth = {network.key_of[hop.peer]: hop.depth + 1 for hop in query.asked}
            first_hops.append(min(depth[key] for key in close if key in depth))
            last_hops.append(depth[close[0]])
            asked.append(len(query.asked))
            found = [network.key_of[hop.peer] for hop in query.closest()]
            right += sum(key in close for key in found)
        points.append((math.log(size), mean(last_hops)))
        show(size, f"{mean(first_hops):.3f}", f"{mean(last_hops):.3f}", f"{mean(asked):.1f}",
             f"{right / 500 / CLOSER:.2%}", f"{spent / 500 * 1e6:.0f}")  # fmt: skip
    middle_x, middle_y = (mean(axis) for axis in zip(*points, strict=True))
    slope = sum((x - middle_x) * (y - middle_y) for x, y in points)
    slope /= sum((x - middle_x) ** 2 for x, _ in points)
    residual = max(abs(y - middle_y - slope * (x - middle_x)) for x, y in points)
    print(f"  hops to the closest = {middle_y - slope * middle_x:.2f} + {slope:.3f} ln N, "
          f"within {residual:.2f}")  # fmt: skip


def disjoint(seed: int, full: bool) -> None:
    """Lookups among peers of which a fifth tells of its own kind only."""
    size, lookups = 10_000, 2000 if full else 400
    print(f"disjoint paths among liars: N = {size}, {lookups} lookups, bucket 16, seed {seed}")
    print("  liars tell of the liars closest to the target; success: the closest honest peer is "
          "found")  # fmt: skip
    print("  published (S/Kademlia, 16 siblings): 99 % at 20 % liars with disjoint paths; formula: "
          "1 - (1 - (1 - m)^h)^d with our own hops h")  # fmt: skip
    network = Network(size, 16, seed)
    show("liars", *(f"{paths} path{'s' * (paths > 1)}" for paths in (1, 2, 4, 8)))
    for share in (0.0, 0.1, 0.2, 0.3):
        draw = random.Random(seed)
        bad = sorted(draw.sample(network.keys, int(size * share)))
        liars = set(bad)
        honest = [key for key in network.keys if key not in liars]

        def answer(
            own: Key, target: Key, liars: set[Key] = liars, bad: list[Key] = bad
        ) -> Sequence[Key]:
            return nearest(bad, target, CLOSER) if own in liars else network.answer(own, target)

        cells, expected = [], []
        for paths in (1, 2, 4, 8):
            draw, good, depths = random.Random(seed), 0, []
            walk = Walk(k=16, alpha=max(paths, 8), beta=16, paths=paths)
            for _ in range(lookups):
                own, target = draw.choice(honest), draw.getrandbits(256)
                goal = next(key for key in nearest(honest, target, 2) if key != own)
                query = network.lookup(own, target, walk, answer)
                answered = {
                    network.key_of[hop.peer]: hop.depth
                    for hop in query.asked
                    if hop.state is State.ANSWERED
                }
                good += goal in answered
                if goal in answered:
                    depths.append(answered[goal] + 1)
            cells.append(f"{good / lookups:.1%}")
            expected.append(mean(1 - (1 - (1 - share) ** h) ** paths for h in depths))
        show(f"{share:.0%} ours", *cells)
        show("formula", *(f"{one:.1%}" for one in expected))


def begin(world: World, hosts: list[Host]) -> None:
    async def start() -> None:
        for host in hosts:
            await host.start()
            await world.sleep(0.05)

    world.run_task(world.spawn(start), 600.0)


def address(host: Host) -> Multiaddr:
    return Multiaddr(f"/ip4/{host.machine.ip}/tcp/4001")


def health(seed: int, full: bool) -> None:
    """Whole nodes that join one after the other: who knows all of its 20 closest?"""
    size = 300 if full else 80
    print(f"routing-table health: {size} nodes in the simulator that have joined and refreshed "
          f"once, seed {seed}")  # fmt: skip
    started = process_time()
    with World(seed=seed, latency=0.05) as world:
        hosts: list[Host] = []
        for _ in range(size):
            known = [Multiaddr(f"{address(one)}/p2p/{one.peer_id}") for one in hosts[:1]]
            config = KadConfig(server=True, bootstrap=tuple(known))
            hosts.append(world.host(listen=[PORT], dht=config))
        begin(world, hosts)
        world.run(15.0)

        async def refresh() -> None:
            await world.gather(*[world.spawn(host.dht.bootstrap) for host in hosts])

        world.run_task(world.spawn(refresh), 600.0)
        keys = {key_of(bytes(host.peer_id)): host.peer_id for host in hosts}
        counts = []
        for host in hosts:
            own = key_of(bytes(host.peer_id))
            closest = nearest(sorted(keys), own, 21)[1:]
            counts.append(sum(keys[key] in host.dht.table for key in closest))
        buckets = [one.size for host in hosts for one in host.dht.health.buckets if one.prefix == 0]
    show("", "all 20", "under 18", "under 5", "bucket 0")
    show("published", "61.09%", "4.79%", "0.102%", "19.88")
    share = [mean(test(one) for one in counts) for test in (_all, _under_18, _under_5)]
    show("ours", *(f"{one:.2%}" for one in share), f"{mean(buckets):.2f}")
    print(f"  (published: a crawl of the public network, 20,811 peers, a quarter of them not "
          f"reachable; ours are all online; {process_time() - started:.0f} s CPU)")  # fmt: skip


def _all(known: int) -> bool:
    return known >= 20


def _under_18(known: int) -> bool:
    return known < 18


def _under_5(known: int) -> bool:
    return known < 5


def churn(seed: int, full: bool) -> None:
    """Whole nodes that come and go: does a lookup lead to the closest one that is online?"""
    size, count = (150, 400) if full else (80, 200)
    print(f"churn: {size} nodes in the simulator, of which a tenth leaves each minute and is back "
          f"after a minute, tables refreshed once a minute, seed {seed}")  # fmt: skip
    started = process_time()
    with World(seed=seed, latency=0.05) as world:
        anchor = world.host(listen=[PORT], dht=KadConfig(server=True, refresh_interval=60.0))
        begin(world, [anchor])
        known = Multiaddr(f"{address(anchor)}/p2p/{anchor.peer_id}")
        config = KadConfig(server=True, bootstrap=(known,), refresh_interval=60.0)
        machines = []
        for _ in range(size):
            machines.append(world.machine(listen=[PORT], dht=config))
            world.run(0.2)
        world.run(60.0)
        # Of those that leave 4 of 10 say so, 4 crash and 2 fall silent.
        leaving = world.churn(machines, up=600.0, down=60.0, graceful=0.4, silent=0.2)
        world.run(70.0)
        draw = random.Random(seed)
        found = wrong = failed = 0

        def online() -> list[Host]:
            hosts = [one.host for one in machines if one.powered]
            return [anchor, *(host for host in hosts if host is not None)]

        async def look(target: bytes) -> None:
            nonlocal found, wrong, failed
            before = online()
            host = draw.choice(before)
            try:
                peers = (await host.dht.closest_peers(target)).peers
            except Error:
                failed += not host.closed  # else it has left itself
                return
            after = online()
            rest = [one for one in before if one in after and one is not host]
            staid = sorted(key_of(bytes(one.peer_id)) for one in rest)
            came = [key_of(bytes(one.peer_id)) for one in after if one not in before]
            first = key_of(bytes(peers[0].peer))
            if first == nearest(staid, key_of(target), 1)[0] or first in came:
                found += 1
            else:
                wrong += 1

        for number in range(count):
            world.run_task(world.spawn(look, b"%d" % number), 120.0)
            world.run(0.5)
        total = found + wrong + failed
        show("departures", "lookups", "found", "wrong", "failed")
        show(leaving.departures, total, f"{found / total:.2%}", wrong, failed)
    print(f"  (needed: 99 %; {process_time() - started:.0f} s CPU)")


def lookups(seed: int, full: bool) -> None:
    """One node against a network of 1,000 whole nodes: streams, messages, tables, all of it."""
    size, count = 1000, 400 if full else 100
    print(f"lookups of one node against {size} nodes in the simulator, tables filled from the "
          f"truth, seed {seed}")  # fmt: skip
    draw = random.Random(seed)
    with World(seed=seed, latency=0.02) as world:
        quiet = {"refresh_interval": 1e6, "low_interval": 1e6}
        servers = [
            world.host(listen=[PORT], dht=KadConfig(server=True, **quiet))  # type: ignore[arg-type]
            for _ in range(size)
        ]
        client = world.host(dht=KadConfig(**quiet))  # type: ignore[arg-type]
        begin(world, [*servers, client])
        by_key = {key_of(bytes(host.peer_id)): host for host in servers}
        keys = sorted(by_key)
        started = process_time()
        for host in [*servers, client]:
            table = host.dht.table
            for key in draw.sample(keys, len(keys)):
                other = by_key[key]
                if other is not host:
                    table.add(other.peer_id, world.now, addresses=(address(other),))
        filling = process_time() - started

        async def look(target: bytes) -> tuple[int, int]:
            found = await client.dht.closest_peers(target)
            close = nearest(keys, key_of(target), CLOSER)
            right = sum(key_of(bytes(one.peer)) in close for one in found.peers)
            return right, len(found.trace)

        def batch(name: str, first: int) -> None:
            gc.collect()
            begun, virtual = process_time(), world.now
            results = [
                world.run_task(world.spawn(look, b"%d" % number), 60.0)
                for number in range(first, first + count)
            ]
            spent, passed = process_time() - begun, world.now - virtual
            right = sum(one for one, _ in results) / count / CLOSER
            asked = mean(each for _, each in results)
            show(name, f"{count / spent:.1f}/s", f"{spent / count * 1e3:.1f} ms",
                 f"{spent / count / asked * 1e6:.0f} us", f"{asked:.1f}",
                 f"{passed / count:.2f} s", f"{right:.2%}")  # fmt: skip

        show("", "lookups", "CPU each", "per request", "asked", "virtual", "found")
        batch("with dials", 0)
        batch("connected", count)
        batch("again", 2 * count)
    print(f"  (CPU of both ends of everything; to fill 1,001 tables took {filling:.1f} s)")


def table(seed: int, full: bool) -> None:
    """The routing table alone."""
    size = 10_000
    print(f"routing table with {size} known peers (buckets of {size}), seed {seed}")
    names = (b"%d table %d" % (seed, number) for number in range(size + 1))
    own, *peers = (PeerId(b"\x12\x20" + sha256(name).digest()) for name in names)
    addresses = [
        (Multiaddr(f"/ip4/10.{n >> 16}.{n >> 8 & 255}.{n & 255}/tcp/4001"),) for n in range(size)
    ]
    for one in peers:
        hash(one)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    made = Table(own, k=size)
    for number, peer in enumerate(peers):
        made.add(peer, 0.0, addresses=addresses[number])
    entries = (tracemalloc.get_traced_memory()[0] - before) / size
    tracemalloc.stop()
    gc.collect()
    tracemalloc.start()
    kept = [
        (PeerId(bytes(peer)), Multiaddr.from_bytes(bytes(own_addresses[0])))
        for peer, own_addresses in zip(peers, addresses, strict=True)
    ]
    with_names = entries + tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    draw = random.Random(seed)

    def per_call(function: Callable[[int], object], calls: int) -> str:
        times = []
        for number in range(calls):
            started = perf_counter()
            function(number)
            times.append(perf_counter() - started)
        return f"{median(times) * 1e6:.1f} us"

    targets = [draw.getrandbits(256) for _ in range(5000)]
    show("closest 20", per_call(lambda n: made.closest(targets[n], 20), 5000), "needed < 50 us")
    show("add again", per_call(lambda n: made.add(peers[n], 1.0), 5000))
    show("memory", f"{entries:.0f} B", "per entry")
    show("", f"{with_names:.0f} B", "with the peer id and one address; needed < 1536 B")


SECTIONS: dict[str, Callable[[int, bool], None]] = {
    one.__name__: one for one in (hops, growth, disjoint, health, churn, lookups, table)
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure Kademlia beside published figures.")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="repeat it for more")
    parser.add_argument("--seed", type=int, default=7, help="what decides the run (default: 7)")
    parser.add_argument("--full", action="store_true", help="the published sizes, half an hour")
    parser.add_argument("--write-results", action="store_true", help="write RESULTS-kad.md")
    args = parser.parse_args()
    with written(RESULTS, "Results of Kademlia") if args.write_results else nullcontext():
        for name in args.only or SECTIONS:
            SECTIONS[name](args.seed, args.full)
            print(flush=True)


if __name__ == "__main__":
    main()
