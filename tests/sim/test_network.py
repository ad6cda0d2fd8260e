"""What the simulated network does to bytes: delays, bandwidth, loss, faults, backpressure."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from anyp2p.sim import Host, Trace, World
from anyp2p.sim.network import LOOPBACK_LATENCY, Path
from anyp2p.sim.transport import retransmissions
from anyp2p.stream import Stream
from anyp2p_core.errors import ConnectionLost, DialError, ListenError, LocalError, StreamReset
from anyp2p_core.events import Event, PauseReading, ResumeReading
from anyp2p_core.limits import Limits
from anyp2p_core.resolver import FakeResolver
from anyp2p_core.yamux_frame import SYN, WINDOW_UPDATE, encode

# Times that binary numbers hold exactly, so that sums of them are exact as well.
LATENCY = 0.0625
PORT = "/ip4/0.0.0.0/tcp/4001"


def finish(world: World, function: Callable[[], Any], timeout: float = 1000.0) -> Any:
    return world.run_task(world.spawn(function), timeout)


class Pair:
    """Two hosts that are connected."""

    def __init__(
        self, a: dict[str, Any] | None = None, b: dict[str, Any] | None = None, **options: Any
    ) -> None:
        self.world = World(**{"latency": LATENCY, **options})
        self.a = self.world.host(name="a", **{"listen": [PORT], **(a or {})})
        self.b = self.world.host(name="b", **{"listen": [PORT], "echo": True, **(b or {})})

        async def start() -> None:
            await self.a.start()
            await self.b.start()
            await self.a.connect(self.b.addresses[0])
            await self.a.identify(self.b.peer_id)
            await self.b.identify(self.a.peer_id)

        finish(self.world, start)
        self.world.run(5.0)  # quiet

    def finish(self, function: Callable[[], Any], timeout: float = 1000.0) -> Any:
        return finish(self.world, function, timeout)

    async def ping(self) -> float:
        return await self.a.ping(self.b.peer_id)


# Delays.


def test_round_trip_is_twice_the_latency() -> None:
    pair = Pair()
    assert pair.finish(pair.ping) == 2 * LATENCY
    assert pair.finish(pair.ping) == 2 * LATENCY


def test_connecting_takes_the_round_trips_of_tcp_and_noise() -> None:
    """SYN and SYN-ACK, then the first two messages of Noise: the dialer knows its peer."""
    world = World(latency=LATENCY, security="noise")
    a, b = world.host(), world.host(listen=[PORT])
    times: list[float] = []

    async def main() -> None:
        async with b, a:
            await a.connect(b.addresses[0])
            times.append(world.now)
            assert not b.peers
            await world.sleep(LATENCY)
            assert b.peers == [a.peer_id]

    finish(world, main)
    assert times == [4 * LATENCY]


def test_every_link_may_be_different() -> None:
    distance = {("a", "b"): 0.125, ("b", "a"): 0.25, ("a", "c"): 0.5, ("c", "a"): 1.0}
    world = World(latency=lambda source, to: distance[source.name, to.name])
    hosts = [world.host(name=name, listen=[PORT]) for name in "abc"]

    async def main() -> list[float]:
        for host in hosts:
            await host.start()
        return [await hosts[0].ping(other.addresses[0]) for other in hosts[1:]]

    assert finish(world, main) == [0.375, 1.5]
    world.link("a", "b", latency=0.5)
    world.link(hosts[2], hosts[0].machine, latency=0.25, jitter=0.0, oneway=True)

    async def again() -> list[float]:
        return [await hosts[0].ping(other.peer_id) for other in hosts[1:]]

    assert finish(world, again) == [1.0, 0.75]


def test_latency_that_is_none() -> None:
    for bad in (-0.1, math.nan, math.inf):
        with pytest.raises(LocalError, match="latency"):
            World(latency=bad)
        with pytest.raises(LocalError, match="jitter"):
            World(jitter=bad)
    for loss in (-0.1, 1.0, math.nan):
        with pytest.raises(LocalError, match="loss"):
            World(loss=loss)
    world = World(latency=lambda source, to: math.nan)
    a, b = world.host(), world.host()
    with pytest.raises(LocalError, match="latency"):
        world.link(a, b, loss=0.1)
    with pytest.raises(LocalError, match="there is no machine x"):
        World().link("x", "y")
    other = World()
    with pytest.raises(LocalError, match="another world"):
        other.link(a, b)


def test_jitter_delays_and_never_reorders() -> None:
    pair = Pair(jitter=0.5)
    rtts = [pair.finish(pair.ping) for _ in range(30)]
    assert all(2 * LATENCY <= rtt < 2 * LATENCY + 1.0 for rtt in rtts)
    assert max(rtts) - min(rtts) > 0.3
    assert len(set(rtts)) == 30
    data = bytes(range(256)) * 40

    async def stream() -> bytes:
        async with await pair.a.open_stream(pair.b.peer_id, "/echo/1.0.0") as stream:
            for start in range(0, len(data), 100):
                await stream.write(data[start : start + 100])
                await pair.world.sleep(0.01)
            await stream.close_write()
            return b"".join([chunk async for chunk in stream])

    assert pair.finish(stream) == data


def test_own_machine_is_near() -> None:
    world = World()
    a = world.host(listen=["/ip4/127.0.0.1/tcp/4001", "/ip6/::1/tcp/0"], name="a")
    b = world.host(beside=a)
    far = world.host()
    address = f"/ip4/10.0.0.1/tcp/4001/p2p/{a.peer_id}"

    async def main() -> None:
        async with a, b, far:
            rtt = await b.ping(a.addresses[0])
            assert rtt == pytest.approx(2 * LOOPBACK_LATENCY)
            assert str((await b.identify(a.peer_id)).observed).startswith("/ip4/127.0.0.1/tcp/")
            assert await b.ping(a.addresses[1]) == pytest.approx(2 * LOOPBACK_LATENCY)
            for nobody in (a.addresses[0], address):
                with pytest.raises(DialError, match="Connect call failed"):
                    await far.connect(nobody)

    finish(world, main)
    assert repr(a) == "<Host a 10.0.0.1>" and repr(b) == "<Host a 10.0.0.1 beside it (1)>"


# Addresses.


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("/ip4/0.0.0.0/tcp/4001", "/ip4/10.0.0.1/tcp/4001"),
        ("/ip4/10.0.0.1/tcp/4001", "/ip4/10.0.0.1/tcp/4001"),
        ("/ip4/0.0.0.0/tcp/0", "/ip4/10.0.0.1/tcp/49152"),
        ("/ip4/127.0.0.1/tcp/7", "/ip4/127.0.0.1/tcp/7"),
        ("/ip6/::/tcp/4001", "/ip6/fd00::1/tcp/4001"),
        ("/ip6/fd00::1/tcp/0", "/ip6/fd00::1/tcp/49152"),
        ("/ip6/::1/tcp/7", "/ip6/::1/tcp/7"),
        ("/dns4/node/tcp/7", "/ip4/10.0.0.1/tcp/7"),
        ("/dns6/node/tcp/7", "/ip6/fd00::1/tcp/7"),
    ],
)
def test_listening(listen: str, expected: str) -> None:
    world = World()
    host = world.host(name="node")

    async def main() -> None:
        async with host:
            found = await host.listen(listen)
            assert [str(address) for address in found] == [f"{expected}/p2p/{host.peer_id}"]
            assert host.addresses == found

    finish(world, main)


def test_listening_where_one_cannot() -> None:
    world = World()
    host, other = world.host(), world.host()

    async def main() -> None:
        async with host, other:
            await host.listen("/ip4/0.0.0.0/tcp/1")
            await host.listen("/ip6/::/tcp/1")
            await other.listen("/ip4/0.0.0.0/tcp/1")
            with pytest.raises(ListenError, match="already in use"):
                await host.listen("/ip4/10.0.0.1/tcp/1")
            with pytest.raises(ListenError, match=r"this machine has 10\.0\.0\.1 and fd00::1"):
                await host.listen("/ip4/10.0.0.2/tcp/2")
            with pytest.raises(LocalError, match="simulated machines have"):
                await host.listen("/memory/1")
            with pytest.raises(LocalError, match="QUIC"):
                await host.listen("/ip4/0.0.0.0/udp/1/quic-v1")

    finish(world, main)


@pytest.mark.parametrize("option", ["security", "psk", "web_certificate", "web_trust"])
def test_channels_that_are_not_simulated_are_refused(option: str) -> None:
    with pytest.raises(LocalError, match=f"{option} is no option of simulated hosts"):
        World().host(**{option: ["tls"]})


def test_simulated_hosts_have_other_muxers() -> None:
    world = World(latency=LATENCY)
    server, client = (world.host(listen=[PORT], muxers=["mplex"], echo=True) for _ in range(2))

    async def main() -> None:
        async with server, client:
            assert await client.ping(server.addresses[0]) >= 2 * LATENCY
            assert client.node.connections()[0].negotiated.muxer == "/mplex/6.7.0"

    finish(world, main)


def test_names_are_looked_up_by_whom_a_host_is_told_to_ask() -> None:
    world = World(latency=LATENCY)
    server = world.host(listen=[PORT])
    records = {
        ("_dnsaddr.example.org", "TXT"): ["dnsaddr=/dns4/b.example.org/tcp/4001"],
        ("b.example.org", "A"): [server.machine.ip],
    }
    client = world.host(resolver=FakeResolver(records))

    async def main() -> None:
        async with server, client:
            assert await client.connect("/dnsaddr/example.org") == server.peer_id
            with pytest.raises(DialError, match=r"there is no _dnsaddr\.example\.com"):
                await client.connect("/dnsaddr/example.com")

    finish(world, main)


def test_addresses_of_machines() -> None:
    world = World()
    hosts = [world.host() for _ in range(300)]
    assert [hosts[n].machine.ip for n in (0, 1, 254, 255, 299)] == [
        "10.0.0.1", "10.0.0.2", "10.0.0.255", "10.0.1.0", "10.0.1.44",
    ]  # fmt: skip
    mine = world.host(ip="192.0.2.7", name="mine").machine
    assert (mine.ip, mine.name) == ("192.0.2.7", "mine")
    for taken in ({"ip": "10.0.0.1"}, {"name": "mine"}, {"name": "10.0.0.5"}):
        with pytest.raises(LocalError, match="already"):
            world.host(**taken)
    assert len(world.machines) == 301


def test_every_way_to_say_where() -> None:
    world = World()
    b = world.host(name="b", listen=["/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1"])
    texts = ["/ip4/10.0.0.1/tcp/1", "/ip6/fd00::1/tcp/1", "/dns4/b/tcp/1", "/dns6/b/tcp/1"]

    async def main() -> None:
        async with b:
            for text in texts:
                async with world.host() as a:
                    assert await a.connect(text) == b.peer_id
                    info = await a.identify(b.peer_id)
                    family = "ip6" if "6/" in text else "ip4"
                    assert info.observed is not None and info.observed.names == (family, "tcp")

    finish(world, main)


@pytest.mark.parametrize(
    ("address", "reason", "seconds"),
    [
        ("/ip4/10.0.0.2/tcp/9", "Connection refused|Connect call failed", 2 * LATENCY),
        ("/ip4/10.9.9.9/tcp/1", "no answer within 15 s", 15.0),
        ("/ip4/255.255.255.255/tcp/1", "unreachable", 0.0),
        ("/ip4/224.0.0.1/tcp/1", "unreachable", 0.0),
        ("/dns4/nobody/tcp/1", "Name or service not known", 0.0),
        ("/ip4/10.0.0.2/udp/1/quic-v1", "speaks no QUIC", 0.0),
    ],
)
def test_dialing_in_vain(address: str, reason: str, seconds: float) -> None:
    world = World(latency=LATENCY)
    a, b = world.host(), world.host(listen=["/ip4/0.0.0.0/tcp/1"])

    async def main() -> float:
        async with a, b:
            start = world.now
            with pytest.raises(DialError, match=reason):
                await a.connect(address)
            assert not a._dials and not a._waiters
            return world.now - start

    assert finish(world, main) == seconds


def test_the_system_gives_up_a_dial_after_127_seconds() -> None:
    world = World(latency=LATENCY)
    a = world.host(limits=Limits(dial_timeout=1000.0))

    async def main() -> float:
        async with a:
            with pytest.raises(DialError, match="Connect call failed"):
                await a.connect("/ip4/10.9.9.9/tcp/1")
            return world.now

    assert finish(world, main) == 127.0


def test_firewall() -> None:
    pair = Pair()
    c = pair.world.host(name="c")
    machine = pair.b.machine

    async def dial() -> float:
        start = pair.world.now
        try:
            await c.connect(pair.b.addresses[0])
        except DialError as error:
            assert ("no answer" in str(error)) == (machine.firewall == "drop")
        return pair.world.now - start

    pair.finish(c.start)
    machine.firewall = "drop"
    assert pair.finish(dial) == 15.0
    machine.firewall = "refuse"
    assert pair.finish(dial) == 2 * LATENCY
    assert pair.finish(pair.ping) == 2 * LATENCY  # what is open stays open
    machine.firewall = "accept"
    pair.finish(dial)
    assert c.peers == [pair.b.peer_id]


def test_cancelled_dial_leaves_nothing() -> None:
    world = World(latency=LATENCY)
    a, b = world.host(), world.host(listen=[PORT])

    async def main() -> None:
        async with a, b:
            for seconds in (LATENCY / 2, LATENCY * 1.5, LATENCY * 2.5):
                with pytest.raises(TimeoutError), world.timeout(seconds):
                    await a.connect(b.addresses[0])
                await world.sleep(1.0)
                assert not (a._dials or a._ends or b._ends)
                assert not (a.node._connections or b.node._connections)

    finish(world, main)


def test_cancelled_dial_that_is_refused_later() -> None:
    world = World(latency=LATENCY)
    a = world.host()
    world.host()

    async def main() -> None:
        async with a:
            with pytest.raises(TimeoutError), world.timeout(1.5 * LATENCY):
                await a.connect("/ip4/10.0.0.2/tcp/1")
            await world.sleep(1.0)
            assert not a._waiters

    finish(world, main)


def test_listener_that_goes_while_it_is_dialed() -> None:
    """The SYN was answered, the connection itself comes too late."""
    for when in (1.5, 2.5):
        world = World(latency=LATENCY, security="noise")
        a, b = world.host(), world.host(listen=[PORT])

        async def main(a: Host = a, b: Host = b, when: float = when, world: World = world) -> None:
            await a.start()
            await b.start()
            task = world.spawn(a.connect, b.addresses[0])
            task.awaited = True
            await world.sleep(when * LATENCY)
            await b.close()
            with pytest.raises(DialError, match=r"Connect call failed|reset"):
                await task

        finish(world, main)


# Bandwidth.


def delivered(trace: Trace, host: Host) -> list[tuple[float, int]]:
    """When a host got how many bytes."""
    entries = [trace.entry(index) for index in range(trace.count)]
    return [
        (entry.time, entry.sum >> 32)
        for entry in entries
        if entry is not None and entry.kind == "bytes" and entry.place == host.place
    ]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ({"up": 4096.0}, {}, lambda there, back: there / 4096),
        ({}, {"down": 4096.0}, lambda there, back: there / 4096),
        ({"down": 4096.0}, {}, lambda there, back: back / 4096),
        ({"up": 4096.0}, {"up": 2048.0}, lambda there, back: there / 4096 + back / 2048),
        # Both ends are slow: what the first sends the second takes meanwhile.
        ({"up": 4096.0}, {"down": 4096.0}, lambda there, back: there / 4096),
        ({"up": 4096.0}, {"down": 2048.0}, lambda there, back: there / 2048),
        ({"up": 2048.0}, {"down": 4096.0}, lambda there, back: there / 2048),
    ],
)
def test_bandwidth_delays_a_ping(
    a: dict[str, float], b: dict[str, float], expected: Callable[[int, int], float]
) -> None:
    trace = Trace()
    pair = Pair(a, b, trace=trace)
    pair.finish(pair.ping)
    rtt = pair.finish(pair.ping)
    there, back = delivered(trace, pair.b)[-1][1], delivered(trace, pair.a)[-1][1]
    assert there == back == 44
    assert rtt == pytest.approx(2 * LATENCY + expected(there, back), abs=1e-12)


def rate_of(world: World, flows: list[tuple[Host, Host]], size: int) -> list[float]:
    """Bytes per second of uploads that run side by side."""

    async def flow(source: Host, to: Host) -> float:
        stream = await source.open_stream(to.addresses[0], "/sink/1")
        await stream.write(bytes(size))
        await stream.close_write()
        assert await stream.readexactly(1) == b"."
        return size / (world.now - start)

    async def sink(stream: Stream) -> None:
        async for _ in stream:
            pass
        await stream.write(b".")

    async def main() -> list[float]:
        for host in dict.fromkeys(host for pair in flows for host in pair):
            await host.start()
            host.set_handler("/sink/1", sink)
        for source, to in flows:
            await source.connect(to.addresses[0])
        await world.sleep(10.0)
        nonlocal start
        start = world.now
        rates: list[float] = await world.gather(*(world.spawn(flow, *pair) for pair in flows))
        return rates

    start = 0.0
    return finish(world, main)


def test_one_flow_gets_the_whole_link() -> None:
    world = World(latency=0.005)
    a = world.host(up=1e6, listen=[PORT])
    b = world.host(listen=[PORT])
    assert rate_of(world, [(a, b)], 5_000_000) == [pytest.approx(1e6, rel=0.02)]


def test_connections_share_an_uplink() -> None:
    world = World(latency=0.005)
    a = world.host(up=1e6, listen=[PORT])
    others = [world.host(listen=[PORT]) for _ in range(4)]
    rates = rate_of(world, [(a, other) for other in others], 2_000_000)
    assert rates == [pytest.approx(0.25e6, rel=0.08)] * 4
    assert min(rates) == pytest.approx(0.25e6, rel=0.02)  # the last one to end


def test_connections_share_a_downlink() -> None:
    world = World(latency=0.005)
    a = world.host(down=1e6, listen=[PORT])
    others = [world.host(listen=[PORT]) for _ in range(4)]
    rates = rate_of(world, [(other, a) for other in others], 2_000_000)
    assert rates == [pytest.approx(0.25e6, rel=0.08)] * 4
    assert min(rates) == pytest.approx(0.25e6, rel=0.02)


def test_slowest_link_decides() -> None:
    world = World(latency=0.005)
    a = world.host(up=1e6, listen=[PORT])
    fast, slow = world.host(listen=[PORT]), world.host(down=0.2e6, listen=[PORT])
    rates = rate_of(world, [(a, fast), (a, slow)], 2_000_000)
    assert rates[1] == pytest.approx(0.2e6, rel=0.1)
    assert rates[0] > 0.6e6


def test_rates_that_change() -> None:
    pair = Pair()
    pair.finish(pair.ping)
    machine = pair.b.machine
    machine.set_rates(None, 4096.0)
    assert pair.finish(pair.ping) == 2 * LATENCY + 44 / 4096
    machine.set_rates(None, None)
    assert pair.finish(pair.ping) == 2 * LATENCY
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(LocalError, match="rate"):
            machine.set_rates(bad, None)
        with pytest.raises(LocalError, match="rate"):
            World().host(up=bad)


def test_a_downlink_that_becomes_fast_reorders_nothing() -> None:
    pair = Pair(b={"down": 1000.0})
    data = bytes(range(256)) * 8

    async def write() -> bytes:
        async with await pair.a.open_stream(pair.b.peer_id, "/echo/1.0.0") as stream:
            await stream.write(data[:1000])
            await pair.world.sleep(LATENCY / 2)
            await stream.write(data[1000:1100])
            await pair.world.sleep(LATENCY / 4)
            pair.b.machine.set_rates(None, None)
            await stream.write(data[1100:])
            await stream.close_write()
            return b"".join([chunk async for chunk in stream])

    assert pair.finish(write) == data


# Loss.


def test_loss_is_delay() -> None:
    """The first retransmission comes after a round trip and 0.2 s, each next one later by twice."""
    limits = Limits(ping_timeout=1e6, keepalive_interval=1e6)
    pair = Pair({"limits": limits}, {"limits": limits})
    pair.finish(pair.ping)
    pair.world.link("a", "b", loss=0.5)
    timeout = 0.2 + 2 * LATENCY
    steps = [timeout * (2**n - 1) for n in range(12)]
    sums = sorted({round(x + y, 9) for x in steps for y in steps})
    delays = []
    for _ in range(60):
        rtt = pair.finish(pair.ping)
        delays.append(round(rtt - 2 * LATENCY, 9))
    assert all(delay in sums for delay in delays), delays
    assert delays.count(0.0) in range(5, 28)  # a quarter of them
    assert max(delays) >= round(steps[2], 9)


@pytest.mark.parametrize("loss", [0.01, 0.3])
def test_streams_survive_loss(loss: float) -> None:
    pair = Pair(loss=loss, jitter=0.01)
    data = bytes(range(256)) * 200

    async def echo() -> bytes:
        async with await pair.a.open_stream(pair.b.peer_id, "/echo/1.0.0") as stream:
            await stream.write(data)
            await stream.close_write()
            return b"".join([chunk async for chunk in stream])

    assert pair.finish(echo) == data


class FakePath(Path):
    def __init__(self, loss: float) -> None:
        self.loss = loss
        self.latency = 0.05
        self.timeout = 0.3
        self.reverse = self


def test_draws_of_losses() -> None:
    """One uniform draw decides how often a packet is lost: once with p, twice with p * p ..."""
    path = FakePath(0.1)
    assert retransmissions(0.1, 40, path) == 0.0
    assert retransmissions(0.99, 40, path) == 0.0
    assert retransmissions(0.0999, 40, path) == 0.3
    assert retransmissions(0.01001, 40, path) == 0.3
    assert retransmissions(0.00999, 40, path) == pytest.approx(0.3 + 0.6)
    assert retransmissions(0.000999, 40, path) == pytest.approx(0.3 + 0.6 + 1.2)
    assert retransmissions(0.0, 40, path) == pytest.approx(0.3 * (2**9 - 1) + 7 * 120)
    # Of 10 packets one is lost with 1 - 0.9 ** 10, and the others show it after a round trip.
    assert retransmissions(0.6512, 14_600, path) == pytest.approx(0.1)
    assert retransmissions(0.6514, 14_600, path) == 0.0


def test_dialing_over_a_bad_link() -> None:
    world = World(latency=LATENCY, loss=0.25)
    patient = Limits(dial_timeout=100, upgrade_timeout=100)
    b = world.host(listen=[PORT], limits=patient)
    times = []

    async def main() -> None:
        await b.start()
        for _ in range(20):
            async with world.host(limits=patient) as a:
                start = world.now
                await a.connect(b.addresses[0])
                times.append(world.now - start)

    finish(world, main)
    assert max(times) > 1.0 and min(times) < 1.0


# Partitions.


def test_partition_and_healing() -> None:
    pair = Pair()
    partition = pair.world.partition("a", "b")
    start = pair.world.now
    task = pair.world.spawn(pair.ping)
    pair.world.run(4.0)
    assert not task.done
    partition.heal()
    partition.heal()
    # Sent again after 0.325 s, 0.65 s, 1.3 s, 2.6 s, together 4.875 s: the first one after 4 s.
    pause = 0.2 + 2 * LATENCY
    assert pair.world.run_task(task, 100.0) == pytest.approx(15 * pause + 2 * LATENCY)
    assert pair.world.now == pytest.approx(start + 15 * pause + 2 * LATENCY)
    assert pair.finish(pair.ping) == pytest.approx(2 * LATENCY)


def test_long_partition_ends_connections() -> None:
    """Nobody is told; the keepalive of the muxer finds out, and a new dial does not get through."""
    pair = Pair()
    with pair.world.partition(pair.a):
        pair.world.run(60.0)
        assert not pair.a.peers and not pair.b.peers
        assert not pair.a.ends and not pair.b.ends

        async def dial() -> None:
            with pytest.raises(DialError, match="no answer"):
                await pair.a.connect(pair.b.addresses[0])

        pair.finish(dial)
        again = pair.world.spawn(pair.a.connect, pair.b.addresses[0])
        pair.world.run(2.0)
        assert not again.done
    start = pair.world.now
    assert pair.world.run_task(again, 10.0) == pair.b.peer_id
    assert pair.world.now - start > 0.5  # the next SYN, 3 s after the first one
    assert pair.finish(pair.ping) == pytest.approx(2 * LATENCY)


def test_partition_of_groups() -> None:
    world = World(latency=LATENCY)
    hosts = [world.host(name=f"n{n}", listen=[PORT]) for n in range(4)]

    async def reach() -> list[tuple[int, int]]:
        found = []
        for one, host in enumerate(hosts):
            for other, target in enumerate(hosts):
                if one != other:
                    try:
                        with world.timeout(2.0):
                            await host.connect(target.addresses[0])
                            await host.ping(target.peer_id)
                        found.append((one, other))
                        await host.disconnect(target.peer_id)
                        await world.sleep(1.0)
                    except TimeoutError:
                        pass
        return found

    async def start() -> None:
        for host in hosts:
            await host.start()

    finish(world, start)
    world.partition([hosts[0], "n1"], ["n2", hosts[3].machine])
    assert finish(world, reach) == [(0, 1), (1, 0), (2, 3), (3, 2)]
    world.heal()
    world.partition("n3")
    assert finish(world, reach) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    world.heal()
    assert len(finish(world, reach)) == 12


def test_oneway_partition() -> None:
    """What ``b`` sends gets to ``a``, but nothing of ``a`` to ``b``."""
    pair = Pair()
    got: list[bytes] = []

    @pair.a.handle("/in")
    async def keep(stream: Stream) -> None:
        async for data in stream:
            got.append(data)

    async def write() -> Stream:
        stream = await pair.b.open_stream(pair.a.peer_id, "/in")
        await stream.write(b"before")
        await pair.world.sleep(1.0)
        return stream

    stream = pair.finish(write)
    pair.world.partition("a", "b", oneway=True)

    async def go_on() -> None:
        await stream.write(b"through")
        await pair.world.sleep(2 * LATENCY)

    pair.finish(go_on)
    assert b"".join(got) == b"beforethrough"
    end = pair.b.ends[0]
    assert end.outstanding > 0  # not acknowledged
    task = pair.world.spawn(pair.ping)
    pair.world.run(3.0)
    assert not task.done
    pair.world.heal()
    assert pair.world.run_task(task, 10.0) > 3.0
    pair.world.run(10.0)
    assert end.outstanding == 0

    async def dial_back() -> None:
        await pair.a.disconnect(pair.b.peer_id)
        pair.world.partition("a", "b", oneway=True)
        for one, other in ((pair.a, pair.b), (pair.b, pair.a)):
            with pytest.raises(DialError, match="no answer"):
                await one.connect(other.addresses[0])

    pair.finish(dial_back)


def test_oneway_partition_blocks_a_writer() -> None:
    """Without acknowledgements a sender's buffer fills, though all of it arrives."""
    pair = Pair(socket_buffer=10_000, b={"limits": Limits(keepalive_interval=1e6)})
    pair.finish(pair.ping)
    pair.world.partition("b", "a", oneway=True)

    async def write() -> None:
        stream = await pair.a.open_stream(pair.b.peer_id, "/echo/1.0.0")
        for _ in range(20):
            await stream.write(bytes(1000))
            await pair.world.sleep(0.01)

    pair.finish(write)
    end = pair.a.ends[0]
    assert end.full and 10_000 < end.outstanding < 13_000
    pair.world.heal()
    pair.world.run(10.0)
    assert not end.full and end.outstanding == 0


