"""anyp2p.providers.crypto and anyp2p.providers.entropy: what a provider promises, kept."""

import copy
import importlib.util
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import vectors
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings, strategies as st

from anyp2p.forks import fork_check
from anyp2p.providers import crypto as provider, entropy
from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsChoice, OsEntropy
from anyp2p_core.crypto import KeyType, Signer
from anyp2p_core.errors import DecodeError, HandshakeError, LocalError

CRYPTO = Cryptography()
KINDS = list(KeyType)
KEYS = {KeyType[key["kind"]]: key for key in vectors.load("peer_ids")["keys"]}
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
DER = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def data_of(message: str) -> bytes:
    """The ``Data`` field of a key message in hex: type, tag, length, data."""
    raw = bytes.fromhex(message)
    return raw[4:] if raw[3] < 0x80 else raw[5:]


PUBLIC = {kind: data_of(key["public"]) for kind, key in KEYS.items()}
PRIVATE = {kind: data_of(key["private"]) for kind, key in KEYS.items()}


@pytest.fixture(scope="module")
def signers() -> dict[KeyType, Signer]:
    return {kind: CRYPTO.generate(kind, OsEntropy()) for kind in KINDS}


def simulated(start: int = 1) -> Callable[[int], bytes]:
    """Entropy that counts: 32 times 01, then 32 times 02 and so on."""
    count = start - 1

    def draw(n: int) -> bytes:
        nonlocal count
        count += 1
        return bytes((count % 256,)) * n

    return draw


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 + len(length))) + length + content


