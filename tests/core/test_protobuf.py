import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from anyp2p_core.errors import DecodeError, LocalError, RemoteError
from anyp2p_core.protobuf import (
    BOOL,
    BYTES,
    FIXED32,
    FIXED64,
    STRING,
    UINT,
    Field,
    Schema,
)


@dataclass(slots=True)
class Inner:
    key: bytes
    tags: list[str] = field(default_factory=list)


INNER = Schema(
    Inner, Field(1, "key", BYTES, required=True), Field(2, "tags", STRING, repeated=True, limit=3)
)


@dataclass(slots=True)
class Everything:
    # Deliberately not in the order of the field numbers.
    name: str | None = None
    data: bytes | None = None
    count: int | None = None
    flag: bool | None = None
    wide: int | None = None
    narrow: int | None = None
    inner: Inner | None = None
    numbers: list[int] = field(default_factory=list)
    flags: list[bool] = field(default_factory=list)
    wides: list[int] = field(default_factory=list)
    narrows: list[int] = field(default_factory=list)
    blobs: list[bytes] = field(default_factory=list)
    inners: list[Inner] = field(default_factory=list)
    zero: int = 0
    empty: bytes = b""
    blank: str = ""
    off: bool = False
    note: str = "not part of the schema"


EVERYTHING = Schema(
    Everything,
    Field(2, "name", STRING),
    Field(1, "data", BYTES),
    Field(3, "count", UINT),
    Field(4, "flag", BOOL),
    Field(5, "wide", FIXED64),
    Field(6, "narrow", FIXED32),
    Field(7, "inner", INNER),
    Field(8, "numbers", UINT, repeated=True, limit=4),
    Field(9, "flags", BOOL, repeated=True, limit=4),
    Field(10, "wides", FIXED64, repeated=True, limit=4),
    Field(11, "narrows", FIXED32, repeated=True, limit=4, overflow="drop"),
    Field(12, "blobs", BYTES, repeated=True, limit=4, overflow="drop"),
    Field(13, "inners", INNER, repeated=True, limit=2),
    Field(14, "zero", UINT, implicit=True),
    Field(15, "empty", BYTES, implicit=True),
    Field(16, "blank", STRING, implicit=True),
    Field(2**29 - 1, "off", BOOL, implicit=True),
)

# What encodes to exactly these bytes, and back.
CANONICAL: list[tuple[bytes, Everything]] = [
    (b"", Everything()),
    (b"\x0a\x00", Everything(data=b"")),
    (b"\x0a\x01a\x12\x03b\xc3\xa9\x18\x00", Everything(name="b\u00e9", data=b"a", count=0)),
    (b"\x18\x7f", Everything(count=127)),
    (b"\x18\x80\x01", Everything(count=128)),
    (b"\x18\xff\x7f", Everything(count=16383)),
    (b"\x18\x80\x80\x01", Everything(count=16384)),
    (b"\x18" + b"\xff" * 9 + b"\x01", Everything(count=2**64 - 1)),
    (b"\x20\x00", Everything(flag=False)),
    (b"\x20\x01", Everything(flag=True)),
    (b"\x29\x01\0\0\0\0\0\0\x80\x35\x02\0\0\0", Everything(wide=2**63 + 1, narrow=2)),
    (b"\x3a\x02\x0a\x00", Everything(inner=Inner(b""))),
    (b"\x3a\x06\x0a\x01k\x12\x01t", Everything(inner=Inner(b"k", ["t"]))),
    (b"\x40\x01\x40\x80\x01", Everything(numbers=[1, 128])),
    (b"\x48\x01\x48\x00", Everything(flags=[True, False])),
    (b"\x51" + b"\1" * 8 + b"\x51" + bytes(8), Everything(wides=[0x0101010101010101, 0])),
    (b"\x5d\1\0\0\0", Everything(narrows=[1])),
    (b"\x62\x00\x62\x01x", Everything(blobs=[b"", b"x"])),
    (b"\x6a\x02\x0a\x00\x6a\x03\x0a\x01z", Everything(inners=[Inner(b""), Inner(b"z")])),
    (b"\x70\x05\x7a\x01e\x82\x01\x01s", Everything(zero=5, empty=b"e", blank="s")),
    (b"\xf8\xff\xff\xff\x0f\x01", Everything(off=True)),
    (b"\x0a\x80\x08" + b"d" * 1024, Everything(data=b"d" * 1024)),
]

