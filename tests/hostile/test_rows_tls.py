"""Attacks on TLS channels: strangers with certificates of every bad kind, and damaged bytes."""

import copy
import io
import logging
import pickle
import subprocess
import sys
import textwrap
import time
import traceback
import tracemalloc
from math import gcd

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings, strategies as st
from OpenSSL import SSL
from tls_pair import (
    CLIENT,
    CRYPTO,
    LIBP2P,
    NOW,
    OTHER,
    PROVIDER,
    SERVER,
    Side,
    Stranger,
    forge,
    libp2p,
    one_by_one,
    opened,
    shake,
    spki_of,
)

from anyp2p.providers import tls as provider_module
from anyp2p.providers.certificates import make_certificate
from anyp2p_core import certificate as certificate_module, tls as tls_module
from anyp2p_core.certificate import sign_extension
from anyp2p_core.errors import HandshakeError, LocalError, PeerIdMismatch
from anyp2p_core.tls import MAX_ASIDES, MAX_HANDSHAKE, MAX_HELLO


def attack(stranger, expected=None, cut=lambda data: [data], **options):
    """Both roles of the stranger that ``stranger(initiator)`` makes; the victim's errors.

    Nothing may have surfaced.
    """
    errors = []
    for initiator in (True, False):
        victim, villain = Side(initiator, expected=expected, **options), stranger(not initiator)
        pair = (victim, villain) if initiator else (villain, victim)
        error = shake(*pair, cut)[0 if initiator else 1] or victim.feed_eof()
        assert isinstance(error, HandshakeError), error
        assert victim.events == [] and not victim.machine.open
        assert not hasattr(victim.machine, "peer")
        errors.append(error)
    return errors


def with_certificate(shown):
    return lambda initiator: Stranger(initiator, shown)


def attack_with(*args, **options):
    return attack(with_certificate(forge(*args, **options)))


def test_the_attacks_can_succeed():
    for initiator in (True, False):
        victim, villain = Side(initiator), Stranger(not initiator, forge())
        pair = (victim, villain) if initiator else (villain, victim)
        assert shake(*pair) == [None, None]
        assert victim.events == ["open"] and victim.machine.peer == OTHER.peer_id


# Certificates


def test_row_26_expired():
    for error in attack_with(start=NOW - 3 * 86400, days=2):
        assert "expired" in str(error)


def test_row_26_not_valid_yet():
    for error in attack_with(start=NOW + 60):
        assert "not valid yet" in str(error)


@pytest.mark.parametrize("curve", [ec.SECP256K1, ec.SECP224R1, ec.BrainpoolP256R1])
def test_row_26_wrong_curve(curve):
    attack_with(own=ec.generate_private_key(curve()))


def test_row_26_bad_self_signature():
    shown = forge()
    damaged = shown[0][:-1] + bytes((shown[0][-1] ^ 1,))
    foreign = forge(signer=ec.generate_private_key(ec.SECP256R1()))
    for bad in ((damaged, shown[1]), foreign):
        for error in attack(with_certificate(bad)):
            assert "its own key" in str(error)


def test_row_27_a_client_without_a_certificate():
    victim, villain = Side(False), Stranger(True)
    errors = shake(villain, victim)
    assert "did not return a certificate" in str(errors[1])
    assert "certificate required" in str(villain.error)
    assert victim.events == [] and not hasattr(victim.machine, "peer")
    with pytest.raises(LocalError, match="not open"):
        victim.machine.seal([b"x"])
    with pytest.raises(HandshakeError, match="certificate"):
        victim.machine.receive(b"", 1.0)


def test_row_27_a_server_without_a_certificate():
    client, server = Side(True), Stranger(False)
    errors = shake(client, server)
    assert isinstance(errors[0], HandshakeError) and client.events == []


def unrecognized(oid, value=b"\x05\x00"):
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)


def test_row_28_no_extension():
    for error in attack_with(lambda spki: []):
        assert "no libp2p extension" in str(error)


def test_row_28_wrong_oid():
    def wrong(spki):
        return [(unrecognized("1.3.6.1.4.1.53594.1.2", sign_extension(OTHER, spki)), False)]

    for error in attack_with(wrong):
        assert "no libp2p extension" in str(error)


