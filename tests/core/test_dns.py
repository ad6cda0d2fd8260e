"""anyp2p_core.dns"""

import json

import pytest
from hypothesis import given, settings, strategies as st

from anyp2p_core import DecodeError, LimitReached, TimedOut
from anyp2p_core.dns import (
    MAX_ALIASES,
    MAX_PENDING,
    MAX_WAITING,
    TRIES,
    Answer,
    Codec,
    DnsClient,
    Record,
)
from anyp2p_core.resolver import LookupFailed
from anyp2p_core.timers import Timers

SERVERS = [("192.0.2.53", 53), ("2001:db8::53", 53)]


class JsonCodec(Codec):
    """Two bytes of id, and the rest as anybody can read it."""

    def canonical(self, name):
        if not name:
            raise DecodeError("an empty name")
        return name.lower().removesuffix(".")

    def encode(self, id, name, kind):
        return id.to_bytes(2) + json.dumps([name, kind]).encode()

    def decode(self, data):
        try:
            name, kind, code, records, truncated = json.loads(data[2:])
        except ValueError as error:
            raise DecodeError("not JSON") from error
        records = [Record(*record) for record in records]
        return Answer(int.from_bytes(data[:2]), name, kind, code, records, truncated)


class Owner:
    """Sockets that the test plays."""

    def __init__(self, servers=SERVERS):
        self.timers = Timers()
        self.now = 0.0
        self.seed = 0
        self.sent = []
        """Query, server, id, question."""
        self.streams = []
        self.has_streams = False
        self.closed = []
        self.answers = []
        self.dns = DnsClient(self, JsonCodec(), servers)

    def entropy(self, n):
        self.seed += 1
        return (self.seed * 7919 % 65536).to_bytes(n)

    def send(self, query, server, data):
        self.sent.append((query, server, int.from_bytes(data[:2]), json.loads(data[2:])))

    def send_by_stream(self, query, server, data):
        if self.has_streams:
            self.streams.append((query, server, int.from_bytes(data[:2]), json.loads(data[2:])))
        return self.has_streams

    def done(self, query):
        self.closed.append(query)

    # What the test does.

    def ask(self, name="a.example", kind="A"):
        number = len(self.answers)
        self.answers.append(None)

        def answered(records, now):
            assert self.answers[number] is None
            self.answers[number] = records

        self.dns.query(name, kind, answered, self.now)

    def reply(self, sent, *records, code=0, truncated=False, by_stream=False, **changes):
        query, server, id, (name, kind) = sent
        what = {"query": query, "server": server, "id": id, "name": name, "kind": kind, **changes}
        full = [r if isinstance(r, tuple) else (what["name"], what["kind"], r) for r in records]
        body = json.dumps([what["name"], what["kind"], code, full, truncated]).encode()
        data = what["id"].to_bytes(2) + body
        self.dns.receive(what["query"], data, what["server"], self.now, by_stream=by_stream)

    def wait(self, seconds):
        end = self.now + seconds
        while (when := self.timers.next_timeout()) is not None and when <= end:
            self.now = when
            self.timers.run(when)
        self.now = end

    def nothing_is_left(self):
        opened = list(dict.fromkeys(sent[0] for sent in self.sent))
        return len(self.dns) == len(self.timers) == 0 and sorted(self.closed) == sorted(opened)


def test_a_question_and_its_answer():
    owner = Owner()
    owner.ask("A.Example.")
    (sent,) = owner.sent
    assert sent[1] == SERVERS[0] and sent[3] == ["a.example", "A"]
    owner.reply(sent, "192.0.2.1", "192.0.2.2")
    assert owner.answers == [["192.0.2.1", "192.0.2.2"]] and owner.nothing_is_left()
    owner.reply(sent, "192.0.2.3")
    assert owner.answers == [["192.0.2.1", "192.0.2.2"]]


def test_no_records():
    owner = Owner()
    owner.ask()
    owner.reply(owner.sent[0])
    assert owner.answers == [[]] and owner.nothing_is_left()


