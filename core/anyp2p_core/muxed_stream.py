"""One stream of a muxer: the sending half, and what all muxers do alike in the receiving half.

    bytes of the peer --> on_data, unread --credit--> _consumed: the muxer may tell the peer
                      '-- after stop_reading: discarded and consumed at once

The two directions close independently:

    OPEN --our end sent------------> OUR SIDE CLOSED   --their end received--> FINISHED
    OPEN --their end received------> THEIR SIDE CLOSED --our end sent--------> FINISHED
    any state but FINISHED --reset by either, or session closed--> FINISHED, is_reset

A muxer's stream derives from this and says how the peer is told.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import LocalError
from .sending import SendingHalf, Turns, ignore

if TYPE_CHECKING:
    from .muxed_session import MuxedSession

M = TypeVar("M", bound="MuxedSession[Any]")


def _ignore_data(data: bytes, now: float) -> None:
    pass


def _ignore_code(code: int, now: float) -> None:
    pass


class MuxedStream(SendingHalf, Generic[M]):
    """One stream, see ``muxer.Stream``. A finished stream drops its callbacks.

    After a reset by the peer, and after the session's ``close``, unread bytes may still be read,
    and stay charged until credited. Of a stream that was ``shed`` they are to be dropped.
    """

    __slots__ = (
        "id", "inbound", "on_data", "on_eof", "on_reset", "eof_received", "shed", "unread",
        "_mux", "_settled",
    )  # fmt: skip

    def __init__(
        self, mux: M, outbox: Turns, stream_id: int, inbound: bool, send_window: int = 1
    ) -> None:
        # The sending half.
        self.on_writable = ignore
        self.on_drained = None
        self.eof_sent = self.is_reset = False
        self.unsent = 0
        self.send_window = send_window
        self._chunks = deque()
        self._fin_queued = self._queued = self._want_write = False
        self._limits = mux.limits
        self._loose = self._offset = 0
        self._outbox = outbox
        # The receiving half.
        self.id = stream_id
        self.inbound = inbound
        self.on_data: Callable[[bytes, float], object] = _ignore_data
        self.on_eof: Callable[[float], object] = ignore
        self.on_reset: Callable[[int, float], object] = _ignore_code
        self.eof_received = False
        self.shed = False
        self.unread = 0  # delivered, not yet credited
        self._mux = mux
        self._settled = False  # nobody will read: there is nothing to credit

    def reset(self, code: int = 0) -> None:
        """End both directions now, drop what is unsent, and tell the peer ``code`` (32 bits).

        No callback is called, and whatever was unread counts as consumed. On a finished stream it
        only does the latter.
        """
        check_code(code)
        self._abort(code)

    def credit(self, size: int, now: float) -> None:
        """The application consumed ``size`` bytes of ``on_data``: there is room for as many more.

        Raises LocalError for more than ``unread``. After ``reset`` or ``stop_reading`` there is
        nothing to give back, and the call does nothing.
        """
        if self._settled:
            return
        if not 0 <= size <= self.unread:
            raise LocalError(f"credit for {size} bytes, but {self.unread} are unread")
        self.unread -= size
        self._mux.unread -= size
        self._consumed(size, now)

    def stop_reading(self) -> None:
        """Discard and credit what still comes, instead of calling ``on_data``.

        Whatever was unread counts as consumed: the caller drops it.
        """
        if not self._settled:
            self._settled = True
            if not (self.eof_received or self.is_reset):
                self._stop()
            self._drop_unread()

    # How the peer is told.

    def _consumed(self, size: int, now: float) -> None:
        """Room for ``size`` bytes again; a muxer without flow control has nobody to tell."""

    def _stop(self) -> None:
        """Nobody reads the rest. ``unread`` still is what nobody has read."""
        self.on_data = self._discard

    def _send_reset(self, code: int) -> None:
        """Both directions end."""

    # Inside, for the session too.

    def _discard(self, data: bytes, now: float) -> None:
        size = len(data)
        self.unread -= size
        self._mux.unread -= size
        self._consumed(size, now)

    def _drop_unread(self) -> None:
        self._mux.unread -= self.unread
        self.unread = 0

    def _abort(self, code: int) -> None:
        """We end both directions."""
        if self._mux.streams.get(self.id) is self:
            self._send_reset(code)
            self.is_reset = True
            self._mux._forget(self)
        self._settled = True
        self._drop_unread()

    def _on_end(self, now: float) -> None:
        """The peer ended its direction."""
        if self.eof_received:
            return
        self.eof_received = True
        on_eof = self.on_eof
        if self.eof_sent and not self._fin_queued:
            self._mux._forget(self)
        on_eof(now)

    def _on_abort(self, code: int, now: float) -> None:
        """The peer ended both."""
        on_reset = self.on_reset
        self.is_reset = True
        self._mux._forget(self)
        on_reset(code, now)

    def _finish(self) -> None:
        """Let go of everything that is not needed to look at a finished stream."""
        self.on_data = _ignore_data
        self.on_eof = self.on_writable = ignore
        self.on_reset = _ignore_code
        if self.is_reset:
            self._drop_unsent()


def check_code(code: int) -> None:
    """Raise LocalError for what is no error code."""
    if not 0 <= code <= 0xFFFF_FFFF:
        raise LocalError(f"an error code has 32 bits, {code} does not fit")
