"""anyp2p.providers.quic: two endpoints over the real library, on good and bad networks."""

import subprocess
import sys
import textwrap

import pytest
from cryptography.x509 import BasicConstraints, load_der_x509_certificate
from node_pair import make_key
from quic_pair import WALL, Log, Net, Pair, Place
from tls_pair import OTHER, forge, libp2p, spki_of

from anyp2p.providers import quic_hooks
from anyp2p.providers.quic import AHEAD, IDLE_TIMEOUT, Aioquic
from anyp2p_core.errors import (
    ConnectionLost,
    HandshakeError,
    LimitReached,
    LocalError,
    MuxerError,
    PeerIdMismatch,
    TimedOut,
)
from anyp2p_core.quic_muxer import KEEPALIVE
from anyp2p_core.quic_packet import parse_long_header

MIB = 1024 * 1024


def showing(shown=None, *, chain=(), alpn="libp2p", key=None):
    """A provider that shows any certificate, or none."""
    provider = Aioquic(key or make_key(), WALL)
    for configuration in (provider._client, provider._server):
        configuration.alpn_protocols = [alpn]
        if shown is not None:
            configuration.certificate = load_der_x509_certificate(shown[0])
            configuration.private_key = shown[1]
        configuration.certificate_chain = [load_der_x509_certificate(one) for one in chain]
    return provider


def failed(pair, seconds=20.0):
    """Why the handshake of a dialed connection failed."""
    assert pair.run(seconds, lambda: not pair.a.connections and not pair.b.connections)
    return (pair.a.closed or [(None, None)])[-1][1], (pair.b.closed or [(None, None)])[-1][1]


def refused(provider, by_client):
    """What each side says of a stranger: (the stranger, the other); nobody was let in."""
    stranger, other = Place(1 + by_client, provider=provider), Place(2 - by_client)
    a, b = (other, stranger) if by_client else (stranger, other)
    pair = Pair(a=a, b=b, connect=False)
    pair.a.dial(pair.b.address)
    pair.run(3.0)
    assert not other.opened and not other.connections and not len(other.endpoint)
    assert not other.endpoint._links and not other.timers
    assert not other.endpoint._half_open
    return (
        stranger.closed[-1][1] if stranger.closed else None,
        other.closed[-1][1] if other.closed else None,
    )


# Who is there.


def test_both_ends_know_each_other():
    pair = Pair()
    for ours, peer in ((pair.ours, pair.b), (pair.theirs, pair.a)):
        assert ours.peer == peer.peer_id
        assert ours.public_key == peer.key.public
        assert ours.negotiated.security == "/tls/1.0.0"
        assert ours.negotiated.muxer == "/quic-v1"
        assert ours.muxer.rtt == pytest.approx(0.02, rel=0.2)
    assert (pair.ours.initiator, pair.theirs.initiator) == (True, False)
    assert pair.a.opened == [pair.ours] and not pair.a.closed + pair.b.closed


def test_whoever_answers_is_fine_when_nobody_is_expected():
    pair = Pair(connect=False)
    ours = pair.a.dial(pair.b.address)
    assert pair.run(1.0, lambda: ours.peer is not None)
    assert ours.peer == pair.b.peer_id


def test_row_37_another_peer_answers():
    pair = Pair(connect=False)
    ours = pair.a.dial(pair.b.address, expected=OTHER.peer_id)
    mine, theirs = failed(pair)
    assert isinstance(mine, PeerIdMismatch) and str(pair.b.peer_id) in str(mine)
    assert isinstance(theirs, HandshakeError)
    assert ours.peer is None and not pair.a.opened and not pair.b.opened


def test_another_alpn_is_refused():
    for by_client in (True, False):
        stranger, other = refused(showing(alpn="h3"), by_client)
        assert isinstance(stranger, HandshakeError) and isinstance(other, HandshakeError)