def test_the_system_gives_up_a_silent_connection() -> None:
    """Without a keepalive: fifteen retransmissions, about a quarter of an hour."""
    limits = Limits(keepalive_interval=1e6, ping_timeout=1e6, send_timeout=1e6)
    for oneway in (False, True):
        pair = Pair({"limits": limits}, {"limits": limits})
        pair.finish(pair.ping)
        if oneway:
            pair.world.partition("b", "a", oneway=True)
        else:
            pair.world.partition("a", "b")
        task = pair.world.spawn(pair.ping)
        pair.world.run(600.0)
        assert not task.done and pair.a.ends
        with pytest.raises(ConnectionLost, match="timed out"):
            pair.world.run_task(task, 1000.0)
        assert not pair.a.ends
        pair.world.run(10.0)
        assert bool(pair.b.ends) is not oneway  # b's answer was never acknowledged either


# Resets.


def test_reset() -> None:
    pair = Pair()
    c = pair.world.host(name="c")
    errors: list[Exception] = []

    @pair.b.handle("/wait")
    async def wait(stream: Stream) -> None:
        try:
            await stream.read()
        except ConnectionError as error:
            errors.append(error)
            raise

    async def main() -> None:
        await c.start()
        await c.connect(pair.b.addresses[0])
        stream = await pair.a.open_stream(pair.b.peer_id, "/wait")
        await stream.write(b"")
        await pair.world.sleep(1.0)
        assert pair.world.reset("a", "c") == 0
        assert pair.world.reset("a", "b") == 1
        with pytest.raises(ConnectionLost, match="reset by the network"):
            await stream.read()
        assert pair.b.peers == [c.peer_id]
        assert pair.world.reset("b") == 1
        assert not pair.b.peers and not c.peers
        await pair.a.connect(pair.b.addresses[0])
        assert await pair.ping() == pytest.approx(2 * LATENCY)

    pair.finish(main)
    assert len(errors) == 1