def test_row_28_the_extension_twice():
    """The library does not write that: a neighbour's identifier is changed into ours."""
    near = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.3")
    own = ec.generate_private_key(ec.SECP256R1())
    for mine_first in (True, False):

        def both(spki, mine_first=mine_first):
            pair = [libp2p(OTHER, spki), (unrecognized(near.dotted_string), False)]
            return pair if mine_first else pair[::-1]

        data = forge(both, own=own)[0]
        tail = bytes.fromhex("060a2b0601040183a25a01")
        content = x509.load_der_x509_certificate(data).tbs_certificate_bytes
        content = content.replace(tail + b"\x03", tail + b"\x01")
        signature = own.sign(content, ec.ECDSA(SHA256()))
        der = certificate_module.der
        algorithm = bytes.fromhex("300a06082a8648ce3d040302")
        doubled = der(0x30, content + algorithm + der(0x03, b"\0" + signature))
        for error in attack(with_bytes(doubled, own)):
            assert "twice" in str(error) or "TLS failed" in str(error)
        with pytest.raises(HandshakeError, match="twice"):
            certificate_module.check_certificate(
                PROVIDER.parse_certificate(doubled), CRYPTO, expected=None, wall=NOW
            )


def with_bytes(data, own):
    return with_certificate((data, own))


def test_row_28_signed_by_another_key():
    def by_another(spki):
        value = bytearray(sign_extension(OTHER, spki))
        ours, theirs = OTHER.public.encode(), SERVER.public.encode()
        return [(x509.UnrecognizedExtension(LIBP2P, bytes(value).replace(ours, theirs)), False)]

    for error in attack_with(by_another):
        assert "did not sign" in str(error)


def test_row_28_signed_for_another_certificate():
    """As it stands in a certificate that somebody showed before."""
    stolen = spki_of(ec.generate_private_key(ec.SECP256R1()))
    for error in attack_with(lambda spki: [libp2p(SERVER, stolen)]):
        assert "did not sign" in str(error)


def test_row_28_a_stolen_certificate():
    """Without its key it is of no use: the handshake itself proves the possession."""
    stolen, _ = make_certificate(SERVER, NOW)
    own = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(SSL.Error):  # the library notices already at home
        Stranger(True, (stolen, own))


@pytest.mark.parametrize("value", [b"", b"\x30\x00", b"\x30\x84\xff\xff\xff\xff", b"\xff" * 5000])
def test_row_28_a_malformed_extension(value):
    for error in attack_with(lambda spki: [(x509.UnrecognizedExtension(LIBP2P, value), False)]):
        assert "malformed" in str(error)


@pytest.mark.parametrize("count", [2, 100])
@pytest.mark.parametrize("related", [False, True])
def test_row_29_chains(count, related, monkeypatch):
    """Whether they build on each other or not: no signature is checked on the way."""
    own = ec.generate_private_key(ec.SECP256R1())
    above = ec.generate_private_key(ec.SECP256R1())
    first = forge(own=own, signer=above if related else own)
    others = [forge(own=above, days=n + 1)[0] for n in range(count - 1)]
    parsed = []
    monkeypatch.setattr(provider_module, "parse_certificate", parsed.append)
    for error in attack(lambda initiator: Stranger(initiator, first, chain=others)):
        assert f"shows {count} certificates" in str(error) or "TLS failed" in str(error)
    assert parsed == []


