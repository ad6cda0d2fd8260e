import datetime
import ipaddress
import socket
import ssl
import threading

import pytest
import websockets.sync.server
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from anyp2p.providers import web_tls
from anyp2p.providers.web_tls import MAX_HANDSHAKE, WebTls
from anyp2p.providers.websocket import Websockets
from anyp2p_core.errors import DecodeError, HandshakeError, LocalError, MuxerError
from anyp2p_core.layer import Stacked
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.route import Route, route
from anyp2p_core.websocket import WebSockets

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def certificate(name, key, issuer, issuer_key, names, since=NOW - DAY, until=NOW + DAY, ca=False):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, SHA256())


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


def pem(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


class Authority:
    """Signs certificates into files of one directory."""

    def __init__(self, directory, name="Test Authority"):
        self.directory = directory
        self.key = new_key()
        self.certificate = certificate(name, self.key, None, self.key, [], ca=True)
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def leaf(self, *names, **validity):
        """Files of a chain and a key; names that look like addresses are IP names."""
        key = new_key()
        made = certificate(
            "leaf", key, self.certificate.subject, self.key, [*map(san, names)], **validity
        )
        base = self.directory / f"{made.serial_number:x}"
        base.with_suffix(".crt").write_bytes(made.public_bytes(Encoding.PEM))
        base.with_suffix(".key").write_bytes(pem(key))
        return base.with_suffix(".crt"), base.with_suffix(".key")


def san(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def leaf(authority):
    return authority.leaf("example.org", "*.p2p.example", "192.0.2.1", "2001:db8::1")


class Side:
    def __init__(self, start):
        self.out = []
        self.opened, self.data, self.ended = [], [], []
        self.layer = start(self.out.append)
        self.layer.on_open = self.opened.append
        self.layer.on_data = lambda data, now: self.data.append(data)
        self.layer.on_end = self.ended.append

    @property
    def received(self):
        return b"".join(self.data)

    def take(self):
        said = b"".join(self.out)
        self.out.clear()
        return said


def client(maker, address):
    where = route(Multiaddr(address))
    return Side(lambda write: maker.start(initiator=True, route=where, write=write))


def server(maker):
    return Side(lambda write: maker.start(initiator=False, route=None, write=write))


def shake(one, other, size=1 << 20):
    """Carry bytes until it is quiet; returns what each side raised."""
    raised = {}
    moved = True
    while moved:
        moved = False
        for near, far in ((one, other), (other, one)):
            data = near.take()
            for pos in range(0, len(data), size):
                moved = True
                try:
                    far.layer.receive(data[pos : pos + size], 1.0)
                except HandshakeError as error:
                    raised.setdefault(far, str(error))
    return raised.get(one), raised.get(other)


def connect(authority, leaf, address="/dns4/example.org/tcp/443/wss", **options):
    near, far = client(WebTls(trust=authority.file), address), server(WebTls(leaf))
    assert shake(near, far, **options) == (None, None)
    return near, far


# Certificates that are good


@pytest.mark.parametrize(
    "address",
    [
        "/dns4/example.org/tcp/443/tls/ws",
        "/dns/EXAMPLE.org/tcp/443/wss",
        "/dns4/some.p2p.example/tcp/443/wss",
        "/ip4/127.0.0.1/tcp/443/tls/sni/example.org/ws",
        "/ip4/192.0.2.1/tcp/443/tls/ws",
        "/ip6/2001:db8::1/tcp/443/tls/ws",
        "/ip6/2001:db8:0:0:0:0:0:1/tcp/443/tls/ws",
    ],
)
def test_good_certificates(authority, leaf, address):
    near, far = connect(authority, leaf, address)
    assert near.opened == far.opened == [1.0]
    assert near.layer._tls.version() == "TLSv1.3"
    assert near.layer._tls.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_data_both_ways_in_any_pieces(authority, leaf, size):
    near, far = connect(authority, leaf, size=size)
    bulk = bytes(range(256)) * 400
    for one, other in ((near, far), (far, near)):
        wire = one.layer.seal([bulk[:10], bulk[10:]])
        for pos in range(0, len(wire), size * 50):
            other.layer.receive(wire[pos : pos + size * 50], 2.0)
        assert other.received == bulk
        assert one.layer.seal([]) == b""


def test_tls_12_is_enough_and_less_is_not(authority, leaf, monkeypatch):
    maker = WebTls(trust=authority.file)
    maker._client.maximum_version = ssl.TLSVersion.TLSv1_2
    near, far = client(maker, "/dns4/example.org/tcp/1/wss"), server(WebTls(leaf))
    assert shake(near, far) == (None, None)
    assert near.layer._tls.version() == "TLSv1.2"
    far.layer.receive(near.layer.seal([b"hello"]), 2.0)
    assert far.received == b"hello"
    far.layer.receive(near.layer.finish(), 3.0)
    assert far.ended == [3.0]
    near.layer.receive(far.layer.seal([b"still"]) + far.layer.finish(), 3.0)
    assert near.received == b"still" and near.ended == [3.0]
    for context in (maker._client, WebTls(leaf)._server):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


# Certificates that are not


def refused(authority, chain, address="/dns4/example.org/tcp/443/wss", trust=None):
    """What the client and the server say."""
    maker = WebTls(trust=(trust or authority).file)
    near, far = client(maker, address), server(WebTls(chain))
    mine, theirs = shake(near, far)
    assert not near.opened and not far.opened and not near.data
    with pytest.raises(HandshakeError) as again:
        near.layer.receive(b"x", 2.0)
    assert str(again.value) == mine and "failed" in repr(near.layer)
    assert near.layer.finish() == b""
    return mine, theirs


@pytest.mark.parametrize(
    "address",
    [
        "/dns4/example.com/tcp/443/wss",
        "/dns4/sub.example.org/tcp/443/wss",
        "/ip4/192.0.2.2/tcp/443/wss",
        "/ip6/2001:db8::2/tcp/443/wss",
        "/ip4/192.0.2.1/tcp/443/tls/sni/example.com/ws",
    ],
)
def test_another_name(authority, leaf, address):
    name = route(Multiaddr(address)).sni
    mine, theirs = refused(authority, leaf, address)
    assert mine.startswith(f"the certificate of {name} is for another name: ")
    assert theirs.startswith("the peer does not accept our certificate: ")


def test_the_common_name_means_nothing(authority):
    mine, _ = refused(authority, authority.leaf(), "/dns4/leaf/tcp/443/wss")
    assert "is for another name" in mine


def test_expired(authority):
    chain = authority.leaf("example.org", since=NOW - 3 * DAY, until=NOW - DAY)
    mine, theirs = refused(authority, chain)
    assert mine == "the certificate of example.org has expired, or the clock is wrong"
    assert "expired" in theirs


def test_not_yet_valid(authority):
    mine, _ = refused(
        authority, authority.leaf("example.org", since=NOW + DAY, until=NOW + 2 * DAY)
    )
    assert mine == "the certificate of example.org is not valid yet: is the clock right?"


def test_untrusted(authority, leaf, tmp_path):
    mine, theirs = refused(authority, leaf, trust=Authority(tmp_path, "Somebody Else"))
    assert mine.startswith("the certificate of example.org is not trusted: ")
    assert mine.endswith("; pass web_trust=... to trust your own authority")
    assert theirs == "the peer does not accept our certificate: tlsv1 alert unknown ca"


def test_the_system_does_not_trust_us(authority, leaf, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))  # no say in this
    near, far = client(WebTls(), "/dns4/example.org/tcp/443/wss"), server(WebTls(leaf))
    assert "is not trusted" in shake(near, far)[0]


def test_keys_are_not_logged_for_the_environment(authority, leaf, monkeypatch, tmp_path):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    connect(authority, leaf)
    assert not (tmp_path / "keys").exists()


def test_a_system_without_authorities(monkeypatch, authority, leaf):
    nowhere = ssl.DefaultVerifyPaths(None, None, "A", "/nonexistent", "B", "/nonexistent")
    monkeypatch.setattr(web_tls.ssl, "get_default_verify_paths", lambda: nowhere)
    near, far = client(WebTls(), "/dns4/example.org/tcp/443/wss"), server(WebTls(leaf))
    assert "is not trusted" in shake(near, far)[0]


# Whoever is no TLS


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x13/multistream/1.0.0\n",
        b"\x16\x03\x01\x00\x04\xff\xff\xff\xff",
    ],
)
def test_garbage(authority, leaf, role, data):
    address = "/dns4/example.org/tcp/1/wss"
    side = (
        client(WebTls(trust=authority.file), address) if role == "client" else server(WebTls(leaf))
    )
    who = "example.org" if role == "client" else "the peer"
    with pytest.raises(HandshakeError, match=rf"TLS with {who} failed: \w"):
        side.layer.receive(data, 1.0)


