"""anyp2p_core.tls, over a TLS library that is none: real records around readable messages."""

import copy
import itertools
import pickle
import tracemalloc
from binascii import unhexlify

import pytest
from hypothesis import example, given, settings, strategies as st

from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsEntropy
from anyp2p_core.certificate import EXTENSION, Certificate, Extension, sign_extension
from anyp2p_core.errors import HandshakeError, LocalError, MuxerError, PeerIdMismatch
from anyp2p_core.keys import PrivateKey
from anyp2p_core.tls import (
    ALPN,
    MAX_ASIDES,
    MAX_HANDSHAKE,
    MAX_HELLO,
    PROTOCOL,
    Tls,
    TlsSecurity,
)

CRYPTO = Cryptography()
CLIENT, SERVER, OTHER = (PrivateKey.generate(CRYPTO, OsEntropy()) for _ in range(3))
NOW = 1_800_000_000.0
YAMUX, MPLEX = "/yamux/1.0.0", "/mplex/6.7.0"
WHOLE = 16 * 1024


def record(content, kind=23):
    return bytes((kind, 3, 3)) + len(content).to_bytes(2) + content


class FakeTls:
    """The library. A certificate in "DER" is the name of an entry of ``certificates``."""

    def __init__(self):
        self.certificates = {}
        self.asked = []
        self.parsed = []

    def credentials(self, key, wall):
        self.asked.append(wall)
        spki = b"key of " + key.public.data
        value = sign_extension(key, spki)
        name = bytes(key.peer_id)
        self.certificates[name] = Certificate(
            spki, wall - 3600, wall + 3600, True, [Extension(EXTENSION, False, value)]
        )
        return FakeCredentials([name])

    def parse_certificate(self, data):
        self.parsed.append(data)
        if data not in self.certificates:
            raise HandshakeError("no such certificate")
        return self.certificates[data]


class FakeCredentials:
    def __init__(self, chain):
        self.shown = chain

    def session(self, *, initiator, alpn):
        return FakeSession(self.shown, initiator, list(alpn))


class FakeSession:
    """client: H alpn; server: S choice|chain; client: C chain; then D data, K, T, N and Z."""

    def __init__(self, shown, initiator, alpn):
        self.complete = self.ended = False
        self.alpn = None
        self._shown = b",".join(one.hex().encode() for one in shown)
        self._initiator = initiator
        self._ours = alpn
        self._peers = []
        self._said = []
        if initiator:
            self._say(b"H" + ",".join(alpn).encode(), 22)

    def _say(self, content, kind=23):
        self._said.append(record(content, kind))

    def output(self):
        said = b"".join(self._said)
        self._said.clear()
        return said

    def chain(self):
        return self._peers

    def seal(self, data):
        for start in range(0, len(data), WHOLE - 1):
            self._say(b"D" + bytes(data[start : start + WHOLE - 1]))
        return self.output()

    def close(self):
        self._say(b"Z")
        return self.output()

    def receive(self, records, count, into):
        records = bytes(records)
        assert self.complete or count == 1
        while records:
            size = 5 + int.from_bytes(records[3:5])
            content, records = records[5:size], records[size:]
            assert len(content) == size - 5, "a record that is not whole"
            count -= 1
            self._take(content[:1], content[1:], into)
            if self.ended:
                return
        assert count == 0

    def _take(self, kind, content, into):
        if kind in b"HSC" and not self.complete:
            self._shake_hands(kind, content)
        elif not self.complete or kind not in b"DKTZ":
            if kind != b"A":  # an alert is not answered by one
                self._say(b"alert")
            raise HandshakeError("the library does not like that")
        elif kind == b"D":
            into.append(content)
        elif kind == b"K":
            self._say(b"k")
        elif kind == b"Z":
            self.ended = True

    def _shake_hands(self, kind, content):
        if kind == b"H" and content:
            offered = content.decode("latin-1").split(",")
            self.alpn = next((one for one in offered if one in self._ours), None)
            self._say(b"S" + (self.alpn or "").encode() + b"|" + self._shown, 22)
            return
        if kind == b"S":
            choice, _, content = content.partition(b"|")
            self.alpn = choice.decode("latin-1") or None
        if kind != b"H":
            try:
                self._peers = [unhexlify(one) for one in content.split(b",") if one]
            except ValueError:
                raise HandshakeError("these are no certificates") from None
            if kind == b"S":
                self._say(b"C" + self._shown)
            self.complete = True


