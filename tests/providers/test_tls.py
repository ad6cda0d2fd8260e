"""anyp2p.providers.tls and .certificates: real handshakes, real certificates."""

import gc
import itertools
import os
import subprocess
import sys
import textwrap
import warnings
from datetime import UTC, datetime

import pytest
import vectors
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings, strategies as st
from OpenSSL import SSL
from tls_pair import (
    CLIENT,
    CRYPTO,
    MPLEX,
    NAME,
    NOW,
    OTHER,
    PROVIDER,
    SERVER,
    YAMUX,
    Side,
    Stranger,
    forge,
    libp2p,
    one_by_one,
    opened,
    shake,
    spki_of,
)

from anyp2p.providers import tls
from anyp2p.providers.certificates import (
    LIFETIME,
    MAX_CERTIFICATE,
    make_certificate,
    parse_certificate,
)
from anyp2p.providers.entropy import OsEntropy
from anyp2p.providers.tls import Credentials, Session
from anyp2p_core.certificate import EXTENSION, check_certificate, der
from anyp2p_core.crypto import KeyType
from anyp2p_core.errors import HandshakeError, LocalError
from anyp2p_core.keys import PrivateKey

SPEC = vectors.load("tls")["spec"]


# Certificates


@pytest.mark.parametrize("case", SPEC, ids=lambda case: case["name"])
def test_row_28_the_certificates_of_the_spec(case):
    found = parse_certificate(bytes.fromhex(case["cert"]))
    assert found.self_signed
    assert [extension.oid for extension in found.extensions] == [EXTENSION]
    if case["peerId"] is None:
        with pytest.raises(HandshakeError, match="did not sign"):
            check_certificate(found, CRYPTO, expected=None, wall=NOW)
    else:
        key = check_certificate(found, CRYPTO, expected=None, wall=NOW)
        assert str(key.peer_id) == case["peerId"]


@pytest.mark.parametrize("kind", KeyType)
def test_our_certificate(kind):
    identity = PrivateKey.generate(CRYPTO, OsEntropy(), kind)
    data, own = make_certificate(identity, NOW)
    found = parse_certificate(data)
    key = check_certificate(found, CRYPTO, expected=identity.peer_id, wall=NOW)
    assert key == identity.public
    assert found.spki == spki_of(own) and isinstance(own.curve, ec.SECP256R1)
    assert found.not_before == NOW - 3600
    assert found.not_after == found.not_before + LIFETIME.total_seconds()
    assert LIFETIME.days >= 36500
    # Ours is the only extension, so that it is the first one too.
    assert [extension.oid for extension in found.extensions] == [EXTENSION]
    assert not found.extensions[0].critical
    read = x509.load_der_x509_certificate(data)
    assert list(read.issuer) and list(read.subject) and read.serial_number > 2**64
    assert len(data) < MAX_CERTIFICATE


def test_every_certificate_is_new():
    first, second = (make_certificate(CLIENT, NOW) for _ in range(2))
    assert first[0] != second[0] and spki_of(first[1]) != spki_of(second[1])


USUAL = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("name", USUAL)
def test_kinds_of_certificate_keys(name):
    shown = forge(own=USUAL[name]())
    found = parse_certificate(shown[0])
    assert found.self_signed
    assert check_certificate(found, CRYPTO, expected=OTHER.peer_id, wall=NOW) == OTHER.public
    for initiator in (True, False):
        side, stranger = Side(initiator), Stranger(not initiator, shown)
        pair = (side, stranger) if initiator else (stranger, side)
        assert shake(*pair) == [None, None]
        assert side.events == ["open"] and side.machine.peer == OTHER.peer_id


@pytest.mark.parametrize("algorithm", [SHA384(), SHA512()])
def test_other_hashes(algorithm):
    for name in ("P-256", "RSA"):
        assert parse_certificate(forge(own=USUAL[name](), algorithm=algorithm)[0]).self_signed


