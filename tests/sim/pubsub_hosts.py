"""Networks that publish and subscribe in a simulated world, and what must hold in them.

python pubsub_hosts.py prints the digest of one
"""

from collections import Counter
from typing import Any

from anyp2p.pubsub import GossipConfig, GossipSub, Message
from anyp2p.sim import Host, World
from anyp2p_core.multiaddr import Multiaddr

PORT = "/ip4/0.0.0.0/tcp/4001"
TOPIC = "news"


def address(host: Host) -> Multiaddr:
    return Multiaddr(f"/ip4/{host.machine.ip}/tcp/4001/p2p/{host.peer_id}")


class Net:
    """Hosts that are all in one topic, each connected to some others."""

    def __init__(self, world: World, size: int, degree: int = 4, **options: Any) -> None:
        self.world = world
        self.hosts = [
            world.host(listen=[PORT], pubsub=GossipConfig(**options)) for _ in range(size)
        ]
        self.got: dict[Host, list[tuple[bytes, float]]] = {host: [] for host in self.hosts}
        """What came, and when."""
        self.sent = 0
        draw = world.choice("connections")
        for host in self.hosts:
            world.run_task(world.spawn(host.start), 10.0)
        for place, host in enumerate(self.hosts):
            others = self.hosts[max(place - 1, 0) : place]  # so that any half hangs together
            others += draw.sample(self.hosts[: max(place - 1, 0)], degree - 1)
            world.spawn(self._take_part, host, others, on=host)
        world.run(5.0)

    async def _take_part(self, host: Host, others: list[Host]) -> None:
        for other in others:
            await host.connect(address(other))
        async with host.pubsub.subscribe(TOPIC) as messages:
            async for message in messages:
                self._took(host, message)

    def _took(self, host: Host, message: Message) -> None:
        self.got[host].append((message.data, self.world.now))

    def publish(self, host: Host, data: bytes | None = None) -> bytes:
        """A message of its own kind."""
        self.sent += 1
        data = b"message %d" % self.sent if data is None else data
        self.world.run_task(self.world.spawn(host.pubsub.publish, TOPIC, data), 5.0)
        return data

    def holders(self, data: bytes) -> list[Host]:
        return [host for host, got in self.got.items() if any(one == data for one, _ in got)]

    def check(self, *, at_rest: bool = False) -> None:
        """Delivered at most once, tables bounded; at rest also meshes full and symmetric."""
        meshes = {host.peer_id: host.pubsub.mesh(TOPIC) for host in self.alive}
        for host in self.alive:
            times = Counter(data for data, _ in self.got[host])
            assert not [data for data, count in times.items() if count > 1]
            router = host.pubsub.router
            assert isinstance(router, GossipSub)
            config, mesh = router.config, meshes[host.peer_id]
            assert len(mesh) == len(set(mesh)) <= config.d_hi
            assert host.peer_id not in mesh and set(mesh) <= set(host.pubsub.peers(TOPIC))
            assert len(router.cache.ids(TOPIC.encode())) <= self.sent
            assert not len(router.validation) and not host.internal_errors
            if at_rest:
                until = router.backoff.until
                able = sum(
                    peer in mesh or until(TOPIC.encode(), bytes(peer)) is None
                    for peer in host.pubsub.peers(TOPIC)
                )
                assert len(mesh) >= min(config.d_lo, able), (host, mesh)
                assert all(host.peer_id in meshes[other] for other in mesh), host

    @property
    def alive(self) -> list[Host]:
        return [host for host in self.hosts if not host.closed]


def main() -> None:
    """A run in which nothing is left out: churn of topics, large messages, a partition."""
    with World(seed=11, latency=0.03, jitter=0.02, loss=0.01) as world:
        net = Net(world, 12)
        for turn in range(10):
            host = net.hosts[turn]
            net.publish(host, bytes(turn) * 1000 if turn % 3 else None)
            with world.partition(net.hosts[:6], net.hosts[6:]):
                world.run(0.7)
            world.run(0.5)
        print(world.digest())


if __name__ == "__main__":
    main()