def test_no_such_name():
    owner = Owner()
    owner.ask()
    owner.reply(owner.sent[0], code=3, truncated=True)
    assert isinstance(owner.answers[0], LookupFailed) and owner.nothing_is_left()
    assert "there is no a.example" in str(owner.answers[0])


def test_nobody_answers():
    owner = Owner()
    owner.ask()
    owner.wait(1.9)
    assert len(owner.sent) == 1
    owner.wait(0.2)
    assert [sent[1] for sent in owner.sent] == SERVERS
    owner.wait(10.0)
    assert [sent[1] for sent in owner.sent] == [*SERVERS, SERVERS[0]] and TRIES == 3
    assert len({sent[2] for sent in owner.sent}) == 3
    assert len({sent[0] for sent in owner.sent}) == 1
    assert isinstance(owner.answers[0], TimedOut) and "a.example" in str(owner.answers[0])
    assert owner.nothing_is_left()


def test_six_seconds_in_all():
    owner = Owner()
    owner.ask()
    owner.wait(5.99)
    assert owner.answers == [None]
    owner.wait(0.01)
    assert owner.answers != [None]


def test_an_earlier_server_may_answer_late():
    owner = Owner()
    owner.ask()
    owner.wait(3.0)
    owner.reply(owner.sent[0], "192.0.2.1")
    assert owner.answers == [["192.0.2.1"]] and owner.nothing_is_left()


def test_a_server_that_fails_is_passed_over_at_once():
    owner = Owner()
    owner.ask()
    owner.reply(owner.sent[0], code=2)
    assert len(owner.sent) == 2
    owner.wait(1.0)
    owner.dns.failed(owner.sent[1][0], ConnectionRefusedError(), owner.now)
    assert len(owner.sent) == 3 and owner.answers == [None]
    owner.wait(1.5)
    assert owner.answers == [None]
    owner.reply(owner.sent[2], code=5)
    assert "DNS error 5" in str(owner.answers[0]) and owner.nothing_is_left()
    owner.dns.failed(owner.sent[2][0], OSError("late"), owner.now)
    owner.ask()
    for _ in range(3):
        owner.dns.failed(owner.sent[-1][0], OSError("no route"), owner.now)
    assert "no route" in str(owner.answers[1])
    owner.ask()
    for _ in range(3):
        owner.dns.failed(owner.sent[-1][0], OSError(), owner.now)
    assert "OSError" in str(owner.answers[2])


@pytest.mark.parametrize(
    "changes",
    [
        {"id": 1},
        {"server": ("192.0.2.54", 53)},
        {"server": ("192.0.2.53", 5353)},
        {"server": SERVERS[1]},  # which was not asked yet
        {"name": "b.example"},
        {"name": "example"},
        {"kind": "AAAA"},
        {"query": 99},
    ],
)
def test_row_126_a_forged_reply_is_ignored(changes):
    owner = Owner()
    owner.ask()
    (sent,) = owner.sent
    owner.reply(sent, "203.0.113.66", **changes)
    assert owner.answers == [None] and len(owner.sent) == 1
    owner.reply(sent, "192.0.2.1")
    assert owner.answers == [["192.0.2.1"]]


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0", b"not JSON"])
def test_garbage_is_ignored(data):
    owner = Owner()
    owner.ask()
    (query, server, id, _) = owner.sent[0]
    owner.dns.receive(query, data, server, 0.0)
    owner.dns.receive(query, id.to_bytes(2) + data, server, 0.0)
    owner.reply(owner.sent[0], "192.0.2.1")
    assert owner.answers == [["192.0.2.1"]]


def test_garbage_from_every_server():
    owner = Owner()
    owner.ask()
    for number in range(3):
        query, server, id, _ = owner.sent[number]
        owner.dns.receive(query, id.to_bytes(2) + b"?", server, owner.now)
        owner.wait(2.0)
    assert "not JSON" in str(owner.answers[0]) and owner.nothing_is_left()