def integer(n: int) -> bytes:
    return der(2, n.to_bytes(n.bit_length() // 8 + 1, "big"))


ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")


def rsa_spki(n: int, e: int) -> bytes:
    return der(0x30, ALGORITHM, der(3, b"\0", der(0x30, integer(n), integer(e))))


def pkcs1(n: int, e: int, version: int = 0) -> bytes:
    rest = [integer(i) for i in (5, 7, 11, 13, 17, 19)]
    return der(0x30, integer(version), integer(n), integer(e), *rest)


def odd(bits: int) -> int:
    """A modulus: loading does not ask for two primes, only verification would notice."""
    return 1 << bits - 1 | 1


def cost(function: Callable[[], object]) -> float:
    """The least CPU seconds of a call that raises DecodeError."""
    best = 1.0
    for _ in range(30):
        start = time.thread_time()
        with pytest.raises(DecodeError):
            function()
        best = min(best, time.thread_time() - start)
    return best


# Known answers


@pytest.mark.parametrize("kind", KINDS)
def test_the_keys_of_the_spec_load_and_come_out_again(kind: KeyType) -> None:
    signer = CRYPTO.load_private(kind, PRIVATE[kind])
    assert signer.public == PUBLIC[kind]
    assert signer.private == PRIVATE[kind]
    assert CRYPTO.load_public(kind, PUBLIC[kind]).verify(signer.sign(b"hello"), b"hello")


@pytest.mark.parametrize("case", vectors.load("keys_signatures_go_fixtures")["signatures"])
def test_signatures_of_other_implementations_verify(case: dict[str, str]) -> None:
    kind = KeyType[case["kind"]]
    message, signature = bytes.fromhex(case["message"]), bytes.fromhex(case["signature"])
    verifier = CRYPTO.load_public(kind, data_of(case["public"]))
    assert verifier.verify(signature, message)
    assert not verifier.verify(signature, message + b"!")
    if "private" in case:
        signer = CRYPTO.load_private(kind, data_of(case["private"]))
        assert signer.public == data_of(case["public"])
        assert signer.sign(message) == signature  # both kinds are deterministic


def test_a_key_made_by_js_peers_loads() -> None:
    for key in vectors.load("keys_signatures_go_fixtures")["js_keys"]:
        signer = CRYPTO.load_private(KeyType[key["kind"]], data_of(key["private"]))
        assert signer.public == data_of(key["public"])


# RFC 7748, section 6.1
ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")


def test_x25519_known_answer() -> None:
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice, bob_key = CRYPTO.x25519(ALICE), CRYPTO.x25519(bob)
    assert alice.public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    secret = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert alice.exchange(bob_key.public).hex() == secret
    assert bob_key.exchange(alice.public).hex() == secret


def test_chacha20poly1305_known_answer() -> None:
    # RFC 8439, section 2.8.2
    cipher = CRYPTO.chacha20poly1305(bytes(range(0x80, 0xA0)))
    nonce = bytes.fromhex("070000004041424344454647")
    header = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
        b"future, sunscreen would be it."
    )
    sealed = cipher.encrypt(nonce, text, header)
    assert sealed[:8].hex() == "d31a8d34648e60db"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"
    assert cipher.decrypt(nonce, sealed, header) == text
    for bad in (b"", sealed[:15], sealed[:-1], sealed[1:], sealed[:-1] + bytes((sealed[-1] ^ 1,))):
        with pytest.raises(CRYPTO.invalid_tag):
            cipher.decrypt(nonce, bad, header)
    with pytest.raises(CRYPTO.invalid_tag):
        cipher.decrypt(nonce, sealed, b"")


# Making keys


@pytest.mark.parametrize("kind", [KeyType.ED25519, KeyType.SECP256K1, KeyType.ECDSA])
def test_equal_entropy_gives_equal_keys_and_signatures(kind: KeyType) -> None:
    one, same, other = (CRYPTO.generate(kind, simulated(i)) for i in (1, 1, 2))
    assert one.private == same.private != other.private
    assert one.sign(b"m") == same.sign(b"m") != other.sign(b"m")


@pytest.mark.parametrize("kind", KINDS)
def test_a_generated_key_survives_storage(kind: KeyType, signers: dict[KeyType, Signer]) -> None:
    again = CRYPTO.load_private(kind, signers[kind].private)
    assert again.public == signers[kind].public
    assert CRYPTO.load_public(kind, again.public).verify(again.sign(b"m"), b"m")


def test_rsa_is_made_of_the_size_asked_for(signers: dict[KeyType, Signer]) -> None:
    assert 0x100 < len(signers[KeyType.RSA].public) < 0x130
    assert len(signers[KeyType.RSA].sign(b"m")) == 256
    for bits in (512, 2047, 8193):
        with pytest.raises(LocalError, match="2048 to 8192"):
            CRYPTO.generate(KeyType.RSA, OsEntropy(), bits)


def test_rsa_is_not_made_from_seeded_entropy() -> None:
    with pytest.raises(LocalError, match="seeded"):
        CRYPTO.generate(KeyType.RSA, simulated())


def test_broken_entropy_makes_no_key() -> None:
    for kind in (KeyType.SECP256K1, KeyType.ECDSA):
        for byte in (b"\0", b"\xff"):
            with pytest.raises(LocalError, match="not random"):
                CRYPTO.generate(kind, lambda n, byte=byte: byte * n)
    with pytest.raises(LocalError, match="31 bytes"):
        CRYPTO.generate(KeyType.ED25519, lambda n: bytes(n - 1))


def test_a_draw_beyond_the_order_is_drawn_again() -> None:
    draws = [b"\xff" * 32, b"\x01" * 32]
    key = CRYPTO.generate(KeyType.SECP256K1, lambda n: draws.pop(0))
    assert key.private == b"\x01" * 32


# Signatures


@pytest.mark.parametrize("kind", KINDS)
def test_row_14_bad_signatures_are_refused(kind: KeyType, signers: dict[KeyType, Signer]) -> None:
    good = signers[kind].sign(b"message")
    verify = CRYPTO.load_public(kind, signers[kind].public).verify
    assert verify(good, b"message")
    bits = range(8 * len(good)) if len(good) == 64 else range(0, 8 * len(good), 7)
    for bit in bits:
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        assert verify(bytes(flipped), b"message") is False
    for bad in (b"", b"\0", bytes(63), bytes(64), bytes(65), b"\xff" * 64, bytes(len(good))):
        assert verify(bad, b"message") is False
    for bad in (good[:-1], good[1:], good + b"\0", b"\0" + good, good + good):
        assert verify(bad, b"message") is False
    for _ in range(20):
        assert verify(os.urandom(len(good)), b"message") is False
    for other in KINDS:
        signature = CRYPTO.load_private(other, PRIVATE[other]).sign(b"message")
        assert verify(signature, b"message") is False


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=50)
@given(signature=st.binary(max_size=600))
def test_no_signature_makes_verify_raise(kind: KeyType, signature: bytes) -> None:
    assert CRYPTO.load_public(kind, PUBLIC[kind]).verify(signature, b"m") is False


