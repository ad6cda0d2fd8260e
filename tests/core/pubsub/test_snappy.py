from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from anyp2p_core import DecodeError
from anyp2p_core.pubsub.snappy import decompress


@pytest.mark.parametrize(
    ("block", "data"),
    [
        (b"\x00", b""),
        (b"\x05\x10hello", b"hello"),
        (b"\x3c\xec" + b"x" * 60, b"x" * 60),
        (b"\x3d\xf0\x3c" + b"x" * 61, b"x" * 61),  # its length in one byte
        (b"\xac\x02\xf4\x2b\x01" + b"x" * 300, b"x" * 300),  # in two
        (b"\x0a\x04ab\x11\x02", b"ab" * 5),  # a copy of 8 from 2 back, which repeats
        (b"\x08\x0cabcd\x01\x04", b"abcdabcd"),
        (b"\x06\x08abc\x0a\x03\x00", b"abcabc"),  # two bytes of offset
        (b"\x06\x08abc\x0b\x03\x00\x00\x00", b"abcabc"),  # four
    ],
)
def test_blocks(block, data):
    assert decompress(block, 1000) == data


def test_an_offset_of_more_than_a_byte():
    head = b"\xf4\x2b\x01" + bytes(range(150)) * 2
    block = b"\xb0\x02" + head + b"\x21\x2c"  # 4 bytes, from 300 back: 1 << 8 | 44
    assert decompress(block, 1000) == bytes(range(150)) * 2 + bytes(range(4))


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\x80",
        b"\x80\x80\x80\x80\x80\x01",
        b"\x05",
        b"\x05\x10hell",
        b"\x04\x10hello",
        b"\x06\x10hello",
        b"\x3d\xf0",
        b"\x3d\xf4\x3c",
        b"\x08\x0cabcd\x01\x05",  # before the start
        b"\x08\x0cabcd\x01\x00",
        b"\x07\x0cabcd\x01\x04",  # beyond the end
        b"\x08\x0cabcd\x01",
        b"\x06\x08abc\x0a\x03",
        b"\x06\x08abc\x0b\x03\x00\x00",
    ],
)
def test_what_is_no_block(block):
    with pytest.raises(DecodeError):
        decompress(block, 1000)


def test_the_limit_is_that_of_the_length_it_says():
    with pytest.raises(DecodeError, match="the limit is 4"):
        decompress(b"\x05\x10hello", 4)


@given(st.binary(max_size=50))
def test_garbage(data):
    with suppress(DecodeError):
        assert len(decompress(data, 1000)) <= 1000
