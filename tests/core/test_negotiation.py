"""One multiplexed stream and the protocol its two ends agree on."""

import pytest
from hypothesis import given, settings, strategies as st

from anyp2p_core.errors import LocalError, NegotiationError, TimedOut
from anyp2p_core.limits import Limits
from anyp2p_core.multistream import MAX_PROPOSALS, encode
from anyp2p_core.negotiation import NEGOTIATION_FAILED, Inbound, Outbound
from anyp2p_core.yamux import Yamux

HEADER = encode("/multistream/1.0.0")
NA = b"\x03na\n"


class Handler:
    """Whoever gets the stream; ``eager`` is done when it does."""

    def __init__(self, eager=None):
        self.eager = eager
        self.stream = None
        self.protocol = None
        self.data = b""
        self.events = []

    def on_open(self, stream, protocol, now):
        self.stream, self.protocol = stream, protocol
        self.events.append("open")
        stream.on_data = self.on_data
        stream.on_eof = lambda now: self.events.append("eof")
        stream.on_reset = lambda code, now: self.events.append(f"reset {code:#x}")
        if self.eager:
            self.eager(stream)

    def on_data(self, data, now):
        self.data += data
        self.stream.credit(len(data), now)

    def on_fail(self, error, now):
        self.events.append(error)


class Ends:
    """A session in which ``a`` proposes and ``b`` listens; both keep what is still negotiating."""

    def __init__(self, *supported, eager=None, piece=1 << 30):
        self.now = 5.0
        self.piece = piece
        self.supported = supported
        self.ours = Handler()
        self.theirs = Handler(eager)
        self.proposing = {}
        self.listening = {}
        self.accepted = []
        limits = Limits()
        self.a = Yamux(initiator=True, limits=limits, on_stream=self.on_stream)
        self.b = Yamux(initiator=False, limits=limits, on_stream=self.on_stream)

    def on_stream(self, stream, now):
        self.accepted.append(stream)
        self.listening[stream.id] = Inbound(
            stream,
            self.supported.__contains__,
            self.theirs.on_open,
            self.listening.pop,
            deadline=now + 10,
        )

    def propose(self, *protocols, optimistic=True, eager=None):
        self.ours.eager = eager
        stream = self.a.open(self.now)
        outbound = self.proposing[stream.id] = Outbound(
            stream,
            protocols,
            self.ours.on_open,
            self.ours.on_fail,
            self.proposing.pop,
            optimistic=optimistic,
            deadline=self.now + 10,
            now=self.now,
        )
        assert outbound.deadline == 15.0 and outbound.stream is stream
        return stream

    def run(self):
        while self.a.wants_write or self.b.wants_write:
            for here, there in ((self.a, self.b), (self.b, self.a)):
                data = b"".join(here.data_to_send(65519, self.now))
                for pos in range(0, len(data), self.piece):
                    there.receive(data[pos : pos + self.piece], self.now)

    def settled(self):
        """Whether nothing is negotiating and every byte of a negotiation was given back."""
        return not (self.proposing or self.listening or self.a.unread or self.b.unread)


@pytest.mark.parametrize("piece", [1 << 30, 1, 7])
@pytest.mark.parametrize("optimistic", [True, False])
def test_one_protocol_that_both_speak(optimistic, piece):
    ends = Ends("/a", piece=piece)
    stream = ends.propose("/a", optimistic=optimistic)
    assert ends.ours.events == (["open"] if optimistic else [])
    ends.run()
    assert ends.ours.events == ends.theirs.events == ["open"]
    assert ends.ours.protocol == ends.theirs.protocol == "/a"
    assert ends.settled()
    stream.write(b"question")
    ends.theirs.stream.write(b"answer")
    stream.write_eof()
    ends.theirs.stream.write_eof()
    ends.run()
    assert (ends.theirs.data, ends.ours.data) == (b"question", b"answer")
    assert ends.ours.events == ends.theirs.events == ["open", "eof"]
    assert ends.settled() and not ends.a.streams and not ends.b.streams