def test_row_29_a_chain_that_leads_somewhere():
    """Each signed by the next one: nobody follows it."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(21)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{n}")]) for n in range(22)]
    made = []
    for n in range(20):
        read = x509.load_der_x509_certificate(forge(own=keys[n])[0])
        builder = x509.CertificateBuilder(
            names[n + 1],
            names[n],
            keys[n].public_key(),
            n + 1,
            read.not_valid_before_utc,
            read.not_valid_after_utc,
        )
        for extension in (*read.extensions,):
            builder = builder.add_extension(extension.value, extension.critical)
        signed = builder.sign(keys[n + 1], SHA256())
        made.append(signed.public_bytes(Encoding.DER))
    for error in attack(lambda initiator: Stranger(initiator, (made[0], keys[0]), chain=made[1:])):
        assert "TLS failed" in str(error)


def test_row_31_critical_or_not():
    for critical in (True, False):
        shown = forge(lambda spki, critical=critical: [libp2p(OTHER, spki, critical)])
        for initiator in (True, False):
            victim, villain = Side(initiator), Stranger(not initiator, shown)
            pair = (victim, villain) if initiator else (villain, victim)
            assert shake(*pair) == [None, None] and victim.events == ["open"]


@pytest.mark.parametrize("first", [True, False])
def test_row_31_a_foreign_critical_extension(first):
    def foreign(spki):
        both = [(unrecognized("1.2.3.4"), True), libp2p(OTHER, spki)]
        return both if first else both[::-1]

    for error in attack_with(foreign):
        assert "unknown critical" in str(error)


def test_row_37_another_peer_than_dialed():
    for error in attack(with_certificate(forge()), expected=SERVER.peer_id):
        assert type(error) is PeerIdMismatch
        assert str(OTHER.peer_id) in str(error) and str(SERVER.peer_id) in str(error)


def test_row_37_the_dialer_says_nothing_to_another_peer():
    client, server = Side(True, expected=SERVER.peer_id), Stranger(False, forge())
    server.feed(client.take())
    assert type(client.feed(server.take())) is PeerIdMismatch
    assert client.take() == b""  # neither who it is nor why


def test_row_19_a_dear_rsa_key_is_refused_before_it_is_used():
    p, q = (rsa.generate_private_key(65537, 2048).private_numbers().p for _ in range(2))
    phi = (p - 1) * (q - 1)
    e = 2**1000 + 1
    while gcd(e, phi) != 1:
        e += 2
    d = pow(e, -1, phi)
    own = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(e, p * q)
    ).private_key(unsafe_skip_rsa_key_validation=True)
    for error in attack(with_certificate(forge(own=own))):
        assert "verify failed" in str(error)


# Handshakes


def test_row_30_close_notify_during_the_handshake():
    plain = bytes.fromhex("15030300020100")
    for initiator in (True, False):
        for pieces in ([plain], one_by_one(plain), [plain * 50]):
            victim = Side(initiator)
            victim.take()
            error = victim.feed(b"".join(pieces), lambda data, pieces=pieces: pieces)
            error = error or victim.feed_eof()
            assert isinstance(error, HandshakeError) and victim.events == []
    # After the hellos, in the middle of everything.
    client, server = Side(True), Side(False)
    server.feed(client.take())
    assert isinstance(server.feed(plain) or server.feed_eof(), HandshakeError)
    assert server.events == []


def test_row_30_a_fatal_alert_at_every_stage():
    for code in (0, 10, 40, 42, 49, 80, 120, 255):
        for level in (1, 2, 9):
            for initiator in (True, False):
                victim = Side(initiator)
                victim.take()
                victim.feed(bytes((21, 3, 3, 0, 2, level, code)) * 10)
                assert victim.feed_eof() is not None and victim.events == []


def in_records(content, size):
    parts = [content[pos : pos + size] for pos in range(0, len(content), size)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2) + part for part in parts)


@pytest.mark.parametrize("size", [1, 6, 400])
@pytest.mark.parametrize("cut", [one_by_one, lambda data: [data]])
def test_row_30_a_hello_in_small_records(size, cut):
    client, server = Side(True), Side(False)
    assert server.feed(in_records(client.take()[5:], size), cut) is None
    assert client.feed(server.take(), cut) is None
    assert server.feed(client.take(), cut) is None and server.events == ["open"]


def test_row_30_records_of_nothing():
    for kind in (20, 21, 22, 23):
        for stage in range(4):
            victim, error = rehearse(stage, lambda data, kind=kind: bytes((kind, 3, 3, 0, 0)) * 9)
            assert isinstance(error or victim.feed_eof(), HandshakeError) and victim.data == b""


def test_row_30_close_notify_after_the_handshake():
    for cut in (lambda data: [data], one_by_one):
        client, server = opened()
        assert server.feed(client.machine.seal([b"x"]) + client.machine.finish(), cut) is None
        assert server.events == [b"x"[:1], "end"] and server.feed_eof() is None
        assert server.feed(b"whatever follows " * 1000, cut) is None
        assert server.events == [b"x", "end"]


def test_an_older_client():
    villain = Stranger(True, forge(), newest=SSL.TLS1_2_VERSION)
    victim = Side(False)
    errors = shake(villain, victim)
    assert isinstance(errors[1], HandshakeError) and victim.events == []
    assert "protocol version" in str(villain.error)


def test_an_older_server():
    client = Side(True)
    errors = shake(client, Stranger(False, forge(), newest=SSL.TLS1_2_VERSION))
    assert isinstance(errors[0], HandshakeError) and client.events == []


def rehearse(stage, damage):
    """A new pair as far as ``stage``, the next flight as ``damage`` makes it; the receiver."""
    client, server = Side(True), Side(False)
    for turn in range(stage + 1):
        here, there = (client, server) if turn % 2 == 0 else (server, client)
        data = here.take()
        if turn >= 2:
            data += here.machine.seal([b"data"])
        there.meant = data
        error = there.feed(damage(data) if turn == stage else data)
        assert turn == stage or error is None
    return there, error


@pytest.mark.parametrize("stage", range(4))
def test_garbage_at_every_stage(stage):
    for junk in (
        b"\0" * 50,
        b"\xff" * 70_000,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x13/multistream/1.0.0\n",
    ):
        victim, error = rehearse(stage, lambda data, junk=junk: junk)
        assert isinstance(error, HandshakeError) and victim.data == b""
        record = b"\x17\x03\x03" + len(junk[:9000]).to_bytes(2) + junk[:9000]
        victim, error = rehearse(stage, lambda data, record=record: record)
        assert isinstance(error, HandshakeError) and victim.data == b""
        assert victim.machine.open == (stage == 3)


def ends_of_records(data):
    pos = 0
    while pos < len(data):
        pos += 5 + int.from_bytes(data[pos + 3 : pos + 5])
        yield pos


@pytest.mark.parametrize("stage", range(4))
def test_cut_off_at_every_byte(stage):
    """To ask about the end changes nothing, so that one handshake serves for all cuts."""
    victim, error = rehearse(stage, lambda data: b"")
    data, asked = victim.meant, []
    assert error is None
    for size in range(len(data)):
        error = victim.feed_eof()
        # A server cannot tell an end between two records from one in order.
        between = stage == 2 and victim.machine.open and size in ends_of_records(data)
        assert between or isinstance(error, HandshakeError), size
        assert victim.data == b""
        asked.append(between)
        assert victim.feed(data[size : size + 1]) is None
    assert sum(asked) == (stage == 2) and victim.machine.open == (stage > 0)
    assert victim.data == (b"data" if stage > 1 else b"")


@settings(deadline=None, max_examples=120)
@given(st.integers(0, 3), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_damaged_byte_anywhere(stage, place, change):
    def damage(data):
        damaged = bytearray(data)
        damaged[int(place * len(data))] ^= change
        return bytes(damaged)

    victim, error = rehearse(stage, damage)
    error = error or victim.feed_eof()
    # The version in the header of a record means nothing and is not protected.
    assert isinstance(error, HandshakeError) or victim.data in (b"", b"data")
    if stage < 2 and victim.machine.open:
        assert error is not None


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 3), st.binary(max_size=300), st.sampled_from([20, 21, 22, 23, None]))
def test_any_bytes_at_every_stage(stage, junk, kind):
    header = b"" if kind is None else bytes((kind, 3, 3)) + len(junk).to_bytes(2)
    victim, error = rehearse(stage, lambda data: header + junk)
    assert isinstance(error or victim.feed_eof(), HandshakeError)
    assert victim.data == b""


def test_the_hello_is_short():
    """A long list of protocols costs a time that grows with its square."""
    names = [f"/{n}" for n in range(4000)]
    victim = Side(False)
    error = victim.feed(Stranger(True, forge(), alpn=names).take())
    assert f"more than {MAX_HELLO} bytes" in str(error)
    names = [f"{n % 10}" for n in range(6000)]
    hello = Stranger(True, forge(), alpn=names).take()
    assert len(hello) < MAX_HELLO
    best = float("inf")
    for _ in range(5):
        victim = Side(False)
        start = time.process_time()
        assert "ALPN" in str(victim.feed(hello))
        best = min(best, time.process_time() - start)
    assert best < 0.02


def test_memory_is_bounded_during_the_handshake():
    flood = b"\x16\x03\x03\x40\x00" + b"\x0b\xff\xff\xff" + bytes(16_380)
    tracemalloc.start()
    try:
        for initiator in (True, False):
            victim = Side(initiator)
            taken = 0
            while victim.feed(flood) is None:
                taken += len(flood)
            assert taken <= MAX_HANDSHAKE
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_HANDSHAKE
    finally:
        tracemalloc.stop()


class Rekeying(Stranger):
    """A server that goes on by itself after the handshake, with keys that it renews."""

    def __init__(self):
        self.lines = []
        super().__init__(False, forge(), log=lambda _, line: self.lines.append(line.decode()))

    def begin(self):
        """Once the handshake is over: the library has said two tickets."""
        (line,) = (one for one in self.lines if one.startswith("SERVER_TRAFFIC_SECRET_0"))
        self._use(bytes.fromhex(line.split()[2]))
        self.sent = 2

    def _use(self, secret):
        self.secret, self.sent = secret, 0
        self.aead = AESGCM(expand(secret, b"key", 16))
        self.iv = int.from_bytes(expand(secret, b"iv", 12))

    def record(self, content, kind):
        header = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2)
        nonce = (self.iv ^ self.sent).to_bytes(12)
        self.sent += 1
        return header + self.aead.encrypt(nonce, content + bytes((kind,)), header)

    def update(self, *, answer):
        """The message by which our keys change, and maybe the other's."""
        message = self.record(b"\x18\0\0\x01" + bytes((answer,)), 22)
        self._use(expand(self.secret, b"traffic upd", 32))
        return message