# What else has to be understood.
TOLERATED: list[tuple[bytes, Everything]] = [
    (b"\x18\x01\x0a\x01a", Everything(data=b"a", count=1)),  # any order
    (b"\x18\x01\x18\x02", Everything(count=2)),  # the last one counts
    (b"\x18\x81\x80\x00", Everything(count=1)),  # more bytes than needed
    (b"\x98\x80\x00\x01", Everything(count=1)),  # in a tag as well
    (b"\x8a\x00\x01a", Everything(data=b"a")),
    (b"\x0a\x81\x00a", Everything(data=b"a")),
    (b"\x12\x02\xff\xfe", Everything(name="\ufffd\ufffd")),
    (b"\x20\x05", Everything(flag=True)),
    (b"\x70\x00", Everything(zero=0)),
    (b"\x42\x03\x01\x80\x01", Everything(numbers=[1, 128])),  # packed
    (b"\x42\x00", Everything()),
    (b"\x40\x07\x42\x01\x08\x40\x09", Everything(numbers=[7, 8, 9])),
    (b"\x42\x01\x08\x40\x09", Everything(numbers=[8, 9])),
    (b"\x4a\x02\x00\x02", Everything(flags=[False, True])),
    (b"\x52\x08" + bytes(8), Everything(wides=[0])),
    (b"\x5a\x08\1\0\0\0\2\0\0\0", Everything(narrows=[1, 2])),
    (b"\x5a\x18" + bytes(24), Everything(narrows=[0] * 4)),  # overflow="drop"
    (b"\x5d\0\0\0\0" * 6, Everything(narrows=[0] * 4)),
    (b"\x62\x01a" * 9, Everything(blobs=[b"a"] * 4)),
    # Embedded messages are merged: scalars overwrite, repeated fields append.
    (b"\x3a\x03\x0a\x01k\x3a\x03\x12\x01t", Everything(inner=Inner(b"k", ["t"]))),
    (b"\x3a\x03\x12\x01t\x3a\x03\x0a\x01k", Everything(inner=Inner(b"k", ["t"]))),
    (
        b"\x3a\x05\x0a\x00\x12\x01a\x3a\x05\x0a\x00\x12\x01b\x3a\x06\x0a\x01k\x12\x01c",
        Everything(inner=Inner(b"k", ["a", "b", "c"])),
    ),
    # Unknown fields of every wire type.
    (b"\x88\x01\x96\x01\x18\x01", Everything(count=1)),
    (b"\x89\x01" + bytes(8) + b"\x18\x01", Everything(count=1)),
    (b"\x8a\x01\x02ab\x18\x01", Everything(count=1)),
    (b"\x8d\x01" + bytes(4) + b"\x18\x01", Everything(count=1)),
    (b"\x18\x01\x88\x01\x05", Everything(count=1)),
    (b"\x8a\x01\x80\x01" + bytes(128) + b"\x18\x01", Everything(count=1)),
    (b"\x3a\x06\x1a\x02zz\x0a\x00", Everything(inner=Inner(b""))),
]

