"""How fast is the simulator, and how much memory does a simulated peer take? CPU time, one core.

python benchmarks/simulator.py           everything, a minute or two
python benchmarks/simulator.py --quick   smaller networks

Each row runs in a process of its own; times are CPU time, the best of some samples: memory that
others use at the same time slows this down more than anything else.
"""

import argparse
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

sys.path.insert(0, str(Path(__file__).parent.parent / "core"))
sys.path.insert(0, str(Path(__file__).parent.parent / "runtimes"))

from anyp2p.sim import Host, World, ring

SAMPLES = 10


def resident() -> float:
    """MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def pings(nodes: int, security: str) -> str:
    """A ring in which everyone pings its neighbour."""
    world = World(seed=7, security=security)  # type: ignore[arg-type]
    peers = ring.make(world, nodes)
    rounds = max(1, 5000 // nodes)
    best = float("inf")
    for _ in range(SAMPLES):
        start, before = process_time(), peers.pings
        peers.run(rounds)
        best = min(best, (process_time() - start) / (peers.pings - before))
    return f"{1 / best:9.0f} pings/s  {best * 1e6:7.1f} us each, both ends"


def make(nodes: int, security: str) -> str:
    """Peers in a ring, connected and identified."""
    gc.collect()
    before = resident()
    start = process_time()
    world = World(seed=7, security=security)  # type: ignore[arg-type]
    peers = ring.make(world, nodes)
    seconds = process_time() - start
    peers.run(1)
    used = resident() - before
    return (
        f"{seconds:9.2f} s  {used:7.0f} MiB resident, {used * 1024 / nodes:.1f} KiB per peer "
        "with 2 connections"
    )


def mesh(nodes: int, degree: int, security: str) -> str:
    """Each peer connects to the next ``degree`` ones, all at once."""
    start = process_time()
    world = World(seed=7, security=security, latency=0.05, jitter=0.02)  # type: ignore[arg-type]
    hosts = [world.host(listen=["/ip4/0.0.0.0/tcp/4001"]) for _ in range(nodes)]

    async def join(place: int) -> None:
        for step in range(1, degree + 1):
            await hosts[place].connect(hosts[(place + step) % nodes].addresses[0])

    async def begin(host: Host) -> None:
        await host.start()

    for host in hosts:
        world.spawn(begin, host)
    world.run(0.0)
    tasks = [world.spawn(join, place) for place in range(nodes)]
    world.run_task(world.spawn(world.gather, *tasks), 3600.0)
    world.run(5.0)  # identify, both ways
    seconds = process_time() - start
    count = sum(len(host.node.connections()) for host in hosts) // 2
    assert count == nodes * degree
    return f"{seconds:9.2f} s  {count} connections, {seconds / count * 1e3:.2f} ms each, both ends"


def bulk(size: int, security: str) -> str:
    """One stream, one way."""
    world = World(seed=7, security=security, latency=0.001)  # type: ignore[arg-type]
    a, b = world.host(), world.host(listen=["/ip4/0.0.0.0/tcp/4001"], perf=True)

    async def main() -> float:
        async with a, b:
            await a.connect(b.addresses[0])
            start = process_time()
            await a.perf(b.peer_id, size, 0)
            return process_time() - start

    seconds = world.run_task(world.spawn(main), 3600.0)
    return f"{size / seconds / 1e6:9.0f} MB/s"


Row = tuple[str, Callable[..., str], tuple[object, ...]]


def rows(quick: bool) -> list[Row]:
    large = 1000 if quick else 10_000
    return [
        *[
            (f"ping in a ring of {nodes}, null security", pings, (nodes, "null"))
            for nodes in (10, 100, 1000)
        ],
        ("ping in a ring of 200, noise", pings, (200, "noise")),
        (f"make a ring of {large}, null security", make, (large, "null")),
        ("make a ring of 200, noise", make, (200, "noise")),
        ("connect 200 peers with 20 each, null security", mesh, (200, 10, "null")),
        ("connect 200 peers with 20 each, noise", mesh, (200, 10, "noise")),
        ("upload of 256 MiB, null security", bulk, (256 << 20, "null")),
        ("upload of 256 MiB, noise", bulk, (256 << 20, "noise")),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the simulator.")
    parser.add_argument("--quick", action="store_true", help="smaller networks")
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    table = rows(args.quick)
    if args.row is not None:
        name, function, arguments = table[args.row]
        print(f"{name:48} {function(*arguments)}", flush=True)
        return
    command = [sys.executable, __file__, *(["--quick"] if args.quick else []), "--row"]
    for place in range(len(table)):
        subprocess.run([*command, str(place)], check=True)


if __name__ == "__main__":
    main()