def test_reset_while_a_connection_comes_about() -> None:
    world = World(latency=LATENCY)
    a, b = world.host(), world.host(listen=[PORT])

    async def main() -> None:
        async with a, b:
            task = world.spawn(a.connect, b.addresses[0])
            await world.sleep(2.5 * LATENCY)
            assert world.reset(a) == 1
            with pytest.raises(DialError, match="reset"):
                await task
            await world.sleep(5.0)
            assert not b.ends and not b.node._connections

    finish(world, main)


def test_handler_that_raises_resets_its_stream() -> None:
    pair = Pair()

    @pair.b.handle("/broken")
    async def broken(stream: Stream) -> None:
        raise ConnectionError("on purpose")

    async def main() -> None:
        stream = await pair.a.open_stream(pair.b.peer_id, "/broken")
        with pytest.raises(StreamReset):
            await stream.read()

    pair.finish(main)


def test_stranger_that_leaves_during_the_handshake() -> None:
    world = World(latency=LATENCY)
    a, b = world.host(), world.host(listen=[PORT])

    async def main() -> None:
        async with a, b:
            task = world.spawn(a.connect, b.addresses[0])
            await world.sleep(2.5 * LATENCY)
            a.ends[0].finish()
            a.ends[0].finish()
            await world.sleep(0.75 * LATENCY)
            assert b.ends
            with pytest.raises(DialError):
                await task
            await world.sleep(1.0)
            assert not (a.ends or b.ends or b.node._connections)
            b._close_transport(12345, True)  # it is gone, and nothing happens

    finish(world, main)