class Side:
    """A machine and everything it did, in order."""

    def __init__(self, key, initiator, *, fake, muxers=(YAMUX,), expected=None, shown=None):
        self.out, self.events = [], []
        if shown is None:
            self.machine = TlsSecurity(key, CRYPTO, fake).start(
                initiator=initiator,
                expected=expected,
                muxers=muxers,
                write=self.out.append,
                wall=NOW,
            )
        else:
            self.machine = Tls(
                initiator=initiator,
                credentials=FakeCredentials(shown),
                provider=fake,
                crypto=CRYPTO,
                write=self.out.append,
                wall=NOW,
                muxers=muxers,
                expected=expected,
            )
        self.machine.on_open = lambda: self.events.append("open")
        self.machine.on_data = lambda data, now: self.events.append((data, now))
        self.machine.on_end = lambda now: self.events.append(("end", now))

    @property
    def data(self):
        return b"".join(event[0] for event in self.events if isinstance(event[0], bytes))

    def take(self):
        data = b"".join(self.out)
        self.out.clear()
        return data

    def feed(self, pieces):
        """The class of the error, None if there is none."""
        try:
            for piece in pieces:
                self.machine.receive(piece, 2.5)
        except HandshakeError as error:
            return type(error)
        return None


def pair(client=None, server=None, fake=None):
    fake = fake or FakeTls()
    return (
        Side(CLIENT, True, fake=fake, **client or {}),
        Side(SERVER, False, fake=fake, **server or {}),
    )


def shake(client, server, cut=lambda data: [data]):
    """Whatever the two have to say, until they are silent; the first error's class."""
    while client.out or server.out:
        for here, there in ((client, server), (server, client)):
            error = there.feed(cut(here.take()))
            if error is not None:
                return error
    return None


def opened(**options):
    client, server = pair(**options)
    assert shake(client, server) is None
    assert client.events == server.events == ["open"]
    client.events.clear()
    server.events.clear()
    return client, server


def one_by_one(data):
    return [data[n : n + 1] for n in range(len(data))]


# The handshake


def test_both_know_each_other():
    fake = FakeTls()
    client, server = opened(client={"expected": SERVER.peer_id}, fake=fake)
    assert client.machine.peer == SERVER.peer_id and client.machine.public_key == SERVER.public
    assert server.machine.peer == CLIENT.peer_id and server.machine.public_key == CLIENT.public
    assert client.machine.muxer == server.machine.muxer == YAMUX
    assert client.machine.open and server.machine.open
    assert fake.asked == [NOW, NOW] and TlsSecurity.protocol == PROTOCOL == "/tls/1.0.0"


def test_the_hello_goes_out_at_once_and_in_one_piece():
    client, server = pair()
    (hello,) = client.out
    assert hello == record(f"H{YAMUX},{ALPN}".encode(), 22) and server.out == []


def test_the_client_tells_who_it_is_after_it_knows_the_server():
    fake = FakeTls()
    client, server = pair(client={"expected": OTHER.peer_id}, fake=fake)
    server.feed([client.take()])
    assert client.feed([server.take()]) is PeerIdMismatch
    assert client.take() == b"" and not client.machine.open and client.events == []
    assert not hasattr(client.machine, "peer")


