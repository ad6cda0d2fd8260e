import pytest
from hypothesis import given, settings, strategies as st

from anyp2p_core import varint
from anyp2p_core.errors import DecodeError
from anyp2p_core.mplex_frame import (
    CLOSE,
    FLAGS,
    MAX_HEADER,
    MAX_NUMBER,
    MAX_PAYLOAD,
    MESSAGE,
    NEW_STREAM,
    RESET,
    decode,
    encode,
    encode_number,
)

# Frames that js and nim peers make, and the reference's own: number, flag, payload, bytes.
FRAMES = [
    (0, NEW_STREAM, b"stream name", "000b73747265616d206e616d65"),
    (1, NEW_STREAM, b"", "0800"),
    (0, NEW_STREAM, b"0", "000130"),
    (0, MESSAGE + 1, b"hello", "020568656c6c6f"),
    (0, MESSAGE + 1, b"hi", "02026869"),
    (0, MESSAGE, b"world", "0105776f726c64"),
    (0, CLOSE + 1, b"", "0400"),
    (17, CLOSE + 1, b"", "8c0100"),
    (17, CLOSE, b"", "8b0100"),
    (300, RESET + 1, b"", "e61200"),
    (300, RESET, b"", "e51200"),
    (0, NEW_STREAM, b"stream 1", "000873747265616d2031"),
    (17, NEW_STREAM, b"stream 1", "88010873747265616d2031"),
    (0, MESSAGE + 1, b"stream 1", "020873747265616d2031"),
    (17, MESSAGE + 1, b"stream 1", "8a010873747265616d2031"),
    (17, MESSAGE + 1, b"hello from channel 0!!",
     "8a011668656c6c6f2066726f6d206368616e6e656c20302121"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "flag", "payload", "wire"), FRAMES)
def test_frames_of_other_implementations(number: int, flag: int, payload: bytes, wire: str) -> None:
    data = bytes.fromhex(wire)
    assert encode(number << 3 | flag, payload) == data
    start = len(data) - len(payload)
    for trailing in (b"", data, b"\xff" * 20):
        found = decode(b"\xff" + data + trailing, 1)
        assert found == (number << 3 | flag, len(payload), start + 1)
    for cut in range(start):
        assert decode(data[:cut]) is None
    for cut in range(start, len(data)):
        assert decode(data[:cut]) == (number << 3 | flag, len(payload), start)


HEADS = [
    0,
    1,
    6,
    7,
    0x7F,
    0x80,
    0x81,
    0x3FFF,
    0x4000,
    (1 << 21) - 1,
    1 << 21,
    1 << 31,
    1 << 56,
    2**63 - 1,
]
LENGTHS = [0, 1, 0x7F, 0x80, 0x81, 0x3FFF, 0x4000, 0x4001, 65507, MAX_PAYLOAD - 1, MAX_PAYLOAD]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("length", LENGTHS)
def test_headers_of_all_sizes(head: int, length: int) -> None:
    header = varint.encode(head) + varint.encode(length)
    assert len(header) <= MAX_HEADER
    assert decode(header) == (head, length, len(header))
    assert decode(header + b"\xff") == (head, length, len(header))
    for cut in range(len(header)):
        assert decode(header[:cut]) is None


@pytest.mark.parametrize("n", sorted({*HEADS, *LENGTHS, 0x1F_FFFF, 0x20_0000}))
def test_numbers_are_varints(n: int) -> None:
    assert encode_number(n) == varint.encode(n)


@given(
    st.integers(0, 2**63 - 1) | st.integers(0, 2**22),
    st.integers(0, MAX_PAYLOAD),
    st.binary(max_size=3),
)
@settings(deadline=None)
def test_any_header(head: int, length: int, trailing: bytes) -> None:
    header = varint.encode(head) + varint.encode(length)
    assert decode(header + trailing) == (head, length, len(header))


@pytest.mark.parametrize("length", [MAX_PAYLOAD + 1, 1 << 21, (1 << 21) - 1, 1 << 40, 2**63 - 1])
@pytest.mark.parametrize("head", [0, 2, 0x80, 2**63 - 1])
def test_row_59_a_payload_that_is_too_long(head: int, length: int) -> None:
    with pytest.raises(DecodeError):
        decode(varint.encode(head) + varint.encode(length))
    with pytest.raises(DecodeError):  # known before the varint ends
        decode(varint.encode(head) + b"\x81\x80\xc0")


@pytest.mark.parametrize(
    "wire",
    [
        b"\x80\x00\x00",  # longer than needed
        b"\x02\x80\x00",
        b"\x02\x80\x80\x00",
        b"\x82\x80\x00\x00",
        b"\x82\x80\x80\x00\x00",
        b"\xff" * 9,  # more than 63 bits
        b"\xff" * 8 + b"\x80",
    ],
)
def test_what_is_no_header(wire: bytes) -> None:
    for trailing in (b"", b"\x00", b"\xff" * 20):
        with pytest.raises(DecodeError):
            decode(wire + trailing)


@given(st.binary(max_size=20))
@settings(deadline=None, max_examples=500)
def test_garbage_raises_or_waits_and_more_bytes_change_nothing(data: bytes) -> None:
    def result(size: int) -> object:
        try:
            return decode(data[:size])
        except DecodeError:
            return "error"

    known = None
    for size in range(len(data) + 1):
        found = result(size)
        assert known is None or found == known
        known = found
    if len(data) >= MAX_HEADER:
        assert known is not None


def test_the_limits_of_the_header() -> None:
    assert (MAX_NUMBER << 3 | FLAGS) == varint.MAX
    assert len(encode(MAX_NUMBER << 3 | RESET)) == 10
    assert len(varint.encode(varint.MAX) + varint.encode(MAX_PAYLOAD)) == MAX_HEADER
