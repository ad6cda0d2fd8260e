"""One stream of an mplex session: what the application writes to and gets data from.

Spec: https://github.com/libp2p/specs/blob/master/mplex/README.md

The two directions close independently:

    OPEN --Close sent-----> OUR SIDE CLOSED   --Close received--> FINISHED
    OPEN --Close received-> THEIR SIDE CLOSED --Close sent------> FINISHED
    any state but FINISHED --Reset sent or received, or session closed--> FINISHED, is_reset

There is no flow control: the peer sends when it likes, and who does not read loses the stream.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from .errors import LocalError
from .mplex_frame import CLOSE, MAX_HEADER, MESSAGE, NEW_STREAM, RESET, encode, encode_number
from .sending import SendingHalf, ignore
from .yamux_stream import check_code

if TYPE_CHECKING:
    from .mplex import Mplex
    from .yamux_outbox import Outbox

MAX_MESSAGE = 65519 - MAX_HEADER
"""Payload of the largest message we send: with its header it fills one noise message."""
SHARE = 32 * 1024
"""The same while other streams wait for their turn."""

_SHARE_LENGTH = encode_number(SHARE)
_NO_WINDOW = 1 << 63


def _ignore_data(data: bytes, now: float) -> None:
    pass


def _ignore_code(code: int, now: float) -> None:
    pass


class Stream(SendingHalf):
    """One stream. Set the callbacks at once: in ``on_stream``, or right after ``open``.

    ``on_data(data, now)``: bytes from the peer, in order. Say with ``credit`` what is consumed.
    ``on_eof(now)``: nothing more comes; we may still write.
    ``on_reset(code, now)``: both directions are over: by the peer's Reset, because the connection
    is lost, or because we shed the stream. The code is 0. Not called for our own ``reset``.
    ``on_writable(now)``: after a short ``write``, more than half of the buffer is free.
    ``on_drained(now)``: nothing is unsent any more. Set it while something is; called once.

    They may call any method of streams, and ``Mplex.open``, and must not raise. A finished stream
    drops them.

    ``id`` is ours: ``number``, the one in frames, may be that of another stream as well.

    ``shed``: this stream held more unread bytes than one may, or the connection did and this
    stream most of them, so we reset it. Drop what is unread. After a reset by the peer, and after
    ``close``, unread bytes may still be read, and stay charged until credited.
    """

    __slots__ = (
        "id", "number", "inbound", "on_data", "on_eof", "on_reset", "eof_received", "shed",
        "unread",
        "_head", "_is_new", "_message", "_mux", "_settled",
    )  # fmt: skip

    def __init__(
        self, mux: "Mplex", outbox: "Outbox", stream_id: int, number: int, inbound: bool
    ) -> None:
        super().__init__(mux.limits, outbox, _NO_WINDOW)
        self.id = stream_id
        self.number = number
        self.inbound = inbound
        self.on_data: Callable[[bytes, float], object] = _ignore_data
        self.on_eof: Callable[[float], object] = ignore
        self.on_reset: Callable[[int, float], object] = _ignore_code
        self.eof_received = False
        self.shed = False
        self.unread = 0  # delivered, not yet credited
        self._head = number << 3 | (not inbound)  # plus a flag
        self._message = encode_number(self._head + MESSAGE)
        self._is_new = not inbound  # the peer has never heard of it
        self._mux = mux
        self._settled = False  # nobody will read: there is nothing to credit

    def __repr__(self) -> str:
        whose = "inbound" if self.inbound else "outbound"
        return f"<mplex stream {self.number} {whose} unsent={self.unsent} unread={self.unread}>"

    def reset(self, code: int = 0) -> None:
        """End both directions now, drop what is unsent, and tell the peer, without ``code``.

        No callback is called, and whatever was unread counts as consumed. On a finished stream it
        only does the latter.
        """
        check_code(code)
        self._abort()

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

    def stop_reading(self) -> None:
        """Discard what still comes, instead of calling ``on_data``.

        Whatever was unread counts as consumed: the caller drops it.
        """
        if not self._settled:
            if not (self.eof_received or self.is_reset):
                self.on_data = self._discard
            self._settle()

    # Inside, for Mplex and Outbox too.

    def _discard(self, data: bytes, now: float) -> None:
        self._settle()

    def _settle(self) -> None:
        self._settled = True
        self._mux.unread -= self.unread
        self.unread = 0

    def _abort(self) -> None:
        if self._mux.streams.get(self.id) is self:
            if not self._is_new:
                self._mux._outbox.add(encode(self._head + RESET))
            self.is_reset = True
            self._mux._forget(self)
        self._settle()

    def _finish(self) -> None:
        """Let go of everything that is not needed to look at a finished stream."""
        self.on_data = _ignore_data
        self.on_eof = self.on_writable = ignore
        self.on_reset = _ignore_code
        if self.is_reset:
            self._drop_unsent()

    def _next_frame(self, out: list[bytes]) -> int:
        """Append one message to ``out``, the NewStream before and the Close behind it if they are
        next; return their size."""
        added = 0
        if self._is_new:
            self._is_new = False
            name = b"%d" % self.number  # as other implementations do
            out.append(encode(self.number << 3 | NEW_STREAM, name))
            added = MAX_HEADER
        unsent = self.unsent
        if unsent:
            outbox = self._mux._outbox
            size = SHARE if outbox.ready else MAX_MESSAGE
            if size > unsent:
                size = unsent
            out.append(self._message + (_SHARE_LENGTH if size == SHARE else encode_number(size)))
            if size < unsent:
                self._take(size, out)
            else:
                self._take_all(out)
            self.unsent = unsent = unsent - size
            if self._want_write or self.on_drained is not None:
                outbox.waiting.append(cast("Any", self))
            added += size + MAX_HEADER
        self._queued = unsent > 0
        if self._fin_queued and not unsent:
            self._fin_queued = False
            out.append(encode(self._head + CLOSE))
            added += MAX_HEADER
            if self.eof_received:
                self._mux._forget(self)
        return added