def expand(secret, label, size):
    label = b"tls13 " + label
    info = size.to_bytes(2) + bytes((len(label),)) + label + b"\0"
    return HKDFExpand(SHA256(), size, info).derive(secret)


def rekeying():
    client, server = Side(True), Rekeying()
    assert shake(client, server) == [None, None]
    server.begin()
    return client, server


@pytest.mark.parametrize("cut", [one_by_one, lambda data: [data]])
def test_key_updates(cut):
    client, server = rekeying()
    data = server.record(b"a", 23) + server.update(answer=False) + server.record(b"b", 23)
    assert client.feed(data, cut) is None
    assert client.data == b"ab" and client.take() == b""
    data = server.update(answer=True) + server.record(b"c", 23) + server.update(answer=True)
    assert client.feed(data, cut) is None and client.data == b"abc"
    # The answer is on its way before anything is sealed under the new keys.
    assert client.take().startswith(b"\x17\x03\x03\0\x16")
    assert client.machine.seal([b"x"])


def test_key_updates_without_end():
    client, server = rekeying()
    taken = 0
    while (error := client.feed(server.record(b"a", 23) + server.update(answer=True))) is None:
        taken += 1
        assert taken < 1000
    assert "over and over" in str(error) and taken > 50
    assert len(client.take()) <= 2 * MAX_ASIDES
    # It is a matter of what we say meanwhile.
    client, server = rekeying()
    for _ in range(3 * taken):
        assert client.feed(server.update(answer=True)) is None
        client.machine.seal([b"x"])


