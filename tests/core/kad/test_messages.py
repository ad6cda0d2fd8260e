"""What goes over the wire, its limits, and how an answer is made to fit."""

import pytest
from core.kad.people import peer, public
from hypothesis import given, strategies as st
from vectors import load

from anyp2p_core import varint
from anyp2p_core.errors import DecodeError, LocalError
from anyp2p_core.kad.messages import (
    MAX_ADDRESSES,
    MAX_CLOSER,
    MAX_KEY,
    MAX_PROVIDERS,
    MAX_SENT,
    MESSAGE,
    RECORD,
    ConnectionType,
    Message,
    Peer,
    Record,
    Type,
    decode,
    encode,
    encode_answer,
)

JS = load("kad")["js"]
ID = bytes(peer(1))


def unframe(data):
    size, start = varint.decode(data)
    assert start + size == len(data)
    return data[start:]


def full_peer(number, addresses=MAX_ADDRESSES, size=0):
    name = bytes(public(0)) if not size else b"\x36" + varint.delimited(b"x" * (size - 2))
    return Peer(bytes(peer(number)), [name] * addresses, ConnectionType.CONNECTED)


@pytest.mark.parametrize("case", load("kad")["messages"], ids=lambda case: case["type"])
def test_messages_of_go(case):
    message = decode(bytes.fromhex(case["bytes"]))
    assert message.type is Type[case["type"]]
    assert message.key.hex() == case["key"]
    assert message.closer == []
    assert [(p.id.hex(), [a.hex() for a in p.addresses]) for p in message.providers] == [
        (p["id"], p["addresses"]) for p in case.get("providers", ())
    ]
    if "record" in case:
        assert message.record.key.hex() == case["record"]["key"]
        assert message.record.value.hex() == case["record"]["value"]
    else:
        assert message.record is None


@pytest.mark.parametrize("case", load("kad")["records"], ids=lambda case: len(case["bytes"]))
def test_records_of_go(case):
    record = RECORD.decode(bytes.fromhex(case["bytes"]))
    assert (record.key.hex(), record.value.hex()) == (case["key"], case["value"])


def test_messages_of_js():
    request = decode(bytes.fromhex(JS["FIND_NODE"]))  # its fields are out of order
    assert (request.type, request.key.hex()[:8]) == (Type.FIND_NODE, "00240801")
    answer = bytes.fromhex(JS["FIND_NODE response"])
    (closer,) = decode(answer).closer
    assert (len(closer.addresses), closer.connection) == (3, ConnectionType.CONNECTED)
    assert unframe(encode(decode(answer))) == answer
    adding = bytes.fromhex(JS["ADD_PROVIDER"])
    assert unframe(encode(decode(adding))) == adding
    getting = bytes.fromhex(JS["GET_VALUE"])
    assert unframe(encode(Message(Type.GET_VALUE, b"/v/hello"))) == getting
    record = RECORD.decode(bytes.fromhex(JS["Record"]))
    assert record.time_received == "2024-01-02T03:04:05.006000000Z"


def test_zeros_are_not_written():
    assert unframe(encode(Message())) == b""
    message = Message(Type.PUT_VALUE, b"k", Record(b"k", b"v"), [Peer(b"i")])
    assert unframe(encode(message)).hex() == "12016b1a060a016b12017642030a0169"
    assert decode(b"") == Message()
    assert decode(b"").type is Type.PUT_VALUE


def test_what_rust_adds_to_records():
    record = Record(b"k", b"v", "", ID, 3600)
    assert RECORD.decode(RECORD.encode(record)) == record


def test_unknown_fields_are_skipped_and_the_level_is_kept():
    message = decode(b"\x50\x07\xf2\x3f\x03abc\x08\x05")
    assert (message.type, message.cluster_level) == (Type.PING, 7)
    negative = decode(b"\x50" + b"\xff" * 9 + b"\x01")
    assert unframe(encode(negative)) == b"\x50" + b"\xff" * 9 + b"\x01"


@pytest.mark.parametrize(
    "data",
    [b"\x08\x06", b"\x08\xff\x01", b"\x12\x05abc", b"\x12" + varint.delimited(bytes(MAX_KEY + 1)),
     b"\x42\x01", b"\x42\x02\x0a\x05", b"\x0b", b"\x1a\x01\xff", b"\x09" + bytes(8)],
)  # fmt: skip
def test_malformed(data):
    with pytest.raises(DecodeError):
        decode(data)


def test_row_78_counts_are_limited_while_reading():
    one = b"\x42" + varint.delimited(b"\x0a" + varint.delimited(ID) + b"\x12\x01\x04" * 500)
    data = one * 1000 + b"\x4a\x00" * 1000
    message = decode(data)
    assert len(message.closer) == MAX_CLOSER == 40
    assert len(message.providers) == MAX_PROVIDERS
    assert all(len(closer.addresses) == MAX_ADDRESSES == 16 for closer in message.closer)


@given(st.binary(max_size=200))
def test_garbage(data):
    try:
        message = decode(data)
    except DecodeError:
        return
    assert MESSAGE.decode(unframe(encode_answer(message))).key == message.key


def test_long_requests_are_refused_with_a_reason():
    fits = Message(Type.PUT_VALUE, b"/n/k", Record(b"/n/k", bytes(MAX_SENT - 40)))
    assert len(unframe(encode(fits))) <= MAX_SENT
    with pytest.raises(LocalError, match="shorter value"):
        encode(Message(Type.PUT_VALUE, b"/n/k", Record(b"/n/k", bytes(MAX_SENT))))


@pytest.mark.parametrize(
    ("closer", "providers", "addresses", "size"),
    [(20, 0, 4, 0), (20, 0, 16, 0), (20, 20, 16, 0), (20, 0, 16, 120), (40, 40, 16, 200),
     (0, 128, 16, 250), (3, 3, 1, 250)],
)  # fmt: skip
def test_answers_fit(closer, providers, addresses, size):
    message = Message(
        Type.GET_PROVIDERS,
        closer=[full_peer(n, addresses, size) for n in range(closer)],
        providers=[full_peer(n, addresses, size) for n in range(100, 100 + providers)],
    )
    data = unframe(encode_answer(message))
    assert len(data) <= MAX_SENT
    answer = MESSAGE.decode(data)
    # Nobody is left out while there is room for an id and an address.
    assert len(answer.providers) == min(providers, MAX_SENT // (38 + 12 + max(size, 9) + 4))
    assert [p.id for p in answer.closer] == [p.id for p in message.closer[: len(answer.closer)]]
    assert all(p.addresses for p in answer.closer + answer.providers)
    if len(MESSAGE.encode(message)) + 200 < MAX_SENT:
        assert answer == message


def test_providers_come_before_closer_peers():
    message = Message(closer=[full_peer(1, 1)], providers=[full_peer(2, 1)])
    room = len(MESSAGE.encode(Message(providers=[full_peer(2, 1)]))) + 20
    answer = MESSAGE.decode(unframe(encode_answer(message, room)))
    assert (len(answer.providers), len(answer.closer)) == (1, 0)


def test_a_long_record_goes_alone():
    record = Record(b"k", bytes(60_000))
    message = Message(Type.GET_VALUE, b"k", record, [full_peer(1)])
    answer = MESSAGE.decode(unframe(encode_answer(message)))
    assert (answer.record, answer.closer) == (record, [])


def test_a_peer_without_addresses_fits_too():
    message = Message(closer=[Peer(ID)], cluster_level=3)
    assert MESSAGE.decode(unframe(encode_answer(message))) == message
