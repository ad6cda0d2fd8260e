"""One stream of a yamux session: what the application writes to and gets data from.

Spec: https://github.com/hashicorp/yamux/blob/master/spec.md

Each direction has a window. Until its FIN the peer may send ``receive_window`` more bytes, and

    receive_window = 262144 + granted - received
    window size    = receive_window + not yet delivered + unread + consumed but not yet granted

Half a window of consumed bytes makes a WINDOW_UPDATE that grants them again.
"""

from typing import TYPE_CHECKING

from .muxed_stream import MuxedStream
from .yamux_frame import DATA, FIN, HEADER_SIZE, RST, SYN, WINDOW_UPDATE, encode

if TYPE_CHECKING:
    from .yamux import Yamux
    from .yamux_outbox import Outbox

INITIAL_WINDOW = 256 * 1024
MAX_PAYLOAD = 65519 - HEADER_SIZE
"""Payload of the largest frame we send: with its header it fills one noise message."""


class Stream(MuxedStream["Yamux"]):
    """One stream, see ``muxer.Stream``."""

    __slots__ = (
        "receive_window",
        "_acked", "_flags", "_granted_at", "_uncredited", "_window_size",
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
        # Half of what super costs: streams come by the thousand.
        MuxedStream.__init__(self, mux, outbox, stream_id, inbound, send_window)
        self.receive_window = INITIAL_WINDOW
        self._acked = inbound
        self._flags = flags  # the SYN or ACK that our first frame carries
        self._granted_at = now
        self._uncredited = 0  # consumed, not yet granted again
        self._window_size = INITIAL_WINDOW

    def __repr__(self) -> str:
        whose = "inbound" if self.inbound else "outbound"
        return f"<yamux stream {self.id} {whose} unsent={self.unsent} unread={self.unread}>"

    # Inside, for Yamux and Outbox too.

    def _consumed(self, size: int, now: float) -> None:
        self._uncredited += size
        if self._uncredited * 2 >= self._window_size and not (self.eof_received or self.is_reset):
            self._grant(now)

    def _stop(self) -> None:
        self.on_data = self._discard
        self._consumed(self.unread, self._granted_at)

    def _grant(self, now: float) -> None:
        """Grant what was consumed, and more if the window was too small for the distance."""
        mux = self._mux
        delta = self._uncredited
        self._uncredited = 0
        rtt = mux.rtt
        if rtt is not None and now - self._granted_at <= 4 * rtt and not self._settled:
            growth = mux._growth.reserve(self._window_size)
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

    def _send_reset(self, code: int) -> None:
        if not self._flags & SYN:  # else the peer has never heard of this stream
            self._mux._outbox.add(encode(WINDOW_UPDATE | RST, self.id, code))

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
