"""One stream of an mplex session: what the application writes to and gets data from.

Spec: https://github.com/libp2p/specs/blob/master/mplex/README.md

There is no flow control: the peer sends when it likes, and who does not read loses the stream.
"""

from typing import TYPE_CHECKING, Any, cast

from .mplex_frame import CLOSE, MAX_HEADER, MESSAGE, NEW_STREAM, RESET, encode, encode_number
from .muxed_stream import MuxedStream

if TYPE_CHECKING:
    from .mplex import Mplex
    from .yamux_outbox import Outbox

MAX_MESSAGE = 65519 - MAX_HEADER
"""Payload of the largest message we send: with its header it fills one noise message."""
SHARE = 32 * 1024
"""The same while other streams wait for their turn."""

_SHARE_LENGTH = encode_number(SHARE)


class Stream(MuxedStream["Mplex"]):
    """One stream, see ``muxer.Stream``. The code of ``on_reset`` is 0: there are none.

    ``id`` is ours: ``number``, the one in frames, may be that of another stream as well.

    ``shed``: this stream held more unread bytes than one may, or the connection did and this
    stream most of them.
    """

    __slots__ = ("number", "_head", "_is_new", "_message")

    def __init__(
        self, mux: "Mplex", outbox: "Outbox", stream_id: int, number: int, inbound: bool
    ) -> None:
        # Half of what super costs: streams come by the thousand.
        MuxedStream.__init__(self, mux, outbox, stream_id, inbound)
        self.number = number
        self._head = number << 3 | (not inbound)  # plus a flag
        self._message = encode_number(self._head + MESSAGE)
        self._is_new = not inbound  # the peer has never heard of it

    def __repr__(self) -> str:
        whose = "inbound" if self.inbound else "outbound"
        return f"<mplex stream {self.number} {whose} unsent={self.unsent} unread={self.unread}>"

    # Inside, for Mplex and Outbox too.

    def _send_reset(self, code: int) -> None:
        if not self._is_new:
            self._mux._outbox.add(encode(self._head + RESET))

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