@pytest.mark.parametrize("piece", [1 << 30, 1, 7])
def test_the_first_protocol_that_the_peer_speaks(piece):
    ends = Ends("/c", "/b", piece=piece)
    ends.propose("/a", "/b", "/c")
    ends.run()
    assert ends.ours.protocol == ends.theirs.protocol == "/b"
    assert ends.ours.events == ends.theirs.events == ["open"]
    assert ends.settled()


@pytest.mark.parametrize("piece", [1 << 30, 1, 7])
def test_data_may_follow_at_once_in_both_directions(piece):
    ends = Ends("/a", piece=piece, eager=lambda stream: stream.write(b"welcome"))
    stream = ends.propose("/a", eager=lambda stream: stream.write(b"early"))
    stream.write(b" data")
    stream.write_eof()
    ends.run()
    assert ends.theirs.data == b"early data"
    assert ends.ours.data == b"welcome"
    assert ends.theirs.events == ["open", "eof"]  # the end came with the proposal
    assert ends.settled()


@given(st.integers(1, 40), st.booleans(), st.lists(st.sampled_from("abcd"), min_size=1, max_size=6))
@settings(deadline=None, max_examples=60)
def test_any_cut_gives_the_same(piece, optimistic, names):
    protocols = ["/" + name for name in names]
    ends = Ends("/c", "/d", piece=piece, eager=lambda stream: stream.write(b"hello"))
    ends.propose(*protocols, optimistic=optimistic)
    ends.run()
    wanted = next((name for name in protocols if name in ("/c", "/d")), None)
    assert ends.theirs.protocol == wanted
    assert ends.settled()
    if wanted is None:
        assert isinstance(ends.ours.events[-1], NegotiationError)
    else:
        assert ends.ours.data == b"hello"
        assert ends.ours.protocol == wanted


@pytest.mark.parametrize("optimistic", [True, False])
def test_refused(optimistic):
    ends = Ends("/b")
    stream = ends.propose("/a", optimistic=optimistic)
    stream.write(encode("/b"))  # to the listener this is a proposal
    stream.write(b"\0 and this is garbage")
    ends.run()
    *before, error = ends.ours.events
    assert before == (["open"] if optimistic else [])
    assert isinstance(error, NegotiationError) and "/a" in str(error)
    assert stream.is_reset
    assert ends.theirs.events == ["open", f"reset {NEGOTIATION_FAILED:#x}"]
    assert not ends.proposing and not ends.listening and not ends.a.streams


def test_row_8_what_follows_a_refused_proposal_reaches_no_handler():
    ends = Ends("/b")
    ends.propose("/a", eager=lambda stream: stream.write(b"\x05data" * 100))
    ends.run()
    assert ends.theirs.events == [] and ends.theirs.data == b""
    assert ends.ours.data == b""
    opened, refused = ends.ours.events
    assert opened == "open" and isinstance(refused, NegotiationError)
    assert ends.settled() and not ends.a.streams and not ends.b.streams


@pytest.mark.parametrize("optimistic", [True, False])
def test_the_peer_answers_garbage(optimistic):
    ends = Ends()
    stream = ends.propose("/a", optimistic=optimistic)
    ends.b.receive(b"".join(ends.a.data_to_send(65519, ends.now)), ends.now)
    peer = ends.accepted[0]
    peer.write(b"HTTP/1.1 400 Bad Request\r\n")
    ends.run()
    assert isinstance(ends.ours.events[-1], NegotiationError)
    assert stream.is_reset and peer.is_reset
    assert ends.settled()


@pytest.mark.parametrize("optimistic", [True, False])
def test_the_peer_ends_the_stream_before_it_agrees(optimistic):
    ends = Ends("/b")
    accepted = []
    ends.b = Yamux(
        initiator=False, limits=Limits(), on_stream=lambda stream, now: accepted.append(stream)
    )
    stream = ends.propose("/a", optimistic=optimistic)
    ends.run()
    accepted[0].write(HEADER)
    accepted[0].write_eof()
    ends.run()
    error = ends.ours.events[-1]
    assert isinstance(error, NegotiationError)
    assert "closed the stream before it agreed" in str(error)
    assert stream.is_reset and not ends.proposing