def test_host_that_closes_while_it_dials() -> None:
    world = World(latency=LATENCY)
    a = world.host()

    async def main() -> None:
        await a.start()
        task = world.spawn(a.connect, "/ip4/10.9.9.9/tcp/1")
        await world.sleep(1.0)
        await a.close()
        with pytest.raises(ConnectionError, match="closed"):
            await task
        await world.sleep(200.0)
        assert not a._dials

    finish(world, main)


def test_fault_of_ours_stops_the_run() -> None:
    pair = Pair()

    def receive(conn: int, data: bytes, now: float) -> None:
        raise RuntimeError("a bug")

    pair.b.node.receive = receive  # type: ignore[method-assign]
    pair.world.spawn(pair.ping).awaited = True
    with pytest.raises(RuntimeError, match="a bug"):
        pair.world.run(5.0)
    assert pair.b.internal_errors == 1
    pair.world.run(5.0)
    assert not pair.b.peers


def test_events_of_applications_are_recorded() -> None:
    trace = Trace()
    pair = Pair(trace=trace)

    class Plain(Event):
        pass

    @dataclass
    class Named(Event):
        name: str

    pair.a.node.emit(Plain())
    pair.a.node.emit(Named("x"))
    last = [trace.entry(trace.count - back) for back in (2, 1)]
    assert [entry.kind for entry in last if entry] == ["Plain", "Named"]
    assert [entry.number for entry in last if entry] == [0, 0]


