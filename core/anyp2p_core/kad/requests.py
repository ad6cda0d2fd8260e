"""Requests of ours: connections and deadlines for them.

    send --connected--> a stream of the connection, see channels ----answer--> done
      |                                                       ^
      '--not connected--> dial, within the budget --connected-'
    silent until the deadline, refused, disconnected, malformed answer: done, with the error

What is not dialed in time because of our own budget fails with LimitReached, so that nobody takes
it for the peer's fault.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..connection import Connection
from ..dial_budget import DialBudget, is_counted
from ..errors import DialError, Error, LimitReached, LocalError, RemoteError, TimedOut
from ..events import DialFailed, Event, PeerConnected
from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from ..service import Context
from . import messages
from .channels import Link
from .config import KadConfig
from .framing import Held
from .messages import Message, Type

if TYPE_CHECKING:
    from .channels import Channel

Done = Callable[[Message | None, Exception | None, float], object]
"""Called with the answer (None if the request has none), or with the error."""


class Request:
    """One request under way. Cancel it with ``Requests.cancel``."""

    __slots__ = ("channel", "data", "done", "fresh", "peer", "queue", "timer", "type")

    def __init__(self, peer: PeerId, kind: int, data: bytes, done: Done) -> None:
        self.peer = peer
        self.type = kind
        self.data = data
        self.done: Done | None = done
        self.timer = 0
        self.channel: Channel | None = None
        """The stream that carries it."""
        self.queue: deque[Request] | None = None
        """Where it waits for one."""
        self.fresh = True
        """Not sent a second time yet."""

    @property
    def has_answer(self) -> bool:
        return self.type != Type.ADD_PROVIDER


@dataclass(slots=True)
class _Waiting:
    """Requests to a peer that is not connected yet."""

    addresses: list[Multiaddr]
    requests: dict[Request, None] = field(default_factory=dict)
    dial: int | None = None
    """None until the budget allows it."""


class Requests:
    """All requests to all peers of one network."""

    def __init__(self, context: Context, config: KadConfig, held: Held, budget: DialBudget) -> None:
        self.context = context
        self.config = config
        self.held = held
        self.refused = 0
        """Dials that the budget did not allow."""
        self._budget = budget
        self._dials: dict[int, PeerId] = {}
        self._ended: DialFailed | None = None
        """The last dial that failed, for those that do so at once."""
        self._links: dict[int, Link] = {}
        self._starting: deque[PeerId] = deque()
        self._start_timer = 0
        self._waiting: dict[PeerId, _Waiting] = {}

    def send(
        self,
        peer: PeerId,
        addresses: Sequence[Multiaddr],
        message: Message,
        timeout: float,
        done: Done,
        now: float,
    ) -> Request:
        """Send a request; ``done`` is called once, later, unless it is cancelled.

        ``addresses`` are tried besides those that are known. Raises Error, and calls nothing, when
        it cannot even be tried.
        """
        return self.send_encoded(
            peer, addresses, message.type, messages.encode(message), timeout, done, now
        )

    def send_encoded(
        self,
        peer: PeerId,
        addresses: Sequence[Multiaddr],
        kind: int,
        data: bytes,
        timeout: float,
        done: Done,
        now: float,
    ) -> Request:
        """The same for a message that is sent to many."""
        request = Request(peer, kind, data, done)
        connections = self.context.connections(peer)
        if connections:
            self._link(connections[0]).submit(request, now)
        else:
            self._dial(request, addresses, now)
        request.timer = self.context.call_at(
            now + timeout, "kad answer", lambda now: self._expire(request, timeout, now)
        )
        return request

    def cancel(self, request: Request, now: float) -> None:
        """Forget a request; its ``done`` is not called any more. Harmless when it is over."""
        if request.done is not None:
            request.done = None
            self._abandon(request, now)

    # Notices from the service.

    def on_connected(self, connection: Connection, now: float) -> None:
        """Send what waits for this peer."""
        assert connection.peer is not None
        for request in self._stop_waiting(connection.peer):
            try:
                self._link(connection).submit(request, now)
            except Error as error:
                self.finish(request, None, error, now)

    def on_disconnected(self, connection: Connection, now: float) -> None:
        """Its streams were reset before; what was queued behind them fails now."""
        link = self._links.pop(connection.id, None)
        if link is not None:
            link.fail(connection.error or RemoteError("the connection is lost"), now)

    def on_event(self, event: Event, now: float) -> None:
        """Learn how dials end."""
        if isinstance(event, PeerConnected):
            self._dials.pop(event.dial, None)
        elif isinstance(event, DialFailed):
            self._ended = event
            peer = self._dials.get(event.dial)
            if peer is not None:
                self._fail_waiting(peer, event.error, now)

    # For links and channels.

    def finish(
        self, request: Request, answer: Message | None, error: Exception | None, now: float
    ) -> None:
        """A request is over: tell whoever made it, once."""
        self.context.cancel(request.timer)
        request.channel = None
        done, request.done = request.done, None
        if done is not None:
            done(answer, error, now)

    # Inside.

    def _link(self, connection: Connection) -> Link:
        link = self._links.get(connection.id)
        if link is None:
            link = self._links[connection.id] = Link(self, connection)
        return link

    def _expire(self, request: Request, timeout: float, now: float) -> None:
        waiting = self._waiting.get(request.peer)
        error: Exception = TimedOut(f"no answer within {timeout:g} s")
        if waiting is not None and waiting.dial is None:
            error = LimitReached(f"dial_rate: {request.peer} had to wait for {timeout:g} s")
        self._abandon(request, now)
        self.finish(request, None, error, now)

    def _abandon(self, request: Request, now: float) -> None:
        """Take a request from wherever it is."""
        self.context.cancel(request.timer)
        channel, request.channel = request.channel, None
        if channel is not None:
            channel.abort(now)
            return
        waiting = self._waiting.get(request.peer)
        if waiting is not None and request in waiting.requests:
            del waiting.requests[request]
            if not waiting.requests:
                self._stop_waiting(request.peer)
            return
        if request.queue is not None:
            request.queue.remove(request)
            request.queue = None

    # Dialing.

    def _dial(self, request: Request, addresses: Sequence[Multiaddr], now: float) -> None:
        peer, context = request.peer, self.context
        if peer == context.peer_id:
            raise LocalError("a node does not ask itself")
        waiting = self._waiting.get(peer)
        if waiting is not None:
            if len(waiting.requests) >= self.config.max_queued_per_peer:
                raise LimitReached(
                    f"max_queued_per_peer: {len(waiting.requests)} requests wait for {peer}"
                )
            waiting.requests[request] = None
            return
        known = context.peers.addresses(peer, now)
        if not (known or addresses):
            raise DialError(f"cannot dial {peer}: no address is known")
        # The node dials all that it knows, so that these cannot be left out one by one.
        allowed = self._budget.allowed(addresses, now, known=known)
        if not allowed:
            self.refused += 1
            raise LimitReached(
                f"dial_interval: addresses of {peer} were dialed within the last "
                f"{self.config.dial_interval:g} s"
            )
        waiting = self._waiting[peer] = _Waiting(allowed, {request: None})
        if is_counted(allowed) and (self._starting or self._budget.wait(now)):
            self._starting.append(peer)
            self._arm(now)
            return
        error = self._start(peer, waiting, now)
        if error is not None:
            self._stop_waiting(peer)
            raise error

    def _start(self, peer: PeerId, waiting: _Waiting, now: float) -> Exception | None:
        """Dial now; returns the error if that failed at once."""
        try:
            hearsay = not any(one in self.config.bootstrap for one in waiting.addresses)
            dial = self.context.dial(peer, waiting.addresses, now, hearsay=hearsay)
        except LocalError as error:
            return error
        if self._ended is not None and self._ended.dial == dial:
            return self._ended.error  # every address was tried lately
        waiting.dial = dial
        self._dials[dial] = peer
        return None

    def _arm(self, now: float) -> None:
        if not self._start_timer:
            delay = 1 / self.config.dial_rate
            self._start_timer = self.context.call_at(now + delay, "kad dial", self._start_next)

    def _start_next(self, now: float) -> None:
        """Start dials for which the budget has tokens again."""
        self._start_timer = 0
        starting = self._starting
        while starting:
            waiting = self._waiting.get(starting[0])
            if waiting is not None and waiting.dial is None:
                if self._budget.wait(now):
                    self._arm(now)
                    return
                peer = starting.popleft()
                error = self._start(peer, waiting, now)
                if error is not None:
                    self._fail_waiting(peer, error, now)
            else:  # nobody waits any more, or it has connected by itself
                starting.popleft()

    def _stop_waiting(self, peer: PeerId) -> list[Request]:
        """Forget the dial to a peer; returns what waited for it."""
        waiting = self._waiting.pop(peer, None)
        if waiting is None:
            return []
        if waiting.dial is not None:
            self._dials.pop(waiting.dial, None)
        return list(waiting.requests)

    def _fail_waiting(self, peer: PeerId, error: Exception, now: float) -> None:
        for request in self._stop_waiting(peer):
            self.finish(request, None, error, now)
