"""Whole networks on ``host.pubsub``: reach, invariants, partitions, crashes, hostile authors."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anyp2p.pubsub import GossipConfig, GossipSub, Message, Verdict
from anyp2p.sim import Cancelled, Host, World
from anyp2p_core.errors import LocalError
from anyp2p_core.pubsub import presets

sys.path.insert(0, str(Path(__file__).parent))

from pubsub_hosts import PORT, TOPIC, Net, address


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """Fifty hosts, for tests that leave them as they are."""
    with World(seed=1, latency=0.05, jitter=0.02) as world:
        yield Net(world, 50)


def test_fifty_hosts_get_everything_once(net: Net) -> None:
    world, draw = net.world, net.world.choice("publishers")
    slowest = 0.0
    for _ in range(20):
        author = net.hosts[draw.below(50)]
        began = world.now
        data = net.publish(author)
        world.run(1.0)
        net.check()
        holders = net.holders(data)
        assert len(holders) == 49 and author not in holders
        slowest = max(slowest, *(when - began for got in net.got.values() for _, when in got[-1:]))
    # By the mesh alone, without waiting for gossip: a few hops of 50 to 70 ms.
    assert 0.1 < slowest < 0.6
    world.run(5.0)
    net.check(at_rest=True)
    assert sum(host.pubsub.dropped for host in net.hosts) == 0


def test_somebody_outside_of_the_topic(net: Net) -> None:
    """It publishes and hears nothing; joins, and hears; leaves, and hears nothing any more."""
    world = net.world

    async def visit() -> list[bytes]:
        heard = []
        async with world.host(pubsub=GossipConfig()) as host:
            for other in net.hosts[:8]:
                await host.connect(address(other))
            assert len(await host.pubsub.wait_for_peers(TOPIC, 8)) == 8
            await host.pubsub.publish(TOPIC, b"from outside")
            async with host.pubsub.subscribe(TOPIC) as messages:
                await world.sleep(2.0)
                assert 5 <= len(host.pubsub.mesh(TOPIC)) <= 8
                await net.hosts[40].pubsub.publish(TOPIC, b"to everybody")
                async for message in messages:
                    heard.append(message.data)
                    if message.data == b"to everybody":
                        break
            assert host.pubsub.mesh(TOPIC) == [] == host.pubsub.topics
            await net.hosts[41].pubsub.publish(TOPIC, b"too late")
            await world.sleep(2.0)
            return heard

    net.sent += 3
    heard = world.run_task(world.spawn(visit), 20.0)
    # Gossip may have told it of what was said in the last seconds before.
    assert heard[-1] == b"to everybody" and b"too late" not in heard
    assert len(net.holders(b"from outside")) == 50
    assert len(net.holders(b"too late")) == 49
    world.run(3.0)
    net.check(at_rest=True)


def test_the_digest_does_not_depend_on_the_process() -> None:
    program = str(Path(__file__).parent / "pubsub_hosts.py")
    digests = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, program], capture_output=True, text=True, env=environment, timeout=100
        )
        assert done.returncode == 0, done.stderr
        digests.append(done.stdout.strip())
    assert digests[0] == digests[1] and len(digests[0]) == 32


def test_a_partition_heals() -> None:
    """Each half goes on by itself; after it, what is published reaches everybody again."""
    with World(seed=5, latency=0.02) as world:
        net = Net(world, 20)
        halves = net.hosts[:10], net.hosts[10:]
        with world.partition(*halves):
            world.run(60.0)  # connections notice
            for half in halves:
                data = net.publish(half[3])
                world.run(2.0)
                assert set(net.holders(data)) == set(half) - {half[3]}
                net.check()
        draw = world.choice("again")
        for host in halves[1]:
            for other in draw.sample(list(halves[0]), 3):
                world.run_task(world.spawn(host.connect, address(other)), 20.0)
        world.run(5.0)
        for author in (halves[0][0], halves[1][9]):
            data = net.publish(author)
            world.run(2.0)
            assert len(net.holders(data)) == 19
        world.run(60.0)
        net.check(at_rest=True)


def test_half_of_them_crash() -> None:
    """Meshes of those that stay are rebuilt, and a message in flight reaches them."""
    with World(seed=6, latency=0.02) as world:
        net = Net(world, 24, degree=6)
        data = net.publish(net.hosts[0])
        for number, host in enumerate(net.hosts[1::2]):
            host.machine.crash(silent=number % 2 == 1)
        assert len(net.alive) == 12
        world.run(2.0)
        assert set(net.holders(data)) >= set(net.alive[1:])
        world.run(60.0)
        net.check(at_rest=True)
        data = net.publish(net.hosts[2])
        world.run(2.0)
        assert set(net.holders(data)) == set(net.alive) - {net.hosts[2]}


def test_who_publishes_rubbish_is_not_heard_any_more() -> None:
    """Async validators reject it; its peers blame it, and in the end do not listen at all."""
    with World(seed=7, latency=0.02) as world:
        options: dict[str, Any] = {
            "score": presets.plain_score([TOPIC]),
            "thresholds": presets.PLAIN_THRESHOLDS,
        }
        net = Net(world, 10, degree=5, **options)
        judged: list[bytes] = []

        async def judge(message: Message) -> Verdict:
            judged.append(message.data)
            await world.sleep(0.1)
            return Verdict.REJECT if message.data.startswith(b"rubbish") else Verdict.ACCEPT

        for host in net.hosts:
            host.pubsub.set_validator(TOPIC, judge)
        bad, good = net.hosts[0], net.hosts[1]
        for number in range(10):
            net.publish(bad, b"rubbish %d" % number)
            world.run(1.0)
        assert net.holders(b"rubbish 0") == []
        rubbish = len(judged)
        # Nobody forwards it, so that only its own peers have seen it, and not all ten of it.
        assert rubbish < 10 * len(bad.pubsub.peers())
        for host in net.hosts[1:]:
            known = bad.peer_id in host.pubsub.peers()
            assert (host.pubsub.score(bad.peer_id) < -400) == known
            assert host.pubsub.score(good.peer_id) >= 0
            assert bad.peer_id not in host.pubsub.mesh(TOPIC)
        net.publish(bad, b"a good one")
        data = net.publish(good)
        world.run(3.0)
        assert net.holders(b"a good one") == []
        # Nobody but itself leaves anybody out of a mesh.
        assert set(net.holders(data)) >= set(net.hosts[2:])
        net.check()


def test_validators_end_in_virtual_time() -> None:
    with World(seed=8) as world:
        ended: list[float] = []
        slow = world.host(pubsub=GossipConfig())
        author = world.host(listen=[PORT], pubsub=GossipConfig())

        async def judge(message: Message) -> Verdict:
            try:
                if message.data == b"raise":
                    raise TimeoutError  # its own, not ours
                await world.sleep(0.05 if message.data == b"good" else 100.0)
            except Cancelled:
                ended.append(world.now)
                raise
            return Verdict.ACCEPT

        async def run() -> None:
            async with author, slow:
                slow.pubsub.set_validator(TOPIC, judge, timeout=3.0)
                await slow.connect(address(author))
                async with slow.pubsub.subscribe(TOPIC) as messages:
                    await author.pubsub.wait_for_peers(TOPIC)
                    began = world.now
                    await author.pubsub.publish(TOPIC, b"slow")
                    await author.pubsub.publish(TOPIC, b"raise")
                    await world.sleep(5.0)
                    assert len(ended) == 1 and 3.0 <= ended[0] - began <= 3.1
                    assert messages.waiting == 0 and not len(slow.pubsub.router.validation)
                    timers = len(slow.node.timers)
                    for _ in range(20):
                        began = world.now
                        await author.pubsub.publish(TOPIC, b"good")
                        await anext(messages)
                        # There, judged, and delivered without waiting for a heartbeat.
                        assert 0.09 < world.now - began < 0.2
                    assert len(slow.node.timers) <= timers + 1

        world.run_task(world.spawn(run), 60.0)


def test_a_router_belongs_to_one_start() -> None:
    """A machine makes its router anew when it starts again; one of its own it cannot."""
    with World(seed=9) as world:
        machine = world.machine(pubsub=GossipConfig())
        world.run(1.0)
        assert machine.host is not None
        before = machine.host.pubsub.router
        machine.crash()
        world.run(1.0)
        machine.restart()
        world.run(1.0)
        assert machine.host is not None and machine.host.pubsub.router is not before
        other = world.machine(pubsub=GossipSub())
        world.run(1.0)
        other.crash()
        with pytest.raises(LocalError, match="another host's"):
            other.restart()


def test_a_crash_ends_subscribers_and_validators() -> None:
    with World(seed=10) as world:
        hosts = [world.host(listen=[PORT], pubsub=GossipConfig()) for _ in range(2)]
        ended: list[str] = []

        async def judge(message: Message) -> Verdict:
            try:
                await world.forever()
            finally:
                ended.append("validator")
            return Verdict.ACCEPT

        async def listen(host: Host) -> None:
            try:
                async with host.pubsub.subscribe(TOPIC) as messages:
                    async for _ in messages:
                        pass
            finally:
                ended.append("subscriber")

        for host in hosts:
            world.run_task(world.spawn(host.start), 5.0)
        hosts[1].pubsub.set_validator(TOPIC, judge)
        world.spawn(listen, hosts[1], on=hosts[1])
        world.run_task(world.spawn(hosts[0].connect, address(hosts[1])), 5.0)
        world.run_task(world.spawn(hosts[0].pubsub.wait_for_peers, TOPIC), 5.0)
        world.run_task(world.spawn(hosts[0].pubsub.publish, TOPIC, b"x"), 5.0)
        world.run(1.0)
        assert ended == []
        hosts[1].machine.crash()
        world.run(1.0)
        assert sorted(ended) == ["subscriber", "validator"]
        assert hosts[0].pubsub.peers() == [] and not hosts[0].internal_errors
