"""Our secio against the last js peer that had it: both roles, every curve, cipher and hash.

    python conformance/museum/secio/check.py

Needs node, npm and, for the first run, the package registry: the peer is built into the cache of
building.py. One line per case; the exit code is 1 if a case failed, 77 if nothing could be tried.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from building import NOT_HERE, BuildFailed, Built, NotHere, Spec, prepare  # noqa: E402

from anyp2p.providers.crypto import Cryptography  # noqa: E402
from anyp2p.providers.entropy import OsEntropy  # noqa: E402
from anyp2p.providers.secio import OpensslSecio  # noqa: E402
from anyp2p_core import HandshakeError, PeerId, PrivateKey  # noqa: E402
from anyp2p_core.crypto import KeyType  # noqa: E402
from anyp2p_core.secio import CIPHERS, EXCHANGES, HASHES, Secio, SecioSecurity  # noqa: E402

WAIT = 20.0
AMOUNT = 300_000
CRYPTO = Cryptography()
ENTROPY = OsEntropy()
REPEATS = 5
"""What is drawn by lot is tried this often: the order, and leading zeros of a secret on P-521."""
MPLEX = 2**20 + 16
"""The longest message of an old mplex, and its header."""


class Failed(Exception):
    """The case went another way than it should; the message says how."""


@dataclass(slots=True)
class Case:
    """One connection: who dials, what both offer, and with which identities."""

    js_dials: bool
    exchanges: str
    ciphers: str
    hashes: str
    key: KeyType = KeyType.ED25519
    js_key: str = "Ed25519"
    offer: dict[str, list[str]] | None = None
    """What we offer, if it is not the same."""
    first: int = 0
    """Bytes that js sends in one frame before it echoes."""

    def __str__(self) -> str:
        who = "js dials" if self.js_dials else "we dial "
        suite = f"{self.exchanges} {self.ciphers} {self.hashes}"
        text = f"{who}  {suite}  ours {self.key.name}, theirs {self.js_key}"
        return f"{text}, a frame of {self.first}" if self.first else text

    def ours(self, key: PrivateKey) -> SecioSecurity:
        lists = self.offer or {
            "exchanges": self.exchanges.split(","),
            "ciphers": self.ciphers.split(","),
            "hashes": self.hashes.split(","),
        }
        return SecioSecurity(key, CRYPTO, ENTROPY, OpensslSecio(), **lists)


class Js:
    """The running peer program: JSON lines come out of it."""

    def __init__(self, built: Built, *words: str) -> None:
        self.process = subprocess.Popen(
            [*built.command, *words],
            env=built.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def hear(self, name: str) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        message = json.loads(line) if line else {"error": "it ended without a word"}
        if name not in message:
            raise Failed(f"js: {message.get('error', message)}")
        return message[name]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def running(built: Built, *words: str) -> Iterator[Js]:
    js = Js(built, *words)
    try:
        yield js
    finally:
        js.end()


@contextmanager
def connected(case: Case, key: PrivateKey, built: Built) -> Iterator[tuple[Js, socket.socket, str]]:
    """The program, our end of the connection, and the peer id that the program has."""
    words = (case.js_key, case.exchanges, case.ciphers, case.hashes, str(case.first))
    if case.js_dials:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(WAIT)
            port = str(server.getsockname()[1])
            with running(built, "dial", port, *words, str(key.peer_id)) as js:
                peer = js.hear("id")
                sock, _ = server.accept()
                with sock:
                    sock.settimeout(WAIT)
                    yield js, sock, peer
        return
    with running(built, "listen", *words) as js:
        assert js.process.stdout is not None
        hello = json.loads(js.process.stdout.readline())
        with socket.create_connection(("127.0.0.1", hello["port"]), WAIT) as sock:
            yield js, sock, hello["id"]


def run(case: Case, built: Built, expected: PeerId | None = None) -> None:
    """Shake hands, have the bytes echoed, end in order. Failed, or what the machine raises."""
    key = PrivateKey.generate(CRYPTO, ENTROPY, case.key)
    with connected(case, key, built) as (js, sock, peer):
        expected = expected or (None if case.js_dials else PeerId.parse(peer))
        channel = case.ours(key).start(
            initiator=not case.js_dials, expected=expected, muxers=(), write=sock.sendall, wall=0.0
        )
        assert isinstance(channel, Secio)
        received = bytearray()
        channel.on_data = lambda data, now: received.extend(data)

        def read(size: int) -> None:
            data = sock.recv(size)
            if not data:
                channel.receive_eof()
                raise Failed("js closed the connection")
            channel.receive(data, 0.0)

        while not channel.open:
            read(7)  # in small pieces: what comes behind the handshake must not be lost
        if str(channel.peer) != peer:
            raise Failed(f"the peer is {peer}, and we took it for {channel.peer}")
        if js.hear("remote") != str(key.peer_id):
            raise Failed("js takes us for another peer")
        while len(received) < case.first:
            read(65536)
        if received != bytes(case.first):
            raise Failed("the long frame is not what was sent")
        received.clear()
        sent = os.urandom(AMOUNT)
        for start in range(0, AMOUNT, 100_000):
            sock.sendall(channel.seal([sent[start : start + 100_000]]))
            while len(received) < min(start + 100_000, AMOUNT):
                read(65536)
        if received != sent:
            raise Failed("what came back is not what was sent")
        sock.shutdown(socket.SHUT_WR)
        if (echoed := js.hear("echoed")) != AMOUNT:
            raise Failed(f"js saw {echoed} bytes")


def good() -> Iterator[Case]:
    for js_dials in (False, True):
        for suite in product(EXCHANGES, CIPHERS, HASHES):
            yield Case(js_dials, *suite)
        everything = ",".join(EXCHANGES), ",".join(CIPHERS), ",".join(HASHES)
        for kind in (KeyType.ED25519, KeyType.SECP256K1, KeyType.RSA):
            for js_key in ("Ed25519", "secp256k1", "RSA"):
                yield Case(js_dials, *everything, kind, js_key)
        for _ in range(REPEATS):
            yield Case(js_dials, "P-521", *everything[1:])
        yield Case(js_dials, *everything, first=MPLEX)
        # The same names in another order: both sides must draw the same lot.
        backwards = [",".join(reversed(names.split(","))) for names in everything]
        forwards = {"exchanges": [*EXCHANGES], "ciphers": [*CIPHERS], "hashes": [*HASHES]}
        for _ in range(REPEATS):
            yield Case(js_dials, *backwards, offer=forwards)


def refused(built: Built) -> Iterator[tuple[str, str]]:
    """What must not come about, and what came about instead of an error, if anything did."""
    stranger = PrivateKey.generate(CRYPTO, ENTROPY).peer_id
    for js_dials in (False, True):
        who = "js dials" if js_dials else "we dial "
        nothing = {"exchanges": ["P-384"], "ciphers": ["AES-256"], "hashes": ["SHA256"]}
        alone = Case(js_dials, "P-256", "AES-256", "SHA256", offer=nothing)
        yield f"{who}  no curve in common", attempt(alone, built, None)
        any_ = Case(js_dials, "P-256", "AES-256", "SHA256")
        yield f"{who}  another peer was meant", attempt(any_, built, stranger)


def attempt(case: Case, built: Built, expected: PeerId | None) -> str:
    try:
        run(case, built, expected)
    except HandshakeError:
        return ""
    except (Failed, OSError) as error:
        return f"failed, but not in our hands: {error}"
    return "a connection came about"


def main() -> int:
    try:
        built = prepare(Spec.load(HERE), lambda line: print(line, file=sys.stderr))
    except (NotHere, BuildFailed) as error:
        print(f"not run: {error}")
        return NOT_HERE
    failures = count = 0
    for case in good():
        count += 1
        try:
            run(case, built)
        except (Failed, HandshakeError, OSError, ValueError) as error:
            failures += 1
            print(f"FAILED  {case}: {error or type(error).__name__}")
        else:
            print(f"ok      {case}")
    for what, problem in refused(built):
        count += 1
        failures += bool(problem)
        print(f"FAILED  {what}: {problem}" if problem else f"ok      {what}: refused")
    print(f"{count - failures} of {count} ok")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