REFUSED: list[tuple[bytes, str]] = [
    (b"\x0a\x02a", "cut off"),
    (b"\x0a", "cut off"),
    (b"\x18", "cut off"),
    (b"\x18\x80", "cut off"),
    (b"\x80", "cut off"),
    (b"\x29" + bytes(7), "cut off"),
    (b"\x35" + bytes(3), "cut off"),
    (b"\x8a\x01\x05abcd", "cut off"),
    (b"\x89\x01" + bytes(7), "cut off"),
    (b"\x8d\x01" + bytes(3), "cut off"),
    (b"\x18" + b"\xff" * 9 + b"\x02", "64 bits"),
    (b"\x18" + b"\x80" * 10 + b"\x00", "64 bits"),
    (b"\x0a" + b"\xff" * 9 + b"\x01", "cut off"),
    (b"\x0a" + b"\xff" * 10, "64 bits"),
    (b"\x88\x01" + b"\xff" * 10, "64 bits"),
    (b"\xff" * 10, "64 bits"),
    (b"\x00\x01", "not a field number"),
    (b"\x02\x00", "not a field number"),
    (b"\x88\x80\x80\x80\x10\x00", "not a field number"),  # 2**29
    (b"\x08\x01", "wrong wire type 0"),
    (b"\x0b", "wrong wire type 3"),
    (b"\x1a\x01a", "wrong wire type 2"),  # a number that is not repeated
    (b"\x19" + bytes(8), "wrong wire type 1"),
    (b"\x2d" + bytes(4), "wrong wire type 5"),
    (b"\x38\x01", "wrong wire type 0"),
    (b"\x41" + bytes(8), "wrong wire type 1"),
    (b"\x60\x01", "wrong wire type 0"),
    (b"\x8b\x01\x8c\x01", "groups"),
    (b"\x8c\x01", "groups"),
    (b"\x8e\x01", "wire type 6"),
    (b"\x8f\x01", "wire type 7"),
    (b"\x3a\x00", "Inner.key is missing"),
    (b"\x6a\x00", "Inner.key is missing"),
    (b"\x3a\x03\x12\x01t", "Inner.key is missing"),
    (b"\x3a\x03\x12\x01t" * 2, "Inner.key is missing"),
    (b"\x40\x01" * 5, "limit 4"),
    (b"\x42\x05\x01\x01\x01\x01\x01", "limit 4"),
    (b"\x6a\x02\x0a\x00" * 3, "limit 2"),
    (b"\x3a\x0e\x0a\x00" + b"\x12\x01t" * 4, "limit 3"),
    (b"\x42\x01\x80\x01", "cut off"),  # its last number reaches into the next field
    (b"\x42\x01\x80", "cut off"),
    (b"\x52\x07" + bytes(8), "cut off"),
    # What belongs to the outer message must not complete the inner one.
    (b"\x3a\x02\x0a\x01" + b"\x18\x05", "cut off"),
    (b"\x3a\x01\x0a" + b"\x18\x05", "cut off"),
    (b"\x3a\x03\x0a\x00\x18" + b"\x18\x05", "cut off"),
    (b"\x3a\x03\x0a\x00\x1d" + b"\x12\x02ab", "cut off"),
    (b"\x3a\x03\x0a\x00\x88" + b"\x18\x05", "cut off"),
    (b"\x3a\x04\x0a\x00\x12\x80" + b"\x0a\x00", "cut off"),
    (b"\x3a\x03\x0a\x00\x12" + b"\x0a\x00", "cut off"),
]


@pytest.mark.parametrize(("data", "message"), CANONICAL)
def test_canonical_messages(data: bytes, message: Everything) -> None:
    assert EVERYTHING.encode(message) == data
    assert EVERYTHING.decode(data) == message


@pytest.mark.parametrize(("data", "message"), CANONICAL + TOLERATED)
def test_what_is_understood(data: bytes, message: Everything) -> None:
    assert EVERYTHING.decode(data) == message
    assert EVERYTHING.decode(bytearray(data)) == message
    assert EVERYTHING.decode(memoryview(data)) == message
    # With another field behind it, known or not.
    message.count = 9
    assert EVERYTHING.decode(data + b"\x18\x09") == message
    assert EVERYTHING.decode(data + b"\x18\x09\xa2\x06\x01x") == message


@pytest.mark.parametrize(("data", "reason"), REFUSED)
def test_what_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        EVERYTHING.decode(data)


@pytest.mark.parametrize("data", [data for data, _ in CANONICAL + TOLERATED])
def test_every_prefix_is_decoded_or_refused(data: bytes) -> None:
    for cut in range(len(data)):
        try:
            message = EVERYTHING.decode(data[:cut])
        except DecodeError:
            continue
        # What was accepted is the whole fields in front of the cut.
        assert len(EVERYTHING.encode(message)) <= cut


def test_decoded_types() -> None:
    message = EVERYTHING.decode(bytearray(b"\x0a\x01a\x62\x01b\x20\x01\x48\x01\x3a\x02\x0a\x00"))
    assert type(message.data) is bytes and type(message.blobs[0]) is bytes
    assert message.flag is True and message.flags == [True]
    assert type(message.flags[0]) is bool
    assert message.note == "not part of the schema"
    assert message.inner is not None and type(message.inner.key) is bytes


def test_messages_do_not_share_lists() -> None:
    one, other = EVERYTHING.decode(b""), EVERYTHING.decode(b"")
    one.numbers.append(1)
    assert other.numbers == [] and EVERYTHING.decode(b"").numbers == []


def test_joined_messages_are_merged() -> None:
    one = Everything(name="a", count=1, numbers=[1], inner=Inner(b"k", ["x"]))
    other = Everything(name="b", numbers=[2], inner=Inner(b"l", ["y"]))
    assert EVERYTHING.decode(EVERYTHING.encode(one) + EVERYTHING.encode(other)) == Everything(
        name="b", count=1, numbers=[1, 2], inner=Inner(b"l", ["x", "y"])
    )


