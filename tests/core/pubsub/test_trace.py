import pytest
from core.kad.people import peer

from anyp2p_core import DecodeError
from anyp2p_core.pubsub import rpc as wire, trace
from anyp2p_core.pubsub.ids import from_and_seqno
from anyp2p_core.pubsub.message import build
from anyp2p_core.pubsub.rpc import Prune
from anyp2p_core.pubsub.trace import Tracer, Type
from anyp2p_core.varint import delimited, encode as varint

OWN, OTHER = bytes(peer(1)), bytes(peer(2))


def field(number, data):
    if isinstance(data, int):
        return varint(number << 3) + varint(data)
    return varint(number << 3 | 2) + delimited(data)


def make_message():
    message = build(OTHER, b"data", bytes(8), b"topic")
    message.id = b"id"
    message.received_from = peer(2)
    return message


@pytest.fixture
def traced():
    events = []
    tracer = Tracer(events.append, OWN, lambda now: now + 5, from_and_seqno)
    return tracer, events


# Each event with what the schema says that it looks like.
EVENTS = [
    (
        lambda t: t.published(make_message(), 1.0),
        0, field(4, field(1, b"id") + field(2, b"topic")),
    ),
    (
        lambda t: t.rejected(make_message(), "why", 1.0),
        1, field(5, field(1, b"id") + field(2, OTHER) + field(3, b"why") + field(4, b"topic")),
    ),
    (
        lambda t: t.duplicate(make_message(), 1.0),
        2, field(6, field(1, b"id") + field(2, OTHER) + field(3, b"topic")),
    ),
    (
        lambda t: t.delivered(make_message(), 1.0),
        3, field(7, field(1, b"id") + field(2, b"topic") + field(3, OTHER)),
    ),
    (
        lambda t: t.stream_opened(OTHER, "/meshsub/1.1.0", 1.0),
        4, field(8, field(1, OTHER) + field(2, b"/meshsub/1.1.0")),
    ),
    (lambda t: t.stream_closed(OTHER, 1.0), 5, field(9, field(1, OTHER))),
    (lambda t: t.received(OTHER, wire.Rpc(), 1.0), 6, field(10, field(1, OTHER) + field(2, b""))),
    (lambda t: t.sent(OTHER, b"\0", True, 1.0), 7, field(11, field(1, OTHER) + field(2, b""))),
    (lambda t: t.sent(OTHER, b"\0", False, 1.0), 8, field(12, field(1, OTHER) + field(2, b""))),
    (lambda t: t.joined("topic", 1.0), 9, field(13, field(1, b"topic"))),
    (lambda t: t.left("topic", 1.0), 10, field(14, field(2, b"topic"))),
    (
        lambda t: t.grafted(OTHER, "topic", 1.0),
        11, field(15, field(1, OTHER) + field(2, b"topic")),
    ),
    (
        lambda t: t.pruned(OTHER, "topic", 1.0),
        12, field(16, field(1, OTHER) + field(2, b"topic")),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("act", "kind", "detail"), EVENTS, ids=lambda value: str(value)[:3])
def test_each_type_on_the_wire(act, kind, detail, traced):
    tracer, events = traced
    act(tracer)
    (event,) = events
    assert event.type is Type(kind)
    encoded = trace.encode(event)
    body = field(1, kind) + field(2, OWN) + field(3, 6_000_000_000) + detail
    assert encoded == delimited(body)
    assert trace.decode(encoded) == [event]


def test_there_are_thirteen():
    assert len(Type) == len(EVENTS) == 13


def test_a_file_of_all(traced):
    tracer, events = traced
    for act, _, _ in EVENTS:
        act(tracer)
    assert trace.decode(b"".join(map(trace.encode, events))) == events


def test_what_is_in_an_rpc(traced):
    tracer, events = traced
    frames = [
        wire.publish([make_message().raw, b"\x0a"]),
        wire.subscriptions([(True, b"a"), (False, b"b")]),
        *wire.ihave(b"t", [b"1", b"2"]),
        *wire.iwant([b"3"]),
        *wire.idontwant([b"4"]),
        wire.graft_prune([b"g"], [Prune(b"p", [(OTHER, b"record")], 60)]),
    ]
    for frame in frames:
        tracer.sent(OTHER, frame, True, 0.0)
    sent = [event.detail.meta for event in events]
    assert sent[0].messages == [trace.MessageMeta(OTHER + bytes(8), "topic")]
    assert sent[1].subscriptions == [trace.SubMeta(True, "a"), trace.SubMeta(False, "b")]
    assert sent[2].control.ihave == [trace.IHaveMeta("t", [b"1", b"2"])]
    assert sent[3].control.iwant == [trace.IdsMeta([b"3"])]
    assert sent[4].control.idontwant == [trace.IdsMeta([b"4"])]
    assert sent[5].control.graft == [trace.TopicMeta("g")]
    assert sent[5].control.prune == [trace.PruneMeta("p", [OTHER])]
    assert trace.decode(b"".join(map(trace.encode, events))) == events


def test_messages_without_id_or_sender(traced):
    tracer, events = traced
    message = build(OTHER, b"", bytes(8), b"\xff")
    tracer.rejected(message, "why", 0.0)
    assert events[0].detail == trace.Rejected(OTHER + bytes(8), None, "why", "\ufffd")


@pytest.mark.parametrize(
    "data",
    [
        delimited(b""),
        delimited(field(1, 13)),
        delimited(field(1, 0)),
        delimited(field(1, 0) + field(2, OWN) + field(3, 0)),
        delimited(field(1, 0) + field(2, OWN) + field(3, 0) + field(5, b"")),
        delimited(field(1, 0) + field(2, OWN) + field(3, 0) + field(4, b""))[:-1],
        b"\x80",
    ],
)
def test_what_is_no_trace(data):
    with pytest.raises(DecodeError):
        trace.decode(data)
