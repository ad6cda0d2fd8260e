"""Crashes, restarts, programs and churn."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from anyp2p.sim import Host, Machine, World
from anyp2p.sim.network import Target
from anyp2p.stream import Stream
from anyp2p_core.echo import Echo
from anyp2p_core.errors import ConnectionLost, DialError, LocalError
from anyp2p_core.limits import Limits

LATENCY = 0.0625
PORT = "/ip4/0.0.0.0/tcp/4001"


def finish(world: World, function: Callable[[], Any], timeout: float = 1000.0) -> Any:
    return world.run_task(world.spawn(function), timeout)


def connected(world: World, **options: Any) -> tuple[Host, Host]:
    a, b = world.host(name="a"), world.host(name="b", listen=[PORT], **options)

    async def start() -> None:
        await a.start()
        await b.start()
        await a.connect(b.addresses[0])
        await a.ping(b.peer_id)

    finish(world, start)
    return a, b


def test_crash_resets_connections() -> None:
    world = World(latency=LATENCY)
    a, b = connected(world)
    address = b.addresses[0]
    crashed = world.now
    world.crash(b)
    assert world.run_until(lambda: not a.peers, 10.0)
    assert world.now == crashed + LATENCY
    with pytest.raises(DialError, match="Connect call failed"):
        finish(world, lambda: a.connect(address))
    assert not b.peers and not b.ends
    with pytest.raises(LocalError, match="closed"):
        finish(world, lambda: b.connect(address))
    with pytest.raises(LocalError, match="started once"):
        finish(world, b.start)
    world.crash(b)  # again: nothing happens


def test_silent_crash_tells_nobody() -> None:
    world = World(latency=LATENCY)
    a, b = connected(world)
    address = b.addresses[0]
    crashed = world.now
    world.crash("b", silent=True)
    assert world.run_until(lambda: not a.peers, 100.0)
    assert 10.0 < world.now - crashed < 60.0  # the keepalive
    start = world.now
    with pytest.raises(DialError, match="no answer within 15 s"):
        finish(world, lambda: a.connect(address))
    assert world.now - start == 15.0


@pytest.mark.parametrize("silent", [False, True])
def test_restart(silent: bool) -> None:
    """Same key, same address, nothing else."""
    world = World(latency=LATENCY)
    a, b = connected(world)
    address = b.addresses[0]
    b.set_handler("/x", _ignore)
    world.crash("b", silent=silent)
    world.run(3.0)
    again = world.restart("b")
    assert again is not b and again.peer_id == b.peer_id
    assert not again.peers and not again.node.addresses
    assert again.node.entropy(32) != b.node.entropy(32)

    async def main() -> None:
        await again.start()
        assert again.addresses == [address]
        if silent:
            # The old connection is still there, until the next byte of it meets nobody.
            assert a.peers == [b.peer_id]
            with pytest.raises(ConnectionLost, match="reset by peer"):
                await a.ping(b.peer_id)
        await a.connect(address)
        assert await a.ping(b.peer_id) == 2 * LATENCY
        info = await a.identify(b.peer_id)
        assert "/x" not in info.protocols and info.signed_record

    finish(world, main)


async def _ignore(stream: Stream) -> None:
    pass


def test_restart_of_what_runs() -> None:
    world = World()
    a, _ = connected(world)
    with pytest.raises(LocalError, match="crash or stop it first"):
        world.restart(a)


def test_crash_ends_what_runs_on_the_machine_and_nothing_else() -> None:
    world = World(latency=LATENCY)
    a, b = connected(world)
    ends: list[str] = []

    @b.handle("/wait")
    async def wait(stream: Stream) -> None:
        try:
            await stream.read()
        finally:
            ends.append("handler")

    async def worker() -> None:
        try:
            await world.forever()
        finally:
            ends.append("worker")

    async def outside() -> str:
        try:
            return str(await b.ping(a.peer_id))
        except ConnectionLost as error:
            return str(error)

    async def reader() -> str:
        try:
            stream = await b.open_stream(a.peer_id, "/ipfs/ping/1.0.0")
            await stream.read()
        except ConnectionLost as error:
            return str(error)
        return "nothing"

    async def dialer() -> str:
        try:
            await b.connect("/ip4/10.9.9.9/tcp/1", "/ip4/10.9.9.9/tcp/2")
        except DialError as error:
            return str(error)
        return "nothing"

    async def opener() -> Stream:
        stream = await a.open_stream(b.peer_id, "/wait")
        await stream.write(b"")
        return stream

    finish(world, opener)
    world.run(1.0)
    on = world.spawn(worker, on=b)
    others = [world.spawn(function) for function in (outside, reader, dialer)]
    world.run(0.0)
    world.crash(b)
    world.run(0.0)
    assert sorted(ends) == ["handler", "worker"] and on.cancelled
    assert all("crashed" in task.result() for task in others)
    assert not b.tasks and not b._waiters and not b._dials


def test_crash_by_a_task_of_its_own() -> None:
    world = World()
    a, b = connected(world)
    log: list[str] = []

    async def suicide() -> None:
        world.crash(b)
        log.append("still running")
        await world.sleep(1.0)
        log.append("not reached")

    task = world.spawn(suicide, on=b)
    world.run(5.0)
    assert log == ["still running"] and task.cancelled and not a.peers


def test_crash_while_it_closes() -> None:
    world = World(latency=LATENCY)
    a, b = connected(world)
    world.partition(a, b)
    tasks = [world.spawn(b.close), world.spawn(b.close)]
    world.run(0.5)
    assert not any(task.done for task in tasks)
    world.crash(b)
    world.run(0.0)
    for task in tasks:
        task.result()
    assert b.machine.host is None


def test_crash_of_hosts_that_live_together() -> None:
    world = World()
    _, b = connected(world)
    beside = world.host(beside=b)
    assert beside.peer_id != b.peer_id
    finish(world, beside.start)
    finish(world, lambda: beside.connect(b.addresses[0]))
    world.crash(beside)
    assert b.dead and beside.dead and not b.machine.hosts
    assert world.restart(b).peer_id == b.peer_id


def test_power_failure_loses_nothing_that_is_on_its_way() -> None:
    world = World(latency=LATENCY)
    a, b = connected(world)
    got: list[tuple[bytes, float]] = []
    a.on_data = lambda conn, data: got.append((data, world.now))  # type: ignore[method-assign]
    sent = world.now
    b.ends[0].send(b"last words")
    a.ends[0].send(b"too late")
    world.crash(b, silent=True)
    world.run(1000.0)
    assert got == [(b"last words", sent + LATENCY)]


# Programs.


def test_program() -> None:
    world = World(latency=LATENCY)
    starts: list[tuple[float, int]] = []

    async def server(host: Host, value: int) -> None:
        starts.append((world.now, value))
        assert host.addresses

        @host.handle("/value")
        async def tell(stream: Stream) -> None:
            await stream.write(bytes([value]))

        await world.forever()

    machine = world.machine(server, 42, listen=[PORT], name="server", limits=Limits())
    client = world.host()

    async def ask() -> bytes:
        assert machine.host is not None
        stream = await client.open_stream(machine.host.addresses[0], "/value")
        return await stream.read()

    finish(world, client.start)
    assert finish(world, ask) == b"*"
    machine.crash()
    world.run(1.0)
    assert machine.host is None and machine.task is not None and machine.task.cancelled
    world.restart(machine)
    assert finish(world, ask) == b"*"
    assert starts == [(0.0, 42), (pytest.approx(world.now, abs=1.0), 42)]
    assert repr(machine) == "<Machine server 10.0.0.1>"


def test_program_that_stops_in_order() -> None:
    world = World(latency=LATENCY)
    log: list[str] = []

    async def program(host: Host) -> None:
        try:
            await world.forever()
        finally:
            log.append("cleaned up")

    machine = world.machine(program, listen=[PORT])
    a = world.host()
    finish(world, a.start)
    assert machine.host is not None
    address = machine.host.addresses[0]
    finish(world, lambda: a.connect(address))
    machine.stop()
    assert machine.task is not None
    finish(world, machine.task.wait)
    assert log == ["cleaned up"] and machine.host is None and not a.peers
    with pytest.raises(DialError):
        finish(world, lambda: a.connect(address))
    machine.restart()
    world.run(0.0)
    assert finish(world, lambda: a.connect(address)) == machine.key.peer_id


def test_program_that_ends_or_fails() -> None:
    world = World()

    async def short(host: Host) -> None:
        await world.sleep(1.0)

    async def broken(host: Host) -> None:
        await world.sleep(2.0)
        raise ValueError("broken program")

    ends, fails, idles = world.machine(short), world.machine(broken), world.machine()
    world.run(1.5)
    assert ends.host is None and fails.host is not None
    with pytest.raises(ValueError, match="broken program") as caught:
        world.run(1.5)
    assert "n1 program" in caught.value.__notes__[0]
    world.run(1.5)
    assert fails.host is None and idles.host is not None
    with pytest.raises(LocalError, match="runs no program"):
        world.host().machine.stop()


def test_crash_before_a_program_began() -> None:
    world = World()
    machine = world.machine()
    machine.crash()
    world.run(1.0)
    assert machine.host is None
    machine.restart()
    world.run(1.0)
    assert machine.host is not None


def test_services_of_a_machine_that_restarts() -> None:
    world = World()
    machine = world.machine(services=lambda: [Echo()])
    world.run(1.0)
    for _ in range(2):
        assert machine.host is not None and "/echo/1.0.0" in machine.host.node.protocols
        machine.crash()
        machine.restart()
        world.run(1.0)
    stuck = world.machine(services=[Echo()])
    stuck.crash()
    with pytest.raises(LocalError, match="a function that makes them"):
        stuck.restart()


def test_a_machine_has_one_host_of_its_own() -> None:
    world = World()
    machine = world.machine()
    world.run(0.0)
    second = machine.start()
    with pytest.raises(LocalError, match="running host already"):
        world.run(0.0)
    assert machine.host is not second


def test_ports_run_out_in_circles() -> None:
    world = World()
    machine = world.host().machine
    ports = [machine.ephemeral() for _ in range(2 * (65536 - 49152))]
    assert sorted(set(ports)) == list(range(49152, 65536))
    assert ports[0] == 49152 and ports[65536 - 49152] == 49152
    host = world.host(beside=machine)
    for port in ports:
        machine.bind(host, Target(4, "0.0.0.0", port))
    with pytest.raises(LocalError, match="no port left"):
        machine.ephemeral()
    machine.unbind(host)
    assert machine.ephemeral() == 49152


# Churn.


def machines(world: World, count: int) -> list[Machine]:
    return [world.machine(listen=[PORT]) for _ in range(count)]


def test_churn_follows_its_distribution() -> None:
    world = World(seed=5)
    nodes = machines(world, 30)
    churn = world.churn(nodes, up=30.0, down=10.0)
    up = []
    for _ in range(300):
        world.run(10.0)
        up.append(sum(node.host is not None for node in nodes))
    assert churn.departures == pytest.approx(30 * 3000 / 40, rel=0.1)
    assert abs(churn.departures - churn.returns) <= 30
    assert sum(up) / len(up) == pytest.approx(30 * 0.75, rel=0.05)
    churn.stop()
    world.run(0.0)
    before = [node.host for node in nodes]
    world.run(1000.0)
    assert [node.host for node in nodes] == before


def test_churn_of_other_kinds() -> None:
    world = World(seed=5)
    nodes = machines(world, 20)
    asked: list[float] = []

    def weibull(uniform: float) -> float:
        asked.append(uniform)
        return 20.0 * (-math.log(1.0 - uniform)) ** (1 / 0.5)

    churn = world.churn(nodes, up=weibull, down=5.0, graceful=0.4, silent=0.3)
    powers: list[bool] = []
    for _ in range(200):
        world.run(5.0)
        powers += [node.powered for node in nodes if node.host is None]
    assert churn.departures > 100
    assert 0.15 < powers.count(False) / len(powers) < 0.5
    assert all(0.0 <= uniform < 1.0 for uniform in asked)
    with pytest.raises(LocalError, match="mean time"):
        world.churn(nodes, up=0.0, down=1.0)


def test_churn_leaves_those_alone_that_are_down_or_up_already() -> None:
    world = World(seed=1)
    (node,) = machines(world, 1)
    churn = world.churn([node], up=lambda uniform: 10.0, down=lambda uniform: 5.0)
    world.run(9.0)
    node.crash()
    world.run(2.0)
    assert churn.departures == 0
    node.restart()
    world.run(5.0)
    assert churn.returns == 0
    world.run(30.0)
    assert churn.departures == 2 and churn.returns == 2


def test_more_machines_change_nothing_for_the_others() -> None:
    """Each machine's fate is drawn for itself."""

    def fates(count: int) -> list[list[bool]]:
        world = World(seed=9)
        nodes = machines(world, count)
        world.churn(nodes, up=20.0, down=20.0)
        result = []
        for _ in range(50):
            world.run(5.0)
            result.append([node.host is not None for node in nodes[:4]])
        return result

    assert fates(4) == fates(9)


def test_peers_find_each_other_again_after_churn() -> None:
    world = World(seed=2, latency=0.02, jitter=0.01)
    nodes = machines(world, 12)
    keys = [f"/ip4/{node.ip}/tcp/4001/p2p/{node.key.peer_id}" for node in nodes]
    churn = world.churn(nodes, up=20.0, down=10.0, silent=0.5)
    answered: list[int] = []

    async def watch(place: int) -> None:
        host = world.host()
        async with host:
            while True:
                await world.sleep(1.0)
                try:
                    with world.timeout(5.0):
                        await host.ping(keys[place])
                    answered.append(place)
                except (ConnectionError, TimeoutError):
                    pass

    for place in range(len(nodes)):
        world.spawn(watch, place)
    world.run(200.0)
    assert churn.departures > 40
    assert set(answered) == set(range(12))
    churn.stop()
    for node in nodes:
        if node.host is None:
            node.restart()
    world.run(60.0)
    answered.clear()
    world.run(10.0)
    assert set(answered) == set(range(12))