def test_row_22_ecdsa_signatures_have_one_spelling(signers: dict[KeyType, Signer]) -> None:
    for kind in (KeyType.SECP256K1, KeyType.ECDSA):
        order = SECP256K1_ORDER if kind == KeyType.SECP256K1 else P256_ORDER
        good = signers[kind].sign(b"m")
        verify = CRYPTO.load_public(kind, signers[kind].public).verify
        r, s = decode_dss_signature(good)
        first, second = integer(r), integer(s)
        assert good == der(0x30, first, second)
        # A high S is another signature for the same message, and accepted.
        assert verify(encode_dss_signature(r, order - s), b"m")
        padded = b"\x02" + bytes((first[1] + 1, 0)) + first[2:]
        for bad in (
            encode_dss_signature(r + order, s),
            encode_dss_signature(r, s + order),
            encode_dss_signature(order, s),
            encode_dss_signature(r, order),
            encode_dss_signature(0, s),
            encode_dss_signature(r, 0),
            encode_dss_signature(0, 0),
            der(0x30, padded, second),
            der(0x30, first, second, b"\x05\x00"),
            b"\x30\x81" + good[1:],  # the length in its long form
            b"\x30\x80" + good[2:] + b"\0\0",  # indefinite
            good + b"\0",
            b"\x31" + good[1:],
        ):
            assert verify(bad, b"m") is False


def test_row_22_secp256k1_signs_with_a_low_s() -> None:
    highs = 0
    signer = CRYPTO.load_private(KeyType.SECP256K1, PRIVATE[KeyType.SECP256K1])
    raw = ec.derive_private_key(int.from_bytes(PRIVATE[KeyType.SECP256K1], "big"), ec.SECP256K1())
    verify = CRYPTO.load_public(KeyType.SECP256K1, signer.public).verify
    for i in range(24):
        message = bytes((i,))
        signature = signer.sign(message)
        assert decode_dss_signature(signature)[1] <= SECP256K1_ORDER // 2
        assert verify(signature, message)
        library = raw.sign(message, *provider._EC_ARGUMENTS)
        highs += decode_dss_signature(library)[1] > SECP256K1_ORDER // 2
    assert highs  # or this test shows nothing


# Public keys from the peer

RSA_BAD_SIZES = [512, 1024, 2047, 8193, 16384, 10**6]


@pytest.mark.parametrize("bits", RSA_BAD_SIZES)
def test_row_18_rsa_size_is_judged_before_any_arithmetic(bits: int) -> None:
    data = rsa_spki(odd(bits), 65537)
    with pytest.raises(DecodeError, match="RSA"):
        CRYPTO.load_public(KeyType.RSA, data)
    assert cost(lambda: CRYPTO.load_public(KeyType.RSA, data)) <= 50e-6


