"""One bidirectional QUIC stream: what the application writes to and gets data from.

Specs: https://www.rfc-editor.org/rfc/rfc9000#section-3
       https://github.com/libp2p/specs/blob/master/quic/README.md

    write_eof     FIN                             FIN            on_eof
    reset         RESET_STREAM, STOP_SENDING      RESET_STREAM   on_reset
    stop_reading  STOP_SENDING                    STOP_SENDING   what we write is dropped

STOP_SENDING alone ends our direction and not the other: a peer that has its answer, or gives one
without reading the rest, sends it. When both directions are over by it, on_reset follows.

    OPEN --FIN sent-----> OUR SIDE CLOSED   --FIN received--> FINISHED
    OPEN --FIN received-> THEIR SIDE CLOSED --FIN sent------> FINISHED
    any state but FINISHED --reset, RESET_STREAM, or session closed--> FINISHED, is_reset
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from .errors import LocalError
from .quic_window import Window
from .sending import SendingHalf, ignore
from .yamux_stream import check_code

if TYPE_CHECKING:
    from .quic_muxer import QuicMuxer

INITIAL_WINDOW = 256 * 1024
"""Bytes that the peer may send on a new stream."""
CODE_OUT_OF_RANGE = 0x1009
"""What we make of error codes that do not fit into 32 bits; a stream code as go peers number it."""

_NO_WINDOW = 1  # the session knows it


def _ignore_data(data: bytes, now: float) -> None:
    pass


def _ignore_code(code: int, now: float) -> None:
    pass


class QuicStream(SendingHalf):
    """One stream, see ``muxer.Stream``.

    ``shed``: the connection held more unread bytes than ``Limits.max_unread``, and this stream
    most of them, so we reset it. Drop what is unread. After a reset by the peer, and after
    ``close``, unread bytes may still be read, and stay charged until credited.
    """

    __slots__ = (
        "id", "inbound", "on_data", "on_eof", "on_reset", "eof_received", "shed", "unread",
        "_mux", "_settled", "_stopped", "_window",
    )  # fmt: skip

    def __init__(self, mux: "QuicMuxer", stream_id: int, inbound: bool, now: float) -> None:
        super().__init__(mux.limits, mux, _NO_WINDOW)
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
        self._stopped = False  # the peer reads no more: what is written is dropped
        self._window = Window(INITIAL_WINDOW, now)

    def __repr__(self) -> str:
        whose = "inbound" if self.inbound else "outbound"
        return f"<QUIC stream {self.id} {whose} unsent={self.unsent} unread={self.unread}>"

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Queue data and return how many bytes were taken.

        Fewer than all of it: the buffer (``Limits.max_unsent``) is full, wait for ``on_writable``.
        ``bytes`` are not copied. Raises LocalError after ``write_eof`` or a reset. What a peer
        would not read any more is dropped.
        """
        if self._stopped and not (self.eof_sent or self.is_reset):
            return memoryview(data).nbytes
        return super().write(data)

    def write_eof(self) -> None:
        """Close our direction once everything written is sent. Again, or after a reset: no-op."""
        if not self._stopped:
            super().write_eof()
        elif not self.eof_sent:
            self.eof_sent = True
            if self.eof_received and not self.is_reset:
                self._mux.forget(self)

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
        self.unread -= size
        mux = self._mux
        mux.unread -= size
        window = self._window
        window.consumed += size
        # As in ``Window.due``: this happens for every datagram.
        if (window.limit - window.consumed) * 2 > window.size:
            return
        if not (self.eof_received or self.is_reset):
            limit = window.grant(mux.session.rtt, mux.reserve_growth, now)
            mux.session.grant_stream(self.id, limit)
            mux.on_ready()

    def stop_reading(self) -> None:
        """Discard what still comes, instead of calling ``on_data``, and ask the peer to stop.

        Whatever was unread counts as consumed: the caller drops it.
        """
        if not self._settled:
            if not (self.eof_received or self.is_reset):
                self._mux.session.stop(self.id, 0)
                self._mux.on_ready()
            self._settle()

    # Inside, for QuicMuxer too.

    def _settle(self) -> None:
        self._settled = True
        self._mux.unread -= self.unread
        self.unread = 0

    def _abort(self, code: int) -> None:
        mux = self._mux
        if mux.streams.get(self.id) is self:
            mux.session.reset(self.id, code)
            if not self.eof_received:
                mux.session.stop(self.id, code)
            self.is_reset = True
            mux.forget(self)
            mux.on_ready()
        self._settle()

    def _on_data(self, data: bytes, now: float) -> None:
        if self._settled:
            return
        mux = self._mux
        size = len(data)
        self.unread += size
        mux.unread += size
        if mux.unread > mux.max_unread:
            mux.shed(now)  # perhaps this one: then nobody listens any more
        self.on_data(data, now)

    def _on_fin(self, now: float) -> None:
        self.eof_received = True
        on_eof = self.on_eof
        if self.eof_sent and not self._fin_queued:
            self._mux.forget(self)
        on_eof(now)

    def _on_reset(self, code: int, now: float) -> None:
        if self._settled:  # an answer to our STOP_SENDING
            self._on_fin(now)
            return
        mux = self._mux
        if not self.eof_sent or self._fin_queued:
            mux.session.reset(self.id, 0)
            mux.on_ready()
        on_reset = self.on_reset
        self.is_reset = True
        mux.forget(self)
        on_reset(_fitting(code), now)

    def _on_stop(self, code: int, now: float) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._fin_queued = False
        self._chunks.clear()
        self._offset = self._loose = self.unsent = 0
        if self._queued:
            self._mux.remove(self)
        if self.eof_received:
            on_reset = self.on_reset
            ended = self.eof_sent
            self.is_reset = not ended
            self._mux.forget(self)
            if not ended:
                on_reset(_fitting(code), now)
                return
        self._notify(now)

    def _finish(self) -> None:
        """Let go of everything that is not needed to look at a finished stream."""
        self.on_data = _ignore_data
        self.on_eof = self.on_writable = ignore
        self.on_reset = _ignore_code
        if self.is_reset:
            self._drop_unsent()

    def _send(self, room: int) -> int:
        """Hand up to ``room`` bytes to the session, and the end if it is next; return how many."""
        unsent = self.unsent
        size = min(unsent, room)
        pieces: list[bytes] = []
        if size < unsent:
            if not size:
                return 0
            self._take(size, pieces)
        else:
            self._take_all(pieces)
        self.unsent = unsent = unsent - size
        fin = self._fin_queued and not unsent
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._mux.session.send(self.id, data, fin)
        if fin:
            self._fin_queued = False
            if self.eof_received:
                self._mux.forget(self)
        return size + fin


def _fitting(code: int) -> int:
    return code if code <= 0xFFFF_FFFF else CODE_OUT_OF_RANGE