# Schemas of few fields.


@dataclass(slots=True)
class Empty:
    pass


@dataclass(slots=True)
class One:
    value: int


def test_messages_of_no_field_and_of_one() -> None:
    assert Schema(Empty).encode(Empty()) == b""
    assert Schema(Empty).decode(b"\x0a\x01x") == Empty()
    schema = Schema(One, Field(1, "value", UINT, required=True))
    assert schema.encode(One(0)) == b"\x08\x00"
    assert schema.decode(b"\x08\x2a") == One(42)
    with pytest.raises(DecodeError, match=r"One\.value is missing"):
        schema.decode(b"")


# What only the caller can get wrong.


@pytest.mark.parametrize(
    "message",
    [
        Everything(count=-1),
        Everything(count=2**64),
        Everything(numbers=[1, -1]),
        Everything(wide=-1),
        Everything(wide=2**64),
        Everything(narrow=2**32),
        Everything(narrow=-1),
        Everything(name="\ud800"),
        Everything(inner=Inner(b"", ["\udfff"])),
        Everything(inner=Inner(None)),  # type: ignore[arg-type]
    ],
)
def test_encode_refuses_what_does_not_fit(message: Everything) -> None:
    with pytest.raises(LocalError):
        EVERYTHING.encode(message)


def test_a_missing_value_is_named() -> None:
    with pytest.raises(LocalError, match=r"Inner\.key is missing"):
        INNER.encode(Inner(None))  # type: ignore[arg-type]


@dataclass(slots=True)
class Pair:
    a: int | None = None
    b: int | None = None


@dataclass(slots=True, kw_only=True)
class ByName:
    a: int


@pytest.mark.parametrize(
    "make",
    [
        lambda: Schema(Pair, Field(0, "a", UINT), Field(1, "b", UINT)),
        lambda: Schema(Pair, Field(2**29, "a", UINT), Field(1, "b", UINT)),
        lambda: Schema(Pair, Field(1, "a", UINT), Field(1, "b", UINT)),
        lambda: Schema(Pair, Field(1, "b", UINT)),
        lambda: Schema(Pair, Field(1, "a", UINT), Field(2, "c", UINT)),
        lambda: Schema(Pair, Field(1, "a", UINT), Field(2, "a", UINT)),
        lambda: Schema(ByName, Field(1, "a", UINT)),
        lambda: Schema(Pair, Field(1, "a", UINT, repeated=True)),
        lambda: Schema(Pair, Field(1, "a", UINT, limit=3)),
        lambda: Schema(Pair, Field(1, "a", UINT, overflow="drop")),
        lambda: Schema(Pair, Field(1, "a", UINT, required=True, implicit=True)),
        lambda: Schema(Pair, Field(1, "a", UINT, repeated=True, limit=1, required=True)),
        lambda: Schema(Pair, Field(1, "a", INNER, implicit=True)),
    ],
)
def test_schemas_that_make_no_sense(make: Callable[[], Schema[Any]]) -> None:
    with pytest.raises(LocalError):
        make()


# Properties.

UINT64 = st.integers(0, 2**64 - 1)
TEXT = st.text(max_size=5)
INNERS = st.builds(Inner, st.binary(max_size=200), st.lists(TEXT, max_size=3))
MESSAGES = st.builds(
    Everything,
    name=st.none() | TEXT,
    data=st.none() | st.binary(max_size=200),
    count=st.none() | UINT64,
    flag=st.none() | st.booleans(),
    wide=st.none() | UINT64,
    narrow=st.none() | st.integers(0, 2**32 - 1),
    inner=st.none() | INNERS,
    numbers=st.lists(UINT64, max_size=4),
    flags=st.lists(st.booleans(), max_size=4),
    wides=st.lists(UINT64, max_size=4),
    narrows=st.lists(st.integers(0, 2**32 - 1), max_size=4),
    blobs=st.lists(st.binary(max_size=5), max_size=4),
    inners=st.lists(INNERS, max_size=2),
    zero=UINT64,
    empty=st.binary(max_size=5),
    blank=TEXT,
    off=st.booleans(),
)
# A peer's next version: an unknown field of any wire type.
UNKNOWN = st.sampled_from([b"\x88\x02\xff\x01", b"\x89\x02" + bytes(8), b"\x8a\x02\x01u"])


@settings(deadline=None)
@given(MESSAGES)
def test_round_trip(message: Everything) -> None:
    assert EVERYTHING.decode(EVERYTHING.encode(message)) == message


