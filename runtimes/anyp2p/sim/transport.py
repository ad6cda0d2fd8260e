"""One simulated TCP connection: two ends, and what each has on its way to the other.

    dialer                                 listener
      SYN            --latency-->          nobody listens: refused; dropped: asked again after 1 s,
                     <--latency--          2 s, 4 s ...
      on_connected
      OPEN, bytes    --latency-->          on_connected, on_data
      FIN            --------------->      on_eof, and FIN back
      RST            --------------->      on_disconnected with an error

Bytes arrive in order. A lost packet is a late one: it and all behind it wait for its
retransmission. What meets a cut link waits too, and tries again after ever longer pauses, as TCP
does. Each direction has one heap entry at most, whatever it carries.

    outstanding   bytes sent and not yet read by the other runtime. Above ``socket_buffer`` the
                  sender is told that it is blocked; it may go on when half of it is free, and
                  learns that one latency later. A reader that pauses leaves them outstanding.
"""

from collections import deque
from errno import ECONNRESET, ETIMEDOUT
from typing import TYPE_CHECKING

from .keyed import uniforms

if TYPE_CHECKING:
    from anyp2p_core.multiaddr import Multiaddr

    from .clock import Clock
    from .host import Host
    from .network import Network, Path

SEGMENT = 1460
"""Payload bytes of one packet, each of which may be lost."""
MIN_TIMEOUT = 0.2
"""Seconds that a retransmission waits beyond the round trip."""
MAX_TIMEOUT = 120.0
GIVE_UP = 15
"""Retransmissions in a row after which the connection is lost."""

OPEN, FIN, RST = range(3)


class End:
    """One end of a connection, and the direction that leads away from it."""

    __slots__ = (
        "alive", "conn", "fin_received", "fin_sent", "full", "host", "local", "outstanding",
        "path", "paused", "peer", "remote",
        "_ack_stalls", "_air", "_answered", "_armed", "_clock", "_key", "_last", "_network",
        "_packets", "_queue", "_stalls", "_unacked", "_unblocking",
    )  # fmt: skip

    peer: "End"

    def __init__(
        self,
        network: "Network",
        host: "Host",
        path: "Path",
        local: "Multiaddr",
        remote: "Multiaddr",
        key: bytes,
    ) -> None:
        self.host = host
        self.conn = 0
        self.path = path
        self.local = local
        self.remote = remote
        self.alive = False
        """The host knows this end, and it was not closed."""
        self.fin_sent = False
        self.fin_received = False
        self.full = False
        self.paused = False
        self.outstanding = 0
        self._network = network
        self._clock: Clock = network.clock
        self._queue: deque[tuple[float, bytes | int]] = deque()
        self._armed = False
        self._last = 0.0
        # What waits for the receiver's downlink: first byte there, last byte there, the bytes.
        self._air: deque[tuple[float, float, bytes | int]] | None = None
        self._key = key
        self._packets = 0
        self._stalls = 0
        self._ack_stalls = 0
        self._unacked = 0
        self._unblocking = False
        self._answered = False

    # What a host does with its end.

    def send(self, data: bytes) -> None:
        """Put bytes on their way; the host is told when that were enough."""
        size = len(data)
        self.outstanding += size
        self._launch(data, size)
        if self.outstanding > self._network.socket_buffer and not self.full:
            self.full = True
            self.host.on_blocked(self.conn, True)

    def finish(self) -> None:
        """Close this direction, behind what was sent."""
        if not self.fin_sent:
            self.fin_sent = True
            self._launch(FIN, 0)
            if self.fin_received:
                self._clock.ready.append((_close, self))

    def abort(self) -> None:
        """Close both directions; the other end learns it behind what was sent."""
        if self.alive:
            self.alive = False
            self._launch(RST, 0)
            self._clock.ready.append((_close, self))

    def resume(self) -> None:
        """Read again, first of all what has come meanwhile."""
        self.paused = False
        sender = self.peer
        if sender._queue and not sender._armed:
            sender._armed = True
            self._clock.call_at(sender._queue[0][0], _arrive, sender)

    # What the network does with it.

    def open(self, conn: int) -> None:
        """The host knows this end by ``conn`` from now on."""
        self.conn = conn
        self.alive = True

    def greet(self) -> None:
        """The last packet of the dialer's handshake: it makes the other end."""
        self._launch(OPEN, 0)

    def refuse(self) -> None:
        """Nobody is at this end: answer with a reset, once."""
        if not self._answered:
            self._answered = True
            self._launch(RST, 0)

    def break_off(self, error: Exception | None) -> None:
        """This end is lost without a word to the other one."""
        if self.alive:
            self.alive = False
            self._queue.clear()
            self._air = None
            self.host.lost(self, error)

    # The way to the other end.

    def _launch(self, what: bytes | int, size: int) -> None:
        clock, path = self._clock, self.path
        when = clock.now + path.latency
        if path.shaped or self._air:
            when = self._shape(what, size, path)
            if when < 0.0:
                return
        if when < self._last:
            when = self._last
        else:
            self._last = when
        self._queue.append((when, what))
        if not self._armed:
            self._armed = True
            clock.call_at(when, _arrive, self)

    def _shape(self, what: bytes | int, size: int, path: "Path") -> float:
        """When the last byte arrives; negative when the receiver's downlink will decide that."""
        source = path.source
        start = end = self._clock.now
        if source.up_rate is not None:
            start = max(start, source.up_free)
            end = source.up_free = start + size / source.up_rate
        delay = path.latency
        if path.jitter or path.loss:
            jitter, loss = uniforms(self._key, self._packets)
            self._packets += 1
            delay += jitter * path.jitter + retransmissions(loss, size, path)
        if path.to.down_rate is None and not self._air:
            return end + delay
        start += delay
        if self._air is None:
            self._air = deque()
        elif self._air:
            start = max(start, self._air[-1][0])
        self._air.append((start, end + delay, what))
        if len(self._air) == 1:
            self._clock.call_at(start, _touch_down, self)
        return -1.0

    # The other end, seen from there.

    def _take(self, what: bytes | int) -> None:
        """Something that is not bytes for a living end has arrived here."""
        if what is OPEN:
            self._network.accept(self)
        elif not self.alive:
            if what is not RST:
                self.refuse()
        elif what is RST:
            self.break_off(ConnectionResetError(ECONNRESET, "Connection reset by peer"))
        else:
            self.fin_received = True
            self.host.on_eof(self.conn)
            self._clock.ready.append((_close, self))
            if self.alive:
                self.finish()

    # Cut links.

    def _stalled(self) -> bool:
        """Nothing gets through: try again later, or give up."""
        if not self.path.blocked:
            return False
        self._stalls += 1
        if self._stalls > GIVE_UP:
            self._queue.clear()
            self.break_off(TimeoutError(ETIMEDOUT, "Connection timed out"))
        else:
            self._armed = True
            self._clock.call_at(self._clock.now + self._pause(self._stalls), _arrive, self)
        return True

    def _pause(self, tries: int) -> float:
        return min(self.path.timeout * 2.0 ** (tries - 1), MAX_TIMEOUT)

    def _got(self, size: int) -> None:
        """The other runtime has read so many bytes; the acknowledgement may be held up."""
        if not self.path.cut:
            self.outstanding -= size
            return
        if not self._unacked:
            self._ack_stalls = 1
            self._clock.call_at(self._clock.now + self._pause(1), _acknowledge, self)
        self._unacked += size

    def _make_room(self) -> None:
        """Tell a blocked sender, one latency later, when half of the buffer is free."""
        if not self._unblocking and self.outstanding <= self._network.socket_buffer // 2:
            self._unblocking = True
            self._clock.call_at(self._clock.now + self.path.reverse.latency, _unblock, self)


