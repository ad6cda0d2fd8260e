"""Ending a connection in order: what was written is delivered, but nobody is waited for for ever.

open --start--> draining --all handed out--> finished --the peer closes--> gone
open --the peer closes--> finished --the transport ends--> gone
                draining, finished --nothing moves for 1 s, or close_timeout--> aborted
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .events import Action, CloseConnection
from .limits import Limits
from .timers import Timers

if TYPE_CHECKING:
    from .connection import Connection

PATIENCE = 1.0
"""Seconds that a peer may take nothing of what is left."""


class Owner(Protocol):
    """What closing needs from its node."""

    limits: Limits
    timers: Timers

    def act(self, action: Action) -> object: ...
    def touch(self, connection: "Connection") -> object: ...


@dataclass(slots=True)
class Drain:
    """How the delivery of what was written goes on."""

    deadline: float
    moved_at: float
    unsent: int


class Closing:
    """The ends of a node's connections. The connection's ``timer`` belongs to it from now on."""

    __slots__ = ("_owner",)

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def start(self, connection: "Connection", now: float) -> None:
        """Deliver what was written to an open connection, then close our direction."""
        owner = self._owner
        connection.closing = True
        drain = Drain(now + owner.limits.close_timeout, now, connection.unsent())
        connection.draining = drain
        for stream in list(connection.app_streams.values()):
            stream.write_eof()
        self._watch(connection, drain, now)
        self.check(connection, now)

    def check(self, connection: "Connection", now: float) -> None:
        """A draining connection handed something out: close our direction if that was all."""
        drain = connection.draining
        if drain is None or connection.finished or connection.error is not None:
            return
        unsent = connection.unsent()
        if unsent != drain.unsent:
            drain.unsent = unsent
            drain.moved_at = now
        if not unsent and not connection.wants_write:
            drain.moved_at = now
            self._finish(connection)
            self._watch(connection, drain, now)

    def ended_by_peer(self, connection: "Connection", now: float) -> None:
        """The peer closed its direction, and the connection was told: close ours."""
        if not connection.finished:
            self._finish(connection)
        if connection.draining is None:  # what a full transport holds may be read never
            owner = self._owner
            owner.timers.cancel(connection.timer)
            connection.timer = owner.timers.call_at(
                now + owner.limits.close_timeout, "close", lambda now: self.abort(connection, now)
            )

    def abort(self, connection: "Connection", now: float) -> None:
        """Drop everything at once."""
        connection.lost(None, now)
        connection.drop()
        self._owner.timers.cancel(connection.timer)
        self._owner.act(CloseConnection(connection.id, abort=True))

    def _finish(self, connection: "Connection") -> None:
        connection.finished = True
        if connection.blocked_since is None:
            connection.take_leave()
        if connection.wants_write:
            self._owner.touch(connection)
        else:
            self.said_goodbye(connection)

    def said_goodbye(self, connection: "Connection") -> None:
        """The last words of a finished connection were handed out, if it had any."""
        self._owner.act(CloseConnection(connection.id, abort=False))

    def _watch(self, connection: "Connection", drain: Drain, now: float) -> None:
        """Give up, or look again when it will be time to."""
        until = drain.deadline
        # Of what a full transport still holds, nobody can tell whether the peer takes it.
        if drain.unsent or connection.blocked_since is None:
            until = min(until, drain.moved_at + PATIENCE)
        timers = self._owner.timers
        timers.cancel(connection.timer)
        if now >= until:
            self.abort(connection, now)
        else:
            connection.timer = timers.call_at(
                until, "close", lambda now: self._watch(connection, drain, now)
            )
