from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from anyp2p_core import DecodeError
from anyp2p_core.pubsub import rpc as wire
from anyp2p_core.pubsub.rpc import Prune, WireLimits, parse
from anyp2p_core.varint import Delimited, delimited, encode as varint

LIMITS = WireLimits()
ID = bytes.fromhex("aabbccddaabbccddaabbccddaabbccddaabbccdd")
PEER = bytes.fromhex("0024080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394")

# What js peers write (gossipsub 17.1.1).
JS_SUBSCRIBE = bytes.fromhex("0a0708011203666f6f0a0708001203626172")
JS_CONTROL = bytes.fromhex(
    "1a8c010a1b0a03666f6f1214aabbccddaabbccddaabbccddaabbccddaabbccdd12160a14aabbccddaabbccddaabbcc"
    "ddaabbccddaabbccdd1a050a03666f6f22360a03666f6f122d0a260024080112208139770ea87d175f56a35466c34c"
    "7ecccb8d8a91b4ee37a25df60f5b8fc9b3941203010203183c2a160a14aabbccddaabbccddaabbccddaabbccddaabb"
    "ccdd"
)


def field(number, data):
    return varint(number << 3 | 2) + delimited(data)


def read(data, **limits):
    return parse(data, WireLimits(**limits))


def test_subscriptions_of_js():
    assert read(JS_SUBSCRIBE).subscriptions == [(True, b"foo"), (False, b"bar")]
    assert wire.subscriptions([(True, b"foo"), (False, b"bar")]) == delimited(JS_SUBSCRIBE)


def test_control_of_js():
    control = read(JS_CONTROL).control
    assert control.ihave == [(b"foo", [ID])]
    assert control.iwant == control.idontwant == [ID]
    assert control.graft == [b"foo"]
    assert control.prune == [Prune(b"foo", [(PEER, b"\1\2\3")], 60)]
    assert not control.extensions


def test_a_message_of_js():
    body = bytes.fromhex("120c120568656c6c6f2203666f6f")
    assert read(body).publish == [body[2:]]
    assert wire.publish([body[2:]]) == delimited(body)


@pytest.mark.parametrize(
    ("frames", "name", "expected"),
    [
        (wire.ihave(b"foo", [ID, b"x"]), "ihave", [(b"foo", [ID, b"x"])]),
        (wire.iwant([ID, b"x"]), "iwant", [ID, b"x"]),
        (wire.idontwant([ID]), "idontwant", [ID]),
        ([wire.graft_prune([b"a", b"b"], ())], "graft", [b"a", b"b"]),
        (
            [wire.graft_prune((), [Prune(b"a"), Prune(b"b", [(PEER, b"r" * 200)], 3600)])],
            "prune",
            [Prune(b"a"), Prune(b"b", [(PEER, b"r" * 200)], 3600)],
        ),
    ],
)
def test_control_survives_the_way(frames, name, expected):
    (frame,) = frames
    (body,) = Delimited(1 << 20).receive(frame)
    assert getattr(read(body).control, name) == expected


@pytest.mark.parametrize("make", [wire.iwant, wire.idontwant, lambda ids: wire.ihave(b"t", ids)])
def test_long_lists_of_ids_are_split(make):
    ids = [number.to_bytes(40, "big") for number in range(1000)]
    frames = make(ids)
    assert len(frames) == 6 and max(map(len, frames)) < 16 * 1024
    found = []
    for frame in frames:
        (body,) = Delimited(1 << 20).receive(frame)
        control = read(body).control
        found += control.iwant + control.idontwant
        for topic, some in control.ihave:
            assert topic == b"t"
            found += some
    assert found == ids
    assert make([]) == []


def test_extensions():
    control = read(wire.OUR_EXTENSIONS).control
    assert control.extensions and control.test_extension
    control = read(field(3, field(6, b"\x08\x01"))).control
    assert control.extensions and not control.test_extension
    assert read(wire.TEST_EXTENSION_RPC[1:]).test_extension
    hello = wire.subscriptions([(True, b"t")], wire.OUR_EXTENSIONS)
    found = read(hello[1:])
    assert found.subscriptions == [(True, b"t")] and found.control.test_extension


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x20\x01",  # unknown numbers
        b"\x21" + bytes(8),
        b"\x25" + bytes(4),
        b"\x2a\x03abc",
        b"\xa2\x06\x01x",
        b"\x9a\x80\x80\x80\x01\x00",
    ],
)
def test_what_is_unknown_is_skipped(data):
    found = read(data + JS_SUBSCRIBE)
    assert len(found.subscriptions) == 2 and found.control is None and not found.publish