def retransmissions(draw: float, size: int, path: "Path") -> float:
    """Seconds by which lost packets delay ``size`` bytes, decided by one draw in [0, 1)."""
    loss = path.loss
    segments = -(-size // SEGMENT)
    lost = 1.0 - (1.0 - loss) ** segments if segments > 1 else loss
    if draw >= lost:
        return 0.0
    # With a few packets behind it a loss is noticed after one round trip.
    delay = path.latency + path.reverse.latency if segments > 3 else path.timeout
    pause = path.timeout
    for _ in range(GIVE_UP):
        draw /= lost  # uniform again, given that it was lost
        lost = loss
        if draw >= lost:
            break
        pause = min(2 * pause, MAX_TIMEOUT)
        delay += pause
    return delay


# Called by the clock, with the end that sent.


def _arrive(end: End) -> None:
    if end.path.cut:
        if end._stalled():
            return
        end._stalls = 0
    clock, queue, peer = end._clock, end._queue, end.peer
    now = clock.now
    while queue and not peer.paused:
        when, what = queue[0]
        if when > now:
            clock.call_at(when, _arrive, end)
            break
        queue.popleft()
        if type(what) is bytes and peer.alive:
            end._got(len(what))
            end._network.recorder.delivered(now, peer.path.source.index, peer.conn, what)
            peer.host.on_data(peer.conn, what)
        else:
            peer._take(what)
    else:
        end._armed = False
    if end.full:
        end._make_room()


def _touch_down(end: End) -> None:
    """A first byte is at the receiver's downlink, which takes one thing after the other."""
    air, machine, clock = end._air, end.path.to, end._clock
    if not air:
        return  # the connection broke meanwhile
    _, when, what = air.popleft()
    if machine.down_rate is not None and type(what) is bytes:
        start = max(clock.now, machine.down_free)
        machine.down_free = start + len(what) / machine.down_rate
        when = max(when, machine.down_free)
    when = end._last = max(when, end._last)
    end._queue.append((when, what))
    if not end._armed:
        end._armed = True
        clock.call_at(when, _arrive, end)
    if air:
        clock.call_at(air[0][0], _touch_down, end)


def _unblock(end: End) -> None:
    end._unblocking = False
    if end.alive and end.outstanding <= end._network.socket_buffer:
        end.full = False
        end.host.on_blocked(end.conn, False)


def _acknowledge(end: End) -> None:
    """Acknowledgements were held up by a cut link."""
    if end.path.reverse.blocked:
        end._ack_stalls += 1
        if end._ack_stalls > GIVE_UP:
            end.break_off(TimeoutError(ETIMEDOUT, "Connection timed out"))
        else:
            end._clock.call_at(end._clock.now + end._pause(end._ack_stalls), _acknowledge, end)
        return
    end.outstanding -= end._unacked
    end._unacked = 0
    if end.full:
        end._make_room()


def _close(end: End) -> None:
    """Both directions are closed, or this end was aborted."""
    end.alive = False
    end.host.lost(end, None)