@pytest.mark.parametrize("bits", [2048, 2049, 3072, 4096, 8191, 8192])
def test_row_18_rsa_sizes_that_are_accepted(bits: int) -> None:
    verifier = CRYPTO.load_public(KeyType.RSA, rsa_spki(odd(bits), 65537))
    assert verifier.verify(bytes(bits // 8), b"m") is False


def test_row_18_private_rsa_keys_have_the_same_sizes() -> None:
    small = vectors.load("keys_signatures_go_fixtures")["too_small"]
    with pytest.raises(DecodeError, match="fewer than 2048"):
        CRYPTO.load_public(KeyType.RSA, data_of(small["public"]))
    with pytest.raises(DecodeError, match="fewer than 2048"):
        CRYPTO.load_private(KeyType.RSA, data_of(small["private"]))
    for bits in RSA_BAD_SIZES:
        data = pkcs1(odd(bits), 65537)
        assert cost(lambda data=data: CRYPTO.load_private(KeyType.RSA, data)) <= 50e-6


@pytest.mark.parametrize("bits", [2048, 3072])
def test_row_19_rsa_exponent_as_long_as_the_modulus(bits: int) -> None:
    data = rsa_spki(odd(bits), odd(bits) - 2)
    with pytest.raises(DecodeError, match="more than 32 bits"):
        CRYPTO.load_public(KeyType.RSA, data)
    assert cost(lambda: CRYPTO.load_public(KeyType.RSA, data)) <= 50e-6


@pytest.mark.parametrize(
    "e", [0, 1, 2, 4, 65536, 2**32 - 2, 2**32, 2**32 + 1, 2**39 + 1, 2**64 + 1]
)
def test_row_19_rsa_exponents_that_are_refused(e: int) -> None:
    reason = "not positive" if e == 0 else "RSA exponent is even|more than 32 bits"
    with pytest.raises(DecodeError, match=reason):
        CRYPTO.load_public(KeyType.RSA, rsa_spki(odd(2048), e))
    with pytest.raises(DecodeError, match=reason):
        CRYPTO.load_private(KeyType.RSA, pkcs1(odd(2048), e))


@pytest.mark.parametrize("e", [3, 17, 65537, 2**32 - 1])
def test_row_19_rsa_exponents_that_are_accepted(e: int) -> None:
    CRYPTO.load_public(KeyType.RSA, rsa_spki(odd(2048), e))


N, E = integer(odd(2048)), integer(65537)


def long_form(tag: int, content: bytes) -> bytes:
    """A DER element whose length is written with four bytes."""
    return bytes((tag, 0x84)) + len(content).to_bytes(4, "big") + content


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no DER element"),
        (b"\x30", "no DER element"),
        (b"\x31\x00", "no DER element"),
        (bytes.fromhex("3084ffffffff020100020100"), "far too large"),
        (bytes.fromhex("30ff") + b"\xff" * 200, "far too large"),
        (bytes.fromhex("3080020100020100000000"), "indefinite"),
        (bytes.fromhex("3082"), "truncated"),
        (bytes.fromhex("308201"), "truncated"),
        (bytes.fromhex("3082ffff00"), "exceeds the data"),
        (bytes.fromhex("30817f") + bytes(127), "not minimal"),
        (bytes.fromhex("308200ff") + bytes(255), "not minimal"),
        (bytes.fromhex("3010") + bytes(15), "exceeds the data"),
        (bytes.fromhex("300f") + bytes(15), "no SubjectPublicKeyInfo"),
        (rsa_spki(odd(2048), 65537) + b"\0", "no SubjectPublicKeyInfo"),
        (der(0x30, ALGORITHM), "no DER element"),
        (der(0x30, ALGORITHM, b"\x03\x00"), "BIT STRING"),
        (der(0x30, ALGORITHM, der(3, b"\x01", der(0x30, N, E))), "BIT STRING"),
        (der(0x30, ALGORITHM, der(3, b"\0", der(0x30, N, E)), b"\x05\x00"), "BIT STRING"),
        (der(0x30, ALGORITHM, der(3, b"\0", der(0x30, N, E, b"\x05\x00"))), "follows"),
        (der(0x30, ALGORITHM, der(3, b"\0", der(0x30, N, E), b"\x05\x00")), "follows"),
        (der(0x30, ALGORITHM, der(3, b"\0", der(0x30, N))), "no DER element"),
        (der(0x30, ALGORITHM, der(3, b"\0", der(0x30))), "no DER element"),
        (der(0x30, ALGORITHM, der(3, b"\0", long_form(0x30, N + E))), "far too large"),
        (der(0x30, ALGORITHM, der(3, b"\0", der(0x30, b"\x02\x00", E))), "not positive"),
        (der(0x30, ALGORITHM, der(3, b"\0", der(0x30, N, b"\x02\x01\x00"))), "not positive"),
        (der(0x30, ALGORITHM, der(3, b"\0", der(0x30, N, b"\x02\x01\x81"))), "not positive"),
        (der(0x30, ALGORITHM, der(3, b"\0", der(0x30, N, b"\x02\x02\x00\x03"))), "not minimal"),
        (
            der(0x30, ALGORITHM, der(3, b"\0", der(0x30, der(2, b"\xff" * 256), E))),
            "not positive",
        ),
        (rsa_spki(odd(2048) - 1, 65537), "even"),
        # Nested as deep as the data goes, and a constant that is not RSA's.
        (b"\x30\x80" * 100_000, "indefinite"),
        (b"\x30\x82\xff\xff" * 100_000, "no SubjectPublicKeyInfo"),
        (der(0x30, ALGORITHM.replace(b"\x01\x01\x01", b"\x01\x01\x0a"), b""), "no Subject"),
    ],
)
def test_row_20_hostile_der(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        CRYPTO.load_public(KeyType.RSA, data)
    assert cost(lambda: CRYPTO.load_public(KeyType.RSA, data)) <= 50e-6
    for kind in KINDS:
        with pytest.raises(DecodeError):
            CRYPTO.load_public(kind, data)
        with pytest.raises(DecodeError):
            CRYPTO.load_private(kind, data)


@settings(deadline=None)
@given(st.data())
def test_row_20_a_changed_key_is_refused_or_another_key(data: st.DataObject) -> None:
    """Nothing but DecodeError, and what is accepted is spelled as the library spells it."""
    kind = data.draw(st.sampled_from(KINDS))
    raw = bytearray(PUBLIC[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(60, len(raw) - 1)))  # where the structure is
        match data.draw(st.integers(0, 2)):
            case 0:
                raw[at] = data.draw(st.integers(0, 255))
            case 1:
                del raw[at]
            case 2:
                raw.insert(
                    at, data.draw(st.sampled_from([0, 1, 2, 3, 0x30, 0x7F, 0x80, 0x82, 255]))
                )
    try:
        verifier = CRYPTO.load_public(kind, bytes(raw))
    except DecodeError:
        return
    key = verifier._verify.__self__
    if kind == KeyType.ED25519:
        assert key.public_bytes_raw() == raw
    elif kind == KeyType.SECP256K1:
        assert key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint) == raw
    else:
        assert key.public_bytes(*DER) == raw


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(KINDS), st.binary(max_size=300))
def test_row_20_garbage_is_refused(kind: KeyType, data: bytes) -> None:
    for load in (CRYPTO.load_public, CRYPTO.load_private):
        try:
            load(kind, data)
        except DecodeError as error:
            assert kind.name in str(error)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_row_20_a_changed_private_key_is_refused_or_another_key(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([KeyType.ED25519, KeyType.SECP256K1, KeyType.ECDSA]))
    raw = bytearray(PRIVATE[kind])
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        signer = CRYPTO.load_private(kind, bytes(raw))
    except DecodeError:
        return
    assert kind == KeyType.SECP256K1  # the others hold their public half, which is now wrong
    assert signer.private == raw


