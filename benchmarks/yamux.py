"""How fast is yamux alone? Two sessions in one process, no crypto, no sockets; CPU time.

python benchmarks/yamux.py
"""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time

sys.path.insert(0, str(Path(__file__).parent.parent / "core"))

from anyp2p_core.limits import Limits
from anyp2p_core.yamux import Stream, Yamux
from anyp2p_core.yamux_frame import DATA, encode

BUDGET = 65519  # one noise message per flush


def nothing(stream: Stream, now: float) -> None:
    pass


class Pair:
    """Two sessions; what one sends the other receives."""

    def __init__(self, on_stream: Callable[[Stream, float], object]) -> None:
        self.a = Yamux(initiator=True, limits=Limits(), on_stream=nothing)
        self.b = Yamux(initiator=False, limits=Limits(), on_stream=on_stream)
        self.run()

    def run(self) -> None:
        a, b = self.a, self.b
        while a.wants_write or b.wants_write:
            if a.wants_write:
                b.receive(b"".join(a.data_to_send(BUDGET, 0.0)), 0.0)
            if b.wants_write:
                a.receive(b"".join(b.data_to_send(BUDGET, 0.0)), 0.0)


def read_and_credit(stream: Stream, now: float) -> None:
    def on_data(data: bytes, now: float) -> None:
        stream.credit(len(data), now)

    stream.on_data = on_data


def echo(stream: Stream, now: float) -> None:
    def on_data(data: bytes, now: float) -> None:
        stream.credit(len(data), now)
        stream.write(data)

    def on_eof(now: float) -> None:
        stream.write_eof()

    stream.on_data = on_data
    stream.on_eof = on_eof


def bulk(size: int) -> Callable[[], float]:
    """Bytes per second of writes of ``size``."""

    def run() -> float:
        pair = Pair(read_and_credit)
        stream = pair.a.open(0.0)
        chunk = bytes(size)
        total = 200 * 65507 if size < 1000 else 4000 * 65507
        start = process_time()
        sent = 0
        while sent < total:
            while sent < total and (taken := stream.write(chunk)):
                sent += taken
            pair.run()
        return total / (process_time() - start)

    return run


def small_frames() -> float:
    """Seconds to receive one 64-byte DATA frame, 1000 in a chunk."""
    streams: list[Stream] = []

    def on_stream(stream: Stream, now: float) -> None:
        read_and_credit(stream, now)
        streams.append(stream)

    pair = Pair(on_stream)
    pair.a.open(0.0)
    pair.run()
    chunk = (encode(DATA, 1, 64) + bytes(64)) * 1000
    start = process_time()
    for _ in range(300):
        pair.b.receive(chunk, 0.0)
        pair.b.data_to_send(BUDGET, 0.0)
    return (process_time() - start) / 300_000


def streams(in_flight: int) -> Callable[[], float]:
    """Seconds per stream: open, 32 bytes there and back, both directions closed."""

    def run() -> float:
        pair = Pair(echo)
        rounds = 30_000 // in_flight
        done: list[bytes] = []
        start = process_time()
        for _ in range(rounds):
            for _ in range(in_flight):
                stream = pair.a.open(0.0)
                stream.on_data = lambda data, now: done.append(data)
                stream.write(b"x" * 32)
                stream.write_eof()
            pair.run()
        elapsed = process_time() - start
        assert len(done) == rounds * in_flight and not pair.a.streams and not pair.b.streams
        return elapsed / len(done)

    return run


def ping_pong() -> float:
    """Seconds per 32-byte round trip on one stream, both ends."""
    pair = Pair(echo)
    stream = pair.a.open(0.0)
    stream.on_data = lambda data, now: stream.credit(len(data), now)
    start = process_time()
    for _ in range(20_000):
        stream.write(b"x" * 32)
        pair.run()
    return (process_time() - start) / 20_000


def report(name: str, measure: Callable[[], float], scale: float, unit: str) -> None:
    results = []
    for _ in range(5):
        gc.collect()
        results.append(measure() * scale)
    print(
        f"{name:52} {median(results):9.2f} {unit}  (min {min(results):.2f}, max {max(results):.2f})"
    )


if __name__ == "__main__":
    for size in (262_144, 65_507, 16_384, 1_024, 64):
        report(f"bulk, writes of {size} bytes, both ends", bulk(size), 1e-6, "MB/s")
    report("receive a 64-byte frame, credit included", small_frames, 1e6, "us")
    report("32-byte echo on one stream, one at a time", ping_pong, 1e6, "us")
    for in_flight in (64, 1):
        name = f"open, 32-byte echo, close; {in_flight} in flight"
        report(name, streams(in_flight), 1e6, "us")