@settings(deadline=None)
@given(MESSAGES, st.lists(UNKNOWN, max_size=5), st.lists(UNKNOWN, max_size=5))
def test_unknown_fields_change_nothing(
    message: Everything, before: list[bytes], after: list[bytes]
) -> None:
    data = b"".join(before) + EVERYTHING.encode(message) + b"".join(after)
    assert EVERYTHING.decode(data) == message


@settings(deadline=None)
@given(MESSAGES, st.data())
def test_a_cut_message_is_refused_or_shorter(message: Everything, data: st.DataObject) -> None:
    wire = EVERYTHING.encode(message)
    cut = data.draw(st.integers(0, len(wire)))
    try:
        decoded = EVERYTHING.decode(wire[:cut])
    except DecodeError:
        return
    assert EVERYTHING.encode(decoded) == wire[:cut]


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=40))
def test_garbage_raises_nothing_else(data: bytes) -> None:
    try:
        message = EVERYTHING.decode(data)
    except RemoteError:
        return
    assert EVERYTHING.decode(EVERYTHING.encode(message)) == message


@settings(deadline=None)
@given(MESSAGES, st.data())
def test_a_flipped_bit_raises_nothing_else(message: Everything, data: st.DataObject) -> None:
    wire = bytearray(EVERYTHING.encode(message) or b"\x18\x01")
    at = data.draw(st.integers(0, 8 * len(wire) - 1))
    wire[at // 8] ^= 1 << at % 8
    with suppress(RemoteError):
        EVERYTHING.decode(wire)


# Security catalogue.


@pytest.mark.parametrize(
    "data",
    [
        b"\x8b\x01" * 100_000 + b"\x8c\x01" * 100_000,
        b"\x8b\x01" * 100_000,
        b"\x0b" * 100_000,
        b"\x3a\x80\x80\x04" * 10_000,
    ],
)
def test_row_140_groups_and_depth(data: bytes) -> None:
    with pytest.raises(DecodeError):
        EVERYTHING.decode(data)


def test_row_140_unknown_fields_are_skipped_without_recursion() -> None:
    # Whoever looked for messages in unknown fields would find them nested 4,000 deep.
    nested = b""
    for _ in range(4_000):
        size = len(nested)
        nested = b"\x8a\x01" + bytes((size & 0x7F | 0x80, size >> 7)) + nested
    assert EVERYTHING.decode(nested + b"\x18\x01") == Everything(count=1)
    assert EVERYTHING.decode(b"\x88\x01\x00" * 50_000) == Everything()


@pytest.mark.parametrize("size", [2**64 - 1, 2**64 - 9, 2**63, 2**32, 2**31, 2**20])
@pytest.mark.parametrize("tag", [b"\x0a", b"\x12", b"\x3a", b"\x42", b"\x62", b"\x6a", b"\x8a\x01"])
def test_row_4_and_141_a_claimed_length_allocates_nothing(size: int, tag: bytes) -> None:
    prefix = bytearray(tag)
    claimed = size
    while claimed > 0x7F:
        prefix.append(claimed & 0x7F | 0x80)
        claimed >>= 7
    prefix.append(claimed)
    data = bytes(prefix) + bytes(200_000)  # of which no byte may be copied
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            EVERYTHING.decode(data)
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_a_count_is_refused_before_an_element_is_built() -> None:
    built = 0

    @dataclass(slots=True)
    class Counted:
        value: int | None = None

        def __post_init__(self) -> None:
            nonlocal built
            built += 1

    @dataclass(slots=True)
    class Many:
        items: list[Counted] = field(default_factory=list)

    counted = Schema(Counted, Field(1, "value", UINT))
    schema = Schema(Many, Field(1, "items", counted, repeated=True, limit=10))
    assert len(schema.decode(b"\x0a\x00" * 10).items) == built == 10
    with pytest.raises(DecodeError, match="limit 10"):
        schema.decode(b"\x0a\x00" * 100_000)
    assert built == 10
    lenient = Schema(Many, Field(1, "items", counted, repeated=True, limit=10, overflow="drop"))
    assert len(lenient.decode(b"\x0a\x00" * 100_000).items) == 10
    assert built == 20


def test_a_run_of_merged_messages_takes_no_more_than_its_size() -> None:
    # One object for each occurrence would be 5 MB.
    data = b"\x3a\x02\x0a\x00" + b"\x3a\x00" * 50_000
    tracemalloc.start()
    try:
        assert EVERYTHING.decode(data) == Everything(inner=Inner(b""))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
