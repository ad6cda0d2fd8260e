"""aioquic alone over UDP sockets, under the benchmarks' commands: what QUIC costs before libp2p.

    channels_aioquic.py [--judged]

No event loop and nothing awaited: one loop around select, 64 datagrams in a row at most. Windows
wide open, datagrams of 1200 bytes as ours. A new connection uses the socket of those before.

Without --judged everything is as aioquic ships: the server shows a certificate that nobody checks.
With it the handshake is that of libp2p by library calls alone: both ends show a certificate of
libp2p's kind and check the other's, with the two key exchange groups that ours offers.
"""

import argparse
import json
import select
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from ssl import CERT_NONE
from typing import Any

import aioquic
from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionIdIssued,
    ConnectionTerminated,
    HandshakeCompleted,
    StreamDataReceived,
)
from channels_certificate import check, make
from process import say, usage

from anyp2p_core.quic_packet import MIN_INITIAL

ID_LENGTH = 8
TURN = 64
PIECE = 256 * 1024
AHEAD = 4 * PIECE
BUFFER = 4 * 1024 * 1024
ECHO, UPLOAD = b"E", b"U"

Answer = dict[str, Any]


class Judged(QuicConnection):
    """One whose peer must show a certificate."""

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        context: Any = self.tls
        context._request_client_certificate = True
        context._supported_groups = [tls.Group.X25519, tls.Group.SECP256R1]


class Call:
    """One connection, and what happened on it."""

    def __init__(self, quic: QuicConnection) -> None:
        self.quic = quic
        self.open = False
        self.over = False
        self.uploads: set[int] = set()
        self.answer = b""


class End:
    """A socket with its connections: serves and dials."""

    def __init__(self, judged: bool) -> None:
        self.judged = judged
        self.make = Judged if judged else QuicConnection
        certificate, key = make()
        self.client, self.server = (
            QuicConfiguration(
                is_client=is_client,
                alpn_protocols=["libp2p"],
                max_data=15_000_000,
                max_stream_data=10_000_000,
                max_datagram_size=MIN_INITIAL,
                certificate=certificate,
                private_key=key,
                verify_mode=CERT_NONE,
            )
            for is_client in (True, False)
        )
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        self.sock.bind(("127.0.0.1", 0))
        self.calls: dict[bytes, Call] = {}
        self.live: dict[Call, None] = {}

    def dial(self, target: tuple[str, int]) -> Call:
        call = Call(self.make(configuration=self.client))
        self.calls[call.quic.host_cid] = call
        self.live[call] = None
        call.quic.connect(target, now=time.monotonic())
        self.send()
        self.until(lambda: call.open)
        return call

    def hang_up(self, call: Call) -> None:
        """Say so and forget it: nobody waits for the last words to be repeated."""
        call.quic.close()
        self.send()
        self.forget(call)

    def forget(self, call: Call) -> None:
        self.live.pop(call, None)
        for name in [name for name, one in self.calls.items() if one is call]:
            del self.calls[name]

    def until(self, done: Callable[[], bool]) -> None:
        while not done():
            self.turn()

    def turn(self, also: int | None = None) -> bool:
        """Wait for datagrams or a timer; returns whether ``also`` is readable."""
        timers = [at for call in self.live if (at := call.quic.get_timer()) is not None]
        wait = max(0.0, min(timers) - time.monotonic()) if timers else None
        watched = [self.sock] if also is None else [self.sock, also]
        readable, _, _ = select.select(watched, [], [], wait)
        now = time.monotonic()
        if self.sock in readable:
            for _ in range(TURN):
                try:
                    data, source = self.sock.recvfrom(65535)
                except BlockingIOError:
                    break
                self.receive(data, source, now)
        for call in list(self.live):
            at = call.quic.get_timer()
            if at is not None and at <= now:
                call.quic.handle_timer(now)
            self.events(call)
        self.send()
        return also in readable

    def receive(self, data: bytes, source: tuple[str, int], now: float) -> None:
        name = data[6 : 6 + data[5]] if data[0] & 0x80 else data[1 : 1 + ID_LENGTH]
        call = self.calls.get(name)
        if call is None:
            if data[0] & 0xF0 != 0xC0:  # no Initial: of a connection that is over
                return
            call = Call(
                self.make(configuration=self.server, original_destination_connection_id=name)
            )
            self.calls[name] = self.calls[call.quic.host_cid] = call
            self.live[call] = None
        call.quic.receive_datagram(data, source, now)

    def send(self) -> None:
        now = time.monotonic()
        for call in self.live:
            for data, target in call.quic.datagrams_to_send(now):
                with suppress(BlockingIOError):  # lost, as in a network
                    self.sock.sendto(data, target)

    def events(self, call: Call) -> None:
        while (event := call.quic.next_event()) is not None:
            if isinstance(event, StreamDataReceived):
                self.on_data(call, event.stream_id, event.data, event.end_stream)
            elif isinstance(event, HandshakeCompleted):
                if self.judged:
                    check(call.quic.tls._peer_certificate)  # type: ignore[arg-type]
                call.open = True
            elif isinstance(event, ConnectionIdIssued):
                self.calls[event.connection_id] = call
            elif isinstance(event, ConnectionTerminated):
                call.over = True
                self.forget(call)

    def on_data(self, call: Call, stream: int, data: bytes, fin: bool) -> None:
        if call.quic.configuration.is_client:
            call.answer += data
        elif stream in call.uploads or data.startswith(UPLOAD):
            call.uploads.add(stream)
            if fin:
                call.quic.send_stream_data(stream, b"!", True)
        elif data:
            call.quic.send_stream_data(stream, data[1:], True)


