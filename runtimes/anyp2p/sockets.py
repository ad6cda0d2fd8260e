"""Between multiaddrs and what socket functions take and return."""

import errno
import os
import socket
from collections.abc import Iterable
from typing import Any, TypeAlias

from anyp2p_core.errors import ListenError, LocalError
from anyp2p_core.multiaddr import Multiaddr

AddressInfo: TypeAlias = tuple[int, int, int, str, Any]
"""What ``socket.getaddrinfo`` returns a list of."""

HOSTS = {
    "ip4": socket.AF_INET,
    "ip6": socket.AF_INET6,
    "dns": socket.AF_UNSPEC,
    "dns4": socket.AF_INET,
    "dns6": socket.AF_INET6,
}
BACKLOG = 1024
ACCEPT_PAUSE = 0.5
"""Seconds until we try again when the process has no file descriptor for an accepted connection."""
BUFFER = 128 * 1024 - 64
"""One receive: larger temporary buffers cost page faults."""
_IP4, _IP6, _TCP = b"\x04", b"\x29", b"\x06"
"""Codes of multiaddr protocols."""


def tcp_target(address: Multiaddr) -> tuple[str, int, int]:
    """Host, port and address family of a /tcp address. Raises ``LocalError`` for any other."""
    parts = address.components
    zone = ""
    if parts and parts[0].name == "ip6zone":
        zone = "%" + parts[0].value
        parts = parts[1:]
    if len(parts) == 2 and parts[0].name in HOSTS and parts[1].name == "tcp":
        host = parts[0].value
        try:
            host.encode("idna")  # what getaddrinfo does, in a thread and with less ceremony
        except UnicodeError as error:
            raise LocalError(f"{address}: {host} cannot be looked up: {error}") from None
        return host + zone, int(parts[1].value), HOSTS[parts[0].name]
    raise LocalError(f"{address}: only /ip4, /ip6 or /dns addresses with /tcp can be used so far")


def numeric(address: Multiaddr) -> list[AddressInfo]:
    """What ``getaddrinfo`` would say of an address without a name in it; empty if there is one.

    A loop's own ``getaddrinfo`` starts a thread even for numbers.
    """
    host, port, family = tcp_target(address)
    host, _, zone = host.partition("%")
    target: Any = (host, port)
    if family == socket.AF_INET6:
        target = (host, port, 0, socket.if_nametoindex(zone) if zone else 0)
    if address.get("ip4") is None and address.get("ip6") is None:
        return []
    return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", target)]


def open_listeners(address: Multiaddr, found: Iterable[AddressInfo]) -> list[socket.socket]:
    """Non-blocking sockets that listen on all of ``found``. Raises ``ListenError``."""
    sockets: list[socket.socket] = []
    try:
        for family, kind, proto, _, target in found:
            sock = socket.socket(family, kind, proto)
            sockets.append(sock)
            sock.setblocking(False)
            if os.name == "posix":  # elsewhere it lets others take the port over
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(target)
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise listen_error(address, error) from None
    return sockets


def listen_error(address: Multiaddr, error: OSError) -> ListenError:
    """The same with the address in it."""
    return ListenError(error.errno, f"cannot listen on {address}: {error.strerror or error}")


def connect_error(code: int) -> OSError:
    """What ``connect`` reported as a number."""
    return OSError(code, os.strerror(code))


def bound_addresses(sockets: Iterable[socket.socket]) -> list[Multiaddr]:
    """Where listening sockets are."""
    found = [tcp_multiaddr(sock.getsockname()) for sock in sockets]
    return [address for address in found if address is not None]


def tcp_multiaddr(name: Any) -> Multiaddr | None:
    """The address that ``getsockname`` or ``getpeername`` returned; None if it is of no use."""
    if not isinstance(name, tuple) or len(name) < 2:
        return None
    host, _, _ = str(name[0]).partition("%")
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    six = ":" in host
    try:
        packed = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, host)
    except OSError:
        return None
    return Multiaddr.from_bytes((_IP6 if six else _IP4) + packed + _TCP + name[1].to_bytes(2))


BLOCKED = (BlockingIOError, InterruptedError)
"""What a non-blocking socket raises when it is not ready."""
IN_PROGRESS = (errno.EINPROGRESS, errno.EWOULDBLOCK)
