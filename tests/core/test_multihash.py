import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import vectors
from hypothesis import given, settings, strategies as st

from anyp2p_core import multihash
from anyp2p_core.errors import DecodeError, LocalError, RemoteError
from anyp2p_core.multihash import Multihash

CASES = vectors.load("multihash")["cases"]
FUNCTIONS: dict[str, tuple[int, Callable[[bytes], Any]]] = {
    "sha1": (0x11, hashlib.sha1),
    "sha2-256": (0x12, hashlib.sha256),
    "sha2-512": (0x13, hashlib.sha512),
    "sha3": (0x14, hashlib.sha3_512),
}


@pytest.mark.parametrize("algorithm", FUNCTIONS)
def test_vectors(algorithm: str) -> None:
    code, function = FUNCTIONS[algorithm]
    cases = [case for case in CASES if case["algorithm"] == algorithm]
    assert len(cases) >= 40
    for case in cases:
        digest = function(case["input"].encode()).digest()[: int(case["bits"]) // 8]
        data = bytes.fromhex(case["multihash"])
        assert multihash.decode(data) == Multihash(code, digest)
        assert multihash.encode(code, digest) == data
        if case["bits"] == "256" and code == multihash.SHA2_256:
            assert multihash.sha2_256(case["input"].encode()) == data


TABLE: list[tuple[bytes, Multihash]] = [
    (b"\x00\x00", Multihash(multihash.IDENTITY, b"")),
    (b"\x00\x03abc", Multihash(multihash.IDENTITY, b"abc")),
    (b"\x00\x80\x01" + b"x" * 128, Multihash(0, b"x" * 128)),
    (b"\x12\x20" + b"h" * 32, Multihash(multihash.SHA2_256, b"h" * 32)),
    (b"\x80\x80\x01\x01z", Multihash(0x4000, b"z")),  # unknown codes are no error
]


@pytest.mark.parametrize(("data", "result"), TABLE)
def test_table(data: bytes, result: Multihash) -> None:
    for form in (data, bytearray(data), memoryview(data)):
        decoded = multihash.decode(form)
        assert decoded == result
        assert type(decoded.digest) is bytes
    assert multihash.encode(*result) == data
    for cut in range(len(data)):
        with pytest.raises(DecodeError):
            multihash.decode(data[:cut])
    with pytest.raises(DecodeError):
        multihash.decode(data + b"\x00")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x00\x01a",  # codes and lengths are minimal varints
        b"\x12\x81\x00a",
        b"\x12\x21" + bytes(32),
        b"\x12\x1f" + bytes(32),
        b"\x00" + b"\xff" * 8 + b"\x7f",
        b"\x00" + b"\xff" * 9,
        b"\xff" * 20,
    ],
)
def test_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        multihash.decode(data)


@settings(deadline=None)
@given(st.binary(max_size=140))
def test_garbage_raises_or_round_trips(data: bytes) -> None:
    try:
        decoded = multihash.decode(data)
    except RemoteError:
        return
    assert multihash.encode(*decoded) == data


def test_encode_refuses_a_long_digest() -> None:
    assert len(multihash.encode(0, bytes(multihash.MAX_DIGEST))) == 3 + multihash.MAX_DIGEST
    with pytest.raises(LocalError):
        multihash.encode(0, bytes(multihash.MAX_DIGEST + 1))
    with pytest.raises(LocalError):
        multihash.encode(-1, b"")


@pytest.mark.parametrize("size", [129, 10_000, 1_000_000])
def test_row_23_long_identity_digests(size: int) -> None:
    length = bytearray()
    rest = size
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    with pytest.raises(DecodeError, match="limit"):
        multihash.decode(b"\x00" + bytes(length) + bytes(size))


@pytest.mark.parametrize(
    "data", [b"", b"\x12", b"\x12\x20", b"\x12\x20" + bytes(31), b"\x12\x7f" + bytes(32)]
)
def test_row_23_truncated(data: bytes) -> None:
    with pytest.raises(DecodeError):
        multihash.decode(data)