def test_a_signature_of_rsa_pss():
    own = USUAL["RSA"]()
    now = datetime.fromtimestamp(NOW, UTC)
    builder = x509.CertificateBuilder(NAME, NAME, own.public_key(), 7, now, now)
    padding = PSS(MGF1(SHA256()), PSS.DIGEST_LENGTH)
    data = builder.sign(own, SHA256(), rsa_padding=padding).public_bytes(Encoding.DER)
    found = parse_certificate(data)
    assert found.self_signed and found.extensions == []


def test_extensions_as_they_stand():
    def several(spki):
        basic = (x509.BasicConstraints(True, 3), True)
        return [basic, libp2p(OTHER, spki, True), (x509.OCSPNoCheck(), False)]

    found = parse_certificate(forge(several)[0])
    assert [one.critical for one in found.extensions] == [True, True, False]
    assert [one.oid.hex() for one in found.extensions[::2]] == ["551d13", "2b0601050507300105"]
    assert found.extensions[1].oid == EXTENSION
    assert parse_certificate(forge(lambda spki: [])[0]).extensions == []


def test_an_extension_that_the_library_cannot_read_is_none_of_our_business():
    names = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\xff\xff")
    found = parse_certificate(forge(lambda spki: [(names, False), libp2p(OTHER, spki)])[0])
    assert check_certificate(found, CRYPTO, expected=None, wall=NOW) == OTHER.public