def test_the_id_has_to_be_right_for_the_codec_too():
    class Other(JsonCodec):
        def decode(self, data):
            answer = super().decode(data)
            answer.id ^= 1
            return answer

    owner = Owner()
    owner.dns = DnsClient(owner, Other(), SERVERS)
    owner.ask()
    owner.reply(owner.sent[0], "192.0.2.1")
    assert owner.answers == [None]


# Aliases


def alias(one, other):
    return (f"{one}.example", "CNAME", f"{other}.example")


def test_aliases_are_followed_inside_the_answer():
    owner = Owner()
    owner.ask()
    owner.reply(
        owner.sent[0],
        ("c.example", "A", "192.0.2.1"),
        alias("b", "c"),
        alias("a", "b"),
        ("c.example", "AAAA", "::1"),
        ("x.example", "A", "203.0.113.66"),
        ("a.example", "A", "203.0.113.67"),
    )
    assert owner.answers == [["192.0.2.1"]]


def test_an_alias_that_leads_away():
    owner = Owner()
    owner.ask()
    owner.reply(owner.sent[0], alias("a", "b"))
    assert owner.answers == [[]] and len(owner.sent) == 1


def test_row_126_a_loop_of_aliases():
    owner = Owner()
    owner.ask()
    for number in range(3):
        owner.reply(owner.sent[number], alias("a", "b"), alias("b", "a"), "192.0.2.1")
        owner.wait(2.0)
    assert "aliases" in str(owner.answers[0])


def test_many_aliases():
    for length, works in ((MAX_ALIASES, True), (MAX_ALIASES + 1, False)):
        owner = Owner()
        owner.ask("0.example")
        chain = [alias(n, n + 1) for n in range(length)]
        owner.reply(owner.sent[0], *chain, (f"{length}.example", "A", "192.0.2.1"))
        assert owner.answers == [["192.0.2.1"] if works else None]


# Truncated answers


def test_what_fits_is_taken_without_streams():
    owner = Owner()
    owner.ask()
    owner.reply(owner.sent[0], "192.0.2.1", truncated=True)
    assert owner.answers == [["192.0.2.1"]]


def test_nothing_fits():
    owner = Owner()
    owner.ask()
    for number in range(3):
        owner.reply(owner.sent[number], truncated=True)
    assert "too long for a datagram" in str(owner.answers[0]) and owner.nothing_is_left()


def test_the_same_by_a_stream():
    owner = Owner()
    owner.has_streams = True
    owner.ask()
    owner.reply(owner.sent[0], "192.0.2.1", truncated=True)
    assert owner.streams == owner.sent and owner.answers == [None]
    owner.reply(owner.sent[0], "192.0.2.1", truncated=True)  # once more: one stream is enough
    assert len(owner.streams) == 1 and owner.answers == [None]
    owner.reply(owner.sent[0], "192.0.2.1", "192.0.2.2", by_stream=True)
    assert owner.answers == [["192.0.2.1", "192.0.2.2"]] and owner.nothing_is_left()


def test_a_stream_that_says_no_more():
    owner = Owner()
    owner.has_streams = True
    owner.ask()
    owner.reply(owner.sent[0], truncated=True)
    owner.wait(2.0)
    owner.reply(owner.sent[1], truncated=True)
    assert [sent[1] for sent in owner.streams] == SERVERS
    owner.reply(owner.sent[1], "192.0.2.1", truncated=True, by_stream=True)
    assert owner.answers == [["192.0.2.1"]]


# What needs no server


@pytest.mark.parametrize(
    ("name", "kind", "records"),
    [
        ("localhost", "A", ["127.0.0.1"]),
        ("LocalHost.", "AAAA", ["::1"]),
        ("a.localhost", "A", ["127.0.0.1"]),
        ("localhost", "TXT", []),
        ("192.0.2.1", "A", ["192.0.2.1"]),
        ("192.0.2.1", "AAAA", []),
        ("2001:DB8::1", "AAAA", ["2001:db8::1"]),
        ("::1", "A", []),
        ("192.0.2.1", "TXT", []),
    ],
)
def test_what_needs_no_server(name, kind, records):
    owner = Owner(servers=())
    owner.ask(name, kind)
    assert owner.answers == [records] and owner.sent == []


