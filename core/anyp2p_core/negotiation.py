"""multistream-select on one multiplexed stream: who handles it is decided here.

    outbound   open -> proposing -> agreed: the handler owns the stream
                                 -> refused, ended or late: reset, on_fail
    inbound    SYN  -> listening -> agreed: the handler owns the stream
                                 -> refused, ended or late: reset

With one proposed protocol the handler gets the stream at once and may write; what it wrote is
discarded by a peer that refuses, and ``on_fail`` then follows ``on_open``.
"""

from collections.abc import Callable, Sequence

from .errors import NegotiationError, RemoteError, TimedOut
from .multistream import Dialer, Listener
from .yamux_stream import Stream

OpenCallback = Callable[[Stream, str, float], object]
FailCallback = Callable[[Exception, float], object]

NEGOTIATION_FAILED = 0x1001
"""Stream reset code, as go peers number it (protocols draft on error codes)."""


class Outbound:
    """We opened a stream and propose ``protocols``, best first."""

    __slots__ = (
        "done", "stream", "_cancel", "_dialer", "_on_data", "_on_eof", "_on_fail", "_on_open",
        "_on_reset", "_timer",
    )  # fmt: skip

    def __init__(
        self,
        stream: Stream,
        protocols: Sequence[str],
        on_open: OpenCallback,
        on_fail: FailCallback,
        *,
        optimistic: bool,
        now: float,
    ) -> None:
        self.done = False
        self._timer = 0
        self._cancel: Callable[[int], object] | None = None
        self.stream = stream
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
            self.fail(error, now)
            return
        if rest is None:
            stream.credit(len(data), now)
            return
        stream.credit(len(data) - len(rest), now)
        self._finish()
        if self._on_open is None:
            stream.on_data = self._on_data
            stream.on_eof = self._on_eof
            stream.on_reset = self._on_reset
        else:
            assert self._dialer.protocol is not None
            self._on_open(stream, self._dialer.protocol, now)
        if rest:
            stream.on_data(rest, now)

    def on_eof(self, now: float) -> None:
        self.fail(
            NegotiationError("the peer closed the stream before it agreed on a protocol"), now
        )

    def on_reset(self, code: int, now: float) -> None:
        if not self.done:
            self._finish()
            if self._on_open is None:
                self._on_reset(code, now)
            else:
                text = f"the peer reset the stream before it agreed on a protocol (code {code:#x})"
                self._on_fail(NegotiationError(text), now)

    def arm(self, timer: int, cancel: Callable[[int], object]) -> None:
        """Remember the deadline's handle, to cancel it when the negotiation is over."""
        self._timer = timer
        self._cancel = cancel

    def expire(self, now: float) -> None:
        """The deadline passed."""
        if not self.done and not self.stream.is_reset:
            self.fail(TimedOut("the peer did not agree on a protocol in time"), now)

    def fail(self, error: Exception, now: float) -> None:
        self._finish()
        self.stream.reset(NEGOTIATION_FAILED)
        self._on_fail(error, now)

    def _finish(self) -> None:
        self.done = True
        if self._cancel is not None:
            self._cancel(self._timer)
            self._cancel = None


class Inbound:
    """The peer opened a stream; ``supports`` tells which of its proposals we accept."""

    __slots__ = ("done", "stream", "_cancel", "_listener", "_on_done", "_on_open", "_timer")

    def __init__(
        self,
        stream: Stream,
        supports: Callable[[str], bool],
        on_open: OpenCallback,
        on_done: Callable[[], object],
    ) -> None:
        self.done = False
        self.stream = stream
        self._timer = 0
        self._cancel: Callable[[int], object] | None = None
        self._listener = Listener(supports, stream.write)
        self._on_open = on_open
        self._on_done = on_done
        stream.on_data = self.on_data
        stream.on_eof = self.on_eof
        stream.on_reset = self.on_reset

    def on_data(self, data: bytes, now: float) -> None:
        stream = self.stream
        try:
            rest = self._listener.receive(data)
        except RemoteError:
            self._finish()
            stream.reset(NEGOTIATION_FAILED)
            return
        if rest is None:
            stream.credit(len(data), now)
            return
        stream.credit(len(data) - len(rest), now)
        self._finish()
        assert self._listener.protocol is not None
        self._on_open(stream, self._listener.protocol, now)
        if rest and not stream.is_reset:
            stream.on_data(rest, now)

    def on_eof(self, now: float) -> None:
        """The peer gave up without a complete proposal: it only looked."""
        self._finish()
        self.stream.write_eof()

    def on_reset(self, code: int, now: float) -> None:
        self._finish()

    def arm(self, timer: int, cancel: Callable[[int], object]) -> None:
        """Remember the deadline's handle, to cancel it when the negotiation is over."""
        self._timer = timer
        self._cancel = cancel

    def expire(self, now: float) -> None:
        """The deadline passed."""
        if not self.done:
            self._finish()
            self.stream.reset(NEGOTIATION_FAILED)

    def _finish(self) -> None:
        if not self.done:
            self.done = True
            if self._cancel is not None:
                self._cancel(self._timer)
            self._on_done()