GOOD = forge()[0]
UNUSUAL = {
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "P-224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "brainpool": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "RSA of 1024 bits": lambda: rsa.generate_private_key(65537, 1024),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_keys(name):
    with pytest.raises(HandshakeError, match="malformed"):
        parse_certificate(forge(own=UNUSUAL[name]())[0])


def by_hand(content, algorithm, signature):
    """A certificate that the library would not write."""
    return der(0x30, content + algorithm + der(0x03, b"\0" + signature))


SHA1_OR_256 = {
    "P-256": ("300906072a8648ce3d0401", "300a06082a8648ce3d040302"),
    "RSA": ("300d06092a864886f70d0101050500", "300d06092a864886f70d01010b0500"),
}


@pytest.mark.parametrize("name", SHA1_OR_256)
def test_an_old_hash(name):
    own = USUAL[name]()
    old, new = map(bytes.fromhex, SHA1_OR_256[name])
    content = x509.load_der_x509_certificate(forge(own=own)[0]).tbs_certificate_bytes
    content = der(0x30, content[4:].replace(new, old))
    how = [PKCS1v15(), SHA1()] if name == "RSA" else [ec.ECDSA(SHA1())]
    assert not parse_certificate(by_hand(content, old, own.sign(content, *how))).self_signed


def test_a_certificate_of_version_1():
    own = ec.generate_private_key(ec.SECP256R1())
    content = x509.load_der_x509_certificate(forge(own=own)[0]).tbs_certificate_bytes
    spki = spki_of(own)
    content = content[4 : content.index(spki) + len(spki)].removeprefix(b"\xa0\x03\x02\x01\x02")
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    content = der(0x30, content)
    signature = own.sign(content, ec.ECDSA(SHA256()))
    found = parse_certificate(by_hand(content, algorithm, signature))
    assert found.spki == spki and found.self_signed and found.extensions == []


def test_a_signature_by_another_key():
    for name, make in USUAL.items():
        assert not parse_certificate(forge(own=make(), signer=make())[0]).self_signed, name
    p256, rsa_key, edwards = (USUAL[name]() for name in ("P-256", "RSA", "Ed25519"))
    for own, signer in ((p256, rsa_key), (rsa_key, p256), (p256, edwards), (edwards, p256)):
        assert not parse_certificate(forge(own=own, signer=signer)[0]).self_signed


SIGNATURE = len(GOOD) - len(x509.load_der_x509_certificate(GOOD).signature) - 1
MALFORMED = {
    "empty": b"",
    "too long": GOOD + bytes(MAX_CERTIFICATE),
    "data behind": GOOD + b"\0",
    "another thing": spki_of(ec.generate_private_key(ec.SECP256R1())),
    "a PEM": b"-----BEGIN CERTIFICATE-----\n",
    "a length of 4 GiB": b"\x30\x84\xff\xff\xff\xff" + GOOD[4:],
    "year zero": GOOD.replace(b"\x17\x0d", b"\x17\x0c", 1),
    "a day that is none": GOOD.replace(GOOD[GOOD.index(b"\x17\x0d") + 2 :][:13], b"279999999999Z"),
    "a point off the curve": GOOD.replace(b"\x03\x42\x00\x04", b"\x03\x42\x00\x05"),
    "an unknown curve": GOOD.replace(
        bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030177")
    ),
    "an unknown version": GOOD.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09"),
    "a signature of part of a byte": GOOD[:SIGNATURE] + b"\1" + GOOD[SIGNATURE + 1 :],
    "an unknown signature": GOOD.replace(
        bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d040377")
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name):
    assert MALFORMED[name] != GOOD
    with pytest.raises(HandshakeError, match=r"malformed|longer"):
        parse_certificate(MALFORMED[name])


def test_a_serial_number_of_which_the_library_warns():
    """A warning is an error in these tests, and must be no other one."""
    shown = forge()
    at = shown[0].index(b"\xa0\x03\x02\x01\x02") + 5
    size = shown[0][at + 1]
    data = shown[0][: at + 2] + b"\xff" + bytes(range(1, size)) + shown[0][at + 2 + size :]
    with pytest.raises(HandshakeError, match="malformed"):
        parse_certificate(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stranger = Stranger(True, (data, shown[1]))
    server = Side(False)
    assert "verify failed" in str(shake(stranger, server)[1]) and server.events == []


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255), st.booleans())
def test_a_damaged_certificate_raises_nothing_else(position, change, cut):
    data = bytearray(GOOD)
    data[position] ^= change
    try:
        found = parse_certificate(bytes(data[:position] if cut else data))
    except HandshakeError:
        return
    assert not cut
    with pytest.raises(HandshakeError):
        check_certificate(found, CRYPTO, expected=OTHER.peer_id, wall=NOW)


# Handshakes


def some(data):
    return [data[n : n + 100] for n in range(0, len(data), 100)]


@pytest.mark.parametrize("cut", [lambda data: [data], one_by_one, some])
def test_a_handshake(cut):
    client, server = opened({"expected": SERVER.peer_id}, cut=cut)
    for here, key in ((client, SERVER), (server, CLIENT)):
        assert here.machine.open and here.machine.peer == key.peer_id
        assert here.machine.public_key == key.public and here.machine.muxer == YAMUX
    for here, there in ((client, server), (server, client)):
        assert there.feed(here.machine.seal([b"over ", b"and out"]), cut) is None
        assert there.data == b"over and out"


def test_three_flights_each_in_one_call():
    client, server = Side(True), Side(False)
    (hello,) = client.out
    assert server.feed(client.take()) is None and len(server.out) == 1
    assert client.feed(server.take()) is None and len(client.out) == 1
    assert client.events == ["open"] and not server.events
    assert server.feed(client.take()) is None and server.events == ["open"]
    assert b"libp2p" in hello and b"/yamux/1.0.0" in hello


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 1, exclude_max=True), max_size=6))
def test_cut_anyhow(cuts):
    def cut(data):
        edges = sorted({0, len(data), *(int(place * len(data)) for place in cuts)})
        return [data[a:b] for a, b in itertools.pairwise(edges)]

    client, server = opened(cut=cut)
    data = os.urandom(40_000)
    assert server.feed(client.machine.seal([data]) + client.machine.finish(), cut) is None
    assert server.data == data and server.events[-1] == "end"


