import pytest
import vectors
from hypothesis import given, settings, strategies as st

from anyp2p_core import multibase, multihash, varint
from anyp2p_core.cid import CID, DAG_PB, LIBP2P_KEY, MAX_TEXT, RAW
from anyp2p_core.errors import DecodeError, LocalError, RemoteError

VECTORS = vectors.load("cid")
HASH = multihash.sha2_256(b"hello world")
V0_TEXT = "QmaozNR7DZHQK1ZcU9p7QdrshMvXqWK6gpu5rmrkPdT3L4"
V1_TEXT = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"


@pytest.mark.parametrize("text", VECTORS["strings_in_tests"])
def test_vectors(text: str) -> None:
    cid = CID.from_text(text)
    assert CID.from_bytes(bytes(cid)) == cid
    if text.startswith("Qm"):
        assert (cid.version, cid.codec, str(cid)) == (0, DAG_PB, text)
    else:
        assert cid.version == 1
        assert cid.with_base(text[0]) == text
        assert str(cid) == text or text[0] != "b"


def test_vectors_known() -> None:
    for row in VECTORS["known"]:
        cid = CID.from_text(row["peerid_sha256_cid"])
        assert cid.codec == LIBP2P_KEY
        assert cid.multihash == multibase.b58decode(row["peerid_base58"])


TABLE: list[tuple[bytes, CID, str]] = [
    (HASH, CID(0, DAG_PB, HASH), V0_TEXT),
    (b"\x01\x55" + HASH, CID(1, RAW, HASH), V1_TEXT),
    (b"\x01\x00\x00\x00", CID(1, 0, b"\0\0"), "baeaaaaa"),
    (b"\x01\x80\x04\x00\x01a", CID(1, 512, b"\0\1a"), "bagaaiaabme"),
]


@pytest.mark.parametrize(("data", "cid", "text"), TABLE)
def test_table(data: bytes, cid: CID, text: str) -> None:
    assert CID.from_bytes(data) == CID.from_bytes(memoryview(data)) == cid
    assert type(CID.from_bytes(bytearray(data)).multihash) is bytes
    assert bytes(cid) == data
    assert str(cid) == text
    assert CID.from_text(text) == cid
    assert hash(CID.from_text(text)) == hash(cid)
    for cut in range(len(data)):
        with pytest.raises(DecodeError):
            CID.from_bytes(data[:cut])
    for end in range(len(text)):
        with pytest.raises(DecodeError):
            CID.from_text(text[:end])
    with pytest.raises(DecodeError):
        CID.from_bytes(data + b"\0")
    with pytest.raises(DecodeError):
        CID.from_text(text + "aa")


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x70" + HASH,  # version 0 has no prefix
        b"\x02\x70" + HASH,
        b"\x03\x70" + HASH,
        b"\x12\x70" + HASH,
        b"\x81\x00\x70" + HASH,
        b"\x01\xf0\x00" + HASH,
        b"\x01\x70\x12\x20" + bytes(31),
        b"\x01\x70\x12\x20" + bytes(33),
        b"\x01\x70\x00\x81\x01" + bytes(129),
        b"\x12\x20" + bytes(31),
        b"\x12\x20" + bytes(33),
        b"\xff" * 40,
    ],
)
def test_bytes_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        CID.from_bytes(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Q",
        "Qm",
        "b",
        V0_TEXT[:-1] + "0",
        "Qm" + "z" * 44,  # not sha2-256
        "z" + V0_TEXT,  # a multibase prefix is for version 1
        multibase.encode("b", HASH),
        V1_TEXT[1:],
        "b" + "a" * (MAX_TEXT - 1),
        "x" + V1_TEXT[1:],
    ],
)
def test_text_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        CID.from_text(text)


def test_row_24_the_text_is_bounded() -> None:
    with pytest.raises(DecodeError, match="limit is 2048"):
        CID.from_text("b" + "a" * MAX_TEXT)
    with pytest.raises(DecodeError, match="limit is 2048"):
        CID.from_text("z" * 1_000_000)


@pytest.mark.parametrize("base", ["b", "base32", "k", "z", "f", "u", "m", "B"])
def test_any_base_is_read(base: str) -> None:
    cid = CID.from_text(V1_TEXT)
    assert CID.from_text(cid.with_base(base)) == cid


def test_versions() -> None:
    old = CID.from_text(V0_TEXT)
    new = old.to_v1()
    assert (new.version, new.codec, new.multihash) == (1, DAG_PB, old.multihash)
    assert new != old and new.to_v1() == new
    assert str(new).startswith("bafybei")
    with pytest.raises(LocalError, match="to_v1"):
        old.with_base("b")
    assert new.with_base("k").startswith("k")


@pytest.mark.parametrize(
    ("version", "codec", "digest"),
    [
        (0, RAW, HASH),
        (0, DAG_PB, HASH[:-1]),
        (0, DAG_PB, b"\x13" + HASH[1:]),
        (2, DAG_PB, HASH),
        (-1, DAG_PB, HASH),
        (1, -1, HASH),
        (1, varint.MAX + 1, HASH),
        (1, DAG_PB, HASH[:-1]),
    ],
)
def test_impossible_cids(version: int, codec: int, digest: bytes) -> None:
    with pytest.raises(DecodeError):
        CID(version, codec, digest)


@settings(deadline=None)
@given(st.integers(0, varint.MAX), st.integers(0, varint.MAX), st.binary(max_size=128))
def test_round_trip(codec: int, code: int, digest: bytes) -> None:
    cid = CID(1, codec, multihash.encode(code, digest))
    assert CID.from_bytes(bytes(cid)) == cid
    assert CID.from_text(str(cid)) == cid


@settings(deadline=None)
@given(st.binary(max_size=50), st.binary(max_size=50).map(lambda data: b"\x01\x55" + data))
def test_garbage_raises_or_round_trips(one: bytes, other: bytes) -> None:
    for data in (one, other):
        try:
            cid = CID.from_bytes(data)
        except RemoteError:
            continue
        assert bytes(cid) == data


@settings(deadline=None)
@given(st.text(max_size=50) | st.text("Qmbkzafy123", max_size=50))
def test_garbage_text_raises_nothing_else(text: str) -> None:
    try:
        cid = CID.from_text(text)
    except RemoteError:
        return
    assert CID.from_text(str(cid)) == cid