# Backpressure.


def test_writer_waits_for_a_slow_link() -> None:
    """No more than the socket's buffer and the stream's own is taken ahead of the link."""
    pair = Pair(a={"up": 100_000.0})
    written: list[tuple[float, int]] = []

    @pair.b.handle("/sink")
    async def sink(stream: Stream) -> None:
        async for _ in stream:
            pass

    async def write() -> None:
        stream = await pair.a.open_stream(pair.b.peer_id, "/sink")
        for count in range(1, 41):
            await stream.write(bytes(50_000))
            written.append((pair.world.now, count * 50_000))

    start = pair.world.now
    pair.finish(write)
    buffers = 256 * 1024 + 65536 + 256 * 1024 + 50_000
    for time, size in written:
        assert size - (time - start) * 100_000 < buffers
    assert written[-1][0] - start > (2_000_000 - buffers) / 100_000 > 10


def test_blocked_and_unblocked() -> None:
    """The node is told at the buffer's size, and at half of it one latency later."""
    pair = Pair(socket_buffer=8192, a={"up": 4096.0})
    end = pair.a.ends[0]
    told: list[tuple[bool, float]] = []
    blocked = pair.a.on_blocked

    def on_blocked(conn: int, full: bool) -> None:
        told.append((full, pair.world.now))
        blocked(conn, full)

    pair.a.on_blocked = on_blocked  # type: ignore[method-assign]
    start = pair.world.now
    for _ in range(5):
        end.send(bytes(2048))
    assert told == [(True, start)] and end.full and end.outstanding == 10240
    pair.b.on_data = lambda conn, data: None  # type: ignore[method-assign]
    pair.world.run(10.0)
    # Five pieces of half a second each: three have to arrive until half of the buffer is free.
    assert told[1:] == [(False, start + 3 * 0.5 + 2 * LATENCY)]
    assert end.outstanding == 0 and not end.full