def test_tickets_without_end_take_no_memory():
    client, server = rekeying()
    nonce = b"\x02\0\x07"
    body = bytes(8) + nonce + b"\x10\0" + bytes(0x1000) + b"\0\0"
    ticket = b"\x04" + len(body).to_bytes(3) + body
    tracemalloc.start()
    try:
        for _ in range(300):
            assert client.feed(server.record(ticket, 22)) is None
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()
    assert client.take() == b"" and client.events == ["open"]


@pytest.mark.parametrize(
    "message",
    [
        b"\x18\0\0\x01\x02",  # a key update of no kind
        b"\x18\0\0\0",
        b"\0\0\0\0",  # a hello request
        b"\x01\0\0\0",  # a hello
        b"\x0d\0\0\x03\0\0\0",  # a late request for a certificate
        b"\x14\0\0\x20" + bytes(32),
        b"\xff\0\0\0",
        b"",
    ],
)
def test_handshake_messages_after_the_handshake(message):
    client, server = rekeying()
    assert isinstance(client.feed(server.record(message, 22)), HandshakeError)
    assert client.events == ["open"]


# Secrets


def test_row_39_nothing_shows_or_copies_a_key():
    client, server = opened()
    shown = make_certificate(CLIENT, NOW)
    credentials = provider_module.Credentials(*shown)
    session = credentials.session(initiator=True, alpn=["libp2p"])
    secrets = [
        shown[1].private_numbers().private_value.to_bytes(32),
        shown[1].private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        CLIENT.encode()[4:36],
    ]
    for thing in (credentials, session, client.machine, server.machine):
        for take in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="neither pickled nor copied"):
                take(thing)
        assert not hasattr(thing, "__dict__")
        for secret in secrets:
            for text in (repr(thing), str(thing), f"{thing}"):
                assert secret.hex() not in text and repr(secret)[2:-1] not in text