def test_every_end_in_the_handshake(authority, leaf):
    whole = client(WebTls(trust=authority.file), "/dns4/example.org/tcp/1/wss").take()
    for length in range(0, len(whole), 37):
        side = server(WebTls(leaf))
        side.layer.receive(whole[:length], 1.0)
        with pytest.raises(HandshakeError, match="the peer closed the connection in the TLS hand"):
            side.layer.receive_eof()


def test_a_handshake_without_end(leaf):
    """A ClientHello in as many records as it has bytes, and none of them the last one."""
    side = server(WebTls(leaf))
    hello = b"\x01\x00\xff\xff" + bytes(70_000)
    sent = 0
    with pytest.raises(HandshakeError):
        while True:
            side.layer.receive(b"\x16\x03\x01\x00\x01" + hello[:1], 1.0)
            hello = hello[1:]
            sent += 6
            assert sent <= MAX_HANDSHAKE + 6


def test_empty_records_without_end(leaf):
    side = server(WebTls(leaf))
    sent = 0
    with pytest.raises(HandshakeError):
        while sent <= 2 * MAX_HANDSHAKE:
            side.layer.receive(b"\x16\x03\x01\x00\x00", 1.0)
            sent += 5


def test_the_bound_of_a_handshake(leaf, monkeypatch):
    monkeypatch.setattr(web_tls, "MAX_HANDSHAKE", 100)
    side = server(WebTls(leaf))
    side.layer.receive(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 1.0)
    with pytest.raises(HandshakeError, match="more than 100 bytes"):
        side.layer.receive(bytes(100), 1.0)


