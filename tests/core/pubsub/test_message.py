import pytest
from hypothesis import given, strategies as st

from anyp2p_core import DecodeError, PeerId
from anyp2p_core.pubsub.message import SIGN_PREFIX, build, parse, sign
from anyp2p_core.varint import delimited, encode as varint

AUTHOR = bytes.fromhex(
    "0024080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"
)


def field(number, data):
    return varint(number << 3 | 2) + delimited(data)


BODY = field(1, AUTHOR) + field(2, b"data") + field(3, bytes(8)) + field(4, b"topic")
SIGNED = BODY + field(5, b"s" * 64)


def values(message):
    return (
        message.from_, message.data, message.seqno, message.topic, message.signature, message.key,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", (None, None, None, b"", None, None)),
        (BODY, (AUTHOR, b"data", bytes(8), b"topic", None, None)),
        (SIGNED, (AUTHOR, b"data", bytes(8), b"topic", b"s" * 64, None)),
        (SIGNED + field(6, b"k"), (AUTHOR, b"data", bytes(8), b"topic", b"s" * 64, b"k")),
        (BODY + field(6, b"k"), (AUTHOR, b"data", bytes(8), b"topic", None, b"k")),
        (field(2, b"") + field(4, b"t"), (None, b"", None, b"t", None, None)),
        (field(2, b"d" * 300), (None, b"d" * 300, None, b"", None, None)),
    ],
)
def test_regular_messages_are_forwarded_as_they_came(raw, expected):
    message = parse(raw)
    assert values(message) == expected
    assert message.raw is raw
    end = raw.find(field(5, b"s" * 64))
    end = raw.find(field(6, b"k")) if end < 0 else end
    assert message.signed == SIGN_PREFIX + (raw if end < 0 else raw[:end])


@pytest.mark.parametrize(
    "raw",
    [
        field(4, b"topic") + field(1, AUTHOR) + field(3, bytes(8)) + field(2, b"data"),
        field(1, b"other") + BODY,
        BODY[:2] + BODY[2:40] + b"\x12\x84\x00data" + BODY[46:],  # a long spelling of 4
        field(5, b"s" * 64) + BODY,
    ],
)
def test_irregular_messages_are_spelled_anew(raw):
    message = parse(raw)
    assert values(message)[:4] == (AUTHOR, b"data", bytes(8), b"topic")
    assert message.raw == (BODY if message.signature is None else SIGNED)
    assert message.signed == SIGN_PREFIX + BODY


UNKNOWN = [
    field(9, b"extra"),
    b"\x48\x01",
    b"\x49" + bytes(8),
    b"\x4d" + bytes(4),
    b"\x9a\x80\x80\x80\x01\x00",
]


@pytest.mark.parametrize("extra", UNKNOWN)
@pytest.mark.parametrize("at", [0, len(BODY), len(SIGNED)])
def test_unknown_fields_are_signed_and_kept(extra, at):
    message = parse(SIGNED[:at] + extra + SIGNED[at:])
    assert message.signed == SIGN_PREFIX + BODY + extra
    assert message.raw == BODY + extra + field(5, b"s" * 64)
    again = parse(message.raw)
    assert (again.raw, again.signed) == (message.raw, message.signed)


@pytest.mark.parametrize("keyed", [field(6, b"k"), field(5, b"s") + field(6, b"k")])
def test_keys_of_irregular_messages_are_kept(keyed):
    message = parse(field(9, b"") + field(4, b"t") + keyed)
    assert message.key == b"k"
    assert message.raw == field(4, b"t") + field(9, b"") + keyed
    assert message.signed == SIGN_PREFIX + field(4, b"t") + field(9, b"")


@pytest.mark.parametrize(
    "raw",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0a\xff",
        b"\x48",
        b"\x4a\x05abc",
        b"\x08\x01",  # field 1 as a number
        b"\x25" + bytes(4),
        b"\x02\x00",
        b"\x4b\x00",
        b"\x49" + bytes(7),
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    ],
)
def test_what_is_no_message(raw):
    with pytest.raises(DecodeError):
        parse(raw)


def test_each_cut_is_noticed():
    ends = set()
    pos = 0
    for part in (AUTHOR, b"data", bytes(8), b"topic", b"s" * 64):
        pos += 2 + len(part)
        ends.add(pos)
    for at in range(1, len(SIGNED)):
        if at not in ends:
            with pytest.raises(DecodeError):
                parse(SIGNED[:at])


def test_building_and_signing():
    message = build(AUTHOR, b"data", bytes(8), b"topic")
    assert message.raw == BODY and message.signed == SIGN_PREFIX + BODY
    sign(message, b"s" * 64, None)
    assert message.raw == SIGNED and message.signed == SIGN_PREFIX + BODY
    message = build(None, b"", None, b"t")
    sign(message, b"x", b"k")
    assert message.raw == field(2, b"") + field(4, b"t") + field(5, b"x") + field(6, b"k")
    assert parse(message.raw).key == b"k"


def test_the_author():
    assert parse(BODY).author == PeerId(AUTHOR)
    assert parse(field(1, b"nobody")).author is None
    assert parse(field(1, b"")).author is None
    assert parse(b"").author is None


def test_repr():
    message = parse(BODY)
    message.id = b"\1\2"
    assert repr(message) == f"<Message 0102 b'topic' of {len(BODY)} bytes>"


@given(st.binary(max_size=80))
def test_garbage(data):
    try:
        message = parse(data)
    except DecodeError:
        return
    again = parse(message.raw)
    assert values(again) == values(message) and again.signed == message.signed
    assert again.raw == message.raw


@given(st.lists(st.tuples(st.integers(1, 9), st.binary(max_size=5)), max_size=8))
def test_any_order_of_fields_means_the_same(fields):
    message = parse(b"".join(field(number, data) for number, data in fields))
    last = dict(fields)
    assert values(message) == (
        last.get(1), last.get(2), last.get(3), last.get(4, b""), last.get(5), last.get(6),
    )  # fmt: skip