def test_row_27_a_client_without_a_certificate():
    provider = showing()
    provider._client.certificate = None
    stranger, other = refused(provider, by_client=False)
    assert isinstance(other, HandshakeError) and "no certificate" in str(other)
    assert isinstance(stranger, HandshakeError)


def test_row_27_a_server_that_does_not_ask_who_we_are(monkeypatch):
    initialize = quic_hooks.Connection._initialize

    def careless(self, peer_cid):
        initialize(self, peer_cid)
        self.tls._request_client_certificate = self._is_client

    monkeypatch.setattr(quic_hooks.Connection, "_initialize", careless)
    pair = Pair(connect=False)
    pair.a.dial(pair.b.address)
    mine, _ = failed(pair)
    assert isinstance(mine, HandshakeError) and "asked for no certificate" in str(mine)


def other_signs(key, other):
    return lambda spki: [libp2p(key, spki_of(other))]


BAD = {
    "row 26 expired": (dict(start=WALL - 3 * 86400, days=1.0), "expired"),
    "row 26 not yet valid": (dict(start=WALL + 3600), "not valid yet"),
    "row 26 signed by another": (dict(signer=forge()[1]), "not signed by its own key"),
    "row 28 no extension": (dict(extensions=lambda spki: []), "no libp2p extension"),
    "row 28 another key": (dict(extensions=other_signs(OTHER, forge()[1])), "did not sign"),
    "row 31 unknown critical extension": (
        dict(extensions=lambda spki: [(BasicConstraints(True, 3), True), libp2p(OTHER, spki)]),
        "unknown critical",
    ),
}


@pytest.mark.parametrize("by_client", [True, False], ids=["server shows", "client shows"])
@pytest.mark.parametrize("name", BAD)
def test_row_26_28_31_a_bad_certificate(name, by_client):
    options, text = BAD[name]
    stranger, other = refused(showing(forge(**options)), by_client)
    assert isinstance(other, HandshakeError) and text in str(other)
    # No word of any library in the alert, and no certificate of ours is taken for refused.
    assert isinstance(stranger, HandshakeError) and "TLS alert 42" in str(stranger)


@pytest.mark.parametrize("by_client", [True, False])
@pytest.mark.parametrize("critical", [True, False])
def test_row_31_our_extension_may_be_critical(critical, by_client):
    shown = forge(lambda spki: [libp2p(OTHER, spki, critical)])
    stranger, other = Place(1, provider=showing(shown), key=OTHER), Place(2)
    pair = Pair(a=other, b=stranger) if by_client else Pair(a=stranger, b=other)
    assert (pair.ours if by_client else pair.theirs).peer == OTHER.peer_id


@pytest.mark.parametrize("by_client", [True, False])
@pytest.mark.parametrize("extra", [1, 9])
def test_row_29_more_than_one_certificate(extra, by_client, monkeypatch):
    shown = forge()
    looked = []
    parse = Aioquic.parse_certificate

    def look(self, data):
        looked.append(data)
        return parse(self, data)

    monkeypatch.setattr(Aioquic, "parse_certificate", look)
    _, other = refused(showing(shown, chain=[shown[0]] * extra), by_client)
    assert isinstance(other, HandshakeError) and f"{1 + extra} certificates" in str(other)
    assert shown[0] not in looked


def test_row_30_a_handshake_in_tiny_pieces(monkeypatch):
    crypto = quic_hooks.quic.QuicConnection._write_crypto_frame

    def tiny(self, builder, space, stream):
        whole = stream.sender.get_frame
        stream.sender.get_frame = lambda size: whole(min(size, 4))
        try:
            return crypto(self, builder, space, stream)
        finally:
            del stream.sender.get_frame

    monkeypatch.setattr(quic_hooks.Connection, "_write_crypto_frame", tiny, raising=False)
    pair = Pair(delay=0.001)
    assert pair.ours.peer == pair.b.peer_id and pair.theirs.peer == pair.a.peer_id


