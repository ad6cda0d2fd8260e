"""What a Kademlia service tells the application.

Every command ends with exactly one of its final events or with ``DhtFailed``, unless it was
cancelled. ``trace`` is everybody who was asked: who told of it, when, how far it is, what came of
it.

    find_peer          DhtPeerFound
    closest_peers      DhtClosestFound
    provide            DhtProvided
    find_providers     DhtProviderFound, any number of times, then DhtProvidersSearched
    put                DhtValuePut
    get                DhtValueFound
    search             DhtValueImproved, any number of times, then DhtValueFound
    bootstrap          DhtBootstrapped
"""

from dataclasses import dataclass

from ..events import Event, RequestId
from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from .contacts import Contact
from .providers import Provider
from .query import Hop, Reason

Trace = tuple[Hop, ...]


@dataclass(slots=True, eq=False, repr=False)
class DhtPeerFound(Event):
    """Where a peer is. ``connected``: it was reached there, and is who it should be."""

    request: RequestId
    peer: PeerId
    addresses: tuple[Multiaddr, ...]
    connected: bool
    trace: Trace


@dataclass(slots=True, eq=False, repr=False)
class DhtClosestFound(Event):
    """The peers closest to a key that answered, closest first.

    ``crowded``: there were suspiciously many near this very key, so the whole region was asked.
    """

    request: RequestId
    key: bytes
    peers: tuple[Contact, ...]
    reason: Reason
    crowded: bool
    trace: Trace


@dataclass(slots=True, eq=False, repr=False)
class DhtProvided(Event):
    """``holders`` were told that we provide a key; ``failed`` others could not be."""

    request: RequestId
    key: bytes
    holders: tuple[PeerId, ...]
    failed: int
    crowded: bool
    trace: Trace


@dataclass(slots=True, eq=False, repr=False)
class DhtProviderFound(Event):
    """Somebody is said to provide a key. Told twice if the addresses came later."""

    request: RequestId
    key: bytes
    provider: Provider


@dataclass(slots=True, eq=False, repr=False)
class DhtProvidersSearched(Event):
    """A search for providers is over, with ``found`` different ones."""

    request: RequestId
    key: bytes
    found: int
    reason: Reason
    crowded: bool
    trace: Trace


@dataclass(slots=True, eq=False, repr=False)
class DhtValuePut(Event):
    """``holders`` have stored a value; ``failed`` others have not."""

    request: RequestId
    key: bytes
    holders: tuple[PeerId, ...]
    failed: int
    crowded: bool
    trace: Trace


@dataclass(slots=True, eq=False, repr=False)
class DhtValueImproved(Event):
    """A valid value, better than all before."""

    request: RequestId
    key: bytes
    value: bytes


@dataclass(slots=True, eq=False, repr=False)
class DhtValueFound(Event):
    """The best value. ``behind`` have something else and are told."""

    request: RequestId
    key: bytes
    value: bytes
    holders: tuple[PeerId, ...]
    behind: tuple[PeerId, ...]
    rejected: int
    """Peers that gave something that is not valid for this key."""
    crowded: bool
    trace: Trace


@dataclass(slots=True, eq=False, repr=False)
class DhtBootstrapped(Event):
    """The table was filled as far as possible; it has ``size`` peers."""

    request: RequestId
    size: int


@dataclass(slots=True, eq=False, repr=False)
class DhtFailed(Event):
    """A command could not be carried out."""

    request: RequestId
    error: Exception
    trace: Trace


@dataclass(slots=True, eq=False, repr=False)
class DhtTableChanged(Event):
    """A peer came into the table of a network, or left it."""

    protocol: str
    peer: PeerId
    added: bool
    size: int


@dataclass(slots=True, eq=False, repr=False)
class DhtModeChanged(Event):
    """We answer requests of a network from now on, or do not any more."""

    protocol: str
    server: bool