def test_a_certificate_serves_all_connections():
    fake = FakeTls()
    security = TlsSecurity(CLIENT, CRYPTO, fake)
    for wall in (NOW, NOW + 5):
        security.start(initiator=True, expected=None, muxers=(), write=lambda data: None, wall=wall)
    assert fake.asked == [NOW]


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        ((YAMUX, MPLEX), (YAMUX, MPLEX), YAMUX),
        ((YAMUX, MPLEX), (MPLEX, YAMUX), YAMUX),  # the client's order counts
        ((MPLEX, YAMUX), (YAMUX, MPLEX), MPLEX),
        ((MPLEX,), (YAMUX,), None),
        ((), (YAMUX,), None),
        ((YAMUX,), (), None),
        ((), (), None),
    ],
)
def test_alpn(ours, theirs, agreed):
    client, server = opened(client={"muxers": ours}, server={"muxers": theirs})
    assert client.machine.muxer == server.machine.muxer == agreed


def test_no_alpn_at_all():
    client, server = pair(server={"muxers": ()})
    client.take()
    server.feed([record(b"Hhttp/1.1", 22)])
    assert client.feed([server.take()]) is None and client.machine.muxer is None


def test_a_choice_that_was_not_offered():
    fake = FakeTls()
    client, server = pair(fake=fake)
    server.feed([client.take()])
    answer = server.take().split(b"|")[1]
    assert client.feed([record(f"S{MPLEX}|".encode() + answer, 22)]) is HandshakeError
    assert client.take() == b"" and client.events == []


@pytest.mark.parametrize("size", [0, 2, 100])
def test_row_29_one_certificate_and_counted_first(size):
    for role in ("client", "server"):
        fake = FakeTls()
        names = [bytes(SERVER.peer_id)] * size
        client, server = pair(**{role: {"shown": names}}, fake=fake)
        before = len(fake.parsed)
        assert shake(client, server) is HandshakeError
        judge = server if role == "client" else client
        assert judge.events == [] and not judge.machine.open
        assert f"{size} certificates" in repr(judge.machine)
        # The one certificate that was looked at is the judge's own, by the other side.
        assert fake.parsed[before:] == ([bytes(SERVER.peer_id)] if role == "client" else [])


def test_a_certificate_that_cannot_be_read():
    client, server = pair(server={"shown": [b"?"]})
    assert shake(client, server) is HandshakeError and client.events == []


def test_the_time_at_the_start_judges():
    fake = FakeTls()
    client, server = pair(fake=fake)
    fake.certificates[bytes(SERVER.peer_id)].not_after = NOW - 1
    assert shake(client, server) is HandshakeError
    assert "expired" in repr(client.machine)


def test_a_failed_handshake_sends_the_alert():
    for initiator, message in ((True, b"X"), (False, b"X"), (False, b"D"), (True, b"Z")):
        side = Side(CLIENT, initiator, fake=FakeTls())
        side.take()
        assert side.feed([record(message)]) is HandshakeError
        assert side.out == [record(b"alert")]
        assert "failed" in repr(side.machine) and side.events == []
        for _ in range(2):
            with pytest.raises(HandshakeError, match="does not like that"):
                side.machine.receive(b"more", 3.0)
        assert side.machine.finish() == b""
        with pytest.raises(LocalError):
            side.machine.seal([b"x"])


def test_an_alert_of_the_peer():
    for side in (*pair(), *opened()):
        side.take()
        assert side.feed([record(b"A")]) is HandshakeError
        assert side.out == [] and side.events == []


def test_an_end_during_the_handshake():
    client, server = pair()
    with pytest.raises(HandshakeError, match="in the middle of the TLS handshake"):
        client.machine.receive_eof()
    flights = [client.take()]
    server.feed(flights)
    for size in range(len(flights[0]) + 1):
        again = Side(SERVER, False, fake=FakeTls())
        assert again.feed([flights[0][:size]]) is None
        with pytest.raises(HandshakeError, match="handshake"):
            again.machine.receive_eof()