@pytest.mark.parametrize("at", [0, 3, 5, 20, -1])
def test_a_changed_record(authority, leaf, at):
    near, far = connect(authority, leaf)
    wire = bytearray(near.layer.seal([b"hello"]))
    wire[at] ^= 1
    with pytest.raises(HandshakeError, match="TLS with the peer failed"):
        far.layer.receive(bytes(wire) + bytes(300), 2.0)
    with pytest.raises(HandshakeError, match=r"TLS with example\.org failed: .* alert"):
        near.layer.receive(far.take(), 2.0)
    assert not far.data and not far.ended
    assert far.layer.seal([b"x"]) == b"" == far.layer.finish()


# The end


def test_close_notify(authority, leaf):
    near, far = connect(authority, leaf)
    far.layer.receive(near.layer.seal([b"last"]) + near.layer.finish(), 5.0)
    assert far.received == b"last" and far.ended == [5.0] and far.layer.ended
    assert near.layer.finish() == b"" == near.layer.seal([b"x"])
    near.layer.receive(far.layer.seal([b"still coming"]), 6.0)
    assert near.received == b"still coming" and not near.ended
    near.layer.receive(far.layer.finish(), 7.0)
    assert near.ended == [7.0]
    far.layer.receive(b"garbage", 8.0)
    assert far.ended == [5.0]
    near.layer.receive_eof()
    far.layer.receive_eof()


def test_an_end_without_close_notify(authority, leaf):
    near, _ = connect(authority, leaf)
    near.layer.receive_eof()


def test_an_error_from_above_lets_us_have_a_last_word(authority, leaf):
    near, far = connect(authority, leaf)

    def fails(data, now):
        raise MuxerError("from above")

    far.layer.on_data = fails
    with pytest.raises(MuxerError):
        far.layer.receive(near.layer.seal([b"x"]), 2.0)
    near.layer.receive(far.layer.seal([b"why"]) + far.layer.finish(), 2.0)
    assert near.received == b"why" and near.ended
    with pytest.raises(HandshakeError, match="from above"):
        far.layer.receive(near.layer.seal([b"x"]), 2.0)


def test_before_the_handshake(leaf):
    side = server(WebTls(leaf))
    with pytest.raises(LocalError, match="not open"):
        side.layer.seal([b"x"])
    assert side.layer.finish() == b""
    assert repr(side.layer) == "<WebTlsLayer server, in the handshake>"


def test_callbacks_may_be_left_out(authority, leaf):
    near, _ = connect(authority, leaf)
    said = []
    maker = WebTls(leaf)
    plain = maker.start(initiator=False, route=None, write=said.append)
    plain.receive(client(WebTls(trust=authority.file), "/dns4/example.org/tcp/1/wss").take(), 1.0)
    assert said and repr(near.layer) == "<WebTlsLayer client of example.org, open>"


