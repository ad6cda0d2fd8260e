"""A UDP socket of a host, for any loop that can tell when it is readable."""

import socket
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

Source = tuple[str, int]


class UdpDoor:
    """What a datagram goes through; the host's loop calls ``readable``."""

    def __init__(self, host: "BaseHost[Any]", number: int, sock: socket.socket) -> None:
        self.number = number
        self.sock = sock
        self.closed = False
        """Nothing comes or goes any more; the loop closes the socket."""
        self._host = host

    def readable(self) -> None:
        """Hand over what has come."""
        if self.closed:
            return
        came: list[tuple[bytes, Source]] = []
        for _ in range(TURNS):
            try:
                data, source = self.sock.recvfrom(MAX_DATAGRAM)
            except BLOCKED:
                break
            except OSError:  # an ICMP message about what we sent: whoever waits for it times out
                continue
            came.append((data, source[:2]))
        if came:
            self._host.on_datagrams(self.number, came)

    def send(self, target: Source, data: bytes) -> None:
        """Send one, or lose it: that is what the network may do as well."""
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


def udp_multiaddr(name: Any) -> Multiaddr:
    """Where a UDP socket is bound."""
    host, port = str(name[0]).partition("%")[0], name[1]
    return Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/udp/{port}")
