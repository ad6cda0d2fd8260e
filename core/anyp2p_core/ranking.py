"""In which order, and how far apart, the addresses of one peer are tried.

https://www.rfc-editor.org/rfc/rfc8305 (happy eyeballs)

    stage      QUIC -> TCP -> WebSocket -> others, the next one a step after the last of a stage
    in a stage best IPv6 -> a step -> best IPv4 -> a step -> all others
               with one family: the best -> a step -> all others
    step       250 ms to public addresses, 30 ms to private ones, whose stages run beside each other
    relays     the same stages, two steps later if a public address may be reached directly

The figures are those of go peers. Loopback comes first. Then lower ports: they are the ones people
configure, and high ones are often left over from a NAT.
"""

from collections.abc import Callable, Iterable
from itertools import chain, repeat
from operator import itemgetter

from .multiaddr import Component, Multiaddr
from .scope import LOOPBACK, PUBLIC, scope

STAGGER = 0.25
"""Seconds of a step to public addresses."""
PRIVATE = 0.12
"""What part of it is enough to private addresses."""

WhyNot = Callable[[Multiaddr], str | None]
"""What is missing to dial an address, None if nothing is."""


def rank(
    addresses: Iterable[Multiaddr], *, stagger: float = STAGGER
) -> list[tuple[float, Multiaddr]]:
    """Order addresses, without repeats, each with the seconds after which its attempt starts.

    WebSocket is left out where bare TCP is at the same IP and port, and so is WebTransport where
    QUIC is. Names count as public IPv4, what is inside this machine as private.

    >>> texts = ["/ip4/1.2.3.4/tcp/9/ws", "/ip4/1.2.3.4/tcp/9", "/ip6/2600::1/tcp/9"]
    >>> rank(map(Multiaddr, texts))
    [(0.0, Multiaddr('/ip6/2600::1/tcp/9')), (0.25, Multiaddr('/ip4/1.2.3.4/tcp/9'))]
    """
    addresses = list(dict.fromkeys(addresses))
    if len(addresses) < 2:  # nothing to compare with
        return [(0.0, address) for address in addresses]
    private: list[_Entry] = []
    public: list[_Entry] = []
    relayed: list[_Entry] = []
    for entry in _distinct(addresses):
        if entry.kind & _RELAYED:
            relayed.append(entry)
        elif entry.private:
            private.append(entry)
        else:
            public.append(entry)
    step = stagger * PRIVATE
    ranked = _staircase(private, step, stagger * 0.4) + _staircase(public, stagger, stagger * 4)
    offset = stagger * 2 if public else 0.0
    ranked += [
        (offset + delay, address) for delay, address in _staircase(relayed, stagger, stagger * 4)
    ]
    ranked.sort(key=itemgetter(0))
    return ranked


def unusable(address: Multiaddr) -> str | None:
    """Why an address that others told of leads nowhere from any machine, None if it may not.

    >>> unusable(Multiaddr("/ip4/0.0.0.0/tcp/4001"))
    'it names no host'
    """
    data = bytes(address)
    if data[0] == _IP4:
        ip = data[1:5]
        if ip[0] == 0:
            return "it names no host"
        if ip[0] >= 224:
            return "it is a multicast or reserved address"
    elif data[0] == _IP6:
        ip = data[1:17]
        if not any(ip):
            return "it names no host"
        if ip[0] == 0xFF:
            return "it is a multicast address"
        if ip[0] == 0xFE and ip[1] & 0xC0 == 0x80:
            return "a link-local address needs a zone"
    if _port(address) == 0 and ("tcp" in address.names or "udp" in address.names):
        return "it has no port"
    return None


# Kinds, best first. A stage is all that has the same number without its lowest bit.
_QUIC, _WEBTRANSPORT = 0, 1
_LOCAL, _TCP = 2, 3
_WS = 4
_OTHER = 6
_RELAYED = 8

_IP4, _IP6 = 4, 41
_IP = ("ip4", "ip6", "ip6zone")
_SIX = ("ip6", "ip6zone", "dns6")


class _Entry:
    """An address with what it is ordered by."""

    __slots__ = ("address", "key", "kind", "private", "six")

    def __init__(self, address: Multiaddr) -> None:
        self.address = address
        self.kind = _kind(address.names)
        first = address.names[0]
        where = scope(address) if first in _IP else PUBLIC
        self.private = where < PUBLIC or self.kind == _LOCAL
        self.six = first in _SIX
        self.key = (self.kind, where > LOOPBACK, not self.six, _port(address))


def _kind(names: tuple[str, ...]) -> int:
    relayed = 0
    if "p2p-circuit" in names:
        relayed, names = _RELAYED, names[: names.index("p2p-circuit")]
    if "udp" in names:
        if "quic-v1" not in names:
            kind = _OTHER
        else:
            kind = _WEBTRANSPORT if "webtransport" in names else _QUIC
    elif "tcp" in names:
        kind = _WS if "ws" in names or "wss" in names else _TCP
    else:
        kind = _LOCAL if names[:1] in (("memory",), ("unix",)) else _OTHER
    return kind | relayed


def _port(address: Multiaddr) -> int:
    return int(address.get("tcp") or address.get("udp") or 0)


def _distinct(addresses: Iterable[Multiaddr]) -> list[_Entry]:
    entries = [_Entry(address) for address in dict.fromkeys(addresses)]
    better = {_place(entry.address): None for entry in entries if entry.kind in (_TCP, _QUIC)}
    return [
        entry
        for entry in entries
        if entry.kind not in (_WS, _WEBTRANSPORT) or _place(entry.address) not in better
    ]


def _place(address: Multiaddr) -> tuple[Component, ...]:
    """Host, transport and port."""
    names = address.names
    end = names.index("tcp" if "tcp" in names else "udp")
    return address.components[: end + 1]


def _staircase(entries: list[_Entry], step: float, pause: float) -> list[tuple[float, Multiaddr]]:
    """``pause`` is what precedes addresses of unknown kinds, which come all at once."""
    ranked: list[tuple[float, Multiaddr]] = []
    stages: dict[int, list[_Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.key):
        stages.setdefault(entry.kind & ~1, []).append(entry)
    for stage, members in stages.items():
        other = stage & _OTHER == _OTHER
        start = ranked[-1][0] + (pause if other else step) if ranked else 0.0
        second = rest = 0.0 if other else step
        four = next((at for at, entry in enumerate(members) if not entry.six), 0)
        if four and not other:
            members.insert(1, members.pop(four))
            rest = 2 * step
        ranked += [
            (start + delay, entry.address)
            for delay, entry in zip(chain((0.0, second), repeat(rest)), members, strict=False)
        ]
    return ranked