def test_a_refusal_ends_the_connection_on_both_sides():
    pair = Pair(connect=False)
    pair.b.refusal = MuxerError("enough of you", 0x1001)
    pair.a.dial(pair.b.address)
    assert pair.run(2.0, lambda: pair.a.closed and pair.b.closed)
    assert pair.b.closed[0][1] is pair.b.refusal
    assert "0x1001" in str(pair.a.closed[0][1])


# Streams.


def test_streams_in_both_directions():
    pair = Pair()
    stream, log, theirs = pair.opened(b"one")
    assert bytes(theirs.data) == b"one" and theirs.stream.inbound and not stream.inbound
    theirs.stream.write(b"two")
    theirs.stream.write_eof()
    pair.run(0.2)
    assert bytes(log.data) == b"two" and log.events == ["eof"]
    stream.write(b" three")  # half closed: this direction goes on
    stream.write_eof()
    pair.run(0.2)
    assert bytes(theirs.data) == b"one three" and theirs.events == ["eof"]
    assert not pair.ours.muxer.streams and not pair.theirs.muxer.streams
    assert not pair.ours.session._quic._streams and not pair.theirs.session._quic._streams
    with pytest.raises(LocalError):
        stream.write(b"more")
    back = pair.theirs.muxer.open(pair.now)
    assert back.id & 1 == 1 and stream.id & 1 == 0


@pytest.mark.parametrize(
    "network",
    [
        dict(),
        dict(loss=0.05),
        dict(twice=0.3),
        dict(jitter=0.03),
        dict(loss=0.05, twice=0.1, jitter=0.02),
    ],
    ids=["good", "5 % lost", "repeated", "reordered", "all of it"],
)
def test_megabytes_both_ways_on_several_streams(network):
    pair = Pair(seed=7, **network)
    size = 5 * MIB // 2 if not network else MIB // 2
    texts = [bytes([n]) * size for n in range(1, 5)]
    jobs = []
    for n, text in enumerate(texts):
        here, place = (pair.ours, pair.b) if n % 2 else (pair.theirs, pair.a)
        stream = here.muxer.open(pair.now)
        jobs.append((stream, memoryview(text), place))
    while any(rest for _, rest, _ in jobs):
        for n, (stream, rest, place) in enumerate(jobs):
            if rest:
                rest = rest[stream.write(rest) :]
                jobs[n] = (stream, rest, place)
                if not rest:
                    stream.write_eof()
        assert pair.step()
    assert pair.run(20.0, lambda: all("eof" in place.logs[s.id].events for s, _, place in jobs))
    for (stream, _, place), text in zip(jobs, texts, strict=True):
        assert bytes(place.logs[stream.id].data) == text
    assert not pair.a.closed and not pair.b.closed


def test_windows_grow_when_they_hold_the_sender_back():
    pair = Pair(delay=0.005)
    stream, _, theirs = pair.opened(b"")
    assert pair.write_all(stream, bytes(4 * MIB)) == 4 * MIB
    stream.write_eof()
    theirs = pair.b.logs[stream.id]
    assert pair.run(20.0, lambda: "eof" in theirs.events)
    assert len(theirs.data) == 4 * MIB
    assert theirs.stream._window.size >= 512 * 1024
    assert pair.theirs.muxer._window.size >= MIB


@pytest.mark.parametrize("code", [0, 1, 0x1001, 2**32 - 1])
def test_resets_carry_their_code(code):
    pair = Pair()
    stream, log, theirs = pair.opened()
    stream.reset(code)
    pair.run(0.2)
    assert theirs.events == [("reset", code)] and log.events == []
    stream, log, theirs = pair.opened()
    theirs.stream.reset(code)
    pair.run(0.2)
    assert log.events == [("reset", code)] and theirs.events == []
    assert not pair.ours.muxer.streams and not pair.theirs.muxer.streams
    assert not pair.ours.session._quic._streams and not pair.theirs.session._quic._streams


