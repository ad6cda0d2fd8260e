"""One command under way: drives a lookup with requests of its kind, then maybe stores.

    walking --converged--> crowded? --yes--> walking the region --.
       |                      |                                    |
       |                      '--no--------------------------------+--> storing --> final event
       '-- enough found, deadline, cancelled ----------------------'

A command ends by its deadline whatever peers do: walking leaves time for storing, every request
has a deadline of its own.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..errors import DialError, Error, RemoteError, TimedOut
from ..events import Event
from ..peer_id import PeerId
from . import messages
from .contacts import Contact, read_contacts
from .events import DhtFailed
from .keys import key_of
from .messages import Message
from .query import Hop, Query, Reason, State, Walk
from .requests import Request
from .size import is_crowded, region

if TYPE_CHECKING:
    from .service import Kad

Then = Callable[[Event | None, float], object]


class Operation:
    """One command, or a lookup of our own, from its start to its final event."""

    stores = False
    """Whether something is stored after the walk, which needs a part of the time."""

    def __init__(
        self,
        kad: "Kad",
        request: int,
        key: bytes,
        ask: Message,
        walk: Walk,
        then: Then | None = None,
    ) -> None:
        """``then`` is called with the final event instead of emitting it."""
        self.kad = kad
        self.request = request
        self.key = key
        self.walk = walk
        self.query: Query | None = None
        self.crowded = False
        self._asked: dict[bytes, None] = {}
        self._data = messages.encode(ask)
        self._deadline = 0.0
        self._kind = ask.type
        self._requests: dict[PeerId, Request] = {}
        self._steps: list[Hop] = []
        """The trace of an earlier walk of the same command."""
        self._timer = 0
        self._stored: list[PeerId] = []
        self._refused = 0
        self._then = then

    @property
    def trace(self) -> tuple[Hop, ...]:
        """Everybody who was asked so far."""
        return (*self._steps, *(self.query.trace() if self.query is not None else ()))

    def start(self, now: float) -> None:
        """Begin to walk from the closest peers in the table."""
        kad, walk = self.kad, self.walk
        self._deadline = now + walk.timeout
        if self.stores:
            walk = replace(walk, timeout=max(walk.timeout - walk.peer_timeout, walk.timeout / 2))
        target = key_of(self.key)
        closest = kad.table.closest(target, walk.k)
        seeds = [Contact(one.peer, one.addresses, one.groups) for one in closest]
        query = Query(kad.context.peer_id, target, seeds, now, walk)
        if self.is_satisfied():
            query.stop()
        self._begin(query, now)

    def cancel(self, now: float) -> None:
        """Forget the command; no event follows."""
        if self.query is not None:
            self.query.stop(Reason.CANCELLED)
        self._clear(now)

    # What commands do differently.

    def is_satisfied(self) -> bool:
        """Whether nobody has to be asked at all."""
        return False

    def on_answer(self, hop: Hop, answer: Message, now: float) -> None:
        """Look at an answer. Raise RemoteError if it is wrong; call ``enough`` to end the walk."""

    def on_failure(self, hop: Hop, error: Exception, now: float) -> None:
        """A peer did not answer."""

    def on_walked(self, now: float) -> None:
        """The walk is over."""

    def on_stored(self, now: float) -> None:
        """Everybody who was to store something has, or has not."""

    # For them.

    @property
    def answered(self) -> bool:
        """Whether anybody answered."""
        return any(hop.state is State.ANSWERED for hop in self.trace)

    @property
    def reason(self) -> Reason:
        assert self.query is not None and self.query.done is not None
        return self.query.done

    def enough(self) -> None:
        """End the walk; ``on_walked`` follows."""
        assert self.query is not None
        self.query.stop()

    def closest(self) -> list[Hop]:
        """Who is responsible for the key, of those who answered."""
        assert self.query is not None
        return self.query.closest()

    def store(self, peers: Iterable[PeerId], message: Message, now: float) -> None:
        """Send a message to peers; ``on_stored`` follows when all have answered or failed."""
        kind, data = message.type, messages.encode(message)
        timeout = max(min(self.walk.peer_timeout, self._deadline - now), 0.0)
        for peer in peers:
            done = partial(self._on_stored, peer, message)
            try:
                self._requests[peer] = self.kad.requests.send_encoded(
                    peer, (), kind, data, timeout, done, now
                )
            except Error:
                self._refused += 1
        if not self._requests:
            self.on_stored(now)

    def finish(self, event: Event | None, now: float) -> None:
        """The command is over."""
        self._clear(now)
        self.kad.finished(self)
        if self._then is not None:
            self._then(event, now)
        elif event is not None:
            self.kad.context.emit(event)

    def fail(self, error: Exception, now: float) -> None:
        """The command is over, without success."""
        self.finish(DhtFailed(self.request, error, self.trace), now)

    def fail_alone(self, now: float) -> None:
        """The command is over, because nobody answered."""
        error: Exception = DialError(
            "no peer could be asked: connect to one, or name a bootstrap peer"
        )
        if self.reason is Reason.TIMED_OUT:
            error = TimedOut("no peer answered in time")
        elif self.trace:
            error = DialError(f"none of the {len(self.trace)} peers that were asked answered")
        self.fail(error, now)

    def fail_stored(self, now: float) -> None:
        """The command is over, because nobody took what was to be stored."""
        if not self._refused:
            self.fail_alone(now)
            return
        text = f"{self._refused} peers are responsible, and none of them stored it"
        error: Exception = DialError(text)
        if now >= self._deadline:
            error = TimedOut(text)
        self.fail(error, now)

    # Inside.

    def _begin(self, query: Query, now: float) -> None:
        self.query = query
        context = self.kad.context
        self._timer = context.call_at(query.deadline, "kad lookup", self._expire)
        self._advance(now)

    def _advance(self, now: float) -> None:
        query, requests = self.query, self.kad.requests
        assert query is not None
        while hops := query.ask(now):
            for hop in hops:
                self._asked[bytes(hop.peer)] = None
                done = partial(self._on_answer, hop)
                try:
                    self._requests[hop.peer] = requests.send_encoded(
                        hop.peer, hop.addresses, self._kind, self._data, self.walk.peer_timeout,
                        done, now,
                    )  # fmt: skip
                except Error as error:
                    self._on_failure(hop, error, now)
        if query.done is not None:
            self._walked(query, now)

    def _on_answer(
        self, hop: Hop, answer: Message | None, error: Exception | None, now: float
    ) -> None:
        query, kad = self.query, self.kad
        assert query is not None
        self._requests.pop(hop.peer, None)
        if answer is not None:
            try:
                self.on_answer(hop, answer, now)
            except RemoteError as wrong:
                kad.rejected += 1
                error = wrong
        if error is not None:
            self._on_failure(hop, error, now)
        else:
            assert answer is not None
            kad.members.on_useful(hop.peer, now)
            query.answered(hop.peer, self._contacts(answer, now), now)
        self._advance(now)

    def _on_failure(self, hop: Hop, error: Exception, now: float) -> None:
        assert self.query is not None
        self.query.failed(hop.peer, now)
        self.kad.members.on_useless(hop.peer, error)
        self.on_failure(hop, error, now)

    def _contacts(self, answer: Message, now: float) -> list[Contact]:
        """Whom an answer tells of, without those that nobody could reach."""
        kad = self.kad
        own, reach = kad.context.peer_id, kad.config.reach
        closer = answer.closer
        if self.walk.paths == 1:  # most were asked already, and reading them is most of the work
            closer = [one for one in closer if one.id not in self._asked]
        return [
            one
            for one in read_contacts(closer, own, reach)
            if one.addresses or kad.is_reachable(one.peer, now)
        ]

    def _expire(self, now: float) -> None:
        assert self.query is not None
        self.query.handle_timeout(now)
        self._walked(self.query, now)

    def _walked(self, query: Query, now: float) -> None:
        """Nobody else is asked. A crowded key is walked once more, in a wider circle."""
        self._clear(now)
        kad = self.kad
        over = query.done in (Reason.CONVERGED, Reason.STARVED)
        if over:
            kad.table.refreshed(query.target, now)
            size = kad.size.estimate
            distances = [hop.distance for hop in query.closest()]
            if (
                size is not None
                and not self.crowded
                and is_crowded(distances, query.walk.k, size)
                and query.deadline > now
            ):
                self.crowded = True
                self._widen(query, region(query.walk.k, size), now)
                return
        self.on_walked(now)

    def _widen(self, query: Query, distance: int, now: float) -> None:
        self._steps += query.trace()
        self._asked.clear()
        walk = replace(query.walk, timeout=query.deadline - now)
        seeds = [Contact(hop.peer, hop.addresses, hop.groups) for hop in query.candidates()]
        own = self.kad.context.peer_id
        self._begin(Query(own, query.target, seeds, now, walk, region=distance), now)

    def _on_stored(
        self,
        peer: PeerId,
        message: Message,
        answer: Message | None,
        error: Exception | None,
        now: float,
    ) -> None:
        self._requests.pop(peer, None)
        if error is None and answer is not None and message.record is not None:
            echo = answer.record
            if echo is None or echo.value != message.record.value:
                error = RemoteError("the peer did not store the value")
        if error is None:
            self._stored.append(peer)
        else:
            self._refused += 1
        if not self._requests:
            self.on_stored(now)

    def _clear(self, now: float) -> None:
        kad = self.kad
        kad.context.cancel(self._timer)
        waiting = list(self._requests.values())
        self._requests.clear()
        for request in waiting:
            kad.requests.cancel(request, now)
