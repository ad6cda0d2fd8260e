from itertools import pairwise

import pytest
import vectors
from hypothesis import given, settings, strategies as st

from anyp2p_core import varint
from anyp2p_core.errors import DecodeError, LocalError

VECTORS = vectors.load("varint")
VALID = [(row["n"], bytes.fromhex(row["hex"])) for row in VECTORS["valid"]]
INVALID = [bytes.fromhex(row["hex"]) for row in VECTORS["invalid"]]


@pytest.mark.parametrize(("n", "data"), VALID)
def test_vectors_valid(n: int, data: bytes) -> None:
    assert varint.encode(n) == data
    assert varint.decode(data) == (n, len(data))
    assert varint.decode(b"\x80" + data + b"\xff", 1) == (n, 1 + len(data))
    assert varint.peek(bytearray(data)) == varint.peek(memoryview(data)) == (n, len(data))


@pytest.mark.parametrize("data", INVALID)
def test_vectors_invalid(data: bytes) -> None:
    with pytest.raises(DecodeError):
        varint.decode(data)


@pytest.mark.parametrize(("n", "data"), VALID)
def test_an_incomplete_varint_waits(n: int, data: bytes) -> None:
    for cut in range(len(data)):
        assert varint.peek(data[:cut]) is None
        with pytest.raises(DecodeError, match="cut off"):
            varint.decode(data[:cut])


@pytest.mark.parametrize("n", [-1, varint.MAX + 1, 2**64])
def test_encode_refuses_what_does_not_fit(n: int) -> None:
    with pytest.raises(LocalError):
        varint.encode(n)


@settings(deadline=None)
@given(st.integers(0, varint.MAX), st.binary(max_size=3))
def test_round_trip(n: int, trailing: bytes) -> None:
    data = varint.encode(n)
    assert varint.decode(data + trailing) == (n, len(data))


@settings(deadline=None)
@given(st.binary(max_size=12))
def test_garbage_raises_or_waits(data: bytes) -> None:
    try:
        found = varint.peek(data)
    except DecodeError:
        return
    if found is None:
        assert len(data) < 9 and all(byte > 0x7F for byte in data)
    else:
        value, end = found
        assert varint.encode(value) == data[:end]


@pytest.mark.parametrize(
    ("data", "limit", "result"),
    [
        (b"\x05", 5, (5, 1)),
        (b"\x06", 5, DecodeError),
        (b"\x80", 127, DecodeError),  # 128 or more, whatever comes
        (b"\x80", 128, None),
        (b"\x80\x01", 128, (128, 2)),
        (b"\x81", 128, DecodeError),
        (b"\xff\xff", 16383, DecodeError),
        (b"\xff\x7f", 16383, (16383, 2)),
        (b"\xff\x7f", 16382, DecodeError),
        (b"\x80\x00", varint.MAX, DecodeError),
        (b"\x00", 0, (0, 1)),
        (b"\x01", 0, DecodeError),
    ],
)
def test_peek_judges_the_limit_as_early_as_possible(
    data: bytes, limit: int, result: tuple[int, int] | None | type[DecodeError]
) -> None:
    if result is DecodeError:
        with pytest.raises(DecodeError):
            varint.peek(data, 0, limit)
    else:
        assert varint.peek(data, 0, limit) == result


def test_row_3_endless_and_padded_varints() -> None:
    endless = b"\xff" * 100_000
    with pytest.raises(DecodeError):
        varint.decode(endless)
    with pytest.raises(DecodeError):
        varint.peek(endless[:9])
    for padded in (b"\x81\x00", b"\x80\x00", b"\x80\x80\x00", b"\xff" * 8 + b"\x80\x00"):
        with pytest.raises(DecodeError):
            varint.decode(padded)
    stream = varint.Delimited(varint.MAX)
    for _ in range(8):
        assert stream.receive(b"\xff") == []
    with pytest.raises(DecodeError):
        stream.receive(b"\xff")


# Streams of messages.

STREAMS: list[tuple[bytes, list[bytes], int]] = [
    (b"", [], 0),
    (b"\x00", [b""], 0),
    (b"\x00\x00\x00", [b"", b"", b""], 0),
    (b"\x01a", [b"a"], 0),
    (b"\x01", [], 1),
    (b"\x02a", [], 2),
    (b"\x02ab\x01", [b"ab"], 1),
    (b"\x02ab\x00\x03c", [b"ab", b""], 2),
    (b"\xac\x02" + b"x" * 300, [b"x" * 300], 0),
    (b"\xac", [], 1),
    (b"\xac\x02", [], 2),
    (b"\xac\x02" + b"x" * 299, [], 301),
]
BROKEN: list[tuple[bytes, list[bytes]]] = [
    (b"\x80\x00", []),
    (b"\xad\x02", []),  # 301
    (b"\x80\x80", []),
    (b"\x01a\xff\xff", [b"a"]),
]


def feed(chunks: list[bytes]) -> tuple[list[bytes], int]:
    stream = varint.Delimited(300)
    messages: list[bytes] = []
    for chunk in chunks:
        messages += stream.receive(chunk)
    return messages, stream.pending


@pytest.mark.parametrize(("data", "messages", "pending"), STREAMS)
def test_delimited(data: bytes, messages: list[bytes], pending: int) -> None:
    assert feed([data]) == (messages, pending)
    assert feed([bytes((byte,)) for byte in data]) == (messages, pending)
    if not pending:
        assert feed([data + b"\x02z"]) == (messages, 2)
        assert feed([data, b"\x01z"]) == ([*messages, b"z"], 0)


@pytest.mark.parametrize(("data", "messages"), BROKEN)
def test_delimited_refuses(data: bytes, messages: list[bytes]) -> None:
    with pytest.raises(DecodeError):
        feed([data])
    stream = varint.Delimited(300)
    got: list[bytes] = []
    with pytest.raises(DecodeError):
        for byte in data:
            got += stream.receive(bytes((byte,)))
    assert got == messages


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=6), st.data())
def test_delimited_in_any_cut(messages: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(map(varint.delimited, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    edges = [0, *cuts, len(wire)]
    chunks = [wire[a:b] for a, b in pairwise(edges)]
    assert feed(chunks) == (messages, 0)
    assert all(type(message) is bytes for message in feed(chunks)[0])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=10))
def test_delimited_garbage_raises_or_waits(chunks: list[bytes]) -> None:
    stream = varint.Delimited(50)
    try:
        for chunk in chunks:
            assert all(len(message) <= 50 for message in stream.receive(chunk))
            assert stream.pending <= 51
    except DecodeError:
        pass


@pytest.mark.parametrize("length", [2**64 - 1, 2**64 - 9, 2**63, 2**63 - 1, 2**32, 1025])
def test_row_2_and_4_a_length_is_refused_before_its_data(length: int) -> None:
    prefix = bytearray()
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    stream = varint.Delimited(1024)
    with pytest.raises(DecodeError):
        stream.receive(bytes(prefix))
    assert stream.pending == 0
    # Its third byte at the latest tells that it is too long.
    stream = varint.Delimited(1024)
    with pytest.raises(DecodeError):
        for byte in prefix[:3]:
            stream.receive(bytes((byte,)))
    assert stream.pending <= 2


def test_delimited_is_linear_in_one_byte_segments() -> None:
    # Quadratic handling would copy 20 GB here.
    wire = varint.delimited(b"x" * 200_000)
    stream = varint.Delimited(200_000)
    got: list[bytes] = []
    for byte in wire:
        got += stream.receive(bytes((byte,)))
    assert got == [b"x" * 200_000]
