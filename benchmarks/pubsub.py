"""gossipsub: published figures beside ours, and what messages cost.

python benchmarks/pubsub.py                    everything, some minutes
python benchmarks/pubsub.py --only tables      one of: tables, idontwant, attacks, parse, thousand,
                                               steady, forward, race
python benchmarks/pubsub.py --seeds 10         more seeds for the simulated sections
python benchmarks/pubsub.py --full             the published sizes, hours
python benchmarks/pubsub.py --strict           exit code 1 if a target is missed

tables, idontwant, attacks and thousand run whole nodes in the simulator (pubsub_network.py,
pubsub_attacks.py), steady, race and forward over sockets (pubsub_mesh.py), forward in memory too
(pubsub_chain.py). +- is half of the 95 % confidence interval over the seeds (Student's t). Times
are CPU seconds unless they are virtual.
"""

import argparse
import asyncio
import gc
import os
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import mean, median
from time import perf_counter, process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "core"))
sys.path.insert(0, str(Path(__file__).parent.parent / "runtimes"))
sys.path.insert(0, str(Path(__file__).parent))

import pubsub_attacks
import pubsub_chain
from pubsub_attacks import Outcome, Size
from pubsub_network import (
    GRAFT,
    IDONTWANT,
    IHAVE,
    IWANT,
    MESSAGE,
    PRUNE,
    Counted,
    Counts,
    Network,
    estimate,
)
from results import written

from anyp2p.sim import World
from anyp2p.sim.machine import Machine
from anyp2p_core.errors import DecodeError
from anyp2p_core.pubsub import message as messages, rpc as wire
from anyp2p_core.pubsub.config import GossipConfig
from anyp2p_core.pubsub.gossipsub import GossipSub
from anyp2p_core.pubsub.peers import Peer, Topic
from anyp2p_core.varint import decode as read_varint

RESULTS = Path(__file__).parent / "RESULTS-pubsub.md"
MIB = 1 << 20


