"""Networks of DHT servers in a simulated world, and what is true about them.

python dht_network.py prints the digest of one
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from anyp2p.sim import Host, World
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.query import Walk
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

K = 8
"""Instead of 20: the same algorithms with a quarter of the messages."""
PORT = "/ip4/0.0.0.0/tcp/4001"


def config(*known: Host, **options: Any) -> KadConfig:
    walk = Walk(k=K, alpha=3, beta=3, timeout=30.0, peer_timeout=5.0)
    return KadConfig(
        **{"server": True, "bootstrap": tuple(map(address, known)), "walk": walk, **options}
    )


def address(host: Host) -> Multiaddr:
    return Multiaddr(f"/ip4/{host.machine.ip}/tcp/4001/p2p/{host.peer_id}")


def build(world: World, count: int, **options: Any) -> list[Host]:
    """So many servers that have joined one after the other and know the first one."""
    hosts: list[Host] = []
    for _ in range(count):
        known = config(*hosts[:1], **options)
        host = world.host(listen=[PORT], dht=known)
        hosts.append(host)

    async def begin() -> None:
        for host in hosts:
            await host.start()
            await world.sleep(0.1)

    world.run_task(world.spawn(begin), 60.0)
    world.run(2.0)
    fill(world, hosts)
    return hosts


def fill(world: World, hosts: Iterable[Host]) -> None:
    """Let all of them refresh their tables at the same time."""

    async def every() -> None:
        await world.gather(*[world.spawn(host.dht.bootstrap) for host in hosts])

    world.run_task(world.spawn(every), 600.0)


def key(data: bytes) -> int:
    return int.from_bytes(sha256(data).digest())


def closest(hosts: Iterable[Host], target: bytes, but: Host) -> list[PeerId]:
    """The k closest to a key of those who run, without who asks."""
    goal = key(target)
    peers = [host.peer_id for host in hosts if host is not but]
    return sorted(peers, key=lambda peer: key(bytes(peer)) ^ goal)[:K]


def scenario() -> World:
    """Joining, lookups, providing, putting, with losses and jitter."""
    world = World(seed=7, jitter=0.03, loss=0.02)
    hosts = build(world, 18)

    async def use() -> None:
        for number, host in enumerate(hosts):
            other = hosts[number * 7 % 18]
            await host.dht.closest_peers(b"%d" % number)
            await host.dht.provide(b"shared content")
            if other is not host:
                await host.dht.find_peer(other.peer_id)
        async with hosts[3].dht.find_providers(b"shared content", 0) as search:
            assert len([provider async for provider in search]) >= 14

    world.run_task(world.spawn(use), 600.0)
    hosts[5].machine.crash()
    world.run(700.0)
    return world


if __name__ == "__main__":
    print(scenario().digest())