@pytest.mark.parametrize(
    "data",
    [
        b"\x12",
        b"\x12\x05abc",
        b"\x0a\x07\x08",
        b"\x0a\x04\x12\x05ab",
        b"\x1a\x02\x0a\x01",
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x12\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # longer than ten bytes
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # more than 64 bits
        b"\x02\x00",  # field 0
        b"\x00\x00",
        b"\x05\x00\x00\x00\x00",
        b"\x0b\x0c",  # a group
        b"\x0e",  # wire type 6
        b"\x25\x00",
        b"\x21\x00\x00",
        b"\x80\x80\x80\x80\x80\x01",
        b"\x0a\x03\x08\xff\xff",
    ],
)
def test_what_is_no_rpc(data):
    with pytest.raises(DecodeError):
        read(data)


def test_entries_are_counted_over_all_kinds():
    body = field(2, b"") * 2 + field(1, field(2, b"t")) + field(3, field(3, field(1, b"t")))
    assert len(read(body, max_entries=5).publish) == 2
    for limit in range(1, 5):
        with pytest.raises(DecodeError, match=f"more than {limit} entries"):
            read(body, max_entries=limit)


def test_subscriptions_beyond_the_limit_are_ignored():
    body = b"".join(field(1, b"\x08\x01" + field(2, bytes([one]))) for one in range(10))
    assert read(body, max_subscriptions=3).subscriptions == [(True, bytes([n])) for n in range(3)]


def test_subscriptions_without_topic_or_with_a_long_one_are_ignored():
    body = field(1, b"\x08\x01") + field(1, field(2, b"t" * 9)) + field(1, field(2, b"t" * 8))
    assert read(body, max_topic=8).subscriptions == [(False, b"t" * 8)]


def test_control_beyond_the_limit_is_left_out():
    big, small = field(1, field(2, b"i" * 100)), field(3, field(1, b"t"))
    found = read(field(3, big + small), max_control=50)
    assert found.truncated and found.control.ihave == [] and found.control.graft == [b"t"]
    assert not read(field(3, small), max_control=50).truncated
    # The limit is one for the whole RPC.
    found = read(field(3, small) * 20, max_control=50)
    assert found.truncated and len(found.control.graft) == 16


@pytest.mark.parametrize(("number", "name", "inner"), [(2, "iwant", 1), (5, "idontwant", 1)])
def test_ids_are_counted(number, name, inner):
    body = field(3, field(number, field(inner, b"x") * 5))
    found = read(body, max_ids=4)
    assert found.truncated and getattr(found.control, name) == [b"x"] * 4
    assert not read(body, max_ids=5).truncated


def test_ids_of_one_announcement_are_counted():
    found = read(field(3, field(1, field(1, b"t") + field(2, b"x") * 5)), max_ids=4)
    assert found.truncated and found.control.ihave == [(b"t", [b"x"] * 4)]


def test_long_ids_are_ignored():
    found = read(field(3, field(2, field(1, b"x" * 9) + field(1, b"y" * 8))), max_id=8)
    assert found.control.iwant == [b"y" * 8] and not found.truncated


def test_peers_of_a_prune_are_counted():
    px = field(2, field(1, PEER)) * 3
    found = read(field(3, field(4, field(1, b"t") + px)), max_px=2)
    assert found.truncated and found.control.prune == [Prune(b"t", [(PEER, b"")] * 2)]


def test_what_is_unknown_in_control_is_skipped():
    odd = b"\x50\x01" + field(11, b"zzz")
    body = (
        odd
        + field(1, odd + field(1, b"t"))
        + field(2, odd)
        + field(3, odd + field(1, b"g"))
        + field(4, odd + field(2, odd + field(1, PEER)))
        + field(6, odd)
    )
    control = read(field(3, body) + field(1, odd)).control
    assert control.ihave == [(b"t", [])] and control.iwant == [] and control.graft == [b"g"]
    assert control.prune == [Prune(b"", [(PEER, b"")])] and control.extensions


def test_control_that_comes_twice_is_joined():
    control = read(field(3, field(3, field(1, b"a"))) + field(3, field(3, field(1, b"b")))).control
    assert control.graft == [b"a", b"b"]


@given(st.binary(max_size=60))
def test_garbage(data):
    with suppress(DecodeError):
        read(data)


@given(st.binary(max_size=20), st.integers(0, 140))
def test_damaged_control(noise, at):
    with suppress(DecodeError):
        read(JS_CONTROL[:at] + noise + JS_CONTROL[at:])


def test_each_cut_is_noticed():
    whole = JS_SUBSCRIBE[:9] + JS_CONTROL
    for at in range(len(whole)):
        if at not in (0, 9):
            with pytest.raises(DecodeError):
                read(whole[:at])
