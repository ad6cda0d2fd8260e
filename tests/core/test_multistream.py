import json
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from anyp2p_core.errors import LocalError, NegotiationError
from anyp2p_core.multistream import MAX_LINE, MAX_PROPOSALS, Dialer, Listener, encode

VECTORS = Path(__file__).parents[2] / "conformance" / "vectors" / "multistream.json"

HEADER = b"\x13/multistream/1.0.0\n"
NA = b"\x03na\n"
LS = b"\x03ls\n"

LONGEST = "/" + "x" * (MAX_LINE - 2)
LONG = "/" + "x" * 126  # the shortest name whose length takes two bytes


def cuts(data, positions):
    edges = [0, *sorted({p % (len(data) + 1) for p in positions}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def one_by_one(data):
    return [data[i : i + 1] for i in range(len(data))]


def make_dialer(*protocols):
    out = []
    return Dialer(protocols, out.append), out


def make_listener(*protocols):
    out = []
    return Listener(protocols.__contains__, out.append), out


def feed(machine, pieces):
    """What the pieces lead to: the leftover (None while waiting) or NegotiationError."""
    pieces = list(pieces)
    for i, piece in enumerate(pieces):
        try:
            rest = machine.receive(piece)
        except NegotiationError:
            return NegotiationError
        if rest is not None:
            return rest + b"".join(pieces[i + 1 :])
    return None


# Dialer: what it proposes, what the peer sends, the outcome, the protocol, all that it wrote.

DIALER = [
    (["/a"], b"", None, None, ["/a"]),
    (["/a"], HEADER, None, None, ["/a"]),
    (["/a"], HEADER + b"\x03/a\n", b"", "/a", ["/a"]),
    (["/a"], HEADER + b"\x03/a\nhello", b"hello", "/a", ["/a"]),
    (["/a", "/b"], HEADER + NA, None, None, ["/a", "/b"]),
    (["/a", "/b"], HEADER + NA + b"\x03/b\n", b"", "/b", ["/a", "/b"]),
    (["/a", "/b"], HEADER + NA + b"\x03/b\n\x03/b\n", b"\x03/b\n", "/b", ["/a", "/b"]),
    ([LONG], HEADER + encode(LONG) + b"!", b"!", LONG, [LONG]),
    ([LONGEST], HEADER + encode(LONGEST), b"", LONGEST, [LONGEST]),
    # Refused.
    (["/a"], HEADER + NA, NegotiationError, None, ["/a"]),
    (["/a", "/b"], HEADER + NA + NA, NegotiationError, None, ["/a", "/b"]),
    # Not what was proposed: a name never or no longer proposed, a header too many.
    (["/a", "/b"], HEADER + b"\x03/b\n", NegotiationError, None, ["/a"]),
    (["/a", "/b"], HEADER + NA + b"\x03/a\n", NegotiationError, None, ["/a", "/b"]),
    (["/a"], HEADER + b"\x04/ab\n", NegotiationError, None, ["/a"]),
    (["/a"], HEADER + HEADER, NegotiationError, None, ["/a"]),
    (["/a"], HEADER + LS, NegotiationError, None, ["/a"]),
    # No header.
    (["/a"], b"\x03/a\n", NegotiationError, None, ["/a"]),
    (["/a"], NA, NegotiationError, None, ["/a"]),
    (["/a"], b"\x13/multistream/2.0.0\n", NegotiationError, None, ["/a"]),
    (["/a"], b"HTTP/1.1 400 Bad Request\r\n", NegotiationError, None, ["/a"]),
    # Broken lines.
    (["/a"], HEADER + b"\x00", NegotiationError, None, ["/a"]),
    (["/a"], HEADER + b"\x02/a", NegotiationError, None, ["/a"]),
    (["/a"], HEADER + b"\x83\x00/a\n", NegotiationError, None, ["/a"]),
]

# Listener of /a, LONG and LONGEST: what the peer sends, the outcome, the protocol, the answers.

ACCEPTED = ("/a", LONG, LONGEST)
LISTENER = [
    (b"", None, None, b""),
    (HEADER[:-1], None, None, b""),
    (HEADER, None, None, HEADER),
    (HEADER + b"\x03/a", None, None, HEADER),
    (HEADER + b"\x03/a\n", b"", "/a", HEADER + b"\x03/a\n"),
    (HEADER + b"\x03/a\nhello", b"hello", "/a", HEADER + b"\x03/a\n"),
    (HEADER + b"\x03/b\n", None, None, HEADER + NA),
    (HEADER + b"\x03/b\n\x03/a\n", b"", "/a", HEADER + NA + b"\x03/a\n"),
    (HEADER + encode(LONG) + b"!", b"!", LONG, HEADER + encode(LONG)),
    (HEADER + encode(LONGEST), b"", LONGEST, HEADER + encode(LONGEST)),
    (HEADER + encode(LONGEST[:-1] + "y"), None, None, HEADER + NA),
    # Not a name: the list request, nothing, no slash, not UTF-8, the header again.
    (HEADER + LS, None, None, HEADER + NA),
    (HEADER + b"\x01\n", None, None, HEADER + NA),
    (HEADER + b"\x02a\n", None, None, HEADER + NA),
    (HEADER + b"\x03/\xff\n", None, None, HEADER + NA),
    (HEADER + b"\x80\x01" + b"a" * 127 + b"\n", None, None, HEADER + NA),
    (HEADER + HEADER, None, None, HEADER + NA),
    # Broken.
    (b"\x03/a\n", NegotiationError, None, b""),
    (b"GET / HTTP/1.1\r\n", NegotiationError, None, b""),
    (HEADER + b"\x00", NegotiationError, None, HEADER),
    (HEADER + b"\x02/a", NegotiationError, None, HEADER),
    (HEADER + b"\x83\x00/a\n", NegotiationError, None, HEADER),
    (HEADER + b"\x03/b\n\x02/a", NegotiationError, None, HEADER + NA),
]

WAYS = [lambda data: [data], one_by_one]


@pytest.mark.parametrize("cut", WAYS, ids=["whole", "one_by_one"])
@pytest.mark.parametrize("protocols, data, outcome, protocol, proposed", DIALER)
def test_dialer(protocols, data, outcome, protocol, proposed, cut):
    dialer, out = make_dialer(*protocols)
    assert feed(dialer, cut(data)) == outcome
    assert dialer.protocol == protocol
    assert b"".join(out) == HEADER + b"".join(map(encode, proposed))


@pytest.mark.parametrize("cut", WAYS, ids=["whole", "one_by_one"])
@pytest.mark.parametrize("data, outcome, protocol, answers", LISTENER)
def test_listener(data, outcome, protocol, answers, cut):
    listener, out = make_listener(*ACCEPTED)
    assert feed(listener, cut(data)) == outcome
    assert listener.protocol == protocol
    assert b"".join(out) == answers


@settings(deadline=None)
@given(st.sampled_from(DIALER), st.lists(st.integers(0, 2000), max_size=6))
def test_dialer_in_any_segments(row, positions):
    protocols, data, outcome, protocol, proposed = row
    dialer, out = make_dialer(*protocols)
    assert feed(dialer, cuts(data, positions)) == outcome
    assert dialer.protocol == protocol
    assert b"".join(out) == HEADER + b"".join(map(encode, proposed))


@settings(deadline=None)
@given(st.sampled_from(LISTENER), st.lists(st.integers(0, 2000), max_size=6))
def test_listener_in_any_segments(row, positions):
    data, outcome, protocol, answers = row
    listener, out = make_listener(*ACCEPTED)
    assert feed(listener, cuts(data, positions)) == outcome
    assert listener.protocol == protocol
    assert b"".join(out) == answers


@settings(deadline=None)
@given(st.binary(), st.booleans(), st.lists(st.integers(0, 2000), max_size=4))
def test_garbage_raises_or_waits(garbage, greeted, positions):
    data = (HEADER if greeted else b"") + garbage
    for machine, _ in (make_dialer("/a", "/b"), make_listener("/a")):
        feed(machine, cuts(data, positions))


@settings(deadline=None)
@given(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True),
    st.sets(st.sampled_from("abcdef")),
)
def test_the_first_common_protocol_wins(offered, accepted):
    offered = [f"/{name}" for name in offered]
    accepted = {f"/{name}" for name in accepted}
    expected = next((name for name in offered if name in accepted), None)
    to_listener, to_dialer = [], []
    dialer = Dialer(offered, to_listener.append)
    listener = Listener(accepted.__contains__, to_dialer.append)
    try:
        while to_listener or to_dialer:
            for queue, machine in ((to_listener, listener), (to_dialer, dialer)):
                if queue:
                    data = b"".join(queue)
                    queue.clear()
                    machine.receive(data)
    except NegotiationError as error:
        assert expected is None
        assert all(name in str(error) for name in offered)
    assert dialer.protocol == listener.protocol == expected


# Who writes when.


def test_header_and_first_proposal_are_one_write():
    _, out = make_dialer("/a", "/b")
    assert out == [HEADER + b"\x03/a\n"]


def test_header_and_echo_are_one_write():
    listener, out = make_listener("/a")
    listener.receive(HEADER + b"\x03/a\n")
    assert out == [HEADER + b"\x03/a\n"]


def test_a_lone_header_is_answered_at_once():
    listener, out = make_listener("/a")
    listener.receive(HEADER)
    assert out == [HEADER]
    listener.receive(b"\x03/a\n")
    assert out == [HEADER, b"\x03/a\n"]


def test_answers_to_one_segment_are_one_write():
    listener, out = make_listener("/a")
    listener.receive(HEADER + b"\x03/b\n\x03/c\n\x03/a\n")
    assert out == [HEADER + NA + NA + b"\x03/a\n"]


def test_the_listener_does_not_speak_first():
    listener, out = make_listener("/a")
    assert listener.receive(HEADER[:10]) is None
    assert out == []


# The end.


@pytest.mark.parametrize("make", [make_dialer, make_listener])
def test_leftover_is_returned_once(make):
    machine, _ = make("/a")
    assert machine.receive(HEADER + b"\x03/a\nrest") == b"rest"
    with pytest.raises(LocalError, match="over"):
        machine.receive(b"more")


@pytest.mark.parametrize("make", [make_dialer, make_listener])
def test_nothing_is_parsed_after_an_error(make):
    machine, out = make("/a")
    with pytest.raises(NegotiationError):
        machine.receive(b"garbage")
    written = list(out)
    with pytest.raises(LocalError, match="over"):
        machine.receive(HEADER + b"\x03/a\n")
    assert machine.protocol is None
    assert out == written


def test_refusal_names_the_protocols():
    dialer, _ = make_dialer("/a/1", "/b/2")
    with pytest.raises(NegotiationError, match=r"none of /a/1, /b/2"):
        dialer.receive(HEADER + NA + NA)


def test_a_wrong_answer_is_shown_but_not_whole():
    dialer, _ = make_dialer("/a")
    with pytest.raises(NegotiationError) as caught:
        dialer.receive(HEADER + encode(LONGEST))
    assert "/a" in str(caught.value)
    assert len(str(caught.value)) < 200


# The caller's names.


def test_no_protocols():
    with pytest.raises(LocalError):
        Dialer([], lambda data: None)


@pytest.mark.parametrize("name", ["", "a", "na", "/a\n", "/\ud800", "/" + "x" * (MAX_LINE - 1)])
def test_what_cannot_be_a_name_is_refused_before_anything_is_written(name):
    out = []
    with pytest.raises(LocalError):
        Dialer([name], out.append)
    assert out == []


def test_names_are_utf8():
    dialer, out = make_dialer("/größe")
    listener, answers = make_listener("/größe")
    assert listener.receive(out[0]) == b""
    assert dialer.receive(answers[0]) == b""
    assert dialer.protocol == listener.protocol == "/größe"


@pytest.mark.parametrize("case", json.loads(VECTORS.read_text())["cases"], ids=lambda c: c["text"])
def test_vectors(case):
    text, frame = case["text"], bytes.fromhex(case["frame"])
    if text == "/multistream/1.0.0":
        assert frame == HEADER
        assert make_listener("/a")[0].receive(frame) is None
    elif text.startswith("/"):
        _, out = make_dialer(text)
        assert out == [HEADER + frame]
        listener, out = make_listener(text)
        assert listener.receive(HEADER + frame) == b""
        assert out == [HEADER + frame]
    else:
        listener, out = make_listener("/a")
        listener.receive(HEADER + frame)
        assert out == [HEADER + encode("/a")[:1] + b"na\n"]


# The security catalogue.

LENGTHS = [1025, 1026, 16383, 16384, 2**32, 2**63 - 1, 2**63, 2**64 - 1]


def leb128(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out) + bytes((n,))


@pytest.mark.parametrize("make", [make_dialer, make_listener])
@pytest.mark.parametrize("length", LENGTHS)
def test_row_2_an_oversized_line_is_judged_on_its_length_alone(make, length):
    machine, _ = make("/a")
    machine.receive(HEADER)
    with pytest.raises(NegotiationError):
        machine.receive(leb128(length))


@pytest.mark.parametrize("make", [make_dialer, make_listener])
def test_row_2_never_more_than_a_line_is_held(make):
    machine, _ = make("/a")
    machine.receive(HEADER)
    machine.receive(leb128(MAX_LINE))
    tracemalloc.start()
    try:
        for _ in range(MAX_LINE - 1):
            assert machine.receive(b"/") is None
        assert tracemalloc.get_traced_memory()[0] < 2 * MAX_LINE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("make", [make_dialer, make_listener])
@pytest.mark.parametrize("prefix", [b"\x80" * 10, b"\xff" * 100_000, b"\x81\x00", b"\x80\x80\x01"])
def test_row_3_endless_and_padded_lengths(make, prefix):
    machine, _ = make("/a")
    machine.receive(HEADER)
    with pytest.raises(NegotiationError):
        machine.receive(prefix)
    machine, _ = make("/a")
    assert feed(machine, one_by_one(HEADER + prefix[:10])) is NegotiationError


@pytest.mark.parametrize("make", [make_dialer, make_listener])
@pytest.mark.parametrize("length", [2**32, 2**63, 2**64 - 9, 2**64 - 1])
def test_row_4_nothing_is_allocated_for_a_length(make, length):
    machine, _ = make("/a")
    machine.receive(HEADER)
    tracemalloc.start()
    try:
        with pytest.raises(NegotiationError):
            machine.receive(leb128(length))
        assert tracemalloc.get_traced_memory()[1] < 16384
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("line", [LS, b"\x03/b\n"], ids=["row_5_ls", "row_6_unknown"])
@pytest.mark.parametrize("at_once", [True, False])
def test_row_5_and_6_proposals_are_counted(line, at_once):
    listener, out = make_listener("/a")
    listener.receive(HEADER)
    count = 0
    with pytest.raises(NegotiationError, match=str(MAX_PROPOSALS)):
        if at_once:
            listener.receive(line * 1_000_000)
        for count in range(1_000_000):  # noqa: B007
            listener.receive(line)
    assert at_once or count == MAX_PROPOSALS
    # Refusals are as long as the shortest proposals: the peer gains nothing.
    assert len(b"".join(out)) <= len(HEADER) + MAX_PROPOSALS * len(line)


def test_row_6_the_last_proposal_allowed_may_be_the_right_one():
    listener, out = make_listener("/a")
    assert listener.receive(HEADER + b"\x03/b\n" * (MAX_PROPOSALS - 1) + b"\x03/a\n!") == b"!"
    assert b"".join(out) == HEADER + NA * (MAX_PROPOSALS - 1) + b"\x03/a\n"


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=4000), st.lists(st.integers(0, 4000), max_size=4))
def test_row_8_early_data_behind_a_refused_proposal_reaches_nobody(early, positions):
    if early.startswith(b"\x03/a\n"):
        return
    asked = []
    listener = Listener(lambda name: asked.append(name) or False, lambda data: None)
    outcome = feed(listener, cuts(HEADER + b"\x03/a\n" + early, positions))
    assert outcome in (None, NegotiationError)
    assert listener.protocol is None
    assert len(asked) <= MAX_PROPOSALS


def test_row_8_early_data_that_never_becomes_a_line_is_bounded():
    listener, _ = make_listener("/a")
    assert feed(listener, [HEADER + b"\x03/b\n", bytes(1 << 20)]) is NegotiationError


def test_row_8_the_dialer_hears_of_a_refusal_after_its_early_data():
    dialer, out = make_dialer("/b")
    listener, answers = make_listener("/a")
    with pytest.raises(NegotiationError):
        listener.receive(out[0] + b"\xff\xff early data")
    with pytest.raises(NegotiationError, match="none of /b"):
        dialer.receive(b"".join(answers))