@pytest.mark.parametrize("optimistic", [True, False])
def test_the_peer_resets_the_stream_before_it_agrees(optimistic):
    ends = Ends()
    stream = ends.propose("/a", optimistic=optimistic)
    ends.b.receive(b"".join(ends.a.data_to_send(65519, ends.now)), ends.now)
    ends.accepted[0].reset(7)
    ends.run()
    if optimistic:  # the handler has the stream, and hears of it there
        assert ends.ours.events == ["open", "reset 0x7"]
    else:
        (error,) = ends.ours.events
        assert isinstance(error, NegotiationError) and "code 0x7" in str(error)
    assert stream.is_reset and not ends.proposing
    (listening,) = ends.listening.values()
    listening.expire(ends.now)  # it was reset by us: nobody told it
    assert ends.settled()


@pytest.mark.parametrize("optimistic", [True, False])
def test_the_connection_is_lost_before_they_agree(optimistic):
    ends = Ends()
    ends.propose("/a", optimistic=optimistic)
    ends.b.receive(b"".join(ends.a.data_to_send(65519, ends.now)), ends.now)
    ends.a.close(ends.now)
    ends.b.close(ends.now)
    if optimistic:
        assert ends.ours.events == ["open", "reset 0x0"]
    else:
        assert isinstance(ends.ours.events[0], NegotiationError)
    assert ends.theirs.events == []
    assert ends.settled()


@pytest.mark.parametrize("optimistic", [True, False])
def test_the_peer_does_not_answer_in_time(optimistic):
    ends = Ends()
    stream = ends.propose("/a", optimistic=optimistic)
    ends.proposing[stream.id].expire(15.0)
    assert isinstance(ends.ours.events[-1], TimedOut)
    assert stream.is_reset and not ends.proposing


def test_a_stream_that_its_handler_reset_expires_in_silence():
    ends = Ends()
    stream = ends.propose("/a")
    stream.reset()
    ends.proposing[stream.id].expire(15.0)
    assert ends.ours.events == ["open"] and not ends.proposing


def test_a_proposal_that_does_not_come_in_time():
    ends = Ends("/a")
    stream = ends.a.open(ends.now)
    stream.write(HEADER)
    ends.run()
    (listening,) = ends.listening.values()
    assert listening.stream is ends.accepted[0] and listening.deadline == 15.0
    listening.expire(15.0)
    reset = []
    stream.on_reset = lambda code, now: reset.append(code)
    ends.run()
    assert reset == [NEGOTIATION_FAILED]
    assert not ends.listening and not ends.b.unread


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00",
        b"GET / HTTP/1.1\r\n",
        HEADER + b"\x00",
        HEADER + b"\xff\xff\xff",
    ],
)
@pytest.mark.parametrize("piece", [1 << 30, 1])
def test_garbage_instead_of_a_proposal(sent, piece):
    ends = Ends("/a", piece=piece)
    stream = ends.a.open(ends.now)
    reset = []
    stream.on_reset = lambda code, now: reset.append(code)
    stream.on_data = lambda data, now: stream.credit(len(data), now)
    stream.write(sent + b"\xff" * 100)
    ends.run()
    assert reset == [NEGOTIATION_FAILED]
    assert ends.theirs.events == []
    assert ends.settled() and not ends.b.streams


@pytest.mark.parametrize(
    ("sent", "refused"),
    [(NA + b"early data", 1), (b"\x03\na\n\n", 1), (NA * (MAX_PROPOSALS + 1), MAX_PROPOSALS)],
)
@pytest.mark.parametrize("piece", [1 << 30, 1])
def test_a_refusal_arrives_whatever_is_behind_it(sent, refused, piece):
    ends = Ends("/a", piece=piece)
    stream = ends.a.open(ends.now)
    answer = bytearray()
    stream.on_data = lambda data, now: answer.extend(data) or stream.credit(len(data), now)
    stream.on_eof = lambda now: stream.write_eof()
    stream.write(HEADER + sent + b"\xff" * 100)
    ends.run()
    assert answer == HEADER + NA * refused
    assert ends.theirs.events == []
    assert ends.settled() and not ends.a.streams and not ends.b.streams


