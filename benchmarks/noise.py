"""What does /noise cost beyond its cryptography? CPU time, both ends in one process.

    python benchmarks/noise.py

Each figure is the best of several interleaved rounds. The bound is the same calls of the crypto
library without us; ratio = bound / ours, 1.00 is free.

The largest size is more than one flush of a connection: there the allocator may give pages back to
the system and fault them in again for every message, which can double the cost.
"""

import hashlib
import os
import time
from collections.abc import Callable

from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsEntropy
from anyp2p_core.keys import PrivateKey
from anyp2p_core.noise import Noise, NoiseKeys

ROUNDS = int(os.environ.get("ROUNDS", "15"))
SIZES = (32, 256, 1024, 4096, 16384, 65519, 262144)

CRYPTO = Cryptography()
ENTROPY = OsEntropy()
MUXERS = ("/yamux/1.0.0",)


def best(*runs: Callable[[], int]) -> list[float]:
    """Microseconds per operation of each run; a run returns how many operations it did."""
    fastest = [float("inf")] * len(runs)
    for _ in range(ROUNDS):
        for i, run in enumerate(runs):
            start = time.process_time()
            count = run()
            fastest[i] = min(fastest[i], (time.process_time() - start) / count * 1e6)
    return fastest


def pair(one: NoiseKeys, other: NoiseKeys) -> tuple[Noise, Noise]:
    """Two open ends."""
    to_responder: list[bytes] = []
    to_initiator: list[bytes] = []
    initiator, responder = (
        Noise(
            initiator=write is to_responder,
            keys=keys,
            crypto=CRYPTO,
            entropy=ENTROPY,
            write=write.append,
            muxers=MUXERS,
        )
        for keys, write in ((one, to_responder), (other, to_initiator))
    )
    responder.receive(to_responder.pop(), 0.0)
    initiator.receive(to_initiator.pop(), 0.0)
    responder.receive(to_responder.pop(), 0.0)
    assert initiator.muxer == responder.muxer == MUXERS[0]
    return initiator, responder


def handshakes() -> None:
    identity = PrivateKey.generate(CRYPTO, ENTROPY)
    keys = NoiseKeys(identity, CRYPTO, ENTROPY)
    message = b"noise-libp2p-static-key:" + keys.static.public
    signature = identity.sign(message)

    def ours() -> int:
        for _ in range(20):
            pair(keys, keys)
        return 20

    def bound() -> int:
        """Two ephemerals, six agreements, two verifications, by the library."""
        for _ in range(20):
            for _ in range(2):
                key = CRYPTO.x25519(ENTROPY(32))
                for _ in range(3):
                    key.exchange(keys.static.public)
                CRYPTO.load_public(identity.kind, identity.public.data).verify(signature, message)
        return 20

    cost, least = best(ours, bound)
    print(f"handshake, both ends   {cost:7.1f} us   {1e6 / cost:6.0f}/s   ratio {least / cost:.2f}")


def transport(size: int) -> None:
    keys = NoiseKeys(PrivateKey.generate(CRYPTO, ENTROPY), CRYPTO, ENTROPY)
    initiator, responder = pair(keys, keys)
    cipher = CRYPTO.chacha20poly1305(hashlib.sha256().digest())
    chunks = [bytes(size)]
    pieces = [bytes(65519)] * (size // 65519) + [bytes(size % 65519)] * (size % 65519 > 0)
    count = max(20, 4_000_000 // (size + 2000))
    nonce = bytes(12)

    def ours() -> int:
        for _ in range(count):
            responder.receive(initiator.seal(chunks), 0.0)
        return count

    def bound() -> int:
        for _ in range(count):
            for data in pieces:
                cipher.decrypt(nonce, cipher.encrypt(nonce, data, b""), b"")
        return count

    cost, least = best(ours, bound)
    rate = f"{size / cost:6.0f} MB/s"
    print(f"{size:7} bytes           {cost:7.2f} us   {rate}   ratio {least / cost:.2f}")


if __name__ == "__main__":
    handshakes()
    print("seal and open, per message")
    for size in SIZES:
        transport(size)
