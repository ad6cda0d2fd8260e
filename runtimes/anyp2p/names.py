"""How a host looks names up: addresses as the system does, texts from the system's DNS servers.

A, AAAA    getaddrinfo of the loop, which knows the hosts file and whatever else is configured
TXT        the client in ``anyp2p_core.dns``, through UDP sockets of the host; what is too long
           for a datagram by TCP, where the loop can wait for sockets
"""

import socket
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from anyp2p_core.crypto import Entropy
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.resolver import Answered, Kind, LookupFailed
from anyp2p_core.timers import Timers

from .dns_stream import ask

if TYPE_CHECKING:
    from anyp2p_core.dns import DnsClient, Server

    from .host import BaseHost
    from .link import Link
    from .socket_host import SocketHost

_FAMILIES: dict[Kind, int] = {"A": socket.AF_INET, "AAAA": socket.AF_INET6}


class HostResolver:
    """The resolver of a host that was made without one. It is also the DNS client's owner."""

    def __init__(self, host: "BaseHost[Any]", entropy: Entropy, timers: Timers) -> None:
        self.entropy = entropy
        self.timers = timers
        self._host = host
        self._client: DnsClient | None = None
        self._doors: dict[tuple[int, bool], int] = {}
        """Of each question under way: one for servers with an IPv4 address, one for IPv6."""
        self._asking: dict[int, list[int]] = {}
        """Of each question under way: the numbers of its connections, the latest try last."""
        self._links: dict[int, Link] = {}
        """Those of them that are open."""

    def query(self, name: str, kind: Kind, answered: Answered, now: float) -> None:
        """Look a name up; see ``anyp2p_core.resolver.Resolver``."""
        if kind == "TXT":
            client = self._ask_servers()
            if client is None:
                answered(LookupFailed("looking it up needs anyp2p[dns]"), now)
            else:
                client.query(name, kind, answered, now)
        else:
            self._host._spawn(self._ask_system, name, kind, answered)

    def close(self, now: float) -> None:
        """The host closes: whoever waits is told."""
        if self._client is not None:
            self._client.close(now)

    async def _ask_system(self, name: str, kind: Kind, answered: Answered) -> None:
        host = self._host
        records: list[str] | Exception
        try:
            name.encode("idna")  # what getaddrinfo does, in a thread and with less ceremony
            found = await host._look_up(name, 0, _FAMILIES[kind])
            records = list(dict.fromkeys(str(one[4][0]) for one in found))
        except (OSError, UnicodeError) as error:
            records = LookupFailed(f"{name} cannot be looked up: {error}")
        answered(records, host.now())
        host.flush()

    def _ask_servers(self) -> "DnsClient | None":
        if self._client is None and find_spec("dns"):
            from anyp2p_core.dns import DnsClient

            from .providers.dns import DnsPython, system_servers

            self._client = DnsClient(self, DnsPython(), system_servers())
        return self._client

    # What the DNS client asks for.

    def send(self, query: int, server: "Server", data: bytes) -> None:
        try:
            self._host._send_datagrams(self._door(query, ":" in server[0]), server, [data])
        except OSError as error:
            if self._client is not None:
                self._client.failed(query, error, self._host.now())

    def _door(self, query: int, six: bool) -> int:
        host = self._host
        door = self._doors.get((query, six))
        if door is None:
            door = host.node.next_id()
            host._open_door(door, Multiaddr("/ip6/::/udp/0" if six else "/ip4/0.0.0.0/udp/0"))
            self._doors[query, six] = door
            host.take_datagrams(door, partial(self._came, query))
        return door

    def send_by_stream(self, query: int, server: "Server", data: bytes) -> bool:
        from .socket_host import SocketHost  # which imports this module

        if not isinstance(self._host, SocketHost):
            return False
        conn = self._host.node.next_id()
        self._host.reserve(conn)
        self._asking.setdefault(query, []).append(conn)
        self._host._spawn(self._ask_by_stream, self._host, query, conn, server, data)
        return True

    async def _ask_by_stream(
        self, host: "SocketHost[Any]", query: int, conn: int, server: "Server", data: bytes
    ) -> None:
        try:
            answer = await ask(host, conn, self._links, server, data)
        except OSError as error:
            if self._client is not None and self._asking.get(query, [0])[-1] == conn:
                self._client.failed(query, error, host.now())
        else:
            if self._client is not None:
                self._client.receive(query, answer, server, host.now(), by_stream=True)
        host.flush()

    def done(self, query: int) -> None:
        for conn in self._asking.pop(query, ()):
            if conn in self._links:
                self._links[conn].abort()
            else:
                self._host._close_transport(conn, True)
        for six in (False, True):
            door = self._doors.pop((query, six), None)
            if door is not None:
                self._host._close_door(door)

    def _came(self, query: int, data: bytes, source: "Server", now: float) -> None:
        if self._client is not None:
            self._client.receive(query, data, source, now)