def test_a_code_beyond_32_bits():
    pair = Pair()
    stream, _, theirs = pair.opened()
    pair.ours.session.reset(stream.id, 2**40)
    pair.ours.on_ready()
    pair.run(0.2)
    assert theirs.events == [("reset", 0x1009)]


def test_stop_reading_stops_the_sender_and_not_the_answer():
    pair = Pair()
    stream, log, theirs = pair.opened()
    theirs.stream.stop_reading()
    pair.run(0.2)
    assert stream.write(bytes(10 * MIB)) == 10 * MIB  # nobody will read it: dropped
    assert not stream.unsent and log.events == []
    theirs.stream.write(b"the answer")
    theirs.stream.write_eof()
    pair.run(0.2)
    assert bytes(log.data) == b"the answer" and log.events == ["eof"]
    stream.write_eof()
    pair.run(0.2)
    assert theirs.events == ["eof"]  # the peer's answer to STOP_SENDING, or its end
    assert not pair.ours.muxer.streams and not pair.theirs.muxer.streams


def test_a_reader_that_never_credits_stops_its_sender():
    pair = Pair(b=Place(2, reads=False))
    stream, _, theirs = pair.opened()
    taken = 0
    for _ in range(400):
        taken += stream.write(bytes(64 * 1024))
        pair.run(0.02)
    assert theirs.stream.unread == len(theirs.data) == 256 * 1024
    assert not stream.writable()
    # What is not on the other side waits in the stream, and a little of it in aioquic.
    held = sum(len(s.sender._buffer) for s in pair.ours.session._quic._streams.values())
    assert taken + 1 == len(theirs.data) + stream.unsent + held
    assert stream.unsent == pair.a.limits.max_unsent and held <= AHEAD
    _, _, log = pair.opened(b"another stream goes on")
    assert bytes(log.data) == b"another stream goes on"
    theirs.stream.credit(theirs.stream.unread, pair.now)
    pair.run(1.0)
    assert theirs.stream.unread == 256 * 1024 and stream.writable()
    assert not pair.a.closed and not pair.b.closed


def test_unread_bytes_of_all_streams_are_bounded():
    pair = Pair(b=Place(2, reads=False, max_unread=600 * 1024), delay=0.001)
    streams = [pair.opened()[0] for _ in range(4)]
    for _ in range(200):
        for stream in streams:
            if not stream.is_reset:
                stream.write(bytes(64 * 1024))
        pair.run(0.005)
        assert pair.theirs.muxer.unread <= 600 * 1024
    shed = [log for log in pair.b.logs.values() if log.stream.shed]
    assert shed and all(log.events == [("reset", 0x1002)] for log in shed)
    assert len(shed) < 4 and not pair.b.closed


def test_the_peer_opens_no_more_streams_than_allowed():
    pair = Pair(delay=0.001)
    streams = []
    with pytest.raises(LimitReached, match="no more streams"):
        for _ in range(300):
            streams.append(pair.ours.muxer.open(pair.now))
            streams[-1].write(b"x")
    assert len(streams) == 256
    pair.run(1.0)
    assert len(pair.theirs.muxer.streams) == 256
    for log in list(pair.b.logs.values()):
        log.stream.write_eof()
    for stream in streams:
        stream.write_eof()
    pair.run(1.0)
    assert not pair.ours.muxer.streams and not pair.theirs.muxer.streams
    for _ in range(1000):  # the limit grows as streams end
        stream, _, theirs = pair.opened()
        stream.write_eof()
        theirs.stream.write_eof()
        pair.run(0.05)
    assert not pair.theirs.session._quic._streams


def test_limits_of_our_own():
    pair = Pair(a=Place(1, max_outbound_streams=2), b=Place(2, max_inbound_streams=2))
    streams = [pair.opened()[0] for _ in range(2)]
    with pytest.raises(LimitReached, match="max_outbound_streams"):
        pair.ours.muxer.open(pair.now)
    pair.a.limits.max_outbound_streams = 3
    third = pair.ours.muxer.open(pair.now)
    log = Log(third)
    third.write(b"one too many")
    pair.run(0.2)
    assert log.events == [("reset", 0x1002)]
    assert [s.is_reset for s in streams] == [False, False]