def test_no_server():
    owner = Owner(servers=())
    owner.ask()
    assert "no DNS server" in str(owner.answers[0])


def test_a_name_that_cannot_be_asked_for():
    owner = Owner()
    owner.ask("")
    assert isinstance(owner.answers[0], DecodeError) and owner.sent == []


# Many at once


def test_equal_questions_are_asked_once():
    owner = Owner()
    for name in ("a.example", "A.EXAMPLE.", "b.example"):
        owner.ask(name)
    owner.ask("a.example", "TXT")
    assert len(owner.sent) == len(owner.dns) == 3
    owner.reply(owner.sent[0], "192.0.2.1")
    assert owner.answers == [["192.0.2.1"], ["192.0.2.1"], None, None]
    owner.answers[0].clear()
    assert owner.answers[1] == ["192.0.2.1"]
    owner.ask()
    assert len(owner.sent) == 4  # nothing is kept


def test_64_questions_at_once():
    owner = Owner()
    for number in range(MAX_PENDING + 2):
        owner.ask(f"{number}.example")
    assert len(owner.sent) == MAX_PENDING == 64 and len(owner.dns) == 66
    owner.reply(owner.sent[7], "192.0.2.1")
    assert owner.sent[64][3] == ["64.example", "A"] and len(owner.sent) == 65
    owner.wait(6.0)  # the last one began when another one ended
    assert owner.answers.count(None) == 1
    owner.wait(6.0)
    assert None not in owner.answers and owner.nothing_is_left()


def test_no_more_than_so_many_wait():
    owner = Owner()
    for number in range(MAX_PENDING + MAX_WAITING):
        owner.ask(f"{number % 100}.example")
    assert set(map(type, owner.answers)) == {type(None)}
    owner.ask()
    assert isinstance(owner.answers[-1], LimitReached)
    owner.ask("0.example")
    assert isinstance(owner.answers[-1], LimitReached)
    owner.reply(owner.sent[0])
    owner.ask()
    assert owner.answers[-1] is None


def test_the_end():
    owner = Owner()
    for number in range(100):
        owner.ask(f"{number}.example")
    answered = []
    owner.dns.query(
        "0.example",
        "A",
        lambda records, now: owner.dns.query("x", "A", lambda *again: answered.append(again), now),
        0.0,
    )
    owner.dns.close(owner.now)
    assert all("closing" in str(answer) for answer in owner.answers)
    assert "no DNS server" in str(answered[0][0]) and owner.nothing_is_left()


@settings(deadline=None)
@given(st.data())
def test_any_course_of_events_answers_once(data):
    owner = Owner()
    owner.has_streams = data.draw(st.booleans())
    for _ in range(data.draw(st.integers(1, 25))):
        step = data.draw(st.sampled_from("qqrrefw"))
        if step == "q":
            owner.ask(data.draw(st.sampled_from(["a", "b", "c"])))
        elif step == "w":
            owner.wait(data.draw(st.sampled_from([0.5, 2.0, 7.0])))
        elif owner.sent:
            sent = data.draw(st.sampled_from(owner.sent))
            if step == "f":
                owner.dns.failed(sent[0], OSError("x"), owner.now)
            else:
                code = data.draw(st.sampled_from([0, 0, 2, 3]))
                cut, by_stream = data.draw(st.booleans()), data.draw(st.booleans())
                records = ["192.0.2.1"] * data.draw(st.integers(0, 1))
                owner.reply(sent, *records, code=code, truncated=cut, by_stream=by_stream)
    owner.wait(30.0)
    assert None not in owner.answers and owner.nothing_is_left()
