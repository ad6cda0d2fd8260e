"""Helpers of the mplex tests: frames, and sessions whose streams write down what happens."""

from yamux_pair import Log

from anyp2p_core.limits import Limits
from anyp2p_core.mplex import Mplex
from anyp2p_core.mplex_frame import decode, encode
from anyp2p_core.mplex_stream import Stream

__all__ = ["BUDGET", "Log", "Pair", "Session", "frame", "inbound", "outbound", "parse"]

BUDGET = 65519
FLAGS = {
    "NewStream": 0,
    "MessageReceiver": 1,
    "MessageInitiator": 2,
    "CloseReceiver": 3,
    "CloseInitiator": 4,
    "ResetReceiver": 5,
    "ResetInitiator": 6,
}
NAMES = list(FLAGS)


def frame(name: str, number: int, payload: bytes = b"") -> bytes:
    return encode(number << 3 | FLAGS[name], payload)


def inbound(number: int) -> int:
    """Our id of the stream with this number that the peer opened."""
    return number << 1 | 1


def outbound(number: int) -> int:
    """Our id of the stream with this number that we opened."""
    return number << 1


def parse(wire: bytes) -> list[tuple[str, int, bytes]]:
    """The frames in ``wire``: (name, number, payload). The last one must be whole."""
    frames = []
    pos = 0
    while pos < len(wire):
        found = decode(wire, pos)
        assert found is not None
        head, length, pos = found
        frames.append((NAMES[head & 7], head >> 3, wire[pos : pos + length]))
        pos += length
    assert pos == len(wire)
    return frames


class Session:
    """One Mplex whose inbound streams have logs, fed by hand."""

    def __init__(self, *, initiator: bool = False, reads: bool = True, **limits: float) -> None:
        self.logs: dict[int, Log] = {}
        self.reads = reads
        self.now = 0.0
        self.readied = 0
        self.mux = Mplex(
            initiator=initiator,
            limits=Limits(**limits),  # type: ignore[arg-type]
            on_stream=self.on_stream,
            on_ready=self.on_ready,
        )

    def on_stream(self, stream: Stream, now: float) -> None:
        assert now == self.now
        self.logs[stream.id] = Log(stream, self.reads)  # type: ignore[arg-type]

    def on_ready(self) -> None:
        self.readied += 1

    def open(self) -> Stream:
        stream = self.mux.open(self.now)
        self.logs[stream.id] = Log(stream, self.reads)  # type: ignore[arg-type]
        return stream

    def opened(self) -> Stream:
        """A stream of ours that the peer knows, with nothing left to send."""
        stream = self.open()
        self.wire()
        return stream

    def accepted(self, number: int = 0) -> Stream:
        """A stream that the peer opened."""
        self.receive(frame("NewStream", number, b"name"))
        return self.mux.streams[inbound(number)]

    def receive(self, *frames: bytes) -> None:
        self.mux.receive(b"".join(frames), self.now)

    def wire(self) -> bytes:
        """Everything that can be sent now."""
        out = bytearray()
        for _ in range(100_000):
            if not self.mux.wants_write:
                return bytes(out)
            pieces = self.mux.data_to_send(BUDGET, self.now)
            assert pieces
            out += b"".join(pieces)
        raise AssertionError("there is always something to send")

    def sent(self) -> list[tuple[str, int, bytes]]:
        return parse(self.wire())


class Pair:
    """Two sessions; ``run`` moves bytes until both are silent."""

    def __init__(self, *, reads: bool = True, **limits: float) -> None:
        self.a = Session(initiator=True, reads=reads, **limits)
        self.b = Session(initiator=False, reads=reads, **limits)

    def run(self, pieces: int = 1 << 30, budget: int = BUDGET) -> int:
        """Move everything, in segments of ``pieces`` bytes."""
        moved = 0
        a, b = self.a, self.b
        for _ in range(100_000):
            if not (a.mux.wants_write or b.mux.wants_write):
                return moved
            for here, there in ((a, b), (b, a)):
                data = b"".join(here.mux.data_to_send(budget, here.now))
                moved += len(data)
                for i in range(0, len(data), pieces):
                    there.mux.receive(data[i : i + pieces], there.now)
        raise AssertionError("the two never stop talking")

    def opened(self) -> tuple[Stream, Log]:
        """A stream that ``a`` opened, and ``b``'s side of it."""
        stream = self.a.open()
        self.run()
        return stream, self.b.logs[inbound(stream.number)]