# The connection.


def test_closing_in_order_delivers_everything_first():
    pair = Pair(loss=0.05, seed=3)
    stream, _, theirs = pair.opened()
    stream.write(bytes(200_000))
    stream.write_eof()
    pair.ours.draining = True
    assert 200_000 < pair.ours.unsent() <= 200_002
    assert pair.run(5.0, lambda: pair.a.closed and pair.b.closed)
    assert len(theirs.data) == 200_001 and theirs.events == ["eof", ("reset", 0)]
    assert [reason for _, reason in pair.a.closed + pair.b.closed] == [None, None]
    for place in (pair.a, pair.b):
        assert not len(place.endpoint) and not place.endpoint._links and not place.timers


def test_a_closed_connection_breaks_its_streams():
    pair = Pair()
    _, log, theirs = pair.opened()
    pair.a.endpoint.close(pair.ours.id, pair.now)
    pair.run(0.2)
    assert log.events == theirs.events == [("reset", 0)]
    assert isinstance(pair.theirs.error, ConnectionLost) and pair.theirs.reason is None
    with pytest.raises(LocalError):
        pair.ours.muxer.open(pair.now)


def test_an_error_tells_the_peer_its_code():
    pair = Pair()
    pair.a.fail(pair.ours.id, MuxerError("too much", 0x1001), pair.now)
    pair.run(0.2)
    assert isinstance(pair.b.closed[0][1], MuxerError) and "0x1001" in str(pair.b.closed[0][1])


def test_silence_ends_a_connection_and_keepalive_prevents_it():
    pair = Pair()
    for _ in range(8):
        for one in (pair.ours, pair.theirs):
            one.muxer.handle_timeout(pair.now)
        pair.run(KEEPALIVE / 2)
    assert not pair.a.closed and pair.now > 100 + IDLE_TIMEOUT
    del pair.places[pair.b.address]
    assert pair.run(60.0, lambda: pair.a.closed)
    assert isinstance(pair.a.closed[0][1], TimedOut)


def test_nobody_answers():
    pair = Pair(connect=False)
    ours = pair.a.dial(("192.0.2.77", 7))
    assert pair.run(60.0, lambda: pair.a.closed)
    assert pair.a.closed == [(ours, ours.reason)] and isinstance(ours.reason, TimedOut)
    assert 3 <= len(pair.sent) < 20


def test_lost_last_words_are_repeated():
    pair = Pair()
    pair.flush()
    stream, _, _ = pair.opened()
    pair.loss = 1.0
    pair.b.endpoint.close(pair.theirs.id, pair.now, 7)
    pair.run(0.1)
    pair.loss = 0.0
    assert pair.b.closed and not pair.a.closed
    stream.write(b"are you there?")
    pair.run(0.1)
    assert "0x7" in str(pair.a.closed[0][1])


def test_a_retry_comes_before_state():
    pair = Pair(b=Place(2, max_pending_inbound=0))
    assert pair.ours.peer == pair.b.peer_id and pair.theirs.peer == pair.a.peer_id
    kinds = [data[0] >> 4 for source, _, data in pair.sent if source == pair.b.address]
    assert kinds[0] == 0xF  # the Retry


def test_a_peer_that_speaks_another_version():
    pair = Pair(connect=False)
    ours = pair.a.dial(pair.b.address)
    ((_, _, first),) = pair.a.endpoint.datagrams(pair.now)
    header = parse_long_header(first)
    names = b"\x08" + header.source + b"\x08" + header.destination
    for versions in (b"\0\0\0\1", b"\x6b\x33\x43\xcf"):  # the first cannot be meant
        packet = b"\xc0\0\0\0\0" + names + versions
        pair.a.endpoint.receive(pair.a.sock, packet, pair.b.address, pair.now)
        pair.flush()
    assert pair.a.closed == [(ours, ours.reason)]
    assert isinstance(ours.reason, HandshakeError) and not pair.a.endpoint._links


