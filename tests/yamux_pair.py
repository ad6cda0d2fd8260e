"""Helpers of the yamux tests: streams that write down what happens to them, and two sessions."""

from dataclasses import dataclass, field

from anyp2p_core.limits import Limits
from anyp2p_core.yamux import Yamux
from anyp2p_core.yamux_frame import DATA, FLAGS, GO_AWAY, PING, WINDOW_UPDATE, decode, encode
from anyp2p_core.yamux_stream import Stream

BUDGET = 65519
NAMES = {DATA: "DATA", WINDOW_UPDATE: "WINDOW_UPDATE", PING: "PING", GO_AWAY: "GO_AWAY"}
FLAG_NAMES = {1: "SYN", 2: "ACK", 4: "FIN", 8: "RST"}


def data_frame(flags: int, stream_id: int, payload: bytes) -> bytes:
    return encode(DATA | flags, stream_id, len(payload)) + payload


def parse(wire: bytes) -> list[tuple[str, int, int]]:
    """The frames in ``wire``: ("DATA SYN FIN", stream id, length). The last one must be whole."""
    frames = []
    pos = 0
    while pos < len(wire):
        head, stream_id, length = decode(wire, pos)
        flags = [name for bit, name in FLAG_NAMES.items() if head & bit]
        frames.append((" ".join([NAMES[head & ~FLAGS], *flags]), stream_id, length))
        pos += 12
        if head <= FLAGS:
            pos += length
    assert pos == len(wire)
    return frames


@dataclass(eq=False)
class Log:
    """What happened to one stream. With ``reads`` it credits what it gets, at once."""

    stream: Stream
    reads: bool = True
    events: list[str] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    sizes: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stream.on_data = self.on_data
        self.stream.on_eof = self.on_eof
        self.stream.on_reset = self.on_reset
        self.stream.on_writable = self.on_writable

    def on_data(self, data: bytes, now: float) -> None:
        assert type(data) is bytes and data
        if self.events[-1:] != ["data"]:
            self.events.append("data")
        self.data += data
        self.sizes.append(len(data))
        if self.reads:
            self.stream.credit(len(data), now)

    def on_eof(self, now: float) -> None:
        self.events.append("eof")

    def on_reset(self, code: int, now: float) -> None:
        self.events.append("reset")
        self.codes.append(code)

    def on_writable(self, now: float) -> None:
        self.events.append("writable")


class Session:
    """One Yamux whose inbound streams have logs, fed by hand."""

    def __init__(self, *, initiator: bool = False, reads: bool = True, **limits: float) -> None:
        self.logs: dict[int, Log] = {}
        self.reads = reads
        self.now = 0.0
        self.readied = 0
        self.mux = Yamux(
            initiator=initiator,
            limits=Limits(**limits),  # type: ignore[arg-type]
            on_stream=self.on_stream,
            on_ready=self.on_ready,
        )

    def on_stream(self, stream: Stream, now: float) -> None:
        assert now == self.now
        self.logs[stream.id] = Log(stream, self.reads)

    def on_ready(self) -> None:
        self.readied += 1

    def open(self) -> Stream:
        stream = self.mux.open(self.now)
        self.logs[stream.id] = Log(stream, self.reads)
        return stream

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

    def sent(self) -> list[tuple[str, int, int]]:
        return parse(self.wire())


def quiet(**limits: float) -> Session:
    """An acceptor whose first ping has been sent and answered with a round trip of 0.1 s."""
    session = Session(**limits)
    assert session.sent() == [("PING SYN", 0, 0)]
    session.now = 0.1
    session.receive(bytes.fromhex("000200020000000000000000"))
    assert session.mux.rtt == 0.1
    return session


class Pair:
    """Two sessions; ``run`` moves bytes until both are silent."""

    def __init__(self, *, reads: bool = True, **limits: float) -> None:
        self.a = Session(initiator=True, reads=reads, **limits)
        self.b = Session(initiator=False, reads=reads, **limits)

    def run(self, pieces: int = 1 << 30, delay: float = 0.0, budget: int = BUDGET) -> int:
        """Move everything, in segments of ``pieces`` bytes, each way taking ``delay`` seconds."""
        moved = 0
        a, b = self.a, self.b
        for _ in range(100_000):
            if not (a.mux.wants_write or b.mux.wants_write):
                return moved
            for here, there in ((a, b), (b, a)):
                data = b"".join(here.mux.data_to_send(budget, here.now))
                here.now = there.now = here.now + delay
                moved += len(data)
                for i in range(0, len(data), pieces):
                    there.mux.receive(data[i : i + pieces], there.now)
        raise AssertionError("the two never stop talking")

    def opened(self) -> tuple[Stream, Log]:
        """A stream that ``a`` opened, and ``b``'s side of it."""
        stream = self.a.open()
        self.run()
        return stream, self.b.logs[stream.id]
