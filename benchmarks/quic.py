"""What do our streams and limits cost on top of aioquic? Two ends in one process, no sockets; CPU.

python benchmarks/quic.py
"""

import gc
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from ssl import CERT_NONE
from statistics import median
from time import process_time, time

sys.path.insert(0, str(Path(__file__).parent.parent / "core"))
sys.path.insert(0, str(Path(__file__).parent.parent / "runtimes"))

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection as Raw
from aioquic.quic.events import HandshakeCompleted, StreamDataReceived
from cryptography.x509 import load_der_x509_certificate

from anyp2p.providers.certificates import make_certificate
from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsEntropy
from anyp2p.providers.quic import Aioquic
from anyp2p_core.errors import ConnectionLost
from anyp2p_core.keys import PrivateKey
from anyp2p_core.limits import Limits
from anyp2p_core.quic import QuicEndpoint, Source
from anyp2p_core.quic_connection import QuicConnection
from anyp2p_core.quic_packet import MIN_INITIAL
from anyp2p_core.timers import Timers

TOTAL = 64 * 1024 * 1024
PIECE = 256 * 1024
DELAY = 0.002
CRYPTO = Cryptography()
TURN = 64
"""Datagrams that a runtime takes in a row."""
TICK = 0.0005
"""Seconds between two turns of a loop under load: what became due meanwhile is done together."""


class RawPair:
    """aioquic alone, its windows wide open, as its own examples drive it."""

    def __init__(self) -> None:
        self.now = 100.0
        key = PrivateKey.generate(CRYPTO, OsEntropy())
        der, own = make_certificate(key, time())
        shared = {
            "alpn_protocols": ["libp2p"],
            "max_data": 15_000_000,
            "max_stream_data": 10_000_000,
            "max_datagram_size": MIN_INITIAL,
            "certificate": load_der_x509_certificate(der),
            "private_key": own,
            "verify_mode": CERT_NONE,
        }
        self.a = Raw(configuration=QuicConfiguration(is_client=True, **shared))
        self.a.connect(("a", 1), now=self.now)
        self.b = Raw(
            configuration=QuicConfiguration(is_client=False, **shared),
            original_destination_connection_id=self.a.original_destination_connection_id,
        )
        self.queue: deque[tuple[float, Raw, bytes]] = deque()
        self.received = 0
        self.complete = 0
        while self.complete < 2:
            self.step()

    def step(self) -> None:
        for here, there in ((self.a, self.b), (self.b, self.a)):
            if here._network_paths:
                for data, _ in here.datagrams_to_send(self.now):
                    self.queue.append((self.now + DELAY, there, data))
        timers = [t for t in (self.a.get_timer(), self.b.get_timer()) if t is not None]
        when = min([self.queue[0][0], *timers] if self.queue else timers)
        self.now = max(self.now + TICK, when)
        for _ in range(TURN):
            if not self.queue or self.queue[0][0] > self.now:
                break
            _, there, data = self.queue.popleft()
            there.receive_datagram(data, ("a", 1), self.now)
        for one in (self.a, self.b):
            timer = one.get_timer()
            if timer is not None and timer <= self.now:
                one.handle_timer(self.now)
            while (event := one.next_event()) is not None:
                if isinstance(event, StreamDataReceived):
                    self.received += len(event.data)
                elif isinstance(event, HandshakeCompleted):
                    self.complete += 1

    def bulk(self) -> float:
        piece = bytes(PIECE)
        stream = self.a.get_next_available_stream_id()
        sent = 0
        start = process_time()
        while self.received < TOTAL:
            # As much in hand as ours has: a stream's buffer of 256 KiB.
            while sent < TOTAL and sent - self.received < 4 * PIECE:
                self.a.send_stream_data(stream, piece)
                sent += PIECE
            self.step()
        return TOTAL / (process_time() - start)


