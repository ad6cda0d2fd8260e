"""anyp2p_core.quic_connection: what the session tells, judged, and passed on to the node."""

import pytest
from node_pair import CRYPTO, make_key
from quic_fake import FakeProvider, FakeSession

from anyp2p_core.certificate import EXTENSION, Certificate, Extension, sign_extension
from anyp2p_core.errors import ConnectionLost, HandshakeError, LocalError, MuxerError, TimedOut
from anyp2p_core.limits import Limits
from anyp2p_core.quic_connection import PROTOCOL_VIOLATION, QuicConnection

KEY, OTHER = make_key(), make_key()
SPKI = b"a certificate's key"
WALL = 1_800_000_000.0


def certificate(key=KEY, **changes):
    extension = Extension(EXTENSION, False, sign_extension(key, SPKI))
    fields = {
        "spki": SPKI,
        "not_before": WALL,
        "not_after": WALL + 100,
        "self_signed": True,
        "extensions": [extension],
    }
    return Certificate(**(fields | changes))


class Owner:
    def __init__(self):
        self.limits = Limits()
        self.security, self.muxers = {}, {}
        self.unread = 0
        self.upgraded, self.streams, self.cancelled = [], [], []

    def wall(self, now):
        return WALL + now

    def supports(self, protocol):
        return True

    def call_at(self, when, reason, callback):
        return 7

    def cancel(self, handle):
        self.cancelled.append(handle)

    def on_upgraded(self, connection, now):
        self.upgraded.append((connection, now))

    def on_stream(self, connection, stream, protocol, now):
        self.streams.append((stream, protocol))


class Case:
    def __init__(self, *, expected=None, attach=True, initiator=True):
        self.owner, self.provider, self.session = Owner(), FakeProvider(), FakeSession()
        self.provider.certificate = certificate()
        self.readied = []
        self.connection = QuicConnection(
            3,
            initiator=initiator,
            owner=self.owner,
            crypto=CRYPTO,
            local=None,
            remote=None,
            expected=expected,
        )
        if attach:
            self.connection.attach(
                self.session, self.provider, lambda: self.readied.append(self.connection)
            )

    def opened(self):
        self.session.on_certificates([b"der"], 1.0)
        self.session.on_open(2.0)
        return self


@pytest.mark.parametrize("expected", [None, KEY.peer_id])
def test_it_opens(expected):
    case = Case(expected=expected)
    connection = case.connection
    case.session.on_certificates([b"der"], 1.0)
    assert connection.peer is None and connection.muxer is None  # the key is not proved yet
    case.session.on_open(2.0)
    assert connection.peer == KEY.peer_id and connection.public_key == KEY.public
    assert case.owner.upgraded == [(connection, 2.0)]
    assert connection.negotiated.security == "/tls/1.0.0"
    assert connection.negotiated.muxer == "/quic-v1" and not connection.negotiated.early_muxer
    assert connection.muxer is connection.streams and connection.usable


@pytest.mark.parametrize(
    ("chain", "found", "expected", "text"),
    [
        ([], certificate(), None, "0 certificates"),
        ([b"a", b"b"], certificate(), None, "2 certificates"),
        ([b"a"], None, None, "malformed"),
        ([b"a"], certificate(not_after=WALL), None, "expired"),
        ([b"a"], certificate(not_before=WALL + 9), None, "not valid yet"),
        ([b"a"], certificate(spki=b"another"), None, "did not sign"),
        ([b"a"], certificate(), OTHER.peer_id, "answered"),
    ],
)
def test_certificates_that_are_refused(chain, found, expected, text):
    case = Case(expected=expected)
    case.provider.certificate = found
    with pytest.raises(HandshakeError, match=text):
        case.session.on_certificates(chain, 1.0)
    with pytest.raises(HandshakeError, match="no certificate"):
        case.session.on_open(2.0)
    assert not case.owner.upgraded and case.connection.peer is None


def test_nothing_passes_through_it():
    case = Case().opened()
    connection = case.connection
    assert not connection.wants_write and connection.data_to_send(1.0) == b""
    connection.take_leave()
    for call in (lambda: connection.receive(b"x", 1.0), connection.receive_eof):
        with pytest.raises(LocalError):
            call()


def test_streams():
    case = Case().opened()
    told = []
    stream = case.connection.open_stream(
        ["/app"], lambda stream, protocol, now: told.append(protocol), told.append, 3.0
    )
    assert told == ["/app"] and case.readied
    case.connection.muxer.data_to_send(0, 3.0)
    assert b"/app" in case.session.sent[stream.id]
    case.session.on_data(1, b"\x13/multistream/1.0.0\n\x05/app\n", False, 3.0)
    assert case.owner.streams[0][1] == "/app"


def test_what_is_not_delivered():
    case = Case()
    assert case.connection.unsent() == 0
    case.opened()
    stream = case.connection.muxer.open(1.0)
    stream.write(b"12345")
    assert case.connection.unsent() == 6  # with its turn
    case.connection.streams.feed(1.0)
    case.session.undelivered = 5
    assert case.connection.unsent() == 5


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MuxerError("too much", 0x1001), 0x1001),
        (HandshakeError("no"), PROTOCOL_VIOLATION),
        (TimedOut("late"), PROTOCOL_VIOLATION),
    ],
)
def test_failing_tells_the_peer(error, code):
    case = Case().opened()
    stream = case.connection.muxer.open(1.0)
    case.connection.fail(error, 3.0)
    assert ("close", code) in case.session.take() and case.readied
    assert case.connection.reason is error and stream.is_reset
    assert isinstance(case.connection.error, ConnectionLost)


def test_failing_without_a_session():
    case = Case(attach=False)
    case.connection.fail(HandshakeError("no"), 3.0)
    assert isinstance(case.connection.reason, HandshakeError)
    assert not case.session.calls
