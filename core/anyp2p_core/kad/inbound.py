"""A stream on which a peer sends requests, one after the other.

idle --bytes--> reading --whole request--> answered --> idle
idle for 60 s, or reading one request for 10 s, or malformed, or answers left unread: reset
end of stream: ours ends too, when the answers are sent
"""

from collections.abc import Callable

from ..connection import Connection
from ..errors import Error
from ..muxer import Stream
from ..service import Context
from .config import KadConfig
from .framing import Framing, Held
from .messages import MAX_REQUEST


class Inbound:
    """One such stream. ``respond`` makes the answer to a request, or None, or raises Error."""

    __slots__ = ("_armed_at", "_config", "_connection", "_context", "_due", "_frames", "_over",
                 "_respond", "_timer", "stream")  # fmt: skip

    def __init__(
        self,
        stream: Stream,
        connection: Connection,
        *,
        context: Context,
        config: KadConfig,
        held: Held,
        respond: Callable[[bytes, float], bytes | None],
        over: Callable[["Inbound"], object],
        now: float,
    ) -> None:
        """``over`` is called once, when the stream needs no care any more."""
        self.stream = stream
        self._config = config
        self._connection = connection
        self._context = context
        self._frames = Framing(MAX_REQUEST, held)
        self._over: Callable[[Inbound], object] | None = over
        self._respond = respond
        self._due = self._armed_at = now + config.inbound_idle
        self._timer = context.call_at(self._due, "kad request", self._expire)
        stream.on_data = self._on_data
        stream.on_eof = self._on_eof
        stream.on_reset = self._on_reset

    def reset(self) -> None:
        """Abort the stream."""
        self.stream.reset()
        self._context.touch(self._connection)
        self._close()

    def _on_data(self, data: bytes, now: float) -> None:
        stream, frames = self.stream, self._frames
        stream.credit(len(data), now)
        begun = frames.pending > 0
        try:
            requests = frames.receive(data)
            for request in requests:
                answer = self._respond(request, now)
                if answer and stream.write(answer) < len(answer):
                    self.reset()  # it asks and does not read
                    return
        except Error:
            self.reset()
            return
        if not frames.pending:
            self._due = now + self._config.inbound_idle
        elif requests or not begun:
            self._due = now + self._config.request_timeout
            if self._due < self._armed_at:
                self._context.cancel(self._timer)
                self._arm()

    def _on_eof(self, now: float) -> None:
        stream = self.stream
        if self._frames.pending:
            self.reset()
            return
        stream.write_eof()
        if stream.unsent:
            stream.on_drained = self._on_drained  # until then it may be idle, like any other
        else:
            self._close()

    def _on_drained(self, now: float) -> None:
        self._close()

    def _on_reset(self, code: int, now: float) -> None:
        self._close()

    def _arm(self) -> None:
        self._armed_at = self._due
        self._timer = self._context.call_at(self._due, "kad request", self._expire)

    def _expire(self, now: float) -> None:
        if now >= self._due:
            self.reset()
        else:  # there was something since
            self._arm()

    def _close(self) -> None:
        over, self._over = self._over, None
        if over is not None:
            self._context.cancel(self._timer)
            self._frames.close()
            over(self)