def test_row_39_nothing_in_the_log_of_a_failed_handshake():
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.root.addHandler(handler)
    level, logging.root.level = logging.root.level, logging.DEBUG
    shown = make_certificate(CLIENT, NOW)
    try:
        victim = Side(True, shown=shown, expected=SERVER.peer_id)
        villain = Stranger(False, forge())
        villain.feed(victim.take())
        try:
            victim.machine.receive(villain.take(), 1.0)
        except HandshakeError as error:
            logging.exception("%s %r", victim.machine, victim.machine)
            for chunk in traceback.TracebackException.from_exception(
                error, capture_locals=True
            ).format():
                log.write(chunk)
    finally:
        logging.root.level = level
        logging.root.removeHandler(handler)
    text = log.getvalue()
    assert len(text) > 1000 and "PeerIdMismatch" in text
    value = shown[1].private_numbers().private_value
    for secret in (value.to_bytes(32), CLIENT.encode()[4:36]):
        assert secret.hex() not in text and repr(secret)[2:-1] not in text
    assert str(value) not in text


def test_row_41_a_forked_child_neither_seals_nor_reads():
    """In a process of its own: pytest's may have threads, with which a fork is unsafe."""
    program = textwrap.dedent("""
        import os, sys
        sys.path[:0] = %r
        from tls_pair import Side, opened, shake
        from anyp2p_core.errors import LocalError

        client, server = opened()
        young = Side(True)
        sealed = server.machine.seal([b"x"])
        child = os.fork()
        if child == 0:
            refused = 0
            for call in (
                lambda: client.machine.seal([b"x"]),
                lambda: client.machine.receive(sealed, 1.0),
                lambda: client.machine.finish(),
                lambda: young.machine.receive(b"\\x16\\x03\\x03\\0\\0", 1.0),
            ):
                try:
                    call()
                except LocalError as error:
                    refused += "forked" in str(error)
            opened()  # what begins in the child is fine
            os._exit(refused)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 4, status
        assert client.feed(sealed) is None and client.data == b"x"
        assert server.feed(client.machine.seal([b"y"])) is None
    """) % ([path for path in sys.path if path],)
    subprocess.run([sys.executable, "-c", program], check=True)


def test_nothing_here_uses_a_default_clock():
    """The time that judges is the caller's: the same certificate at two times."""
    shown = forge(start=NOW + 50 * 365 * 86400)
    victim, villain = Side(False, wall=NOW + 51 * 365 * 86400 - 86400), Stranger(True, shown)
    assert shake(villain, victim) == [None, None] and victim.events == ["open"]
    assert tls_module.PROTOCOL == "/tls/1.0.0"
