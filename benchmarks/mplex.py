"""How fast is mplex beside yamux? Two sessions in one process, bare and over Noise; CPU time.

python benchmarks/mplex.py
"""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time

sys.path.insert(0, str(Path(__file__).parent.parent / "runtimes"))
sys.path.insert(0, str(Path(__file__).parent.parent / "core"))

from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsEntropy
from anyp2p_core.keys import PrivateKey
from anyp2p_core.limits import MIB, Limits
from anyp2p_core.mplex import Mplex
from anyp2p_core.muxer import MuxerMaker, Stream
from anyp2p_core.noise import Noise, NoiseKeys
from anyp2p_core.yamux import Yamux

BUDGET = 65519  # one noise message per flush


def channels() -> tuple[Noise, Noise]:
    """Both ends of a secure channel, open."""
    crypto, entropy = Cryptography(), OsEntropy()
    outs: tuple[list[bytes], list[bytes]] = ([], [])
    dialer, listener = (
        Noise(
            initiator=out is outs[0],
            keys=NoiseKeys(PrivateKey.generate(crypto, entropy), crypto, entropy),
            crypto=crypto,
            entropy=entropy,
            write=out.append,
        )
        for out in outs
    )
    while outs[0] or outs[1]:
        for out, there in ((outs[0], listener), (outs[1], dialer)):
            data = b"".join(out)
            out.clear()
            if data:
                there.receive(data, 0.0)
    return dialer, listener


class Pair:
    """Two sessions; what one sends the other receives."""

    def __init__(
        self, muxer: MuxerMaker, on_stream: Callable[[Stream, float], object], *, noise: bool
    ) -> None:
        self.a = muxer(initiator=True, limits=Limits(), on_stream=lambda stream, now: None)
        self.b = muxer(initiator=False, limits=Limits(), on_stream=on_stream)
        self.channels = channels() if noise else None
        if self.channels:
            self.channels[0].on_data = self.a.receive
            self.channels[1].on_data = self.b.receive
        self.run()

    def run(self) -> None:
        a, b = self.a, self.b
        while a.wants_write or b.wants_write:
            for i, here, there in ((0, a, b), (1, b, a)):
                if here.wants_write:
                    chunks = here.data_to_send(BUDGET, 0.0)
                    if self.channels:
                        self.channels[1 - i].receive(self.channels[i].seal(chunks), 0.0)
                    else:
                        there.receive(b"".join(chunks), 0.0)


def read(stream: Stream, now: float) -> None:
    stream.on_data = lambda data, now: stream.credit(len(data), now)


def echo(stream: Stream, now: float) -> None:
    def on_data(data: bytes, now: float) -> None:
        stream.credit(len(data), now)
        stream.write(data)

    stream.on_data = on_data
    stream.on_eof = lambda now: stream.write_eof()


def bulk(muxer: MuxerMaker, count: int, size: int, noise: bool) -> float:
    """MB/s of 64 MiB in writes of ``size`` on ``count`` streams."""
    total = 64 * MIB
    pair = Pair(muxer, read, noise=noise)
    chunk = bytes(size)
    left = {pair.a.open(0.0): total // count for _ in range(count)}
    start = process_time()
    while any(left.values()):
        for stream in left:
            while left[stream]:
                taken = stream.write(chunk[: left[stream]])
                left[stream] -= taken
                if not taken:
                    break
        pair.run()
    return total / (process_time() - start) / 1e6


def ping_pong(muxer: MuxerMaker) -> float:
    """Microseconds per 32-byte round trip on one stream, both ends."""
    pair = Pair(muxer, echo, noise=False)
    stream = pair.a.open(0.0)
    read(stream, 0.0)
    start = process_time()
    for _ in range(20_000):
        stream.write(b"x" * 32)
        pair.run()
    return (process_time() - start) / 20_000 * 1e6


def streams(muxer: MuxerMaker) -> float:
    """Microseconds per stream: open, 32 bytes there and back, both directions closed."""
    pair = Pair(muxer, echo, noise=False)
    start = process_time()
    for _ in range(400):
        for _ in range(50):
            stream = pair.a.open(0.0)
            read(stream, 0.0)
            stream.write(b"x" * 32)
            stream.write_eof()
        pair.run()
    assert not pair.a.streams and not pair.b.streams
    return (process_time() - start) / 20_000 * 1e6


def report(name: str, unit: str, measure: Callable[[MuxerMaker], float]) -> None:
    results: dict[str, list[float]] = {"yamux": [], "mplex": []}
    for _ in range(5):  # in turns, so that a busy machine is no one's advantage
        for muxer, maker in (("yamux", Yamux), ("mplex", Mplex)):
            gc.collect()
            results[muxer].append(measure(maker))
    columns = (
        f"{muxer} {median(found):8.1f} ({min(found):.1f}-{max(found):.1f})"
        for muxer, found in results.items()
    )
    print(f"{name:44}", f" {unit}   ".join(columns), unit)


if __name__ == "__main__":
    for noise in (False, True):
        for count in (1, 100):
            for size in (65_507, 16_384, 1_024):
                where = "over noise" if noise else "bare"
                report(
                    f"64 MiB {where}, {count} streams, writes of {size}",
                    "MB/s",
                    lambda maker, c=count, s=size, n=noise: bulk(maker, c, s, n),  # type: ignore[misc]
                )
    report("32-byte echo on one stream, one at a time", "us", ping_pong)
    report("open, 32-byte echo, close; 50 in flight", "us", streams)
