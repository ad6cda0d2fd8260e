"""Networks whose digests must not depend on the process they run in.

python scenarios.py [NAME ...] prints a line for each
"""

import sys
from collections.abc import Callable

from anyp2p.sim import Host, Trace, World, ring
from anyp2p.stream import Stream

PORT = "/ip4/0.0.0.0/tcp/4001"


def pings(trace: Trace | None = None, seed: int = 7) -> World:
    """A ring on a plain network."""
    world = World(seed=seed, trace=trace)
    ring.make(world, 20).run(5)
    return world


def noise(trace: Trace | None = None, seed: int = 7) -> World:
    """The same with everything on the wire as it is in reality."""
    world = World(seed=seed, security="noise", jitter=0.02, trace=trace)
    ring.make(world, 6).run(5)
    return world


def storm(trace: Trace | None = None, seed: int = 7) -> World:
    """Everything that can go wrong, to peers that talk in random patterns."""
    world = World(seed=seed, latency=_distance, jitter=0.03, loss=0.05, trace=trace)
    nodes = [
        world.machine(_talk, world, listen=[PORT], up=2e5, down=4e5, echo=True) for _ in range(12)
    ]
    world.churn(nodes[6:], up=30.0, down=10.0, graceful=0.3, silent=0.3)
    world.run(20.0)
    with world.partition(nodes[:3], nodes[3:6]):
        world.run(20.0)
        world.partition(nodes[4], oneway=True)
        world.reset(nodes[5])
        world.run(10.0)
    world.heal()
    world.link(nodes[0], nodes[1], latency=0.5, loss=0.3)
    nodes[2].firewall = "drop"
    world.run(50.0)
    return world


async def _talk(host: Host, world: World) -> None:
    choice = host.node.choice
    while True:
        await world.sleep(choice.random() * 4.0)
        other = world.machines[choice.below(len(world.machines))]
        if other is host.machine:
            continue
        address = f"/ip4/{other.ip}/tcp/4001/p2p/{other.key.peer_id}"
        try:
            with world.timeout(5.0):
                await host.ping(address)
                async with await host.open_stream(address, "/echo/1.0.0") as stream:
                    await _echo(stream, 1 + choice.below(20_000))
        except (ConnectionError, EOFError, TimeoutError):
            pass


async def _echo(stream: Stream, size: int) -> None:
    await stream.write(bytes(size))
    await stream.readexactly(size)


def _distance(a: object, b: object) -> float:
    places = getattr(a, "index", 0), getattr(b, "index", 0)
    return 0.01 * (1 + abs(places[0] - places[1]))


SCENARIOS: dict[str, Callable[..., World]] = {
    scenario.__name__: scenario for scenario in (pings, noise, storm)
}

if __name__ == "__main__":
    for name in sys.argv[1:] or SCENARIOS:
        print(name, SCENARIOS[name]().digest())
