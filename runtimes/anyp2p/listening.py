"""Where a host listens: sockets that several transports share, and what others are told of them.

/ip4/0.0.0.0/tcp/4001      told as the addresses of all interfaces
/ip4/0.0.0.0/tcp/4001/ws   at the same port: no second socket, the first bytes tell them apart
"""

import socket
from contextlib import suppress
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from anyp2p_core.carriers import PLAIN, Offers
from anyp2p_core.errors import ListenError, LocalError
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.route import MEMORY, TCP, TLS, Route, route, same_socket, with_layers

from . import memory
from .sockets import listen_error

if TYPE_CHECKING:
    from .host import BaseHost

_ANYWHERE = {"0.0.0.0": "ip4", "::": "ip6"}


class Listening:
    """The listening sockets of one host."""

    def __init__(self, host: "BaseHost[Any]") -> None:
        self._host = host
        self._offers: dict[Multiaddr, Offers] = {}
        """By the address that a socket is bound to."""
        self._layered = False

    async def open(self, address: Multiaddr) -> list[Multiaddr]:
        """Listen on one more address; returns where we can be dialed now."""
        host = self._host
        found = route(address)
        try:
            host.node.check_transport(address)
            if TLS in found.layers and host.channels.web_certificate is None:
                raise LocalError("web TLS needs web_certificate=(chain file, key file)")
        except LocalError as error:
            raise LocalError(f"cannot listen on {address}: {error}") from None
        if found.quic:
            try:
                return expand(host._listen_quic(address))
            except OSError as error:
                raise listen_error(address, error) from None
        plain = same_socket(address)
        if plain in self._offers and found.layers not in self._offers[plain]:
            bound = [plain]
        elif found.kind == MEMORY:
            bound = await self._open_memory(found, address)
        else:
            try:
                bound = await host._listen(plain)
            except ListenError as error:
                text = str(error.strerror).replace(f"{plain}:", f"{address}:")
                raise ListenError(error.errno, text) from None
        told = []
        for socket_address in bound:
            self._offers[socket_address] = (*self._offers.get(socket_address, ()), found.layers)
            told += [with_layers(one, found.layers) for one in expand(socket_address)]
        self._layered = self._layered or bool(found.layers)
        return told

    async def _open_memory(self, found: Route, address: Multiaddr) -> list[Multiaddr]:
        try:
            number = memory.take(found.port)
        except OSError as error:
            raise listen_error(address, error) from None
        try:
            return await self._host._listen(memory.address_of(number))
        except BaseException:
            memory.give_back(number)
            raise

    def offers(self, local: Multiaddr | None) -> Offers:
        """What a connection that came to ``local`` may be."""
        if not self._layered or local is None:
            return PLAIN
        offers = self._offers.get(local)
        if offers is None:  # the socket is bound to all addresses
            found = route(local)
            for anywhere, family in _ANYWHERE.items():
                if found.kind == TCP and found.family == family:
                    bound = Multiaddr(f"/{family}/{anywhere}/tcp/{found.port}")
                    offers = self._offers.get(bound)
        return offers or PLAIN


def expand(address: Multiaddr) -> list[Multiaddr]:
    """The address of every interface in place of 0.0.0.0 or ``::``; link-local ones are left out.

    >>> expand(Multiaddr("/ip4/192.0.2.1/tcp/1"))
    [Multiaddr('/ip4/192.0.2.1/tcp/1')]
    """
    first = address.components[0]
    if _ANYWHERE.get(first.value) != first.name:
        return [address]
    rest = str(address).removeprefix(f"/{first.name}/{first.value}")
    hosts = interface_addresses(first.name)
    return [Multiaddr(f"/{first.name}/{host}{rest}") for host in hosts] or [address]


def interface_addresses(family: str) -> list[str]:
    """Addresses of this machine, of ``ip4`` or ``ip6``: loopback first, nothing link-local.

    All of them with the package ifaddr, otherwise the one towards the internet and loopback.
    """
    six = family == "ip6"
    hosts: list[str] = []
    if find_spec("ifaddr"):
        import ifaddr

        for adapter in ifaddr.get_adapters():
            for one in adapter.ips:
                if one.is_IPv6 == six:
                    hosts.append(str(one.ip[0] if six else one.ip))
    else:
        hosts += _towards_the_internet(six)
        hosts.append("::1" if six else "127.0.0.1")
    usable = [host for host in hosts if not ip_address(host.partition("%")[0]).is_link_local]
    return sorted(dict.fromkeys(usable), key=lambda host: host not in ("::1", "127.0.0.1"))


def _towards_the_internet(six: bool) -> list[str]:
    """What the routing table would send from; nothing is sent."""
    target = ("2001:db8::1", 9) if six else ("192.0.2.1", 9)
    family = socket.AF_INET6 if six else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(target)
        return [str(probe.getsockname()[0])]
    return []