def test_reader_that_pauses() -> None:
    pair = Pair(socket_buffer=8192)
    sender, receiver = pair.a.ends[0], pair.b.ends[0]
    got: list[tuple[bytes, float]] = []
    pair.b.on_data = lambda conn, data: got.append(  # type: ignore[method-assign]
        (data, pair.world.now)
    )
    pair.b._pause_reading(receiver.conn)
    for number in range(10):
        sender.send(bytes([number]) * 1000)
    assert sender.full
    pair.world.run(5.0)
    assert not got and sender.full and sender.outstanding == 10_000
    now = pair.world.now
    pair.b._resume_reading(receiver.conn)
    sender.send(b"last")
    pair.world.run(5.0)
    assert [data[:1] for data, _ in got] == [bytes([n]) for n in range(10)] + [b"l"]
    assert [time for _, time in got] == [now] * 10 + [now + LATENCY]
    assert not sender.full and sender.outstanding == 0


def test_reader_that_pauses_while_it_catches_up() -> None:
    pair = Pair()
    sender, receiver = pair.a.ends[0], pair.b.ends[0]
    got: list[bytes] = []

    def on_data(conn: int, data: bytes) -> None:
        got.append(data)
        pair.b._pause_reading(receiver.conn)

    pair.b.on_data = on_data  # type: ignore[method-assign]
    pair.b._pause_reading(receiver.conn)
    for number in range(4):
        sender.send(bytes([number]))
    pair.world.run(1.0)
    for count in range(1, 5):
        pair.b._resume_reading(receiver.conn)
        pair.world.run(1.0)
        assert got == [bytes([n]) for n in range(count)]


