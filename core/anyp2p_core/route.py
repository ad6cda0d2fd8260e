"""What an address asks a runtime and a node to do: where to connect, and what to put on top.

    /ip4/192.0.2.1/tcp/4001                      a TCP connection
    /dns4/example.org/tcp/443/tls/ws             the same, with WebSocket over web TLS on it
    /ip6/2001:db8::1/udp/4001/quic-v1            datagrams that carry QUIC
    /unix/run/app.sock    /memory/7              a Unix socket; a place in this process

Spec: https://github.com/libp2p/specs/blob/master/addressing/README.md
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from .errors import LocalError
from .multiaddr import Component, Multiaddr

TCP, UDP, UNIX, MEMORY = "tcp", "udp", "unix", "memory"
WS, TLS = "ws", "tls"
"""Layers, the one next to the socket first: WebSocket over web TLS is ``("tls", "ws")``."""

HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")


@dataclass(slots=True)
class Route:
    """An address taken apart."""

    kind: str
    """TCP, UDP, UNIX or MEMORY."""
    family: str = ""
    """Of ``host``: ip4, ip6, dns, dns4 or dns6."""
    host: str = ""
    """With the zone of a link-local address behind a percent sign."""
    port: int = 0
    """Of TCP and UDP; the number of a memory address."""
    path: str = ""
    """Of a Unix socket."""
    layers: tuple[str, ...] = ()
    quic: bool = False
    sni: str = ""
    """The name that a certificate must be for."""
    http_path: str = "/"

    @property
    def authority(self) -> str:
        """What stands in an HTTP Host header."""
        host = self.sni or self.host.partition("%")[0]
        with suppress(UnicodeError):  # what cannot be encoded is refused by who sends it
            host = host.encode("idna").decode()
        if ":" in host:
            host = f"[{host}]"
        default = 443 if TLS in self.layers else 80
        return host if self.port == default else f"{host}:{self.port}"


@lru_cache(maxsize=1024)
def route(address: Multiaddr) -> Route:
    """Take an address apart. Raises LocalError for what this project has no transport for.

    A final /p2p is ignored. Not to be changed: who asks for the same gets the same.

    >>> route(Multiaddr("/dns4/example.org/tcp/443/wss")).layers
    ('tls', 'ws')
    """
    where, _ = address.split_peer()
    if where is None:
        raise _unknown(address)
    parts = where.components
    if parts[0].name == "unix" and len(parts) == 1:
        return Route(UNIX, path=parts[0].value)
    if parts[0].name == "memory" and len(parts) == 1:
        return Route(MEMORY, port=int(parts[0].value))
    zone = ""
    if parts[0].name == "ip6zone":
        zone = "%" + parts[0].value
        parts = parts[1:]
    if len(parts) < 2 or parts[0].name not in HOSTS or (zone and parts[0].name != "ip6"):
        raise _unknown(address)
    found = Route(parts[1].name, parts[0].name, parts[0].value + zone)
    if found.kind == TCP:
        found.port = int(parts[1].value)
        _read_layers(found, parts[2:], address)
    elif found.kind == UDP and [part.name for part in parts[2:]] in ([], ["quic-v1"]):
        found.port = int(parts[1].value)
        found.quic = len(parts) == 3
    else:
        raise _unknown(address)
    return found


def same_socket(address: Multiaddr) -> Multiaddr:
    """The address without what is on top of its socket, and without who is there.

    >>> str(same_socket(Multiaddr("/ip4/192.0.2.1/tcp/443/tls/ws")))
    '/ip4/192.0.2.1/tcp/443'
    """
    found = route(address)
    if not (found.layers or found.quic):
        return address.split_peer()[0] or address
    end = address.names.index(found.kind) + 1
    text = "".join(f"/{part.name}/{part.value}" for part in address.components[:end])
    return Multiaddr(text)


def with_layers(address: Multiaddr, layers: tuple[str, ...]) -> Multiaddr:
    """The address of a socket, and what is on top of it."""
    return Multiaddr(str(address) + "".join(f"/{name}" for name in layers)) if layers else address


def _read_layers(found: Route, parts: tuple[Component, ...], address: Multiaddr) -> None:
    names = [part.name for part in parts]
    if len(names) > 1 and names[-1] == "http-path":
        # The slashes of the path are escaped for the address alone.
        found.http_path = "/" + parts[-1].value.replace("%2F", "/").lstrip("/")
        names.pop()
    sni = ""
    if names[:2] == ["tls", "sni"]:
        sni = parts[1].value
        del names[1]
    match names:
        case []:
            pass
        case ["ws"]:
            found.layers = (WS,)
        case ["wss"] | ["tls", "ws"]:
            found.layers = (TLS, WS)
        case _:
            raise _unknown(address)
    if TLS in found.layers:
        found.sni = sni or found.host.partition("%")[0]


def _unknown(address: Multiaddr) -> LocalError:
    return LocalError(
        f"{address}: there is no transport for it; known are /tcp, also with /ws or /tls/ws, "
        "/udp with /quic-v1, /unix and /memory"
    )
