"""What a server answers: one request in, one answer out, no stream in sight.

Spec: https://github.com/libp2p/specs/blob/master/kad-dht/README.md#rpc-messages

    FIND_NODE      the k closest of our table; the wanted peer itself first, if we know where it is
    GET_VALUE      the record if we have it, and the k closest
    PUT_VALUE      validated, and better than what we have: stored, echoed
    GET_PROVIDERS  who provides it, and the k closest
    ADD_PROVIDER   stored if the provider is the sender; not answered
    PING           echoed

Anything else is a DecodeError: the stream is reset, as go peers do.
"""

from collections.abc import Callable, Container, Sequence

from ..errors import DecodeError, RemoteError
from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from . import rfc3339
from .addresses import Reach, within
from .contacts import read_addresses, write_contact
from .keys import key_of
from .messages import MAX_PROVIDER_KEY, Message, Peer, Record, Type
from .records import Validators
from .store import Store, StoredRecord
from .table import Table

AddressBook = Callable[[PeerId, float], Sequence[Multiaddr]]


class Responder:
    """Answers from table and store. All calls take the caller's clock and the wall clock."""

    __slots__ = ("_addresses", "_age", "_connected", "_own", "_own_keys", "_reach", "_store",
                 "_table", "_validators")  # fmt: skip

    def __init__(
        self,
        *,
        own: PeerId,
        table: Table,
        store: Store,
        own_keys: Container[bytes],
        validators: Validators,
        addresses: AddressBook,
        connected: Callable[[PeerId], bool],
        reach: Reach,
        record_age: float,
    ) -> None:
        """``addresses``: where a peer is, also for ourselves. ``own_keys``: what we provide."""
        self._own = own
        self._table = table
        self._store = store
        self._own_keys = own_keys
        self._validators = validators
        self._addresses = addresses
        self._connected = connected
        self._reach = reach
        self._age = record_age

    def answer(self, sender: PeerId, request: Message, now: float, wall: float) -> Message | None:
        """The answer to an authenticated peer's request, None if there is none to give.

        Raises DecodeError for a request that is not right, and LocalError if the store fails.
        """
        answer = Message(request.type, request.key, cluster_level=request.cluster_level)
        kind = request.type
        if kind == Type.PING:
            return answer
        if not request.key:
            raise DecodeError("a Kademlia request without a key")
        if kind == Type.FIND_NODE:
            answer.key = b""
            answer.closer = self._closer(request.key, sender, now)
            self._prepend_target(answer.closer, request.key, sender, now)
        elif kind == Type.GET_VALUE:
            answer.record = self._record(request.key, wall)
            answer.closer = self._closer(request.key, sender, now)
        elif kind == Type.PUT_VALUE:
            answer.record = self._put(sender, request, wall)
        elif len(request.key) > MAX_PROVIDER_KEY:
            raise DecodeError(f"a provider's key has at most {MAX_PROVIDER_KEY} bytes")
        elif kind == Type.GET_PROVIDERS:
            answer.providers = self._providers(request.key, now, wall)
            answer.closer = self._closer(request.key, sender, now)
        else:
            self._add_provider(sender, request, wall)
            return None
        return answer

    def _closer(self, key: bytes, sender: PeerId, now: float) -> list[Peer]:
        """The k closest in the table, without the sender and without those that are nowhere."""
        closer: list[Peer] = []
        k = self._table.k
        for entry in self._table.closest(key_of(key), k + 1):
            addresses = self._addresses(entry.peer, now)
            if addresses and entry.peer != sender and len(closer) < k:
                closer.append(write_contact(entry.peer, addresses, self._connected(entry.peer)))
        return closer

    def _prepend_target(self, closer: list[Peer], key: bytes, sender: PeerId, now: float) -> None:
        """A peer that is looked for is told of even if it is no server."""
        try:
            target = PeerId(key)
        except DecodeError:
            return
        if target in (self._own, sender) or any(one.id == key for one in closer):
            return
        addresses = self._addresses(target, now)
        if addresses:
            closer.insert(0, write_contact(target, addresses, self._connected(target)))

    def _record(self, key: bytes, wall: float) -> Record | None:
        stored = self._store.get(key, wall)
        if stored is None or stored.received + self._age <= wall:
            return None
        received = rfc3339.spell(int(stored.received * rfc3339.SECOND))
        return Record(key, stored.value, received)

    def _put(self, sender: PeerId, request: Message, wall: float) -> Record:
        record = request.record
        if record is None or record.key != request.key:
            raise DecodeError("PUT_VALUE without a record for its key")
        key, value = record.key, record.value
        self._validators.validate(key, value, wall)
        # Only rust peers send a ttl; it can shorten the life of a record, not lengthen it.
        life = min(self._age, float(record.ttl)) if record.ttl else self._age
        stored = StoredRecord(key, value, wall, wall + life, bytes(sender))
        known = self._store.get(key, wall)
        if known is not None and known.value == value:
            # Whoever repeats a record must neither end its life early nor own it.
            stored.expires = max(stored.expires, known.expires)
            stored.sender = known.sender
        elif known is not None and self._is_worse(key, value, known.value, wall):
            raise DecodeError("PUT_VALUE with a record that is worse than the one that is here")
        if not self._store.put(stored, wall):
            raise DecodeError("PUT_VALUE for which there is no room")
        return Record(key, value)

    def _is_worse(self, key: bytes, value: bytes, known: bytes, wall: float) -> bool:
        """Whether a value that we know is better, and still valid."""
        if not self._validators.is_better(key, known, value):
            return False
        try:
            self._validators.validate(key, known, wall)
        except RemoteError:
            return False
        return True

    def _providers(self, key: bytes, now: float, wall: float) -> list[Peer]:
        found: list[Peer] = []
        if key in self._own_keys:
            found.append(write_contact(self._own, self._addresses(self._own, now), False))
        for one in self._store.providers(key, wall):
            addresses = within(one.addresses, self._reach) or self._addresses(one.peer, now)
            found.append(write_contact(one.peer, addresses, self._connected(one.peer)))
        return found

    def _add_provider(self, sender: PeerId, request: Message, wall: float) -> None:
        own = bytes(sender)
        for one in request.providers:
            if one.id == own and (addresses := read_addresses(one.addresses)):
                kept = tuple(within(addresses, self._reach))
                self._store.add_provider(request.key, sender, kept, wall)
                return
        raise DecodeError("ADD_PROVIDER without the sender as a provider with an address")
