"""Between multiaddrs and what socket functions take and return."""

import errno
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeAlias

from anyp2p_core.errors import ListenError, LocalError
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.route import MEMORY, TCP, UDP, Route, route

from . import memory

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


def keep_heap() -> None:
    """Make glibc keep up to 32 MiB of what is freed, instead of asking for it again at each flush.

    Freeing one large block raises its thresholds. Without it two thirds of the time of a TLS upload
    may be page faults.
    """
    bytearray(16 * 1024 * 1024)  # its pages are never touched


def look_up(found: Route) -> tuple[str, int, int]:
    """Host, port and address family for ``getaddrinfo``. LocalError for what is no host name."""
    try:
        found.host.encode("idna")  # what getaddrinfo does, in a thread and with less ceremony
    except UnicodeError as error:
        raise LocalError(f"{found.host} cannot be looked up: {error}") from None
    return found.host, found.port, HOSTS[found.family]


def numeric(found: Route) -> list[AddressInfo]:
    """What ``getaddrinfo`` would say of an address without a name in it; empty if there is one.

    A loop's own ``getaddrinfo`` starts a thread even for numbers.
    """
    if found.kind not in (TCP, UDP):
        path = memory.path_of(found.port) if found.kind == MEMORY else found.path
        return [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", path)]
    family = HOSTS[found.family]
    host, _, zone = found.host.partition("%")
    target: Any = (host, found.port)
    if family == socket.AF_INET6:
        target = (host, found.port, 0, socket.if_nametoindex(zone) if zone else 0)
    if found.family not in ("ip4", "ip6"):
        return []
    return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", target)]


def dial_route(address: Multiaddr) -> Route:
    """Take apart what a stream socket is to be connected to."""
    found = route(address)
    if found.kind == UDP:
        raise LocalError(f"{address}: nothing can be connected to over UDP without /quic-v1")
    if found.kind == MEMORY and not memory.is_taken(found.port):
        # Without a number: there is no other text for it.
        raise ConnectionRefusedError(f"nobody in this process listens on {address}")
    return found


def open_listeners(address: Multiaddr, found: Iterable[AddressInfo]) -> list[socket.socket]:
    """Non-blocking sockets that listen on all of ``found``. Raises ``ListenError``."""
    sockets: list[socket.socket] = []
    try:
        for family, kind, proto, _, target in found:
            sock = socket.socket(family, kind, proto)
            sockets.append(sock)
            sock.setblocking(False)
            if family == socket.AF_UNIX:
                _remove_stale(target)
            elif os.name == "posix":  # elsewhere it lets others take the port over
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


def forget_name(sock: socket.socket) -> None:
    """A listening socket is about to be closed: remove its name, if it has one."""
    with suppress(OSError):
        if sock.family == socket.AF_UNIX:
            path = sock.getsockname()
            number = memory.number_of(_text(path))
            if number is not None:
                memory.give_back(number)
            if not _text(path).startswith("\0"):
                os.unlink(path)


def _remove_stale(path: str) -> None:
    """Remove the name that a process left behind which was killed: nobody answers there."""
    try:
        if path.startswith("\0") or not stat.S_ISSOCK(os.lstat(path).st_mode):
            return  # a file that is no socket refuses as a stale one does, and is not ours
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)


def listen_error(address: Multiaddr, error: OSError) -> ListenError:
    """The same with the address in it."""
    return ListenError(error.errno, f"cannot listen on {address}: {error.strerror or error}")


def connect_error(code: int) -> OSError:
    """What ``connect`` reported as a number."""
    return OSError(code, os.strerror(code))


def socket_error(sock: socket.socket) -> int:
    """The number of the error that a socket has, 0 for none. It is told once."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def bound_addresses(sockets: Iterable[socket.socket]) -> list[Multiaddr]:
    """Where listening sockets are."""
    found = [socket_multiaddr(sock.getsockname()) for sock in sockets]
    return [address for address in found if address is not None]


def socket_multiaddr(name: Any) -> Multiaddr | None:
    """The address that ``getsockname`` or ``getpeername`` returned; None if it is of no use."""
    if isinstance(name, (str, bytes)):
        return _path_multiaddr(_text(name))
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


def _path_multiaddr(path: str) -> Multiaddr | None:
    try:
        number = memory.number_of(path)
        if number is not None:
            return memory.address_of(number)
        return Multiaddr(f"/unix{path}") if path.startswith("/") else None
    except ValueError:  # who connects may bind its socket to any name
        return None


def _text(name: str | bytes) -> str:
    return os.fsdecode(name)


BLOCKED = (BlockingIOError, InterruptedError)
"""What a non-blocking socket raises when it is not ready."""
IN_PROGRESS = (errno.EINPROGRESS, errno.EWOULDBLOCK)