def test_ecdsa_curves() -> None:
    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()):
        key = ec.generate_private_key(curve)
        public = key.public_key().public_bytes(*DER)
        sec1 = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        pkcs8 = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        for data in (sec1, pkcs8):
            signer = CRYPTO.load_private(KeyType.ECDSA, data)
            assert signer.private == sec1
            assert signer.public == public
        verifier = CRYPTO.load_public(KeyType.ECDSA, public)
        assert verifier.verify(signer.sign(b"m"), b"m")
        for bad in (
            public[:-1],
            public + b"\0",
            b"\0" + public[1:],
            public[:-1] + bytes((public[-1] ^ 1,)),
        ):
            with pytest.raises(DecodeError):
                CRYPTO.load_public(KeyType.ECDSA, bad)
        numbers = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        compressed = public[:23] + numbers
        with pytest.raises(DecodeError):
            CRYPTO.load_public(KeyType.ECDSA, compressed)
    for curve in (ec.SECP224R1(), ec.SECP256K1(), ec.BrainpoolP256R1()):
        key = ec.generate_private_key(curve)
        with pytest.raises(DecodeError, match="P-256"):
            CRYPTO.load_public(KeyType.ECDSA, key.public_key().public_bytes(*DER))
        sec1 = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        with pytest.raises(DecodeError, match="P-256"):
            CRYPTO.load_private(KeyType.ECDSA, sec1)