def test_the_hello_says_nothing_but_what_it_must():
    hello = Side(True).take()
    assert hello[0] == 0x16 and b"\x00\x2b\x00\x03\x02\x03\x04" in hello  # TLS 1.3 alone
    # After the random number and the session id come the suites; then compression, none.
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    suites = hello[at + 2 : at + 2 + int.from_bytes(hello[at : at + 2])]
    assert suites.startswith(bytes.fromhex("130113021303"))
    at += 2 + len(suites) + 2
    kinds, end = [], at + 2 + int.from_bytes(hello[at : at + 2])
    at += 2
    while at < end:
        kinds.append(int.from_bytes(hello[at : at + 2]))
        at += 4 + int.from_bytes(hello[at + 2 : at + 4])
    assert at == end == len(hello)
    assert 0x0010 in kinds  # ALPN
    assert not {0x0000, 0x0029, 0x002A} & set(kinds)  # no name, no resumption, no early data


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        ((YAMUX, MPLEX), (MPLEX, YAMUX), YAMUX),
        ((MPLEX, YAMUX), (YAMUX, MPLEX), MPLEX),
        ((MPLEX,), (YAMUX,), None),
        ((), (YAMUX,), None),
        ((YAMUX,), (), None),
    ],
)
def test_alpn(ours, theirs, agreed):
    for side in opened({"muxers": ours}, {"muxers": theirs}):
        assert side.machine.muxer == agreed


def test_alpn_without_a_common_protocol():
    server, stranger = Side(False), Stranger(True, forge(), alpn=("h2", "http/1.1"))
    errors = shake(stranger, server)
    assert isinstance(errors[1], HandshakeError) and "ALPN" in str(errors[1])
    assert "no application protocol" in str(stranger.error) and server.events == []
    # The provider's context is none the worse.
    opened()


def test_a_peer_without_alpn():
    server = Side(False)
    assert shake(Stranger(True, forge(), alpn=()), server) == [None, None]
    assert server.events == ["open"] and server.machine.muxer is None


def test_a_server_that_chooses_what_was_not_offered():
    client = Side(True)
    errors = shake(client, Stranger(False, forge(), alpn=("h2",)))
    assert isinstance(errors[0], HandshakeError) and client.events == []


def test_nothing_can_be_resumed():
    """The library insists on sending tickets, but it has kept nothing that they stand for."""
    first = Stranger(True, forge())
    assert shake(first, Side(False)) == [None, None]
    again, server = Stranger(True, again=first), Side(False)
    hello = again.take()
    assert len(hello) > len(Stranger(True).take()) + 40  # it does try
    assert server.feed(hello) is None
    # As long as all handshakes: there is a certificate in each flight.
    answer = server.take()
    assert again.feed(answer) is None and len(answer) > 500
    flight = again.take()
    assert server.feed(flight) is None and len(flight) > 400
    assert server.machine.peer == OTHER.peer_id


# Data


def test_ten_megabytes_both_ways():
    client, server = opened()
    chunk = os.urandom(65519)
    for here, there in ((client, server), (server, client)):
        for n in range(160):
            sealed = here.machine.seal([chunk[:n], chunk[n:]])
            assert len(sealed) < len(chunk) + 4 * 22 + 1
            assert there.feed(sealed) is None
        assert there.events == [chunk] * 160


def test_a_large_write_is_one_call():
    client, server = opened()
    data = os.urandom(3_000_000)
    sealed = client.machine.seal([data])
    assert server.feed(sealed, lambda data: [data[:777_777], data[777_777:]]) is None
    assert server.data == data and len(server.events) <= 3


def test_records_of_one_byte():
    client, server = opened()
    wire = b"".join(client.machine.seal([bytes((n % 256,))]) for n in range(2000))
    assert server.feed(wire, one_by_one) is None
    assert server.data == bytes(n % 256 for n in range(2000))
    assert client.machine.seal([b""]) == b""


def test_both_ends_in_order():
    client, server = opened()
    assert server.feed(client.machine.seal([b"last"]) + client.machine.finish()) is None
    assert server.events == [b"last", "end"] and server.feed_eof() is None
    assert client.feed(server.machine.seal([b"mine"]) + server.machine.finish()) is None
    assert client.events == [b"mine", "end"] and client.feed_eof() is None


def test_a_server_that_refuses_tells_the_client():
    client = Side(True)
    errors = shake(client, Stranger(False, forge(), believes=False))
    assert client.events == ["open"] and "did not accept us" in str(errors[0])


