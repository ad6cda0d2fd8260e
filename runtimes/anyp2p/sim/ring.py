"""The smallest whole network: a ring in which each peer pings its neighbour.

Behind ``anyp2p sim ping`` and benchmarks/simulator.py, and an example of a simulation.
"""

from dataclasses import dataclass

from .host import Host
from .world import World

PATIENCE = 3600.0
"""Virtual seconds after which something is wrong."""


@dataclass(slots=True)
class Ring:
    """Peers in a ring; ``pings`` counts those that were answered."""

    world: World
    hosts: list[Host]
    pings: int = 0

    async def ping(self, place: int, rounds: int) -> None:
        """Ping the next peer of the ring, one ping after the other."""
        host = self.hosts[place]
        neighbour = self.hosts[(place + 1) % len(self.hosts)].peer_id
        for _ in range(rounds):
            await host.ping(neighbour)
            self.pings += 1

    def run(self, rounds: int) -> None:
        """Let everyone ping so many times."""
        tasks = [self.world.spawn(self.ping, place, rounds) for place in range(len(self.hosts))]
        self.world.run_task(self.world.spawn(self.world.gather, *tasks), PATIENCE)


def make(world: World, nodes: int) -> Ring:
    """``nodes`` peers, each of them connected to the next one."""
    hosts = [world.host(listen=["/ip4/0.0.0.0/tcp/4001"]) for _ in range(nodes)]

    async def join(host: Host, neighbour: Host) -> None:
        await host.connect(neighbour.addresses[0])
        await host.identify(neighbour.peer_id)

    async def start() -> None:
        for host in hosts:
            await host.start()
        pairs = zip(hosts, hosts[1:] + hosts[:1], strict=True)
        await world.gather(*(world.spawn(join, *pair) for pair in pairs))

    world.run_task(world.spawn(start), PATIENCE)
    return Ring(world, hosts)