def test_secp256k1_points_are_compressed_and_on_the_curve() -> None:
    key = ec.generate_private_key(ec.SECP256K1()).public_key()
    full = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    half = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    CRYPTO.load_public(KeyType.SECP256K1, half)
    hybrid = bytes((6 + full[-1] % 2,)) + full[1:]
    off_curve = b"\x02" + (5).to_bytes(32, "big")  # 5**3 + 7 is no square
    beyond = b"\x02" + b"\xff" * 32
    for bad in (full, hybrid, off_curve, beyond, b"\x04" + half[1:], b"\0" + half[1:], b"\0", b""):
        with pytest.raises(DecodeError):
            CRYPTO.load_public(KeyType.SECP256K1, bad)


@pytest.mark.parametrize(
    "scalar", [0, SECP256K1_ORDER, SECP256K1_ORDER + 1, 2**256 - 1], ids=["0", "n", "n+1", "max"]
)
def test_secp256k1_scalars_are_within_the_order(scalar: int) -> None:
    with pytest.raises(DecodeError):
        CRYPTO.load_private(KeyType.SECP256K1, scalar.to_bytes(32, "big"))


def test_ed25519_keys_for_which_anybody_can_sign_are_refused() -> None:
    """A point of low order verifies S = 0 with a point of low order as R, for many messages."""
    low = [
        bytes((*y[:31], y[31] | sign)) for y in sorted(provider._LOW_ORDER) for sign in (0, 0x80)
    ]
    forged = 0
    for public in low:
        with pytest.raises(DecodeError, match="low order"):
            CRYPTO.load_public(KeyType.ED25519, public)
        library = provider._Verifier(ed25519.Ed25519PublicKey.from_public_bytes(public).verify)
        forged += any(library.verify(r + bytes(32), bytes((m,))) for m in range(16) for r in low)
    assert forged >= 8
    for size in (0, 31, 33):
        with pytest.raises(DecodeError):
            CRYPTO.load_public(KeyType.ED25519, bytes(size))


# Private keys


def test_row_21_the_public_half_must_be_the_right_one() -> None:
    mine, other = (ed25519.Ed25519PrivateKey.generate() for _ in range(2))
    seed, public = mine.private_bytes_raw(), mine.public_key().public_bytes_raw()
    wrong = other.public_key().public_bytes_raw()
    assert CRYPTO.load_private(KeyType.ED25519, seed + public).public == public
    old = CRYPTO.load_private(KeyType.ED25519, seed + public + public)
    assert old.private == seed + public
    for bad in (
        seed + wrong,
        seed + public + wrong,
        seed + wrong + public,
        seed + wrong + wrong,
        seed,
        seed + public[:-1],
        seed + public * 3,
        b"",
    ):
        with pytest.raises(DecodeError):
            CRYPTO.load_private(KeyType.ED25519, bad)


@pytest.mark.parametrize("form", [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8])
def test_row_21_ecdsa_with_the_public_half_of_another_key(form: PrivateFormat) -> None:
    one, two = (
        ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.DER, form, NoEncryption())
        for _ in range(2)
    )
    mixed = one[:-64] + two[-64:]
    with pytest.raises(DecodeError):
        CRYPTO.load_private(KeyType.ECDSA, mixed)


def test_ecdsa_without_its_public_half_is_refused() -> None:
    whole = PRIVATE[KeyType.ECDSA]
    scalar, curve = whole[5:39], whole[39:51]
    assert whole == der(0x30, b"\x02\x01\x01", scalar, curve, whole[51:])
    with pytest.raises(DecodeError, match="canonical"):
        CRYPTO.load_private(KeyType.ECDSA, der(0x30, b"\x02\x01\x01", scalar, curve))


def test_private_keys_of_the_wrong_kind_or_form(signers: dict[KeyType, Signer]) -> None:
    pkcs8 = rsa.generate_private_key(65537, 2048).private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    n, e = odd(2048), 65537
    for kind, data in [
        (KeyType.RSA, pkcs8),
        (KeyType.RSA, PRIVATE[KeyType.ECDSA]),
        (KeyType.RSA, signers[KeyType.RSA].private + b"\0"),
        (KeyType.RSA, signers[KeyType.RSA].private[:-1]),
        (KeyType.RSA, pkcs1(n, e)),  # sizes are right, the rest is nonsense
        (KeyType.RSA, pkcs1(n, e, version=1)),
        (KeyType.ECDSA, signers[KeyType.RSA].private),
        (KeyType.ECDSA, PRIVATE[KeyType.ECDSA] + b"\0"),
        (KeyType.ECDSA, PRIVATE[KeyType.ED25519]),
        (KeyType.SECP256K1, PRIVATE[KeyType.ED25519]),
        (KeyType.SECP256K1, bytes(31)),
    ]:
        with pytest.raises(DecodeError, match=f"not a private {kind.name} key"):
            CRYPTO.load_private(kind, data)
    ed25519_der = ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    with pytest.raises(DecodeError):
        CRYPTO.load_private(KeyType.ECDSA, ed25519_der)