@pytest.mark.parametrize("sent", [b"", HEADER[:5], HEADER, HEADER + b"\x05/no", HEADER + NA])
def test_a_peer_that_only_looks_is_answered_with_the_end(sent):
    ends = Ends("/a")
    stream = ends.a.open(ends.now)
    answer = bytearray()
    ended = []
    stream.on_data = lambda data, now: answer.extend(data) or stream.credit(len(data), now)
    stream.on_eof = lambda now: ended.append(bytes(answer))
    stream.write(sent)
    stream.write_eof()
    ends.run()
    assert ended == [HEADER + NA if sent.endswith(NA) else HEADER if len(sent) >= 20 else b""]
    assert ends.theirs.events == []
    assert ends.settled() and not ends.a.streams and not ends.b.streams


def test_a_handler_may_reset_the_stream_that_it_is_given():
    ends = Ends("/a", eager=lambda stream: stream.reset(9))
    ends.propose("/a", eager=lambda stream: stream.write(b"data behind the proposal"))
    ends.run()
    assert ends.theirs.data == b""
    assert ends.ours.events == ["open", "reset 0x9"]
    assert ends.settled() and not ends.a.streams


def test_a_handler_that_opens_may_reset_at_once_too():
    ends = Ends("/a", eager=lambda stream: stream.write(b"hello"))
    ends.propose("/b", "/a", eager=lambda stream: stream.reset(9))
    ends.run()
    assert ends.ours.events == ["open"] and ends.ours.data == b""
    assert ends.theirs.events == ["open", "reset 0x9"]
    assert ends.settled()


def test_a_handler_that_discards_from_the_start_costs_no_window():
    def push(stream):
        stream.write(b"message")
        stream.write_eof()
        stream.stop_reading()

    for piece in (1 << 30, 1):
        ends = Ends("/a", piece=piece, eager=lambda stream: stream.write(b"unwanted"))
        stream = ends.propose("/a", eager=push)
        ends.run()
        assert ends.theirs.data == b"message"
        assert ends.settled() and stream.unread == 0
        ends.theirs.stream.write_eof()
        ends.run()
        assert not ends.a.streams and not ends.b.streams


def test_bytes_behind_the_proposal_are_given_back_once_when_nobody_reads_them():
    ends = Ends("/a", eager=lambda stream: stream.stop_reading())
    stream = ends.propose("/a", eager=lambda stream: stream.write(b"unwanted" * 100))
    ends.run()
    assert ends.b.unread == ends.theirs.stream.unread == 0
    stream.write(b"more")
    ends.run()
    assert ends.settled()
    # The same with what comes behind the answer.
    ends = Ends("/a", eager=lambda stream: stream.write(b"unwanted" * 100))
    stream = ends.propose("/b", "/a", eager=lambda stream: stream.stop_reading())
    ends.run()
    assert ends.settled() and stream.unread == 0


def test_a_reset_after_the_agreement_is_no_failure_to_agree():
    ends = Ends("/a")
    failed = []
    stream = ends.a.open(ends.now)
    Outbound(
        stream,
        ["/b", "/a"],
        lambda *_: None,
        lambda error, now: failed.append(error),
        lambda *_: None,
        optimistic=True,
        deadline=15.0,
        now=ends.now,
    )
    ends.run()
    ends.theirs.stream.reset()
    ends.run()
    assert stream.is_reset and failed == []


def test_a_handler_without_callbacks_keeps_its_direction_open():
    ends = Ends("/a")
    opened = []

    def on_stream(stream, now):
        Inbound(
            stream,
            lambda name: True,
            lambda stream, protocol, now: opened.append(stream),
            lambda stream_id, default: None,
            deadline=now + 10,
        )

    ends.b = Yamux(initiator=False, limits=Limits(), on_stream=on_stream)
    stream = ends.propose("/a")
    stream.write_eof()
    ends.run()
    assert opened[0].eof_received and not opened[0].eof_sent
    opened[0].write(b"late answer")
    ends.run()
    assert ends.ours.data == b"late answer"


def test_what_is_no_name_is_refused():
    ends = Ends()
    with pytest.raises(LocalError, match="no protocol name"):
        ends.propose("echo")