def test_nothing_is_sealed_before_the_channel_is_open():
    client, _ = pair()
    for chunks in ([], [b"x"]):
        with pytest.raises(LocalError, match="not open"):
            client.machine.seal(chunks)
    assert client.machine.finish() == b""


def test_a_client_says_little_before_it_is_answered():
    server = Side(SERVER, False, fake=FakeTls())
    assert server.feed([record(b"H", 22)] * (MAX_HELLO // 6)) is None
    assert server.feed([record(b"H" + bytes(9), 22)]) is HandshakeError
    assert f"more than {MAX_HELLO} bytes" in repr(server.machine)
    assert server.out == []


def test_a_handshake_is_bounded():
    server = Side(SERVER, False, fake=FakeTls())
    server.feed([record(b"H" + ALPN.encode(), 22)])
    server.take()
    flood = [record(b"H", 22)] * (MAX_HANDSHAKE // 6 + 1)
    assert server.feed(flood) is HandshakeError
    assert f"more than {MAX_HANDSHAKE} bytes" in repr(server.machine)
    client, _ = pair()
    assert client.feed(flood) is HandshakeError


def test_data_behind_the_handshake_is_not_part_of_it():
    client, server = pair()
    server.feed([client.take()])
    client.feed([server.take()])
    data = bytes(2 * MAX_HANDSHAKE)
    assert server.feed([client.take() + client.machine.seal([data])]) is None
    assert server.events[0] == "open" and server.data == data


# Records


def test_data_both_ways():
    client, server = opened()
    for here, there in ((client, server), (server, client)):
        there.machine.receive(here.machine.seal([b"a", b"", b"bc"]), 7.0)
        assert there.events == [(b"abc", 7.0)]
        assert here.machine.seal([b"x"]) == record(b"Dx")
        assert here.machine.seal([]) == here.machine.seal([b""]) == b""


def test_a_chunk_is_one_call_whatever_the_records():
    client, server = opened()
    data = bytes(range(256)) * 300
    server.machine.receive(client.machine.seal([data]), 1.0)
    assert server.events == [(data, 1.0)]


SMALL = [b"one", b"two" * 40, b"", b"3" * 300]


@pytest.mark.parametrize("tail", [b"", b"\x17\x03", record(b"Dxyz")[:-1]])
def test_split_everywhere(tail):
    sealed = b"".join(record(b"D" + part) for part in SMALL) + tail
    cuts = [[sealed], one_by_one(sealed)]
    cuts += [[sealed[:n], sealed[n:]] for n in range(len(sealed) + 1)]
    for pieces in cuts:
        _client, server = opened()
        assert server.feed(pieces) is None
        assert server.data == b"".join(SMALL)
        if tail:
            with pytest.raises(HandshakeError, match="in the middle of a TLS record"):
                server.machine.receive_eof()
        else:
            server.machine.receive_eof()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 1000), max_size=8), st.booleans())
def test_cut_anyhow(cuts, ended):
    client, server = pair()
    server.feed(one_by_one(client.take()))
    client.feed(one_by_one(server.take()))
    wire = client.take() + client.machine.seal([b"early"]) + client.machine.seal([bytes(300)])
    wire += client.machine.finish() if ended else b""
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    assert server.feed(wire[a:b] for a, b in itertools.pairwise(edges)) is None
    assert server.events[0] == "open" and server.data == b"early" + bytes(300)
    assert server.machine.ended == ended and (("end", 2.5) in server.events) == ended


def test_a_handshake_byte_by_byte():
    client, server = pair()
    assert shake(client, server, one_by_one) is None
    assert client.events == server.events == ["open"]