def test_pause_and_partition_at_once() -> None:
    """Whatever stops bytes first, they come in order once nothing stops them."""
    for first in ("pause", "partition"):
        pair = Pair()
        sender, receiver = pair.a.ends[0], pair.b.ends[0]
        got: list[bytes] = []
        pair.b.on_data = lambda conn, data, got=got: got.append(data)  # type: ignore[assignment]
        if first == "pause":
            pair.b._pause_reading(receiver.conn)
            sender.send(b"1")
            pair.world.run(1.0)
            pair.world.partition("a", "b")
            sender.send(b"2")
            pair.world.run(1.0)
            pair.b._resume_reading(receiver.conn)
        else:
            pair.world.partition("a", "b")
            sender.send(b"1")
            pair.world.run(1.0)
            pair.b._pause_reading(receiver.conn)
            sender.send(b"2")
            pair.world.run(1.0)
        pair.world.run(1.0)
        assert not got
        pair.world.heal()
        if first == "partition":
            pair.world.run(5.0)
            assert not got
            pair.b._resume_reading(receiver.conn)
        sender.send(b"3")
        pair.world.run(5.0)
        assert got == [b"1", b"2", b"3"]


def test_node_that_pauses_its_peer() -> None:
    """Who makes us answer and reads no answers is not read from, and the other way round."""
    pair = Pair(socket_buffer=1024)
    seen: list[type] = []
    for kind in (PauseReading, ResumeReading):
        pair.b._dispatch[kind] = _spy(pair.b._dispatch[kind], seen)
    pair.a._pause_reading(pair.a.ends[0].conn)
    ids = iter(range(20_001, 10**6, 2))
    for _ in range(3):
        flood = b"".join(encode(WINDOW_UPDATE | SYN, next(ids), 0) for _ in range(6000))
        pair.a.ends[0].send(flood)
        pair.world.run(1.0)
    assert seen[:1] == [PauseReading]
    assert pair.b.ends[0].paused and pair.b.ends[0].full
    pair.a._resume_reading(pair.a.ends[0].conn)
    pair.world.run(2.0)
    assert ResumeReading in seen


def _spy(inner: Callable[[Any], object], seen: list[type]) -> Callable[[Any], object]:
    def call(item: Any) -> None:
        seen.append(type(item))
        inner(item)

    return call


def test_big_transfers_arrive() -> None:
    pair = Pair(a={"up": 3e6}, b={"down": 2e6}, jitter=0.003, loss=0.001, security="noise")

    async def main() -> tuple[int, int]:
        data = bytes(range(256)) * 8192
        echoed = []
        stream = await pair.a.open_stream(pair.b.peer_id, "/echo/1.0.0")

        async def read() -> None:
            async for chunk in stream:
                echoed.append(chunk)

        reader = pair.world.spawn(read)
        await stream.write(data)
        await stream.close_write()
        await reader
        return len(data), b"".join(echoed) == data and len(data)

    size, same = pair.finish(main)
    assert size == same