def test_a_session_that_is_used_too_early():
    for initiator in (True, False):
        session = Credentials(*forge()).session(initiator=initiator, alpn=[YAMUX])
        assert session.chain() == [] and session.alpn is None
        with pytest.raises(LocalError, match="nothing can be sealed"):
            session.seal(b"x")
        assert session.close() == b""


def test_a_library_that_writes_record_by_record(monkeypatch):
    """As older ones do; what is sealed must be whole all the same."""
    monkeypatch.setattr(tls, "_PARTIAL_WRITE", 0)
    client, server = opened({"shown": forge()})
    data = os.urandom(100_000)
    assert server.feed(client.machine.seal([data])) is None and server.data == data


def test_a_peer_that_wants_short_records(monkeypatch):
    client, server = opened()
    send = SSL.Connection.send
    monkeypatch.setattr(SSL.Connection, "send", lambda self, data: send(self, data[:512]))
    for size in (500, 5000, 50_000):
        data = os.urandom(size)
        sealed = client.machine.seal([data])
        assert len(sealed) == size + 22 * -(-size // 512)
        assert server.feed(sealed) is None and server.data == data
        server.events.clear()


def test_the_library_gets_and_gives_in_portions(monkeypatch):
    """Its buffers keep the size that they once had, for as long as the connection lives."""
    sizes = []
    write, read = SSL.Connection.bio_write, SSL.Connection.bio_read

    def watched_write(self, data):
        sizes.append(len(data))
        return write(self, data)

    def watched_read(self, size):
        data = read(self, size)
        sizes.append(len(data))
        return data

    client, server = opened()
    monkeypatch.setattr(SSL.Connection, "bio_write", watched_write)
    monkeypatch.setattr(SSL.Connection, "bio_read", watched_read)
    for data in (os.urandom(1_000_000), bytes(30)):
        sealed = b"".join(client.machine.seal([data]) for _ in range(900 if len(data) < 99 else 1))
        assert server.feed(sealed) is None
    assert len(server.data) == 1_000_000 + 900 * 30 and len(sizes) < 1000
    assert max(sizes) < 70_000


def test_a_library_that_says_much_at_once(monkeypatch):
    monkeypatch.setattr(tls, "_CHUNK", 100)
    client, server = opened()
    assert server.feed(client.machine.seal([bytes(5000)])) is None and server.data == bytes(5000)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SSL.Error([("lib", "", "bad record mac")]), "bad record mac"),
        (SSL.Error([("lib", "", "first")], [("lib", "", "last")]), "last"),
        (SSL.SysCallError(-1, "Unexpected EOF"), "Unexpected EOF"),
        (SSL.Error([]), "no reason"),
        (SSL.Error(), "no reason"),
    ],
)
def test_every_error_of_the_library(monkeypatch, error, text):
    def fail(*_):
        raise error

    client, server = opened()
    monkeypatch.setattr(SSL.Connection, "recv", fail)
    assert text in str(server.feed(client.machine.seal([b"x"])))
    monkeypatch.setattr(SSL.Connection, "do_handshake", fail)
    assert text in str(Side(False).feed(b"\x16\x03\x03\0\0"))
    monkeypatch.setattr(SSL.Connection, "send", fail)
    with pytest.raises(LocalError, match=text):
        client.machine.seal([b"x"])


def test_the_library_keeps_nothing_of_a_connection():
    opened()
    gc.collect()
    before = sum(isinstance(one, Session) for one in gc.get_objects())
    for _ in range(20):
        opened()
    gc.collect()
    assert sum(isinstance(one, Session) for one in gc.get_objects()) == before


def test_nothing_is_kept_by_the_provider():
    assert not vars(PROVIDER)


def test_a_missing_package_is_named():
    program = textwrap.dedent("""
        import sys
        sys.modules["OpenSSL"] = None
        from anyp2p.extras import MissingExtra
        try:
            import anyp2p.providers.tls
        except MissingExtra as error:
            assert "anyp2p[tls]" in str(error), error
        else:
            raise SystemExit("imported")
    """)
    subprocess.run([sys.executable, "-c", program], check=True)
