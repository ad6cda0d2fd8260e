"""multistream-select on one multiplexed stream: who handles it is decided here.

    outbound   open -> proposing -> agreed: the handler owns the stream
                                 -> refused, ended or late: reset, on_fail
    inbound    SYN  -> listening -> agreed: the handler owns the stream
                                 -> ended: closed; broken or late: reset
                                 -> broken behind a refusal: closed, what comes is dropped

With one proposed protocol the handler gets the stream at once and may write; what it wrote is
discarded by a peer that refuses, and ``on_fail`` then follows ``on_open``.

Whoever makes a negotiation keeps it until it calls ``over(stream id, None)``, and calls ``expire``
when its ``deadline`` has passed. A stream that its handler resets meanwhile tells nobody.
"""

from collections.abc import Callable, Sequence

from .errors import NegotiationError, RemoteError, TimedOut
from .multistream import Dialer, Listener
from .muxer import Stream

OpenCallback = Callable[[Stream, str, float], object]
FailCallback = Callable[[Exception, float], object]
OverCallback = Callable[[int, None], object]

NEGOTIATION_FAILED = 0x1001
"""Stream reset code, as go peers number it (protocols draft on error codes)."""


class Outbound:
    """We opened a stream and propose ``protocols``, best first."""

    __slots__ = (
        "deadline", "stream",
        "_dialer", "_on_data", "_on_eof", "_on_fail", "_on_open", "_on_reset", "_over",
    )  # fmt: skip

    def __init__(
        self,
        stream: Stream,
        protocols: Sequence[str],
        on_open: OpenCallback,
        on_fail: FailCallback,
        over: OverCallback,
        *,
        optimistic: bool,
        deadline: float,
        now: float,
    ) -> None:
        self.deadline = deadline
        self.stream = stream
        self._over = over
        self._on_fail = on_fail
        self._on_open: OpenCallback | None = on_open
        self._dialer = Dialer(protocols, stream.write)
        if optimistic and len(protocols) == 1:
            self._on_open = None
            on_open(stream, protocols[0], now)
        self._on_data = stream.on_data
        self._on_eof = stream.on_eof
        self._on_reset = stream.on_reset
        stream.on_data = self.on_data
        stream.on_eof = self.on_eof
        stream.on_reset = self.on_reset

    def on_data(self, data: bytes, now: float) -> None:
        stream = self.stream
        try:
            rest = self._dialer.receive(data)
        except RemoteError as error:
            self._fail(error, now)
            return
        left = 0 if rest is None else len(rest)
        stream.credit(len(data) - left, now)
        if stream.unread > left:  # no credit: the handler has stopped reading, so it discards
            self._on_data(data[: len(data) - left], now)
        if rest is None:
            return
        self._over(stream.id, None)
        stream.on_data = self._on_data
        stream.on_eof = self._on_eof
        stream.on_reset = self._on_reset
        if self._on_open is not None:
            assert self._dialer.protocol is not None
            self._on_open(stream, self._dialer.protocol, now)
        if rest and stream.unread:
            stream.on_data(rest, now)

    def on_eof(self, now: float) -> None:
        error = NegotiationError("the peer closed the stream before it agreed on a protocol")
        self._fail(error, now)

    def on_reset(self, code: int, now: float) -> None:
        self._over(self.stream.id, None)
        if self._on_open is None:
            self._on_reset(code, now)
        else:
            text = f"the peer reset the stream before it agreed on a protocol (code {code:#x})"
            self._on_fail(NegotiationError(text), now)

    def expire(self, now: float) -> None:
        """The deadline passed, or the handler has reset the stream."""
        if self.stream.is_reset:
            self._over(self.stream.id, None)
        else:
            self._fail(TimedOut("the peer did not agree on a protocol in time"), now)

    def _fail(self, error: Exception, now: float) -> None:
        self._over(self.stream.id, None)
        self.stream.reset(NEGOTIATION_FAILED)
        self._on_fail(error, now)


class Inbound:
    """The peer opened a stream; ``supports`` tells which of its proposals we accept."""

    __slots__ = ("deadline", "stream", "_listener", "_on_open", "_over")

    def __init__(
        self,
        stream: Stream,
        supports: Callable[[str], bool],
        on_open: OpenCallback,
        over: OverCallback,
        *,
        deadline: float,
    ) -> None:
        self.deadline = deadline
        self.stream = stream
        self._listener = Listener(supports, stream.write)
        self._on_open = on_open
        self._over = over
        stream.on_data = self.on_data
        stream.on_eof = self.on_eof
        stream.on_reset = self.on_reset

    def on_data(self, data: bytes, now: float) -> None:
        stream = self.stream
        try:
            rest = self._listener.receive(data)
        except RemoteError:
            if self._listener.refused:  # early data: a reset could overtake the refusal
                self._over(stream.id, None)
                stream.write_eof()
                stream.stop_reading()
            else:
                self.expire(now)
            return
        if rest is None:
            stream.credit(len(data), now)
            return
        stream.credit(len(data) - len(rest), now)
        self._over(stream.id, None)
        stream.on_data = stream.on_eof = stream.on_reset = _ignore
        assert self._listener.protocol is not None
        self._on_open(stream, self._listener.protocol, now)
        if rest and stream.unread:  # else the handler has stopped reading, or reset the stream
            stream.on_data(rest, now)

    def on_eof(self, now: float) -> None:
        """The peer gave up without a complete proposal: it only looked."""
        self._over(self.stream.id, None)
        self.stream.write_eof()

    def on_reset(self, code: int, now: float) -> None:
        self._over(self.stream.id, None)

    def expire(self, now: float) -> None:
        """The deadline passed."""
        self._over(self.stream.id, None)
        self.stream.reset(NEGOTIATION_FAILED)


def _ignore(*_: object) -> None:
    """Until the handler sets its own callbacks."""
