"""anyp2p_core.peer_id"""

import time

import pytest
import vectors
from hypothesis import given, settings, strategies as st

from anyp2p_core import multibase, multihash
from anyp2p_core.errors import DecodeError
from anyp2p_core.peer_id import PeerId

VECTORS = vectors.load("peer_ids")
KEYS = VECTORS["keys"]
EXAMPLES = VECTORS["examples"]
ED25519, SECP256K1, ECDSA, RSA = KEYS


@pytest.mark.parametrize("key", KEYS, ids=[key["kind"] for key in KEYS])
def test_ids_of_the_keys_of_the_spec(key: dict[str, str]) -> None:
    peer_id = PeerId.from_public_key(bytes.fromhex(key["public"]))
    assert str(peer_id) == key["base58"]
    assert peer_id.to_cid_text() == key["base32"]
    for text in (key["base58"], key["base32"], key["base36"], key["base32"].upper()):
        assert PeerId.parse(text) == peer_id
    for base in "fzu":
        raw = bytes((1, 0x72)) + bytes(peer_id)
        assert PeerId.parse(multibase.encode(base, raw)) == peer_id
    assert PeerId(bytes(peer_id)) == peer_id


def test_short_keys_are_inside_their_id() -> None:
    for key in (ED25519, SECP256K1):
        public = bytes.fromhex(key["public"])
        peer_id = PeerId.from_public_key(public)
        assert bytes(peer_id) == bytes((0, len(public))) + public
        assert peer_id.inline_key() == public
    for key in (ECDSA, RSA):
        public = bytes.fromhex(key["public"])
        peer_id = PeerId.from_public_key(public)
        assert bytes(peer_id) == multihash.sha2_256(public)
        assert peer_id.inline_key() is None


def test_42_bytes_are_the_limit_for_the_identity_form() -> None:
    assert bytes(PeerId.from_public_key(bytes(42))) == bytes((0, 42)) + bytes(42)
    assert bytes(PeerId.from_public_key(bytes(43))) == multihash.sha2_256(bytes(43))


@pytest.mark.parametrize("text", list(EXAMPLES.values()))
def test_examples_of_the_spec(text: str) -> None:
    peer_id = PeerId.parse(text)
    assert text in (str(peer_id), peer_id.to_cid_text())


def test_ids_are_values() -> None:
    ids = [PeerId.parse(key["base58"]) for key in KEYS]
    assert ids[0] == PeerId.parse(ED25519["base36"]) != ids[1]
    assert hash(ids[0]) == hash(PeerId.parse(ED25519["base32"]))
    assert len({*ids, *ids}) == 4
    assert ids[0] != bytes(ids[0])
    assert sorted(ids) == sorted(ids, key=bytes)
    assert ids[0] < ids[1] <= ids[1]
    assert ids[1] >= ids[0]
    with pytest.raises(TypeError):
        assert ids[0] < bytes(ids[1])
    assert repr(ids[0]) == f"<PeerId {ED25519['base58']}>"
    assert str(ids[0]) is str(ids[0])


def test_the_id_keeps_its_own_bytes() -> None:
    buffer = bytearray(bytes(PeerId.parse(ED25519["base58"])))
    peer_id = PeerId(buffer)
    buffer[10] ^= 1
    assert str(peer_id) == ED25519["base58"]
    assert type(bytes(peer_id)) is bytes


GOOD = bytes(PeerId.parse(ED25519["base58"]))
HASHED = bytes(PeerId.parse(RSA["base58"]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\0\0",
        GOOD[:-1],
        GOOD + b"\0",
        b"\x80\0" + GOOD[1:],  # the code, not minimal
        b"\0\xa4\0" + GOOD[2:],  # the length, not minimal
        b"\0\x25" + GOOD[2:],
        b"\0" + b"\xff" * 9,
        b"\xff" * 10,
        bytes((0, 43)) + bytes(43),
        b"\0\x80\x08" + bytes(1024),
        b"\0\xc0\x84\x3d" + bytes(10**6),
        HASHED[:-1],
        HASHED + b"\0",
        b"\x12\x1f" + HASHED[3:],
        b"\x12\x21" + HASHED[2:] + b"\0",
        b"\x12\0",
        b"\x13\x20" + HASHED[2:],
        b"\x16\x20" + HASHED[2:],
        b"\xb2\x01\x20" + HASHED[2:],
    ],
)
def test_row_23_multihashes_that_name_no_peer(data: bytes) -> None:
    with pytest.raises(DecodeError):
        PeerId(data)
    if len(data) < 100:
        text = multibase.encode("z", b"\x01\x72" + data)
        with pytest.raises(DecodeError):
            PeerId.parse(text)


def test_row_23_every_cut_is_refused() -> None:
    for whole in (GOOD, HASHED):
        for size in range(len(whole)):
            with pytest.raises(DecodeError):
                PeerId(whole[:size])


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_row_23_garbage(data: bytes) -> None:
    try:
        peer_id = PeerId(data)
    except DecodeError:
        return
    assert bytes(peer_id) == data
    assert PeerId.parse(str(peer_id)) == PeerId.parse(peer_id.to_cid_text()) == peer_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "Q",
        "Qm",
        "12D3KooW",
        "hello",
        "zzz",
        ED25519["base58"] + "0",
        ED25519["base58"] + "1",
        ED25519["base58"][:-1],
        "z" + ED25519["base58"],  # base58 with a prefix is a CID, and this holds no version
        " " + ED25519["base58"],
        ED25519["base58"] + "\n",
        "\N{FULLWIDTH DIGIT ONE}" + ED25519["base58"][1:],
        "Qm" + "\ud800" * 44,
        RSA["base58"].replace("Q", "q", 1),
        ED25519["base32"][:-1],
        ED25519["base32"].replace("b", "m", 1),
        multibase.encode("b", b"\x01\x70" + GOOD),  # dag-pb
        multibase.encode("b", b"\x01\x55" + HASHED),  # raw
        multibase.encode("b", b"\x02\x72" + GOOD),
        multibase.encode("b", HASHED),  # CIDv0 has no multibase
        multibase.encode("b", b"\x01\x72"),
        multibase.encode("b", b"\x01"),
        multibase.encode("b", b""),
    ],
)
def test_text_that_names_no_peer(text: str) -> None:
    with pytest.raises(DecodeError):
        PeerId.parse(text)


@settings(deadline=None)
@given(st.text(max_size=300) | st.text("123Qmbkz", max_size=300))
def test_garbage_text(text: str) -> None:
    try:
        PeerId.parse(text)
    except DecodeError:
        return
    assert len(text) <= 256


def test_row_24_long_text_is_refused_before_it_is_decoded() -> None:
    for text in ("1" * 257, "1" * 10**6, "Qm" + "z" * 10**6, "k" + "z" * 10**6, "b" * 10**6):
        best = 1.0
        for _ in range(20):
            start = time.thread_time()
            with pytest.raises(DecodeError, match="more than 256 characters"):
                PeerId.parse(text)
            best = min(best, time.thread_time() - start)
        assert best < 100e-6
    # Zero bytes of padding are characters, too: the longest text that is read at all.
    with pytest.raises(DecodeError):
        PeerId.parse("1" * 256)
