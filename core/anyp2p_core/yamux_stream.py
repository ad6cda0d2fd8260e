"""One stream of a yamux session: what the application writes to and gets data from.

Spec: https://github.com/hashicorp/yamux/blob/master/spec.md

The two directions close independently:

    OPEN --FIN sent-----> OUR SIDE CLOSED   --FIN received--> FINISHED
    OPEN --FIN received-> THEIR SIDE CLOSED --FIN sent------> FINISHED
    any state but FINISHED --RST sent or received, or session closed--> FINISHED, is_reset

Each direction has a window. Until its FIN the peer may send ``receive_window`` more bytes, and

    receive_window = 262144 + granted - received
    window size    = receive_window + not yet delivered + unread + consumed but not yet granted

Half a window of consumed bytes makes a WINDOW_UPDATE that grants them again.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from .errors import LocalError
from .sending import SendingHalf, ignore
from .yamux_frame import DATA, FIN, HEADER_SIZE, RST, SYN, WINDOW_UPDATE, encode

if TYPE_CHECKING:
    from .yamux import Yamux
    from .yamux_outbox import Outbox

INITIAL_WINDOW = 256 * 1024
MAX_PAYLOAD = 65519 - HEADER_SIZE
"""Payload of the largest frame we send: with its header it fills one noise message."""


def _ignore_data(data: bytes, now: float) -> None:
    pass


def _ignore_code(code: int, now: float) -> None:
    pass


class Stream(SendingHalf):
    """One stream. Set the callbacks at once: in ``on_stream``, or right after ``open``.

    ``on_data(data, now)``: bytes from the peer, in order. Give them back with ``credit``.
    ``on_eof(now)``: nothing more comes; we may still write.
    ``on_reset(code, now)``: both directions are over: by the peer's RST (its error code), because
    the connection is lost (0), or because we shed the stream. Not called for our own ``reset``.
    ``on_writable(now)``: after a short ``write``, more than half of the buffer is free.
    ``on_drained(now)``: nothing is unsent any more. Set it while something is; called once.

    They may call any method of streams, and ``Yamux.open``, and must not raise. A finished stream
    drops them.

    ``shed``: the connection held more unread bytes than ``Limits.max_unread``, and this stream
    most of them, so we reset it. Drop what is unread. After a reset by the peer, and after
    ``close``, unread bytes may still be read, and stay charged until credited.
    """

    __slots__ = (
        "id", "inbound", "on_data", "on_eof", "on_reset", "eof_received", "shed", "unread",
        "receive_window",
        "_acked", "_flags", "_granted_at", "_mux", "_settled", "_uncredited", "_window_size",
    )  # fmt: skip

    def __init__(
        self,
        mux: "Yamux",
        outbox: "Outbox",
        stream_id: int,
        inbound: bool,
        flags: int,
        send_window: int,
        now: float,
    ) -> None:
        super().__init__(mux.limits, outbox, send_window)
        self.id = stream_id
        self.inbound = inbound
        self.on_data: Callable[[bytes, float], object] = _ignore_data
        self.on_eof: Callable[[float], object] = ignore
        self.on_reset: Callable[[int, float], object] = _ignore_code
        self.eof_received = False
        self.shed = False
        self.unread = 0  # delivered, not yet credited
        self.receive_window = INITIAL_WINDOW
        self._acked = inbound
        self._flags = flags  # the SYN or ACK that our first frame carries
        self._granted_at = now
        self._mux = mux
        self._settled = False  # nobody will read: there is nothing to credit
        self._uncredited = 0  # consumed, not yet granted again
        self._window_size = INITIAL_WINDOW

    def __repr__(self) -> str:
        whose = "inbound" if self.inbound else "outbound"
        return f"<yamux stream {self.id} {whose} unsent={self.unsent} unread={self.unread}>"

    def reset(self, code: int = 0) -> None:
        """End both directions now, drop what is unsent, and tell the peer ``code`` (32 bits).

        No callback is called, and whatever was unread counts as consumed. On a finished stream it
        only does the latter.
        """
        check_code(code)
        self._abort(code)

    def credit(self, size: int, now: float) -> None:
        """The application consumed ``size`` bytes of ``on_data``: the peer may send as many more.

        Raises LocalError for more than ``unread``. After ``reset`` or ``stop_reading`` there is
        nothing to give back, and the call does nothing.
        """
        if self._settled:
            return
        if not 0 <= size <= self.unread:
            raise LocalError(f"credit for {size} bytes, but {self.unread} are unread")
        self._give_back(size, now)

    def stop_reading(self) -> None:
        """Discard and credit what still comes, instead of calling ``on_data``.

        Whatever was unread counts as consumed: the caller drops it.
        """
        if not self._settled:
            self._settled = True
            if not (self.eof_received or self.is_reset):
                self.on_data = self._discard
            self._give_back(self.unread, self._granted_at)

    # Inside, for Yamux and Outbox too.

    def _discard(self, data: bytes, now: float) -> None:
        self._give_back(len(data), now)

    def _give_back(self, size: int, now: float) -> None:
        self.unread -= size
        self._mux.unread -= size
        self._uncredited += size
        if self._uncredited * 2 >= self._window_size and not (self.eof_received or self.is_reset):
            self._grant(now)

    def _grant(self, now: float) -> None:
        """Grant what was consumed, and more if the window was too small for the distance."""
        mux = self._mux
        delta = self._uncredited
        self._uncredited = 0
        rtt = mux.rtt
        if rtt is not None and now - self._granted_at <= 4 * rtt and not self._settled:
            growth = mux._reserve_growth(self._window_size)
            self._window_size += growth
            delta += growth
        self._granted_at = now
        self.receive_window += delta
        flags = self._flags
        if flags:
            self._flags = 0
            if not (self.unsent or self._fin_queued):  # its turn would have been for the flag alone
                self._outbox.remove(self)
        self._mux._outbox.add(encode(WINDOW_UPDATE | flags, self.id, delta))

    def _abort(self, code: int) -> None:
        if self._mux.streams.get(self.id) is self:
            if not self._flags & SYN:  # else the peer has never heard of this stream
                self._mux._outbox.add(encode(WINDOW_UPDATE | RST, self.id, code))
            self.is_reset = True
            self._mux._forget(self)
        self._settled = True
        self._mux.unread -= self.unread
        self.unread = 0

    def _finish(self) -> None:
        """Let go of everything that is not needed to look at a finished stream."""
        self.on_data = _ignore_data
        self.on_eof = self.on_writable = ignore
        self.on_reset = _ignore_code
        if self.is_reset:
            self._drop_unsent()

    def _next_frame(self, out: list[bytes]) -> int:
        """Append one frame to ``out``, and the FIN if it is next; return their size."""
        unsent = self.unsent
        size = self.send_window
        if size > MAX_PAYLOAD:
            size = MAX_PAYLOAD
        if size > unsent:
            size = unsent
        flags = self._flags
        self._flags = 0
        added = 0
        if size:
            out.append(encode(DATA | flags, self.id, size))
            if size < unsent:
                self._take(size, out)
            else:
                self._take_all(out)
            self.unsent = unsent = unsent - size
            self.send_window -= size
            if self._want_write or self.on_drained is not None:
                self._mux._outbox.waiting.append(self)
            flags = 0
            added = size + HEADER_SIZE
        self._queued = unsent > 0 and self.send_window > 0
        if self._fin_queued and not unsent:
            # Alone: js peers close the stream before they take the payload of the FIN's frame.
            self._fin_queued = False
            out.append(encode(DATA | FIN | flags, self.id, 0))
            added += HEADER_SIZE
            if self.eof_received:
                self._mux._forget(self)
        elif not added:
            out.append(encode(WINDOW_UPDATE | flags, self.id, 0))  # only the SYN or the ACK
            added = HEADER_SIZE
        return added


def check_code(code: int) -> None:
    """Raise LocalError for what is no error code."""
    if not 0 <= code <= 0xFFFF_FFFF:
        raise LocalError(f"an error code has 32 bits, {code} does not fit")
