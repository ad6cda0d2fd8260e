"""The streams of one session, and what all muxers do alike with them: bounds, resets, the end.

    open, or the peer's    -->  streams  --both directions over-->  _forget
    too much is unread     -->  _shed, the largest                    ^
    close                  -->  every stream is told ------------------'

A muxer's session derives from this.
"""

from operator import attrgetter
from typing import Any, Generic, TypeVar

from .errors import MuxerError
from .limits import Limits
from .muxed_stream import MuxedStream

S = TypeVar("S", bound=MuxedStream[Any])

_unread = attrgetter("unread")


class MuxedSession(Generic[S]):
    """``unread`` counts what was received and neither credited nor dropped, of all streams."""

    __slots__ = (
        "limits", "streams", "unread",
        "_closed", "_failed", "_inbound", "_outbound", "_resets", "_resets_since",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.streams: dict[int, S] = {}
        self.unread = 0
        self._closed = False
        self._failed = ""
        self._inbound = 0
        self._outbound = 0
        self._resets = 0
        self._resets_since = float("-inf")

    def close(self, now: float) -> None:
        """The connection is lost: every stream gets ``on_reset(0, now)``, in opening order."""
        if self._closed:
            return
        self._closed = True
        callbacks = []
        for stream in list(self.streams.values()):
            callbacks.append(stream.on_reset)
            stream.is_reset = True
            self._forget(stream)
        for on_reset in callbacks:
            on_reset(0, now)

    # Inside, for streams too.

    def _largest(self) -> S:
        """The stream with most unread bytes."""
        return max(self.streams.values(), key=_unread)

    def _shed(self, stream: S, code: int, now: float) -> None:
        """Reset a stream: more bytes are unread than we hold."""
        self._count_reset(now)
        on_reset = stream.on_reset
        stream.shed = True
        stream._abort(code)
        on_reset(code, now)

    def _count_reset(self, now: float) -> None:
        """Open and reset costs the peer little and us much: so often and no more."""
        if now - self._resets_since >= self.limits.resets_period:
            self._resets_since = now
            self._resets = 0
        self._resets += 1
        if self._resets > self.limits.max_resets:
            raise self._fail(f"{self._resets} streams were reset within a few seconds")

    def _forget(self, stream: S) -> None:
        """The stream is finished."""
        del self.streams[stream.id]
        if stream.inbound:
            self._inbound -= 1
        else:
            self._outbound -= 1
        if stream._queued:
            stream._outbox.remove(stream)
        stream._finish()

    def _fail(self, problem: str) -> MuxerError:
        """Return the error to raise; the session takes no more input."""
        self._failed = problem
        return MuxerError(problem)
