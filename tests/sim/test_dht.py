"""Whole DHTs: what lookups find against what is true, churn, partitions, crashes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anyp2p.dht import CONFIRMATIONS
from anyp2p.sim import Cancelled, Host, World
from anyp2p_core.errors import Error, LocalError
from anyp2p_core.events import ConnectionClosed
from anyp2p_core.kad.addresses import Reach
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.query import State
from anyp2p_core.kad.records import AcceptAll
from anyp2p_core.kad.service import Kad

sys.path.insert(0, str(Path(__file__).parent))

from dht_network import PORT, K, address, build, closest, config, fill, key


class Net:
    def __init__(self, size: int) -> None:
        self.world = World(seed=1, latency=0.02)
        self.hosts = build(self.world, size)

    def run(self, function: Any, *args: Any) -> Any:
        return self.world.run_task(self.world.spawn(function, *args), 120.0)


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """A hundred servers, for tests that leave it as it is."""
    made = Net(100)
    yield made
    made.world.close()


def test_a_hundred_nodes_know_their_neighbours(net: Net) -> None:
    """After joining, nearly everybody knows nearly all of its k closest."""
    known = []
    for host in net.hosts:
        truth = closest(net.hosts, bytes(host.peer_id), host)
        known.append(sum(peer in host.dht.table for peer in truth))
    assert min(known) >= K - 2
    assert sum(one == K for one in known) >= 80


def test_lookups_find_the_truth(net: Net) -> None:
    draw = net.world.choice("lookups")

    async def look(host: Host, target: bytes) -> tuple[int, int]:
        found = await host.dht.closest_peers(target)
        truth = closest(net.hosts, target, host)
        assert found.peers[0].peer == truth[0]
        order = [key(bytes(one.peer)) ^ key(target) for one in found.peers]
        assert order == sorted(order) and len(order) >= K
        assert not any(hop.state is State.FAILED for hop in found.trace)
        depth = max(hop.depth for hop in found.trace)
        return sum(one.peer in truth for one in found.peers), depth

    results = [
        net.run(look, net.hosts[draw.below(100)], b"target %d" % number) for number in range(60)
    ]
    assert sum(right for right, _ in results) >= 0.99 * K * len(results)
    assert 1 <= max(depth for _, depth in results) <= 6


def test_everybody_is_found(net: Net) -> None:
    draw = net.world.choice("peers")

    async def find(host: Host, other: Host) -> None:
        found = await host.dht.find_peer(other.peer_id)
        assert found.connected and f"{found.addresses[0]}" in str(address(other))
        await host.disconnect(other.peer_id)

    for _ in range(40):
        host, other = draw.sample(net.hosts, 2)
        net.run(find, host, other)


def test_what_one_provides_all_others_find(net: Net) -> None:
    provider = net.hosts[17]

    async def provide() -> int:
        return len((await provider.dht.provide(b"some content")).holders)

    async def find(host: Host) -> None:
        async with host.dht.find_providers(b"some content", 1) as search:
            [found] = [one async for one in search]
            assert found.peer == provider.peer_id
            assert str(found.addresses[0]) in str(address(provider))

    assert net.run(provide) >= K
    for host in net.hosts[::5]:
        net.run(find, host)


def test_a_public_key_is_put_and_got(net: Net) -> None:
    owner = net.hosts[3]
    value = owner.node.key.public.encode()
    name = b"/pk/" + bytes(owner.peer_id)

    async def put() -> int:
        return len((await owner.dht.put(name, value)).holders)

    async def get(host: Host) -> None:
        found = await host.dht.get(name)
        assert found.value == value and len(found.holders) >= K - 1
        assert [one async for one in host.dht.search(name)] == [value]

    assert net.run(put) >= K
    for host in net.hosts[50:60]:
        net.run(get, host)


def test_a_client_is_in_nobodys_table(net: Net) -> None:
    world = net.world

    async def visit() -> None:
        async with world.host(dht=config(net.hosts[0], server=False)) as client:
            assert await client.dht.bootstrap() >= K
            found = await client.dht.closest_peers(bytes(client.peer_id))
            assert len(found.peers) == K
            await world.sleep(5.0)
            assert not any(client.peer_id in host.dht.table for host in net.hosts)

    net.run(visit)


def test_the_digest_does_not_depend_on_the_process() -> None:
    program = str(Path(__file__).parent / "dht_network.py")
    digests = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, program], capture_output=True, text=True, env=environment, timeout=100
        )
        assert done.returncode == 0, done.stderr
        digests.append(done.stdout.strip())
    assert digests[0] == digests[1] and len(digests[0]) == 32


def test_churn() -> None:
    """A tenth of the nodes leave each minute, others come: at least 99 % of lookups succeed."""
    with World(seed=3, latency=0.02) as world:
        anchor = world.host(listen=[PORT], dht=config(refresh_interval=60.0, low_interval=30.0))
        world.run_task(world.spawn(anchor.start), 10.0)
        options = config(anchor, refresh_interval=60.0, low_interval=30.0)
        machines = [world.machine(listen=[PORT], dht=options) for _ in range(30)]
        world.run(40.0)
        churn = world.churn(machines, up=600.0, down=60.0, graceful=0.4, silent=0.2)
        world.run(70.0)  # each table has been refreshed since
        draw = world.choice("lookups")
        failures = []
        lookups = 0

        def running() -> list[Host]:
            return [one.host for one in machines if one.host is not None and one.powered]

        async def look(number: int) -> None:
            nonlocal lookups
            before = running()
            host = before[draw.below(len(before))]
            target = b"target %d" % number
            try:
                found = await host.dht.closest_peers(target)
            except Error as error:
                if host.closed:
                    return  # it has left itself
                failures.append(repr(error))
                found = None
            lookups += 1
            after = running()
            truth = closest([one for one in before if one in after] + [anchor], target, host)
            if found is not None and found.peers[0].peer != truth[0]:
                newer = [one.peer_id for one in after if one not in before]
                if found.peers[0].peer not in newer:
                    failures.append(f"{number}: {found.peers[0].peer} instead of {truth[0]}")

        for number in range(120):
            world.run_task(world.spawn(look, number), 60.0)
            world.run(1.0)
        assert lookups >= 110
        assert len(failures) <= 0.01 * lookups, failures
        assert churn is not None and sum(one.starts > 1 for one in machines) >= 5


def test_a_partition_heals() -> None:
    with World(seed=5, latency=0.02) as world:
        hosts = build(world, 20)
        halves = hosts[:10], hosts[10:]

        async def look(host: Host, among: list[Host], target: bytes) -> bool:
            found = await host.dht.closest_peers(target)
            return found.peers[0].peer == closest(among, target, host)[0]

        def right(among: list[Host], askers: list[Host]) -> int:
            tasks = [
                world.spawn(look, host, among, b"%d" % number) for number, host in enumerate(askers)
            ]
            return sum(world.run_task(task, 120.0) for task in tasks)

        assert right(hosts, hosts) == 20
        with world.partition(halves[0], halves[1]):
            world.run(120.0)
            for half in halves:
                for _ in range(2):
                    right(half, half)  # finds out who is gone
                assert right(half, half) == 10
        fill(world, hosts)
        world.run(30.0)
        fill(world, hosts)
        assert right(hosts, hosts) == 20


def test_a_crash_in_the_middle_of_everything() -> None:
    """Whatever was under way in a host that crashes ends with it, and harms nobody."""
    with World(seed=9) as world:
        hosts = build(world, 12)
        ended: list[str] = []

        async def use(host: Host) -> None:
            try:
                while True:
                    async with host.dht.find_providers(b"content", 0) as search:
                        async for _ in search:
                            pass
                    await host.dht.provide(b"content")
                    await host.dht.closest_peers(b"key")
            except Cancelled:
                ended.append("cancelled")
                raise

        for host in hosts:
            world.spawn(use, host, on=host)
        for number, host in enumerate(hosts[3:9]):
            world.run(0.37)
            host.machine.crash(silent=number % 2 == 1)
        world.run(20.0)
        assert ended == ["cancelled"] * 6
        assert all(not host.internal_errors for host in hosts)


def test_no_dial_begins_while_a_host_closes() -> None:
    with World(seed=2) as world:
        server = world.host(listen=[PORT])
        client = world.host()
        dialed: list[object] = []

        async def visit() -> None:
            async with server, client:
                await client.connect(address(server))
                known = client.node.connections()[0].remote
                assert known is not None

                def again(_: object) -> None:
                    dialed.append(client.node.dial(server.peer_id, [known], world.now))

                client.watch(ConnectionClosed, again)
                begin = client._dial
                client._dial = lambda *args: pytest.fail("it dials") or begin(*args)  # type: ignore[method-assign]
                await client.close()
            await world.sleep(1.0)

        world.run_task(world.spawn(visit), 30.0)
        assert len(dialed) == 1 and not client.node.connections()


# Client or server.


def test_a_client_becomes_a_server_and_a_client_again() -> None:
    with World(seed=4) as world:
        first, other = build(world, 2)
        host = world.host(listen=[PORT], dht=config(first, server=False))

        async def switch() -> None:
            async with host:
                await host.dht.bootstrap()
                assert (host.dht.mode, host.dht.server) == ("client", False)
                await world.sleep(5.0)
                assert host.peer_id not in first.dht.table
                host.dht.set_server(True)
                assert (host.dht.mode, host.dht.server) == ("server", True)
                await world.sleep(5.0)
                assert host.peer_id in first.dht.table
                assert (await other.dht.find_peer(host.peer_id)).connected
                host.dht.set_server(False)
                await world.sleep(5.0)
                assert host.peer_id not in first.dht.table

        world.run_task(world.spawn(switch), 60.0)


@pytest.mark.parametrize(
    ("reach", "places", "server"),
    [
        (Reach.ANY, ["10.1.0.1", "10.1.0.2"], True),
        (Reach.LAN, ["10.1.0.1", "10.1.0.2"], True),
        (Reach.ANY, ["10.1.0.1"], False),
        (Reach.ANY, ["10.1.0.1", "beside"], False),
        (Reach.ANY, ["dialed by us", "dialed by us"], False),
        (Reach.WAN, ["10.1.0.1", "10.1.0.2"], False),
        (Reach.WAN, ["8.1.0.1", "9.1.0.2"], True),
        (Reach.WAN, ["8.1.0.1", "8.1.0.2"], False),
        (Reach.LAN, ["8.1.0.1", "9.1.0.2"], False),
    ],
)
def test_auto(reach: Reach, places: list[str], server: bool) -> None:
    """Two networks from which somebody reaches us make us a server."""
    assert CONFIRMATIONS == 2
    with World(seed=4) as world:
        ip = "7.7.7.7" if any(place[0] in "89" for place in places) else "10.0.0.9"
        host = world.host(
            ip=ip, listen=[PORT, "/ip4/127.0.0.1/tcp/4002"], dht=KadConfig(reach=reach)
        )
        host.dht.set_auto()

        async def visit() -> None:
            async with host:
                for place in places:
                    if place == "beside":
                        visitor = world.host(beside=host)
                    else:
                        visitor = world.host(
                            ip=place if place[0].isdigit() else None, listen=[PORT]
                        )
                    async with visitor:
                        if place == "dialed by us":
                            await host.connect(address(visitor))
                        elif place == "beside":
                            await visitor.connect(f"/ip4/127.0.0.1/tcp/4002/p2p/{host.peer_id}")
                        else:
                            await visitor.connect(address(host))
                        await world.sleep(2.0)
                assert host.dht.mode == "auto" and host.dht.server is server

        world.run_task(world.spawn(visit), 60.0)


def test_a_service_belongs_to_one_start() -> None:
    """A machine makes its network anew when it starts again; a Kad of its own it cannot."""
    with World(seed=6) as world:
        first, _ = build(world, 2)
        machine = world.machine(listen=[PORT], dht=config(first))
        world.run(5.0)
        machine.crash()
        world.run(1.0)
        machine.restart()
        world.run(10.0)
        assert machine.host is not None and len(machine.host.dht.table) == 2
        kad = Kad(config(first), validators={"app": AcceptAll()})
        other = world.machine(listen=[PORT], dht=kad)
        world.run(1.0)
        other.crash()
        with pytest.raises(LocalError, match="another host's"):
            other.restart()
