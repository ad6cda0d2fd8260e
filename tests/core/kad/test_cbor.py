"""Canonical CBOR of one flat map: one spelling, and no other is read."""

import pytest
from hypothesis import given, strategies as st

from anyp2p_core.errors import DecodeError, LocalError
from anyp2p_core.kad.cbor import MAX_NAMES, MAX_SIZE, decode, encode

NUMBERS = st.integers(0, 2**64 - 1)
MAPS = st.dictionaries(st.text(max_size=30), st.one_of(NUMBERS, st.binary(max_size=300)))

READ = [
    ("a0", {}),
    ("a1616101", {"a": 1}),
    ("a161611817", None),  # 23 in two bytes
    ("a161611818", {"a": 24}),
    ("a1616118ff", {"a": 255}),
    ("a161611900ff", None),
    ("a16161190100", {"a": 256}),
    ("a161611a0000ffff", None),
    ("a161611a00010000", {"a": 65536}),
    ("a161611b00000000ffffffff", None),
    ("a161611b0000000100000000", {"a": 2**32}),
    ("a1616141ff", {"a": b"\xff"}),
    ("a2616101616202", {"a": 1, "b": 2}),
    ("a2616201616102", None),  # order
    ("a2616101616102", None),  # twice
    ("a262616101616202", None),  # the shorter name comes first
    ("a2616202626161 01", {"b": 2, "aa": 1}),
    ("a0a0", None),
    ("", None),
    ("a1", None),
    ("a16161", None),
    ("a1616142ff", None),
    ("a1016101", None),  # a name that is a number
    ("a161ff01", None),  # a name that is not UTF-8
    ("a161fff6", None),
    ("80", None),
    ("bf616101ff", None),  # indefinite length
    ("a161615f41ffff", None),
    ("a161611c", None),
    # Values of other kinds: checked, left out.
    ("a26161206162 02", {"b": 2}),  # -1
    ("a261616162616202", {"b": 2}),
    ("a2616183010203616202", {"b": 2}),
    ("a26161a1616180616202", {"b": 2}),
    ("a26161d82a4100616202", {"b": 2}),
    ("a26161d82b4100616202", None),  # another tag
    ("a26161f4616202", {"b": 2}),
    ("a26161f6616202", {"b": 2}),
    ("a26161f7616202", None),  # undefined
    ("a26161f820616202", None),
    ("a26161f93c00616202", None),
    ("a26161fb3ff0000000000000616202", {"b": 2}),
    ("a16161fb3ff000", None),
    ("a16161830102", None),
    ("a16161a20102", None),
    ("a161619bffffffffffffffff", None),
    ("a16161" + "81" * 1000 + "00", {}),
    ("a16161" + "81" * 1000, None),
    ("a16161bbffffffffffffffff00", None),
    ("a161617bffffffffffffffff00", None),
]


@pytest.mark.parametrize(("text", "values"), READ, ids=lambda case: str(case)[:40])
def test_reading(text, values):
    data = bytes.fromhex(text)
    if values is None:
        with pytest.raises(DecodeError):
            decode(data)
    else:
        assert decode(data) == values
        with pytest.raises(DecodeError):
            decode(data + b"\0")
        for end in range(len(data)):
            with pytest.raises(DecodeError):
                decode(data[:end])


@given(MAPS.filter(lambda values: len(values) <= MAX_NAMES))
def test_what_is_written_is_read(values):
    data = encode(values)
    assert decode(data) == values
    assert encode(decode(data)) == data


def test_limits():
    with pytest.raises(DecodeError):
        decode(encode({"a": bytes(MAX_SIZE)}))
    with pytest.raises(DecodeError):
        decode(encode({str(n): n for n in range(MAX_NAMES + 1)}))
    for number in (-1, 2**64):
        with pytest.raises(LocalError):
            encode({"a": number})


@given(st.binary(max_size=100), st.booleans())
def test_garbage(data, map_head):
    data = b"\xa3" + data if map_head else data
    try:
        values = decode(data)
    except DecodeError:
        return
    assert len(encode(values)) <= len(data)