class Commands:
    def __init__(self, end: End) -> None:
        self.end = end
        self.call: Call | None = None

    def dial(self, request: Answer) -> Answer:
        self.call = self.end.dial(_target(request["address"]))
        return {"peer": "raw"}

    def disconnect(self, request: Answer) -> Answer:
        assert self.call is not None
        self.end.hang_up(self.call)
        return {}

    def perf(self, request: Answer) -> Answer:
        call, end, left = self.call, self.end, request["upload"]
        assert call is not None
        call.answer = b""
        quic = call.quic
        start = time.perf_counter()
        stream = quic.get_next_available_stream_id()
        quic.send_stream_data(stream, UPLOAD)
        held = quic._streams[stream].sender._buffer  # what is not acknowledged yet
        piece = bytes(PIECE)
        while left:
            while left and len(held) < AHEAD:
                size = min(left, PIECE)
                left -= size
                quic.send_stream_data(stream, piece[:size], not left)
            end.send()
            if left:
                end.turn()
        end.until(lambda: call.answer == b"!" or call.over)
        seconds = time.perf_counter() - start
        if call.over:
            raise RuntimeError("the connection ended")
        return {"upload_seconds": seconds}

    def connects(self, request: Answer, ping: bool = False) -> Answer:
        end, seconds, payload = self.end, 0.0, bytes(32)
        for _ in range(request["count"]):
            start = time.perf_counter()
            call = end.dial(_target(request["address"]))
            if ping:
                stream = call.quic.get_next_available_stream_id()
                call.quic.send_stream_data(stream, ECHO + payload)
                end.send()
                end.until(lambda call=call: len(call.answer) == 32)  # type: ignore[misc]
            seconds += time.perf_counter() - start
            end.hang_up(call)
        return {"seconds": seconds}

    def first_pings(self, request: Answer) -> Answer:
        return self.connects(request, ping=True)

    def cpu(self, request: Answer) -> Answer:
        return dict(usage())


def _target(address: str) -> tuple[str, int]:
    words = address.split("/")
    return words[2], int(words[4])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--judged", action="store_true")
    args, _ = parser.parse_known_args()  # the harness also passes what other peers understand
    end = End(args.judged)
    commands = Commands(end)
    port = end.sock.getsockname()[1]
    say(
        {
            "event": "ready",
            "peer": "raw",
            "addresses": [f"/ip4/127.0.0.1/udp/{port}/quic-v1/p2p/raw"],
            "agent": "aioquic",
            "implementation": f"aioquic {aioquic.__version__} alone",
        }
    )
    stdin = sys.stdin.fileno()
    while True:
        if not end.turn(stdin):
            continue
        line = sys.stdin.buffer.raw.readline()  # type: ignore[attr-defined]
        if not line:
            return
        request = json.loads(line)
        number = request["id"]
        if request["cmd"] == "stop":
            say({"id": number, "ok": True})
            return
        try:
            answer = getattr(commands, request["cmd"])(request)
        except Exception as error:
            say({"id": number, "ok": False, "error": f"{type(error).__name__}: {error}"})
        else:
            say({"id": number, "ok": True, **answer})


if __name__ == "__main__":
    main()