# What is ours to get right


@pytest.mark.parametrize("name", ["", ".example.org", "a..b", "x" * 64 + ".org", "a\0b", "é" * 70])
def test_names_that_no_certificate_is_for(authority, name):
    where = Route("tcp", "dns", "x", 1, layers=("tls", "ws"), sni=name)
    maker = WebTls(trust=authority.file)
    with pytest.raises(LocalError, match="no certificate can be for the name"):
        maker.start(initiator=True, route=where, write=[].append)
    with pytest.raises(LocalError, match="no certificate can be for the name"):
        maker.check(where)
    where.sni = "example.org"
    maker.check(where)


def test_names_in_other_scripts(authority):
    chain = authority.leaf("xn--bcher-kva.example")
    where = Route("tcp", "dns", "bücher.example", 1, layers=("tls", "ws"), sni="bücher.example")
    maker = WebTls(trust=authority.file)
    near = Side(lambda write: maker.start(initiator=True, route=where, write=write))
    assert shake(near, server(WebTls(chain))) == (None, None)


def test_files_that_cannot_be_used(authority, leaf, tmp_path):
    chain, key = leaf
    other = authority.leaf("example.org")[1]
    locked = tmp_path / "locked.key"
    locked.write_bytes(pem(new_key(), BestAvailableEncryption(b"secret")))
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for files in ((chain, other), (chain, locked), (chain, empty), (tmp_path / "none", key)):
        with pytest.raises(LocalError, match="no certificate and key in"):
            WebTls(files)
    for trust in (empty, tmp_path / "none"):
        with pytest.raises(LocalError, match="no certificates of authorities in"):
            WebTls(trust=trust)
    with pytest.raises(LocalError, match="pass web_certificate"):
        WebTls().start(initiator=False, route=None, write=[].append)


# WebSocket on top


def stacked(maker, address=None):
    where = route(Multiaddr(address)) if address else None
    upper = WebSockets(Websockets())

    def start(write):
        options = {"initiator": address is not None, "route": where}
        lower = maker.start(write=write, **options)
        return Stacked(lower, lambda write: upper.start(write=write, **options), write)

    return Side(start)


def wss(authority, leaf):
    near = stacked(WebTls(trust=authority.file), "/dns4/example.org/tcp/443/wss")
    far = stacked(WebTls(leaf))
    assert shake(near, far) == (None, None)
    assert near.opened == far.opened == [1.0]
    return near, far


def test_wss(authority, leaf):
    near, far = wss(authority, leaf)
    bulk = bytes(range(256)) * 1000
    for one, other in ((near, far), (far, near)):
        other.layer.receive(one.layer.seal([bulk]), 2.0)
        assert other.received == bulk
    far.layer.receive(near.layer.finish(), 3.0)
    assert far.ended
    near.layer.receive(far.take() + far.layer.finish(), 4.0)
    assert near.ended


def test_wss_says_why_it_ends(authority, leaf):
    near, far = wss(authority, leaf)
    inner = near.layer._lower.seal([b"\x81\x80\0\0\0\0"])  # a text message
    with pytest.raises(DecodeError, match="text"):
        far.layer.receive(inner, 2.0)
    near.layer.receive(far.take(), 3.0)
    assert near.layer._upper.close_code == 1003


def test_our_client_and_a_server_of_another_library(authority):
    chain, key = authority.leaf("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)

    def serve(connection):
        for message in connection:
            connection.send(message)

    with websockets.sync.server.serve(serve, "127.0.0.1", 0, ssl=context) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            port = running.socket.getsockname()[1]
            near = stacked(WebTls(trust=authority.file), f"/ip4/127.0.0.1/tcp/{port}/tls/ws")
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.settimeout(10)

                def until(condition):
                    while not condition():
                        sock.sendall(near.take())
                        data = sock.recv(65536)
                        assert data
                        near.layer.receive(data, 1.0)

                until(lambda: near.opened)
                bulk = bytes(range(256)) * 1000
                sock.sendall(near.layer.seal([bulk]))
                until(lambda: len(near.received) == len(bulk))
                assert near.received == bulk
                sock.sendall(near.layer.finish())
                until(lambda: near.ended)
        finally:
            running.shutdown()
            thread.join(10)