class Place:
    """An endpoint and what it needs of a node."""

    def __init__(self, now: float) -> None:
        self.key = PrivateKey.generate(CRYPTO, OsEntropy())
        self.limits = Limits()
        self.timers = Timers()
        self.security: dict[str, object] = {}
        self.muxers: dict[str, object] = {}
        self.unread = 0
        self.received = 0
        self.opened: list[QuicConnection] = []
        self.connections: dict[int, QuicConnection] = {}
        self.endpoint = QuicEndpoint(Aioquic(self.key, time()), self)  # type: ignore[arg-type]
        self.endpoint.listening[1] = None
        self.call_at = self.timers.call_at
        self.cancel = self.timers.cancel
        self.epoch = time() - now

    def connection(self, initiator: bool) -> QuicConnection:
        conn = len(self.connections) + 1
        self.connections[conn] = QuicConnection(
            conn, initiator=initiator, owner=self, crypto=CRYPTO, local=None, remote=None,
            expected=None,
        )  # fmt: skip
        return self.connections[conn]

    def wall(self, now: float) -> float:
        return now + self.epoch

    def accept_quic(self, sock: int, source: Source, now: float) -> QuicConnection:
        return self.connection(False)

    def on_upgraded(self, connection: QuicConnection, now: float) -> None:
        self.opened.append(connection)
        connection.streams._on_stream = self.on_stream

    def on_stream(self, stream: object, now: float) -> None:
        def on_data(data: bytes, now: float) -> None:
            self.received += len(data)
            stream.credit(len(data), now)

        stream.on_data = on_data

    def fail(self, conn: int, error: Exception, now: float) -> None:
        raise error

    def disconnected(self, conn: int, error: Exception | None, now: float) -> None:
        raise ConnectionLost("{}", error)

    def flushed(self, connection: QuicConnection, now: float) -> None:
        pass


class OurPair:
    """The same with endpoints, windows that follow the reader, and connections of ours."""

    def __init__(self, places: tuple[Place, Place] | None = None) -> None:
        self.now = 100.0
        self.a, self.b = places or (Place(self.now), Place(self.now))
        self.queue: deque[tuple[float, Place, bytes]] = deque()
        opened = len(self.b.opened)
        self.ours = self.a.connection(True)
        self.a.endpoint.dial(self.ours, 1, ("192.0.2.1", 1), self.now)
        while self.ours.muxer is None or len(self.b.opened) == opened:
            self.step()

    def step(self) -> None:
        for here, there in ((self.a, self.b), (self.b, self.a)):
            for _, _, data in here.endpoint.datagrams(self.now):
                self.queue.append((self.now + DELAY, there, data))
        timers = [self.a.timers.next_timeout(), self.b.timers.next_timeout()]
        known = [timer for timer in timers if timer is not None]
        self.now = max(self.now + TICK, min([self.queue[0][0], *known] if self.queue else known))
        for _ in range(TURN):
            if not self.queue or self.queue[0][0] > self.now:
                break
            _, there, data = self.queue.popleft()
            there.endpoint.receive(1, data, ("192.0.2.1", 1), self.now)
        for place in (self.a, self.b):
            place.timers.run(self.now)

    def bulk(self) -> float:
        piece = bytes(PIECE)
        assert self.ours.muxer is not None
        stream = self.ours.muxer.open(self.now)
        sent = 0
        start = process_time()
        while self.b.received < TOTAL:
            while sent < TOTAL and (taken := stream.write(piece)):
                sent += taken
            self.step()
        return TOTAL / (process_time() - start)


def handshakes(make: Callable[[], object], count: int = 100) -> float:
    start = process_time()
    for _ in range(count):
        make()
    return count / (process_time() - start)


def our_handshakes() -> float:
    places = Place(100.0), Place(100.0)
    return handshakes(lambda: OurPair(places))


def compare(
    name: str, raw: Callable[[], float], ours: Callable[[], float], scale: float, unit: str
) -> None:
    results: tuple[list[float], list[float]] = ([], [])
    for _ in range(5):
        for measure, into in zip((raw, ours), results, strict=True):
            gc.collect()
            into.append(measure() * scale)
    ceiling, own = (median(one) for one in results)
    print(
        f"{name:32} aioquic {ceiling:8.2f} {unit} ({min(results[0]):.2f}-{max(results[0]):.2f})  "
        f"ours {own:8.2f} {unit} ({min(results[1]):.2f}-{max(results[1]):.2f})  "
        f"ratio {own / ceiling:.2f}"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        TOTAL = int(sys.argv[1]) * 1024 * 1024
    compare(
        f"one stream, {TOTAL >> 20} MiB",
        lambda: RawPair().bulk(),
        lambda: OurPair().bulk(),
        1e-6,
        "MB/s",
    )
    compare("handshakes", lambda: handshakes(RawPair), our_handshakes, 1.0, "/s")