def test_row_35_low_order_points() -> None:
    key = CRYPTO.x25519(os.urandom(32))
    p = 2**255 - 19
    eighth = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
    eighth_too = bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157")
    low = [u.to_bytes(32, "little") for u in (0, 1, p - 1, p, p + 1)] + [eighth, eighth_too]
    low += [bytes((*u[:31], u[31] | 0x80)) for u in low]  # the top bit is ignored
    for public in [*low, b"", bytes(31), bytes(33)]:
        with pytest.raises(HandshakeError, match="low order"):
            key.exchange(public)
    assert len(key.exchange(CRYPTO.x25519(os.urandom(32)).public)) == 32


def test_row_39_secrets_are_neither_shown_nor_copied(signers: dict[KeyType, Signer]) -> None:
    for secret in [*signers.values(), CRYPTO.x25519(ALICE)]:
        for copier in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="pickled nor copied"):
                copier(secret)
        assert repr(secret) == str(secret) == object.__repr__(secret)


# The package itself


def test_a_missing_package_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    spec = importlib.util.spec_from_file_location("without", provider.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError) as caught:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert str(caught.value) == (
        "anyp2p needs the 'cryptography' package: pip install 'anyp2p[crypto]'"
    )


def test_a_library_without_deterministic_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ec.ECDSA

    def old(algorithm: SHA256, deterministic_signing: bool = False) -> ec.ECDSA:
        if deterministic_signing:
            raise UnsupportedAlgorithm("too old")
        return real(algorithm)

    monkeypatch.setattr(ec, "ECDSA", old)
    spec = importlib.util.spec_from_file_location("older", provider.__file__)
    assert spec is not None
    assert spec.loader is not None
    older = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(older)
    crypto = older.Cryptography()
    for kind in (KeyType.SECP256K1, KeyType.ECDSA):
        signer = crypto.load_private(kind, PRIVATE[kind])
        one, two = signer.sign(b"m"), signer.sign(b"m")
        assert one != two
        assert crypto.load_public(kind, signer.public).verify(one, b"m")
        assert CRYPTO.load_public(kind, signer.public).verify(two, b"m")


# Entropy


def test_os_entropy() -> None:
    draw = OsEntropy()
    assert draw.simulated is False
    assert len(draw(0)) == 0
    assert len({draw(32) for _ in range(100)}) == 100


@pytest.mark.parametrize("draws", [[b"a" * 32, b"a" * 32], [bytes(32), b"a" * 32]])
def test_os_entropy_refuses_a_broken_system(
    draws: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entropy.os, "urandom", lambda n: draws.pop(0))
    with pytest.raises(LocalError, match="random generator"):
        OsEntropy()


def test_os_choice() -> None:
    choice = OsChoice()
    assert all(0 <= choice.random() < 1 for _ in range(100))
    assert {choice.below(3) for _ in range(200)} == {0, 1, 2}
    items = list(range(50))
    choice.shuffle(items)
    assert items != sorted(items) == list(range(50))
    assert len(set(choice.sample(items, 10))) == 10
    assert sorted(choice.sample(items, 100)) == list(range(50))
    assert choice.sample([], 3) == []


def test_row_41_a_child_process_knows_that_it_was_forked() -> None:
    """In a process of its own: pytest's may have threads, with which a fork is unsafe."""
    program = """
import os
from anyp2p.forks import fork_check
forked = fork_check()
child = os.fork()
if child == 0:
    again = fork_check()
    os._exit(10 + forked() + 2 * again())
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11  # the parent's check alone
assert not forked()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
    assert fork_check()() is False
