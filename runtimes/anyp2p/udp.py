"""A UDP socket of a host, for any loop that can tell when it is readable.

Datagrams of one size that go the same way are handed to Linux as one row, which it cuts, and rows
that arrive are joined by it (UDP_SEGMENT and UDP_GRO of its udp(7)): a call for each would cost a
quarter of all that QUIC costs. Elsewhere they go one by one.
"""

import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.route import Route

from .sockets import BLOCKED, numeric

if TYPE_CHECKING:
    from .host import BaseHost

BUFFER = 4 * 1024 * 1024
"""Bytes that the kernel may hold in each direction, if it allows as many."""
MAX_DATAGRAM = 65535
TURNS = 64
"""Datagrams taken in a row, before other tasks get their turn."""

MAX_ROW = 48
"""Datagrams in a row: all of them together may have ``MAX_PAYLOAD`` bytes."""
MAX_PAYLOAD = 65507

_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_SIZE = struct.Struct("=H")
_LINUX = sys.platform == "linux"
_SPACE = socket.CMSG_SPACE(4) if _LINUX else 0

Source = tuple[str, int]


class UdpDoor:
    """What a datagram goes through; the host's loop calls ``readable``."""

    def __init__(self, host: "BaseHost[Any]", number: int, sock: socket.socket) -> None:
        self.number = number
        self.sock = sock
        self.closed = False
        """Nothing comes or goes any more; the loop closes the socket."""
        self._host = host
        self._cuts = _LINUX
        self._joins = _LINUX and _set_option(sock, _SOL_UDP, _UDP_GRO, 1)

    def readable(self) -> None:
        """Hand over what has come."""
        if self.closed:
            return
        came: list[tuple[bytes, Source]] = []
        while len(came) < TURNS:
            try:
                data, source, size = self._receive()
            except BLOCKED:
                break
            except OSError:  # an ICMP message about what we sent: whoever waits for it times out
                continue
            if size and size < len(data):
                came += [(data[at : at + size], source) for at in range(0, len(data), size)]
            else:
                came.append((data, source))
        if came:
            self._host.on_datagrams(self.number, came)

    def _receive(self) -> tuple[bytes, Source, int]:
        """A datagram, or several joined ones of ``size`` bytes each, but for the last one."""
        if not self._joins:
            data, source = self.sock.recvfrom(MAX_DATAGRAM)
            return data, source[:2], 0
        data, extra, _, source = self.sock.recvmsg(MAX_DATAGRAM, _SPACE)
        return data, source[:2], _SIZE.unpack_from(extra[0][2])[0] if extra else 0

    def send(self, target: Source, row: list[bytes]) -> None:
        """Send datagrams of one size, or lose them: that is what the network may do as well.

        The last one may be shorter.
        """
        size = len(row[0])
        if len(row) > 1 and self._cuts and size * len(row) <= MAX_PAYLOAD:
            try:
                self.sock.sendmsg(row, [(_SOL_UDP, _UDP_SEGMENT, _SIZE.pack(size))], 0, target)
                return
            except BLOCKED:
                return
            except OSError:  # the device, or the way there, cannot
                self._cuts = False
        for data in row:
            with suppress(OSError):
                self.sock.sendto(data, target)

    def close(self) -> None:
        """Wake up whoever waits for the socket: it must not be pulled away from a task."""
        self.closed = True
        name = self.sock.getsockname()
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name[0], name[0])
        with suppress(OSError):
            self.sock.sendto(b"", (loopback, *name[1:]))


def open_udp(where: Route) -> socket.socket:
    """A non-blocking socket that is bound to an address without a name. Raises OSError."""
    found = numeric(where)
    if not found:
        raise OSError(f"{where.host} is a name: listen on an address")
    family, _, _, _, target = found[0]
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        sock.bind(target)
    except BaseException:
        sock.close()
        raise
    return sock


def rows(
    datagrams: list[tuple[int, Source, bytes]],
) -> Iterator[tuple[int, Source, list[bytes]]]:
    """Datagrams by door and target, those together that ``UdpDoor.send`` takes at once.

    >>> there = ("192.0.2.1", 1)
    >>> list(rows([(1, there, b"ab"), (1, there, b"c"), (1, there, b"d")]))
    [(1, ('192.0.2.1', 1), [b'ab', b'c']), (1, ('192.0.2.1', 1), [b'd'])]
    """
    row: list[bytes] = []
    before, size = (0, ("", 0)), 0
    for door, target, data in datagrams:
        full = len(row) == MAX_ROW or (row and len(row[-1]) < size)
        if row and (full or (door, target) != before or len(data) > size):
            yield *before, row
            row = []
        if not row:
            before, size = (door, target), len(data)
        row.append(data)
    if row:
        yield *before, row


def _set_option(sock: socket.socket, level: int, option: int, value: int) -> bool:
    """Whether the system knows it."""
    with suppress(OSError):
        sock.setsockopt(level, option, value)
        return True
    return False


def udp_multiaddr(name: Any) -> Multiaddr:
    """Where a UDP socket is bound."""
    host, port = str(name[0]).partition("%")[0], name[1]
    return Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/udp/{port}")