@pytest.mark.parametrize("opening", [False, True])
@pytest.mark.parametrize(
    "junk",
    [b"\x13\x03\x03\0\0", b"\x18\x03\x03\0\0", b"\x17\x02\x03\0\0", b"\x17\x03\x03\x41\x01"],
)
def test_bytes_that_are_no_record(junk, opening):
    for pieces in ([junk], one_by_one(junk), [junk[:4], junk[4:]]):
        side = opened()[1] if opening else Side(SERVER, False, fake=FakeTls())
        assert side.feed(pieces) is HandshakeError
        assert "no TLS record" in repr(side.machine) and side.events == []


def test_good_records_before_junk_are_delivered():
    wire = record(b"Dgood") + b"\x13/multistream"
    for pieces in ([wire], one_by_one(wire)):
        _, server = opened()
        assert server.feed(pieces) is HandshakeError and server.data == b"good"
    wire = record(b"Z") + b"\x13/multistream"
    for pieces in ([wire], one_by_one(wire)):
        _, server = opened()
        assert server.feed(pieces) is None and server.machine.ended


def test_the_largest_record_is_accepted():
    _client, server = opened()
    whole = record(b"D" + bytes(WHOLE + 255))
    assert server.feed([whole, whole[:7], whole[7:]]) is None
    assert len(server.data) == 2 * (WHOLE + 255)


def test_good_records_before_a_bad_one_are_delivered():
    for bytewise in (False, True):
        _client, server = opened()
        wire = record(b"Dgood") + record(b"Dmore") + record(b"X") + record(b"Dlate")
        pieces = one_by_one(wire) if bytewise else [wire]
        assert server.feed(pieces) is HandshakeError
        assert server.data == b"goodmore"
        assert server.out == [record(b"alert")]
        assert server.feed([record(b"Dlate")]) is HandshakeError and server.data == b"goodmore"
        # The alert was the last word.
        assert server.machine.seal([b"good-bye"]) == server.machine.finish() == b""


def test_a_last_word_after_a_layer_above_failed():
    _client, server = opened()

    def fail(data, now):
        raise MuxerError("no such frame")

    server.machine.on_data = fail
    with pytest.raises(MuxerError):
        server.machine.receive(record(b"D?"), 1.0)
    with pytest.raises(HandshakeError, match="no such frame"):
        server.machine.receive(record(b"D?"), 1.0)
    assert server.machine.seal([b"go away"]) == record(b"Dgo away")
    assert server.machine.finish() == record(b"Z") and server.machine.finish() == b""


def test_on_data_may_change_hands_at_any_time():
    client, server = pair()
    server.feed([client.take()])
    client.feed([server.take()])
    first, second = [], []

    def begin(data, now):
        first.append(data)
        server.machine.on_data = lambda data, now: second.append(data)

    server.machine.on_open = lambda: setattr(server.machine, "on_data", begin)
    sealed = [client.machine.seal([part]) for part in (b"a", b"b", b"c")]
    server.feed([client.take() + sealed[0], sealed[1][:3], sealed[1][3:] + sealed[2]])
    assert first == [b"a"] and b"".join(second) == b"bc"


def test_nobody_has_to_listen():
    fake = FakeTls()
    client, server = pair(fake=fake)
    machine = TlsSecurity(SERVER, CRYPTO, fake).start(
        initiator=False, expected=None, muxers=(), write=server.out.append, wall=NOW
    )
    machine.receive(client.take(), 1.0)
    client.feed([server.take()])
    machine.receive(client.take() + record(b"Dx") + record(b"Z"), 1.0)
    assert machine.open and machine.ended


# The end


def test_close_notify_ends_in_order():
    client, server = opened()
    last = client.machine.seal([b"last"]) + client.machine.finish()
    assert client.machine.finish() == b""
    for pieces in ([last + record(b"Dignored") + b"\xff"], [*one_by_one(last), b"junk"]):
        _, server = opened()
        assert server.feed(pieces) is None
        assert server.data == b"last" and server.events[-1] == ("end", 2.5)
        assert server.events.count(("end", 2.5)) == 1 and server.machine.ended
        server.machine.receive_eof()
        # Our direction is still open.
        assert server.machine.seal([b"bye"]) == record(b"Dbye")
        assert server.machine.finish() == record(b"Z")
    with pytest.raises(LocalError, match="last words"):
        client.machine.seal([b"x"])
    assert client.machine.seal([]) == b""


