"""One bidirectional QUIC stream: what the application writes to and gets data from.

Specs: https://www.rfc-editor.org/rfc/rfc9000#section-3
       https://github.com/libp2p/specs/blob/master/quic/README.md

    write_eof     FIN                             FIN            on_eof
    reset         RESET_STREAM, STOP_SENDING      RESET_STREAM   on_reset
    stop_reading  STOP_SENDING                    STOP_SENDING   what we write is dropped

STOP_SENDING alone ends our direction and not the other: a peer that has its answer, or gives one
without reading the rest, sends it. When both directions are over by it, on_reset follows.
"""

from typing import TYPE_CHECKING

from .muxed_stream import MuxedStream
from .quic_window import Window

if TYPE_CHECKING:
    from .quic_muxer import QuicMuxer

INITIAL_WINDOW = 256 * 1024
"""Bytes that the peer may send on a new stream."""
CODE_OUT_OF_RANGE = 0x1009
"""What we make of error codes that do not fit into 32 bits; a stream code as go peers number it."""


class QuicStream(MuxedStream["QuicMuxer"]):
    """One stream, see ``muxer.Stream``."""

    __slots__ = ("_stopped", "_window")

    def __init__(self, mux: "QuicMuxer", stream_id: int, inbound: bool, now: float) -> None:
        super().__init__(mux, mux, stream_id, inbound)
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
                self._mux._forget(self)

    # Inside, for QuicMuxer too.

    def _consumed(self, size: int, now: float) -> None:
        window = self._window
        window.consumed += size
        # As in ``Window.due``: this happens for every datagram.
        if (window.limit - window.consumed) * 2 > window.size:
            return
        if not (self.eof_received or self.is_reset):
            mux = self._mux
            limit = window.grant(mux.session.rtt, mux.growth.reserve, now)
            mux.session.grant_stream(self.id, limit)
            mux.on_ready()

    def _stop(self) -> None:
        self._mux.session.stop(self.id, 0)
        self._mux.on_ready()

    def _send_reset(self, code: int) -> None:
        mux = self._mux
        mux.session.reset(self.id, code)
        if not self.eof_received:
            mux.session.stop(self.id, code)
        mux.on_ready()

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

    def _on_reset(self, code: int, now: float) -> None:
        if self._settled:  # an answer to our STOP_SENDING
            self._on_end(now)
            return
        mux = self._mux
        if not self.eof_sent or self._fin_queued:
            mux.session.reset(self.id, 0)
            mux.on_ready()
        self._on_abort(_fitting(code), now)

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
            if not self.eof_sent:
                self._on_abort(_fitting(code), now)
                return
            self._mux._forget(self)
        self._notify(now)

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
                self._mux._forget(self)
        return size + fin


def _fitting(code: int) -> int:
    return code if code <= 0xFFFF_FFFF else CODE_OUT_OF_RANGE
