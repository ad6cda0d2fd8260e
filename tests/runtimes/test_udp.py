"""UDP sockets: rows of datagrams, whether the system cuts and joins them or not."""

import socket
import sys
import time
from typing import Any

import pytest

from anyp2p import udp
from anyp2p.udp import MAX_PAYLOAD, MAX_ROW, UdpDoor, open_udp, rows, udp_multiaddr
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.route import route

THERE = ("192.0.2.1", 1)


class Taker:
    """Stands in for a host: keeps what comes."""

    def __init__(self) -> None:
        self.came: list[tuple[bytes, tuple[str, int]]] = []

    def on_datagrams(self, door: int, datagrams: list[tuple[bytes, tuple[str, int]]]) -> None:
        self.came += datagrams


def door(address: str = "/ip4/127.0.0.1/udp/0") -> tuple[UdpDoor, Taker]:
    taker = Taker()
    host: Any = taker
    return UdpDoor(host, 1, open_udp(route(Multiaddr(address)))), taker


def received(to: UdpDoor, taker: Taker, count: int) -> list[bytes]:
    deadline = time.monotonic() + 5
    while len(taker.came) < count and time.monotonic() < deadline:
        to.readable()
    return [data for data, _ in taker.came]


@pytest.mark.parametrize("address", ["/ip4/127.0.0.1/udp/0", "/ip6/::1/udp/0"])
@pytest.mark.parametrize("linux", [True, False])
def test_a_row_arrives_as_it_was_sent(
    address: str, linux: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if linux and sys.platform != "linux":
        pytest.skip("only Linux cuts and joins")
    monkeypatch.setattr(udp, "_LINUX", linux)
    (source, _), (target, taker) = door(address), door(address)
    place = target.sock.getsockname()[:2]
    row = [bytes([n]) * 1200 for n in range(9)] + [b"short"]
    source.send(place, row)
    source.send(place, [b"alone"])
    assert received(target, taker, 11) == [*row, b"alone"]
    assert {where for _, where in taker.came} == {source.sock.getsockname()[:2]}
    for one in (source, target):
        one.sock.close()


def test_what_a_system_cannot_cut_goes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "_UDP_SEGMENT", 9999)
    (source, _), (target, taker) = door(), door()
    row = [bytes(700), bytes(700), bytes(7)]
    for _ in range(2):
        source.send(target.sock.getsockname(), row)
    assert received(target, taker, 6) == row * 2
    for one in (source, target):
        one.sock.close()


def test_rows_end_where_they_have_to() -> None:
    other = ("192.0.2.1", 2)
    sent = [
        (1, THERE, b"ab"),
        (1, THERE, b"cd"),
        (1, THERE, b"e"),  # a shorter one is the last
        (1, THERE, b"f"),
        (1, THERE, b"gh"),  # a longer one begins another row
        (1, other, b"ij"),
        (2, other, b"kl"),
        *[(2, THERE, b"m")] * (MAX_ROW + 1),
    ]
    found = list(rows(sent))
    assert [row for _, _, row in found] == [
        [b"ab", b"cd", b"e"], [b"f"], [b"gh"], [b"ij"], [b"kl"], [b"m"] * MAX_ROW, [b"m"],
    ]  # fmt: skip
    assert [(number, target, data) for number, target, row in found for data in row] == sent
    assert list(rows([])) == []
    assert MAX_ROW * 1200 <= MAX_PAYLOAD


def test_a_door_that_is_closed_takes_nothing_and_wakes_who_waits() -> None:
    one, taker = door("/ip4/0.0.0.0/udp/0")
    one.close()
    assert one.closed
    one.readable()
    assert taker.came == []
    one.sock.setblocking(True)
    one.sock.settimeout(5)
    assert one.sock.recv(10) == b""
    one.sock.close()


def test_where_it_is() -> None:
    one, _ = door("/ip6/::1/udp/0")
    port = one.sock.getsockname()[1]
    assert udp_multiaddr(one.sock.getsockname()) == Multiaddr(f"/ip6/::1/udp/{port}")
    with pytest.raises(OSError, match="in use"):
        open_udp(route(Multiaddr(f"/ip6/::1/udp/{port}")))
    one.sock.close()
    with pytest.raises(OSError, match="is a name"):
        open_udp(route(Multiaddr("/dns4/localhost/udp/1")))
    assert isinstance(one.sock, socket.socket)
