"""One simulated TCP connection: two ends, and what each has on its way to the other.

    dialer                                 listener
      SYN            --latency-->          nobody listens: refused; dropped: asked again after 1 s,
                     <--latency--          2 s, 4 s ...
      on_connected
      OPEN, bytes    --latency-->          on_connected, on_data
      FIN            --------------->      on_eof, and FIN back
      RST            --------------->      on_disconnected with an error

Bytes arrive in order. A lost packet is a late one: it and all behind it wait for its
retransmission. What meets a cut link is held, and tries again after ever longer pauses, as TCP
does; so is what comes to an end that does not read.

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
        "_ack_stalls", "_air", "_answered", "_buffer", "_clock", "_held", "_key", "_last",
        "_network", "_packets", "_stalls", "_unacked", "_unblocking",
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
        self._buffer = network.socket_buffer
        self._clock: Clock = network.clock
        self._held: deque[bytes | int] | None = None
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
        outstanding = self.outstanding = self.outstanding + size
        self._launch(data, size)
        if outstanding > self._buffer and not self.full:
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
        if self.peer._held:
            self._clock.ready.append((_release, self.peer))

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
        self._last = when
        clock.call_at(when, _arrive, (self, what))

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

    def _hold(self, what: bytes | int) -> None:
        """The link is cut, the other end does not read, or something else waits already."""
        if self._held is None:
            self._held = deque()
        self._held.append(what)
        if self.path.blocked and not self._stalls:
            self._clock.call_at(self._clock.now + self._pause(1), _retry, self)
            self._stalls = 1

    def _pause(self, tries: int) -> float:
        return min(self.path.timeout * 2.0 ** (tries - 1), MAX_TIMEOUT)

    def _hold_up(self, size: int) -> None:
        """Bytes got there, but their acknowledgement may not get back: ask later."""
        if not self._unacked:
            self._ack_stalls = 1
            self._clock.call_at(self._clock.now + self._pause(1), _acknowledge, self)
        self._unacked += size

    def _make_room(self) -> None:
        """Tell a blocked sender, one latency later, when half of the buffer is free."""
        if not self._unblocking and self.outstanding <= self._buffer // 2:
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


def _arrive(pair: tuple[End, bytes | int]) -> None:
    end, what = pair
    peer, path = end.peer, end.path
    if peer.paused or path.blocked or end._held:
        end._hold(what)
    elif type(what) is bytes and peer.alive:
        if path.cut:
            end._hold_up(len(what))
        else:
            end.outstanding -= len(what)
        end._network.recorder.delivered(end._clock.now, peer.host.place, peer.conn, what)
        peer.host.on_data(peer.conn, what)
        if end.full:
            end._make_room()
    else:
        peer._take(what)


def _release(end: End) -> None:
    """What was held may go on, until something stops it again."""
    held, end._held = end._held, None
    while held and not end.peer.paused and not end._held:
        _arrive((end, held.popleft()))
    if held:
        if end._held:
            end._held.extend(held)
        else:
            end._held = held


def _retry(end: End) -> None:
    """TCP sends again what met a cut link."""
    if not end.path.blocked:
        end._stalls = 0
        _release(end)
        return
    end._stalls += 1
    if end._stalls > GIVE_UP:
        end._held = None
        end.break_off(TimeoutError(ETIMEDOUT, "Connection timed out"))
    else:
        end._clock.call_at(end._clock.now + end._pause(end._stalls), _retry, end)


def _touch_down(end: End) -> None:
    """A first byte is at the receiver's downlink, which takes one thing after the other."""
    air, machine, clock = end._air, end.path.to, end._clock
    assert air
    _, when, what = air.popleft()
    if machine.down_rate is not None and type(what) is bytes:
        start = max(clock.now, machine.down_free)
        machine.down_free = start + len(what) / machine.down_rate
        when = max(when, machine.down_free)
    when = end._last = max(when, end._last)
    clock.call_at(when, _arrive, (end, what))
    if air:
        clock.call_at(air[0][0], _touch_down, end)


def _unblock(end: End) -> None:
    end._unblocking = False
    if end.alive and end.outstanding <= end._buffer:
        end.full = False
        end.host.on_blocked(end.conn, False)


def _acknowledge(end: End) -> None:
    """Acknowledgements were held up by a cut link."""
    if not end.alive:
        return
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