def test_an_end_between_two_records():
    client, server = opened()
    server.machine.receive_eof()
    client.machine.receive(record(b"Dx"), 1.0)
    client.machine.receive_eof()


def test_a_client_that_the_server_refused():
    client, _ = opened()
    with pytest.raises(HandshakeError, match="instead of accepting us"):
        client.machine.receive_eof()
    client, _ = opened()
    with pytest.raises(HandshakeError, match="did not accept us: the library"):
        client.machine.receive(record(b"X"), 1.0)
    # An orderly end is none, nor is an alert after data.
    client, _ = opened()
    client.machine.receive(record(b"Z"), 1.0)
    client.machine.receive_eof()
    client, _ = opened()
    client.machine.receive(record(b"Dx"), 1.0)
    with pytest.raises(HandshakeError) as caught:
        client.machine.receive(record(b"X"), 1.0)
    assert "accept" not in str(caught.value)


# What the library says of itself


def test_an_answer_to_a_key_update():
    _client, server = opened()
    server.machine.receive(record(b"Da") + record(b"K") + record(b"Db"), 1.0)
    assert server.out == [record(b"k")] and server.data == b"ab"
    server.machine.receive(record(b"T"), 1.0)  # a ticket needs no answer
    assert server.out == [record(b"k")]


def test_key_updates_without_end():
    _client, server = opened()
    flood = MAX_ASIDES // len(record(b"k"))
    for _ in range(3):
        assert server.feed([record(b"K")] * flood) is None
        server.machine.seal([b"x"])
    assert server.feed([record(b"K")] * (flood + 1)) is HandshakeError
    assert "over and over" in repr(server.machine)
    assert len(server.take()) <= 4 * MAX_ASIDES


# Secrets and bounds


def test_row_39_it_is_neither_copied_nor_pickled_nor_shown():
    client, server = opened()
    for machine in (client.machine, server.machine):
        for take in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="neither pickled nor copied"):
                take(machine)
        assert not hasattr(machine, "__dict__")
    assert repr(client.machine) == f"<Tls initiator, open to {SERVER.peer_id}>"
    assert repr(pair()[1].machine) == "<Tls responder, in the handshake>"


def test_memory_is_bounded_whatever_a_header_promises():
    sides = [Side(SERVER, False, fake=FakeTls()) for _ in range(100)]
    pieces = [b"\x16\x03\x01\x41\x00", *[bytes(1000)] * 16]
    tracemalloc.start()
    try:
        for side in sides:
            assert side.feed(pieces) is None
        assert tracemalloc.get_traced_memory()[0] < len(sides) * 20_000
    finally:
        tracemalloc.stop()
    # One byte more than a record can have.
    assert Side(SERVER, False, fake=FakeTls()).feed([b"\x16\x03\x01\x41\x01"]) is HandshakeError


KINDS = [bytes((kind,)) for kind in b"HSCDKTZ"]


@settings(deadline=None, max_examples=200)
@given(
    st.binary(max_size=60)
    | st.builds(bytes.__add__, st.sampled_from(KINDS), st.binary(max_size=9)),
    st.booleans(),
    st.booleans(),
)
@example(b"DDD" + bytes(37) + b"\xff" * 20, True, True)
def test_garbage(data, opening, framed):
    data = record(data[:40]) + data[40:] if framed else data
    verdicts = []
    for pieces in ([data], one_by_one(data)):
        side = opened()[1] if opening else Side(SERVER, False, fake=FakeTls())
        verdicts.append((side.feed(pieces), side.data, side.machine.ended, side.take()))
    assert verdicts[0] == verdicts[1]