@dataclass(slots=True)
class Options:
    """What was asked for."""

    seeds: int | None
    full: bool
    jobs: int

    def seeds_or(self, default: int) -> range:
        """Seeds to run, from 1."""
        return range(1, (self.seeds or default) + 1)

    def each(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The results of calls, in processes of their own."""
        context = get_context("spawn")
        with ProcessPoolExecutor(self.jobs, mp_context=context, max_tasks_per_child=1) as pool:
            return list(pool.map(_call, [(function, *call) for call in calls]))


def _call(work: tuple[Any, ...]) -> Any:
    function, *arguments = work
    return function(*arguments)


@dataclass(slots=True)
class Figure:
    """A target, and what came of it."""

    name: str
    target: str
    measured: str
    met: bool


FIGURES: list[Figure] = []


def figure(name: str, target: str, measured: str, met: bool) -> None:
    FIGURES.append(Figure(name, target, measured, met))
    print(f"  {name}: {measured}; target {target}: {_verdict(met)}", flush=True)


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def show(head: str, *cells: object, width: int = 14) -> None:
    print("  " + head.ljust(26) + "".join(str(cell).rjust(width) for cell in cells), flush=True)


# The published tables of gossipsub 1.0.

COLUMNS = (MESSAGE, IHAVE, IWANT, GRAFT, PRUNE, "0-100", "100-200", "200-300", "300-400 ms")
PUBLISHED = {
    250: (96_320, 93_108, 416, 961, 29, 878, 10_109, 3_915, 38),
    500: (189_451, 185_892, 1_153, 1_844, 14, 1_028, 12_986, 15_234, 692),
    1000: (377_370, 372_006, 2_143, 3_695, 43, 1_334, 20_818, 36_508, 1_280),
}


class Patient(Counted):
    """A router whose mesh begins at the heartbeat, among all who are there by then."""

    def on_subscribed(self, peer: Peer, topic: Topic, now: float) -> None:
        """As in gossipsub 1.0: nothing."""


def table_run(size: int, seed: int, shipped: bool) -> tuple[list[float], float]:
    """The cells of one run, and its CPU seconds."""
    begun = process_time()
    draw, counts = Random(seed), Counts()
    between: dict[tuple[int, int], float] = {}

    def latency(a: Machine, b: Machine) -> float:
        pair = min(a.index, b.index), max(a.index, b.index)
        return between.setdefault(pair, draw.uniform(0.01, 0.15))

    def make(place: int) -> GossipSub:
        config = GossipConfig(
            d=6, d_lo=4, d_hi=12, d_score=0, d_out=0, d_lazy=6, gossip_factor=0.0,
            history_length=120, history_gossip=3, flood_publish=False, floodsub=False,
            versions=("/meshsub/1.0.0",),
            heartbeat_delay=draw.uniform(0.1, 1.1) if shipped else draw.uniform(2.0, 3.0),
        )  # fmt: skip
        return (Counted if shipped else Patient)(config, counts)

    with World(seed=seed, latency=latency, jitter=0.008) as world:
        network = Network(world, size, make)
        network.connect(20)
        world.run(10.0)
        network.publish_at(1.0, 60.0, 100, 5)
        world.run(10.0)
        if network.lost():
            raise RuntimeError(f"{network.lost()} deliveries are missing")
        slots = [0] * 4
        for delay in network.delays:
            slots[min(int(delay * 10), 3)] += 1
    cells = [float(counts.rpcs[name]) for name in COLUMNS[:5]]
    return cells + [float(slot) for slot in slots], process_time() - begun


def tables(options: Options) -> None:
    print(
        "gossipsub 1.0, each node dials 20, D 6/4/12, 5 sources, 60 messages at 1/s, links of\n"
        "  10-150 ms: RPCs by kind, deliveries by virtual delay. Published: one run each"
    )
    show("", *COLUMNS, width=17)
    default = {250: 3, 500: 2, 1000: 1}
    runs = [
        (size, seed, False)
        for size in reversed(PUBLISHED)
        for seed in options.seeds_or(20 if options.full else default[size])
    ]
    runs += [(250, seed, True) for seed in options.seeds_or(2)]
    results = options.each(table_run, runs)
    found: dict[tuple[int, bool], list[list[float]]] = {}
    for (size, _, shipped), (cells, _) in zip(runs, results, strict=True):
        found.setdefault((size, shipped), []).append(cells)
    for size, published in PUBLISHED.items():
        show(f"N = {size:,} published", *(f"{one:,}" for one in published), width=17)
        samples = found[size, False]
        show(f"  ours, {len(samples)} seeds", *map(_cell, zip(*samples, strict=True)), width=17)
        columns = zip(*samples, strict=True)
        ratios = [mean(one) / other for one, other in zip(columns, published, strict=True)]
        show("  ours / published", *(f"{ratio:.3f}" for ratio in ratios), width=17)
        if (size, True) in found:
            samples = found[size, True]
            show(
                f"  as shipped, {len(samples)} seeds",
                *map(_cell, zip(*samples, strict=True)),
                width=17,
            )
        off = max(abs(ratio - 1) for ratio in ratios[:2])
        figure(f"table of N = {size}, message and IHAVE", "within 5 %", f"{off:.1%} off",
               off <= 0.05)  # fmt: skip
    print(
        "  All messages reached everybody. ours: meshes begin at the first heartbeat, as in the\n"
        "  published simulation. as shipped: they begin with whoever is there first, which makes\n"
        f"  fast links. CPU of a run of 1,000: {max(spent for _, spent in results):.0f} s"
    )


def _cell(samples: Sequence[float]) -> str:
    return estimate(samples, ",.0f")


# IDONTWANT.


def idontwant_run(nodes: int, size: int, count: int, version: str, seed: int) -> dict[str, float]:
    """Messages over access links of five classes."""
    counts = Counts()
    with World(seed=seed, latency=_staged_latency, jitter=0.01) as world:
        config = GossipConfig(
            d=8, d_lo=6, d_hi=12, d_lazy=6, gossip_factor=0.05, flood_publish=False,
            floodsub=False, versions=(version,), max_queue_bytes=8 * MIB,
        )  # fmt: skip
        network = Network(world, nodes, lambda place: Counted(config, counts))
        for place, host in enumerate(network.hosts):
            rate = (50 + 25 * (place % 5)) * 1e6 / 8
            host.machine.set_rates(rate, rate)
        network.connect(10)
        world.run(10.0)
        network.publish_at(0.25, 2 * 4.0, size, 10)
        begun = Counts()
        begun.rpcs.update(counts.rpcs)
        begun.bytes.update(counts.bytes)
        network.delays.clear()
        network.publish_at(0.25, count * 4.0, size, 10)
        world.run(20.0)
        return {
            "bytes": float(sum(counts.bytes.values()) - sum(begun.bytes.values())),
            "messages": float(counts.rpcs[MESSAGE] - begun.rpcs[MESSAGE]),
            "iwant": float(counts.rpcs[IWANT] - begun.rpcs[IWANT]),
            "idontwant": float(counts.rpcs[IDONTWANT] - begun.rpcs[IDONTWANT]),
            "latency": mean(network.late[number] for number in range(2, 2 + count)),
            "lost": float(network.lost(2)),
        }


def _staged_latency(a: Machine, b: Machine) -> float:
    return 0.04 + 0.0225 * ((a.index + b.index) % 5)


SAVED = {1_000_000: "12-20 %", 500_000: "18-21 %", 50_000: "about 0"}


def idontwant(options: Options) -> None:
    nodes, count = (2000, 10) if options.full else (60, 6)
    print(
        f"IDONTWANT: {nodes} nodes (published: 2,000), 50-150 Mbit/s and 40-130 ms,\n"
        f"  D 8/6/12, gossip factor 0.05, {count} messages 4 s apart, after 2 that do not count"
    )
    show("", "GB without", "GB with", "saved", "published", "copies", "copies with", "last s",
         "last s with")  # fmt: skip
    seeds = options.seeds_or(2)
    for size, published in SAVED.items():
        runs = [
            (nodes, size, count, version, seed)
            for seed in seeds
            for version in ("/meshsub/1.1.0", "/meshsub/1.2.0")
        ]
        results = options.each(idontwant_run, runs)
        without, with_ = results[::2], results[1::2]
        saved = [1 - b["bytes"] / a["bytes"] for a, b in zip(without, with_, strict=True)]
        delivered = count * (nodes - 1)
        show(
            f"{size:,} B, {len(seeds)} seeds",
            f"{mean(one['bytes'] for one in without) / 1e9:.3f}",
            f"{mean(one['bytes'] for one in with_) / 1e9:.3f}",
            estimate([100 * one for one in saved], ".1f") + " %",
            published,
            f"{mean(one['messages'] for one in without) / delivered:.2f}",
            f"{mean(one['messages'] for one in with_) / delivered:.2f}",
            f"{mean(one['latency'] for one in without):.2f}",
            f"{mean(one['latency'] for one in with_):.2f}",
        )
        lost = sum(one["lost"] for one in results)
        if lost:
            print(f"  {lost:.0f} deliveries are missing")
        if size >= 500_000:
            figure(f"IDONTWANT saves of {size:,} B", "12 % at least", f"{mean(saved):.1%}",
                   mean(saved) >= 0.12 and not lost)  # fmt: skip


# The attacks.

# As others quote them, of 1,000 honest nodes at 120 messages per second.
PAPER = {
    ("eclipse-all", False): "0 lost, p99 0.141 s",
    ("eclipse-all", True): "10 % lost, max 50 s",
    ("cold-boot", False): "0 lost, p99 0.205 s",
    ("cold-boot", True): "4 % lost, p99 10 s",
    ("covert", False): "p99 0.197 s",
    ("covert", True): "p99 > 15 s",
}


def attack_run(name: str, seed: int, plain: bool, size: Size) -> Outcome:
    """One scenario, without its list of delays."""
    outcome = pubsub_attacks.run(name, seed, size, plain)
    outcome.delays.clear()
    return outcome


def attacks(options: Options) -> None:
    size = Size(honest=1000, sybils=4000, eclipse_dials=100) if options.full else Size()
    print(
        f"attacks: {size.honest} honest nodes, {size.sybils} sybils (published: 1,000 and up to "
        f"4,000);\n  {size.rate:g} messages/s of {size.message} B (published: 120/s), "
        f"{size.attack:g} s of attack, links of 25 ms; plain: gossipsub 1.0\n"
        "  joined, full: virtual seconds until honest mesh links reach everybody, and until\n"
        "  all meshes have d_lo honest peers; held: mesh slots of sybils, at most and in the end"
    )
    show("", "lost", "p50 s", "p99 s", "worst s", "joined s", "full s", "held max", "held end",
         "published", width=11)  # fmt: skip
    plain = [(name, True) for name in ("eclipse-all", "cold-boot", "covert")]
    rows = [(name, False) for name in pubsub_attacks.SCENARIOS] + plain
    seeds = options.seeds_or(1)
    runs = [(name, seed, is_plain, size) for name, is_plain in rows for seed in seeds]
    results = options.each(attack_run, runs)
    lost_of_all = 0
    joined: dict[str, float] = {}
    full: dict[str, float] = {}
    for place, (name, is_plain) in enumerate(rows):
        found: list[Outcome] = results[place * len(seeds) : (place + 1) * len(seeds)]
        show(
            f"{name}{' plain' if is_plain else ''}, {len(seeds)} seeds",
            estimate([100 * one.lost / one.expected for one in found], ".2f") + "%",
            *(estimate([getattr(one, key) for one in found], ".3f") for key in ("p50", "p99")),
            f"{max(one.worst for one in found):.3f}",
            *(f"{max(getattr(one, key) for one in found):.0f}" for key in ("joined", "full")),
            *(f"{mean(getattr(one, key) for one in found):.1%}" for key in ("worst_held", "held")),
            "  " + PAPER.get((name, is_plain), ""),
            width=11,
        )
        if not is_plain:
            lost_of_all += sum(one.lost for one in found)
            joined[name] = max(one.joined for one in found)
            full[name] = max(one.full for one in found)
    figure("attacks, delivery to honest nodes", "100 %", f"{lost_of_all} deliveries lost",
           not lost_of_all)  # fmt: skip
    for what, seconds in (("joined", joined), ("full", full)):
        late = [name for name, value in seconds.items() if value > 120.0]
        measured = f"not in {', '.join(late)}" if late else f"{max(seconds.values()):.0f} s"
        figure(f"attacks, mesh rebuilt: {what}", "within 120 virtual s", measured, not late)


# What messages cost.


def parse(options: Options) -> None:
    print("reading RPCs")
    limits = wire.WireLimits()
    author = b"\x00\x24\x08\x01\x12\x20" + bytes(32)
    made = messages.build(author, bytes(1024), bytes(8), b"topic")
    messages.sign(made, bytes(64), None)
    framed = wire.publish((made.raw,))
    body = framed[read_varint(framed)[1] :]
    best = float("inf")
    for _ in range(9):
        before = process_time()
        for _ in range(5000):
            messages.parse(wire.parse(body, limits).publish[0])
        best = min(best, (process_time() - before) / 5000)
    figure("RPC with 1 publish of 1 KB", "under 15 us", f"{best * 1e6:.1f} us", best < 15e-6)
    kinds = {"subscriptions": b"\x0a\x00", "messages": b"\x12\x00", "control": b"\x1a\x00"}
    for name, entry in kinds.items():
        data = entry * (4 * MIB // 2)
        refuse(data, limits)
        times = []
        for _ in range(9):
            before = process_time()
            refuse(data, limits)
            times.append(process_time() - before)
        gc.collect()
        tracemalloc.start()
        refuse(data, limits)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        figure(f"4 MiB of empty {name} refused", "under 5 ms, 1 MiB",
               f"{median(times) * 1e3:.2f} ms, {peak / 1024:.0f} KiB",
               median(times) < 5e-3 and peak < MIB)  # fmt: skip


def refuse(data: bytes, limits: wire.WireLimits) -> None:
    """Parse what must not be accepted."""
    try:
        wire.parse(data, limits)
    except DecodeError:
        return
    raise RuntimeError("an RPC of empty entries was accepted")


def thousand_run() -> dict[str, float]:
    """60 messages among 1,000 nodes; CPU seconds."""
    with World(seed=1, latency=0.05, jitter=0.02) as world:
        begun = process_time()
        network = Network(world, 1000, lambda place: GossipSub(GossipConfig()))
        network.connect(10)
        world.run(10.0)
        setup = process_time() - begun
        slices = []
        for _ in range(15):
            begun = process_time()
            network.publish_at(1.0, 4.0, 256, 1000)
            slices.append(process_time() - begun)
        world.run(3.0)
        links = sum(len(host.node.connections()) for host in network.hosts) / 1000
        return {
            "setup": setup,
            "spent": sum(slices),
            "slice": median(slices),
            "links": links,
            "lost": network.lost(),
        }


def thousand(options: Options) -> None:
    print("1,000 nodes in the simulator, null security, defaults, 256 B, 60 messages at 1/s")
    found = thousand_run()
    print(
        f"  {found['links']:.1f} connections per node made in {found['setup']:.1f} s; "
        f"{found['spent']:.1f} s in all, 15 times the median of 15 parts is judged"
    )
    spent = 15 * found["slice"]
    figure("simulator, 60 messages to 1,000 nodes", "under 60 s CPU", f"{spent:.1f} s",
           spent < 60.0)  # fmt: skip
    figure("simulator, delivered to 1,000 nodes", "all", f"{found['lost']:.0f} missing",
           not found["lost"])  # fmt: skip


# Over sockets.

OURS, PYTHON, JS = "anyp2p", "py-libp2p", "js"
FASTER = {PYTHON: 8.0, JS: 3.0}


def built(name: str) -> Any:
    """A worker that is ready to run; None, with one line that says why, if it cannot."""
    import sides
    from building import BuildFailed, NotHere, discover, prepare

    if name == OURS:
        found = sides.find((sides.ASYNCIO,), print)[sides.ASYNCIO]
        return replace(found, spec=replace(found.spec, run=["{python}", "{src}/pubsub_mesh.py"]))
    specs = discover(sides.HERE)
    try:
        found = prepare(specs["competitor" if name == PYTHON else "pubsub_js"], _log)
    except (NotHere, BuildFailed) as error:
        print(f"  {name}: skipped: {sides.one_line(error)}")
        return None
    if name == PYTHON:
        run = ["{out}/venv/bin/python", "{src}/pubsub_worker.py"]
        found = replace(found, spec=replace(found.spec, run=run))
    return found


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@asynccontextmanager
async def worker(name: str, nodes: int) -> AsyncIterator[Any]:
    """A running worker."""
    import sides

    peer = await sides.Peer.start(built(name), extra=("--nodes", str(nodes)))
    try:
        yield peer
    finally:
        await peer.stop()


async def _steady() -> dict[str, float]:
    async with worker(OURS, 20) as peer:
        found: dict[str, float] = await peer.call("steady", rate=20, count=200, size=256)
        return found


def steady(options: Options) -> None:
    print("20 nodes fully meshed in one process, defaults, no settling time, 200 messages at 20/s")
    found = asyncio.run(_steady())
    share = found["delivered"] / found["expected"]
    print(f"  p50 {found['p50'] * 1e3:.1f} ms, worst {found['worst'] * 1e3:.1f} ms, "
          f"{found['cpu'] / found['seconds']:.0%} of one core")  # fmt: skip
    figure("20 nodes at once: delivered", "100 %", f"{share:.2%}", share == 1.0)
    figure("20 nodes at once: p99", "under 100 ms", f"{found['p99'] * 1e3:.1f} ms",
           found["p99"] < 0.1)  # fmt: skip


async def _forward(fan_out: int, rate: int, count: int) -> tuple[float, float, int]:
    """CPU seconds per message of a node between two others, those of a signature, deliveries."""
    async with worker(OURS, 1) as source, worker(OURS, 1) as middle, worker(OURS, fan_out) as sink:
        await source.call("dial", address=middle.address, heard=1)
        await sink.call("dial", address=middle.address, heard=1)
        await middle.call("dial", heard=1 + fan_out)
        await asyncio.sleep(3.0)
        await source.call("flood", rate=rate, count=rate, size=256)
        await asyncio.sleep(1.0)
        await sink.call("received")
        before = (await middle.call("cpu"))["seconds"]
        await source.call("flood", rate=rate, count=count, size=256)
        await asyncio.sleep(1.0)
        spent = (await middle.call("cpu"))["seconds"] - before
        arrived = (await sink.call("received"))["count"]
        cost = (await middle.call("verify", size=256))["cost"]
        return spent / count, cost, arrived


def forward(options: Options) -> None:
    print("a node between a source and others, noise, signed messages of 256 B")
    show("", "messages/s", "us CPU each", "signature", "beyond it", "arrived")
    name = "CPU per forwarded signed message, beyond its signature"
    for fan_out in (1, 6):
        each, signature = pubsub_chain.cost(fan_out, 256, 300)
        beyond = each - signature
        show(f"in memory, to {fan_out}", "", f"{each * 1e6:.0f}", f"{signature * 1e6:.0f}",
             f"{beyond * 1e6:.0f}", "100.0%")  # fmt: skip
        if fan_out == 1:
            figure(name, "under 100 us", f"{beyond * 1e6:.0f} us", beyond < 100e-6)
    for fan_out, rate in ((1, 250), (1, 1000), (6, 250)):
        count = rate * 4
        each, signature, arrived = asyncio.run(_forward(fan_out, rate, count))
        beyond = each - signature
        show(f"three processes, to {fan_out}", rate, f"{each * 1e6:.0f}", f"{signature * 1e6:.0f}",
             f"{beyond * 1e6:.0f}", f"{arrived / count / fan_out:.1%}")  # fmt: skip
        if rate == 1000:
            figure(f"{name}, with sockets", "under 100 us", f"{beyond * 1e6:.0f} us",
                   beyond < 100e-6)  # fmt: skip
    print("  With sockets, on asyncio: the kernel's part of a wake-up, a read and a write counts.")


async def _race(name: str, count: int) -> dict[str, Any]:
    async with worker(name, 10) as peer:
        await peer.call("mesh", timeout=100.0)
        await peer.call("rounds", count=max(count // 5, 2), burst=1, size=256, timeout=300.0)
        found: dict[str, Any] = await peer.call(
            "rounds", count=count, burst=1, size=256, timeout=300.0
        )
        found["implementation"] = peer.implementation
        return found


def race(options: Options) -> None:
    runs = 5 if options.full else 3
    print("10 nodes fully meshed in one process, signed, 256 B: rounds in which each node\n"
          f"  publishes one message, then all wait for all deliveries; medians of {runs} runs, "
          "interleaved")  # fmt: skip
    counts = {OURS: 100, PYTHON: 5, JS: 20}
    names = [name for name in counts if built(name) is not None]
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(runs):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            samples[name].append(asyncio.run(_race(name, counts[name])))
    show("", "per CPU s", "per s", "x CPU", "x wall", "lost")
    by_cpu = {name: median(one["delivered"] / one["cpu"] for one in samples[name])
              for name in names}  # fmt: skip
    by_wall = {name: median(one["delivered"] / one["seconds"] for one in samples[name])
               for name in names}  # fmt: skip
    for name in names:
        lost = sum(one["expected"] - one["delivered"] for one in samples[name])
        show(samples[name][0]["implementation"][:25], f"{by_cpu[name]:.0f}", f"{by_wall[name]:.0f}",
             f"{by_cpu[OURS] / by_cpu[name]:.1f}", f"{by_wall[OURS] / by_wall[name]:.1f}",
             lost)  # fmt: skip
        if name in FASTER:
            ratio = by_cpu[OURS] / by_cpu[name]
            figure(f"10 nodes: deliveries per CPU second against {name}",
                   f"{FASTER[name]:g} x", f"{ratio:.1f} x", ratio >= FASTER[name])  # fmt: skip
        else:
            figure("10 nodes: lost", "nothing", str(lost), not lost)


SECTIONS: dict[str, Callable[[Options], None]] = {
    one.__name__: one
    for one in (parse, race, steady, forward, thousand, tables, idontwant, attacks)
}


def _chosen(names: list[str] | None) -> Iterator[Callable[[Options], None]]:
    for name in names or SECTIONS:
        yield SECTIONS[name]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure gossipsub beside published figures.")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="repeat it for more")
    parser.add_argument("--seeds", type=int, help="how many, for what is simulated")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--full", action="store_true", help="the published sizes, hours")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if a target is missed")
    parser.add_argument("--write-results", action="store_true", help="write RESULTS-pubsub.md")
    args = parser.parse_args()
    with written(RESULTS, "Results of pubsub") if args.write_results else nullcontext():
        met = measure(args)
    return 1 if args.strict and not met else 0


def measure(args: argparse.Namespace) -> bool:
    """Print all of it; return whether every target was met."""
    options = Options(args.seeds, args.full, args.jobs)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"this machine is busy (load {load:.1f}): times are longer than they need be\n")
    begun = perf_counter()
    for section in _chosen(args.only):
        section(options)
        print(flush=True)
    width = max(len(one.name) for one in FIGURES)
    for one in FIGURES:
        cells = one.name.ljust(width), one.target.ljust(22), one.measured.ljust(22)
        print("  ".join((*cells, _verdict(one.met))))
    print(f"\nin {perf_counter() - begun:.0f} s")
    return all(one.met for one in FIGURES)


if __name__ == "__main__":
    sys.exit(main())
