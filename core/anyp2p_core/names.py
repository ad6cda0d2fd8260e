"""Addresses that begin with a name, made into addresses that can be dialed.

Spec: https://github.com/libp2p/specs/blob/master/addressing/README.md#dnsaddr-links

    /dns4/<name>/...       A records           /ip4/<record>/...
    /dns6/<name>/...       AAAA records        /ip6/<record>/...
    /dns/<name>/...        both
    /dnsaddr/<name>/...    TXT records of _dnsaddr.<name>, each "dnsaddr=<address>"; those addresses
                           that end with what follows the name, which may begin with names again

    add -> lookups, each answer: addresses found, or more lookups -> on_done
        -> 10 s -> on_done with what is missing

Where the name goes: ``Resolved.target`` begins with an IP address; a socket connects to it.
``Resolved.address`` is the same with the name, as it stood before A or AAAA records replaced it:
what TLS (server name, certificate), HTTP (Host header), the peerstore and people get to see.
Behind a /dnsaddr both come from its TXT record. Neither ends with /p2p: that is ``Resolved.peer``.

What answers say is not trusted. They cost at most MAX_LEVELS, MAX_LOOKUPS and MAX_RESULTS; an
entry that cannot be read is skipped, and one that leads to another peer than asked for as well.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from . import varint
from .errors import DecodeError, Error, RemoteError, TimedOut
from .multiaddr import Multiaddr
from .peer_id import PeerId
from .resolver import Kind, LookupFailed, Resolver
from .timers import Timers

MAX_LEVELS = 4
"""/dnsaddr behind /dnsaddr."""
MAX_LOOKUPS = 32
"""Questions that one resolution asks."""
MAX_RESULTS = 64
"""Addresses that one resolution finds."""
MAX_RECORDS = 256
"""Records of one answer that are looked at."""
MAX_REASONS = 4
"""Explanations of one failure."""
TIMEOUT = 10.0
"""Seconds for everything that is under way."""

NAMES = ("dns", "dns4", "dns6", "dnsaddr")


class Resolved(NamedTuple):
    """An address that can be dialed; see above."""

    address: Multiaddr
    target: Multiaddr
    peer: PeerId | None


class Owner(Protocol):
    """What looking names up needs from the node."""

    timers: Timers


OnFound = Callable[[Multiaddr, Resolved, float], object]
"""Gets the address that was asked for, and one that it stands for."""
OnDone = Callable[[Multiaddr, Exception | None, float], object]
"""Gets the address that was asked for, and why nothing was found for it, if nothing was."""


def is_name(address: Multiaddr) -> bool:
    """Whether an address begins with a name."""
    return address.names[0] in NAMES


class Names:
    """Resolves names for one node."""

    __slots__ = ("_owner", "_resolver")

    def __init__(self, owner: Owner, resolver: Resolver) -> None:
        self._owner = owner
        self._resolver = resolver

    def start(self, on_found: OnFound, on_done: OnDone) -> "Resolution":
        """A resolution of addresses that belong together, and share its limits."""
        return Resolution(self._owner, self._resolver, on_found, on_done)


class Resolution:
    """All the names of one dial."""

    __slots__ = (
        "_added", "_lookups", "_on_done", "_on_found", "_owner", "_resolver", "_results", "_roots",
        "_seen", "_timer",
    )  # fmt: skip

    def __init__(
        self, owner: Owner, resolver: Resolver, on_found: OnFound, on_done: OnDone
    ) -> None:
        self._added: dict[Multiaddr, None] = {}
        self._lookups = 0
        self._on_done = on_done
        self._on_found = on_found
        self._owner = owner
        self._resolver = resolver
        self._results = 0
        self._roots: dict[Multiaddr, _Root] = {}
        self._seen: dict[Multiaddr, None] = {}
        self._timer = 0

    @property
    def busy(self) -> bool:
        """Whether answers are awaited. ``on_done`` comes once for each address until it ends."""
        return bool(self._roots)

    def add(self, address: Multiaddr, expected: PeerId | None, now: float) -> None:
        """Resolve an address of ``expected``, or of anybody. Callbacks may come at once.

        An address that was added before is ignored.
        """
        if address in self._added:
            return
        self._added[address] = None
        root = self._roots[address] = _Root(address)
        if not self._timer:
            self._timer = self._owner.timers.call_at(now + TIMEOUT, "look up names", self._expired)
        _, named = address.split_peer()
        asked = address
        try:
            if expected is not None and named is None and address.names[0] == "dnsaddr":
                asked = address / f"/p2p/{expected}"
            if expected is not None and named is not None and named != bytes(expected):
                raise LookupFailed(f"it names another peer than {expected}")
        except RemoteError as error:
            root.why(str(error))
        else:
            self._visit(root, asked, 0, now)
        self._release(root, now)

    def cancel(self) -> None:
        """Nobody wants to know any more: no callback follows."""
        self._owner.timers.cancel(self._timer)
        self._timer = 0
        self._roots.clear()

    def _visit(self, root: "_Root", address: Multiaddr, level: int, now: float) -> None:
        """Ask what a name stands for, once."""
        if address in self._seen:
            root.why(f"{address} is looked up already")
            return
        self._seen[address] = None
        name = address.components[0]
        if name.name == "dnsaddr":
            if level >= MAX_LEVELS:
                root.why(f"more than {MAX_LEVELS} levels of /dnsaddr")
                return

            def follow(records: list[str], now: float) -> None:
                self._follow(root, address, records, level + 1, now)

            self._ask(root, f"_dnsaddr.{name.value}", "TXT", follow, now)
            return
        for kind in _KINDS[name.name]:

            def replace(records: list[str], now: float, kind: Kind = kind) -> None:
                self._replace(root, address, kind, records, now)

            self._ask(root, name.value, kind, replace, now)

    def _ask(self, root: "_Root", name: str, kind: Kind, then: "_Then", now: float) -> None:
        if self._roots.get(root.address) is not root:
            return  # a callback has cancelled
        if self._lookups >= MAX_LOOKUPS:
            root.why(f"more than {MAX_LOOKUPS} lookups")
            return
        self._lookups += 1
        root.pending += 1
        waiting = True

        def answered(records: list[str] | Exception, now: float) -> None:
            nonlocal waiting
            if not waiting or self._roots.get(root.address) is not root:
                return  # answered before, or given up
            waiting = False
            if isinstance(records, Exception):
                root.why(f"{name}: {str(records) or type(records).__name__}")
            elif not records:
                root.why(f"{name} has no {kind} records")
            else:
                then(records[:MAX_RECORDS], now)
            self._release(root, now)

        try:
            self._resolver.query(name, kind, answered, now)
        except Error as error:
            answered(error, now)

    def _follow(
        self, root: "_Root", asked: Multiaddr, records: list[str], level: int, now: float
    ) -> None:
        """TXT records: each an address, or another name."""
        suffix = asked.components[1:]
        fits = False
        for record in records:
            key, _, text = record.partition("=")
            try:
                address = Multiaddr(text) if key == "dnsaddr" else None
            except DecodeError:
                continue
            if address is None or (suffix and address.components[-len(suffix) :] != suffix):
                continue
            fits = True
            if is_name(address):
                self._visit(root, address, level, now)
            else:
                self._found(root, address, address, now)
        if not fits:
            root.why(f"_dnsaddr.{asked.components[0].value} says nothing of {asked}")

    def _replace(
        self, root: "_Root", asked: Multiaddr, kind: Kind, records: list[str], now: float
    ) -> None:
        """A and AAAA records: each takes the place of the name."""
        name = asked.components[0]
        rest = bytes(asked)[len(varint.delimited(name.raw)) + 1 :]
        for record in records:
            try:
                host = Multiaddr(f"/ip4/{record}" if kind == "A" else f"/ip6/{record}")
                target = Multiaddr.from_bytes(bytes(host) + rest)
            except DecodeError:
                root.why(f"{name.value} has an {kind} record that is no IP address")
            else:
                self._found(root, asked, target, now)

    def _found(self, root: "_Root", address: Multiaddr, target: Multiaddr, now: float) -> None:
        where, _ = address.split_peer()
        destination, peer = target.split_peer()
        if where is None or destination is None:
            root.why("a peer id is no address")
        elif self._results < MAX_RESULTS and root.address in self._roots:
            self._results += 1
            root.found = True
            expected = PeerId(peer) if peer is not None else None
            self._on_found(root.address, Resolved(where, destination, expected), now)

    def _release(self, root: "_Root", now: float) -> None:
        """One thing less to wait for."""
        root.pending -= 1
        if root.pending or self._roots.get(root.address) is not root:
            return
        self._finish(root, LookupFailed("; ".join(root.reasons)), now)

    def _expired(self, now: float) -> None:
        self._timer = 0
        for root in list(self._roots.values()):
            if root.address in self._roots:  # a callback may have cancelled
                self._finish(root, TimedOut(f"no DNS answer within {TIMEOUT:g} s"), now)

    def _finish(self, root: "_Root", error: Exception, now: float) -> None:
        del self._roots[root.address]
        if not self._roots:
            self._owner.timers.cancel(self._timer)
            self._timer = 0
        self._on_done(root.address, None if root.found else error, now)


class _Root:
    """One address that was asked for."""

    __slots__ = ("address", "found", "pending", "reasons")

    def __init__(self, address: Multiaddr) -> None:
        self.address = address
        self.found = False
        self.pending = 1
        """Questions without an answer, and ``add`` itself."""
        self.reasons: dict[str, None] = {}

    def why(self, reason: str) -> None:
        """Something that explains, together with others, why nothing may be found."""
        if len(self.reasons) < MAX_REASONS:
            self.reasons[reason] = None


_Then = Callable[[list[str], float], object]
_KINDS: dict[str, tuple[Kind, ...]] = {"dns": ("A", "AAAA"), "dns4": ("A",), "dns6": ("AAAA",)}
