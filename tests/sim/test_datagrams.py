"""Simulated UDP: late, lost, cut, kept out."""

from typing import Any

import pytest

from anyp2p.sim import World
from anyp2p_core.multiaddr import Multiaddr


class Ends:
    """Two hosts with a door each, and what came through them, with the time."""

    def __init__(self, **options: Any) -> None:
        self.world = World(seed=5, **options)
        self.hosts = [self.world.host(name=name) for name in ("a", "b")]
        self.far = self.world.host(name="c")
        self.cut: Any = None
        self.came: list[list[tuple[bytes, tuple[str, int], float]]] = [[], []]
        self.places: list[tuple[str, int]] = []

    def open(self, *addresses: str) -> None:
        for host, address, came in zip(self.hosts, addresses, self.came, strict=True):
            bound = host._open_door(1, Multiaddr(address))
            names = bound.components
            self.places.append((names[0].value, int(names[1].value)))
            host.take_datagrams(1, lambda *what, came=came: came.append(what))

    def run(self, *steps: Any, second: str = "/ip4/0.0.0.0/udp/4001") -> None:
        async def main() -> None:
            async with self.hosts[0], self.hosts[1], self.far:
                self.open("/ip4/0.0.0.0/udp/0", second)
                for step in steps:
                    step()
                    await self.world.sleep(1.0)

        self.world.spawn(main)
        self.world.run(10.0)

    def send(self, data: bytes = b"hello", *, back: bool = False) -> None:
        source, target = (1, 0) if back else (0, 1)
        self.hosts[source]._send_datagrams(1, self.places[target], [data])


def test_a_datagram_arrives_after_the_latency() -> None:
    ends = Ends(latency=0.05)
    ends.run(ends.send, lambda: ends.send(b"answer", back=True))
    [(data, source, when)] = ends.came[1]
    assert (data, source) == (b"hello", ends.places[0])
    assert when == pytest.approx(0.05)
    assert [data for data, _, _ in ends.came[0]] == [b"answer"]


def test_some_are_lost_and_the_same_ones_again() -> None:
    def arrived() -> list[bytes]:
        ends = Ends(loss=0.3)
        ends.run(lambda: [ends.send(b"%d" % n) for n in range(200)])
        return [data for data, _, _ in ends.came[1]]

    found = arrived()
    assert 100 < len(found) < 180
    assert arrived() == found


def test_jitter_lets_one_overtake_another() -> None:
    ends = Ends(latency=0.01, jitter=0.05)
    ends.run(lambda: [ends.send(b"%d" % n) for n in range(50)])
    found = [data for data, _, _ in ends.came[1]]
    assert len(found) == 50
    assert found != sorted(found, key=int)


def test_an_uplink_takes_its_time() -> None:
    ends = Ends(latency=0.0)
    ends.hosts[0].machine.set_rates(up=1000.0, down=None)
    ends.hosts[1].machine.set_rates(up=None, down=500.0)
    ends.run(lambda: [ends.send(bytes(100)) for _ in range(3)])
    assert [when for _, _, when in ends.came[1]] == pytest.approx([0.3, 0.5, 0.7], abs=1e-3)


def test_a_cut_link_swallows_what_is_on_its_way() -> None:
    ends = Ends(latency=0.5)

    def cut() -> None:
        ends.send(b"caught")
        ends.cut = ends.world.partition(ends.hosts[0], oneway=True)
        ends.send(b"stopped")
        ends.send(b"the other way", back=True)

    ends.run(cut, lambda: ends.cut.heal(), ends.send)
    assert [data for data, _, _ in ends.came[1]] == [b"hello"]
    assert [data for data, _, _ in ends.came[0]] == [b"the other way"]


def test_nobody_there_and_what_is_too_long() -> None:
    ends = Ends()

    def nobody() -> None:
        ends.hosts[0]._send_datagrams(1, ("10.0.0.2", 4002), [b"hello"])
        ends.hosts[0]._send_datagrams(1, ("192.0.2.1", 4001), [b"hello"])
        ends.send(bytes(70_000))

    ends.run(nobody)
    assert ends.came == [[], []]


def test_a_firewall_lets_answers_through() -> None:
    ends = Ends()

    def shut() -> None:
        ends.hosts[0].machine.firewall = "drop"
        ends.send(b"unasked", back=True)

    ends.run(shut, ends.send, lambda: ends.send(b"answer", back=True))
    assert [data for data, _, _ in ends.came[0]] == [b"answer"]


def test_a_door_on_loopback_is_for_this_machine() -> None:
    ends = Ends()
    ends.hosts[1] = ends.world.host(beside="a")

    def all_ways() -> None:
        ends.hosts[0]._send_datagrams(1, ("127.0.0.1", ends.places[1][1]), [b"near"])
        ends.far._open_door(1, Multiaddr("/ip4/0.0.0.0/udp/0"))
        ends.far._send_datagrams(1, ("10.0.0.1", ends.places[1][1]), [b"far"])
        ends.hosts[1]._send_datagrams(1, ("10.0.0.2", 4001), [b"out"])

    ends.run(all_ways, second="/ip4/127.0.0.1/udp/0")
    assert [(data, source[0]) for data, source, _ in ends.came[1]] == [(b"near", "127.0.0.1")]


def test_a_port_is_taken_until_its_host_is_gone() -> None:
    world = World()
    host = world.host()

    async def main() -> None:
        async with host:
            bound = host._open_door(1, Multiaddr("/ip4/0.0.0.0/udp/4001"))
            assert str(bound) == "/ip4/10.0.0.1/udp/4001"
            with pytest.raises(OSError, match="already in use"):
                host._open_door(2, Multiaddr("/ip4/0.0.0.0/udp/4001"))

    world.spawn(main)
    world.run(1.0)
    assert host.machine.door(4, 4001) is None