def test_tokens():
    provider = Aioquic(make_key(), WALL)
    source = ("192.0.2.1", 4)
    packet = provider.retry(source, b"original", b"client", 100.0)
    name, token = packet[13:21], packet[21:-16]
    assert provider.check_token(token, source, name, 101.0) == b"original"
    assert provider.check_token(token, ("192.0.2.1", 5), name, 101.0) is None
    assert provider.check_token(token, source, b"original", 101.0) is None
    assert provider.check_token(token, source, name, 200.0) is None
    assert provider.check_token(b"garbage", source, name, 101.0) is None
    other = Aioquic(make_key(), WALL)
    assert other.check_token(token, source, name, 101.0) is None


def test_sessions_share_a_socket():
    hub, spokes = Place(9), [Place(n) for n in range(1, 6)]
    net = Net(hub, *spokes)
    for spoke in spokes:
        spoke.dial(hub.address, hub.peer_id)
    for spoke in spokes[:2]:
        hub.dial(spoke.address, spoke.peer_id)
    assert net.run(2.0, lambda: len(hub.opened) == 7)
    net.run(1.0)
    assert {c.peer for c in hub.opened} == {spoke.peer_id for spoke in spokes}
    assert len(hub.endpoint) == 7 and not hub.endpoint._half_open
    assert len(hub.endpoint._links) <= 7 * 9


# The library.


@pytest.mark.parametrize("method", ["receive_datagram", "datagrams_to_send", "handle_timer"])
@pytest.mark.parametrize("open_", [True, False])
def test_what_the_library_raises_ends_one_session(method, open_):
    pair = Pair(connect=False)
    other = pair.connect()
    broken = pair.a.dial(pair.b.address)
    if open_:
        assert pair.run(1.0, lambda: broken.peer)

    def fail(*args, **kwargs):
        raise KeyError("a bug")

    setattr(broken.session._quic, method, fail)
    if method == "handle_timer":
        pair.loss = 1.0  # so that there is something to wait for
        broken.session.ping()
        broken.on_ready()
    pair.run(60.0, lambda: pair.a.closed)
    connection, reason = pair.a.closed[0]
    assert connection is broken and "KeyError" in str(reason)
    assert isinstance(reason, MuxerError if open_ else HandshakeError)
    assert isinstance(reason.__cause__, KeyError)
    if method != "handle_timer":  # which time itself calls
        assert pair.ours is other and other.error is None
        assert pair.opened(b"still here")[2].data == b"still here"


def test_a_child_process_sends_nothing():
    pair = Pair()
    pair.ours.session._forked = lambda: True
    pair.ours.muxer.open(pair.now).write(b"x")
    with pytest.raises(LocalError, match="forked"):
        pair.flush()


def test_a_library_that_changed_is_refused():
    quic_hooks.check()
    quic_hooks.check(version="1.10.0rc1")
    with pytest.raises(ImportError, match=r"aioquic 1\.7\.0 is older than 1\.7\.1: pip install"):
        quic_hooks.check(version="1.7.0")
    with pytest.raises(ImportError, match=r"aioquic \d+\.\d+.* has no _nonsense"):
        quic_hooks.check([(quic_hooks.Connection, ("_initialize", "_nonsense"))])

    class Changed:
        def grant(self, limit, more): ...

    with pytest.raises(ImportError, match="calls grant with other arguments"):
        quic_hooks.check(overridden=[(quic_hooks.Connection, Changed)])


def test_a_missing_library_says_what_to_install():
    program = """
        import sys
        sys.modules["aioquic"] = None
        try:
            import anyp2p.providers.quic
        except ImportError as error:
            print(error)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )
    assert "pip install 'anyp2p[quic]'" in run.stdout, run.stderr
