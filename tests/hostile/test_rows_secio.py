"""secio under attack: whatever comes, a peer's error or patience, and nothing passed on."""

import logging
import random
import subprocess
import sys
import time
import traceback
import tracemalloc

import pytest
import secio_peer
from hypothesis import given, settings, strategies as st
from node_pair import CRYPTO, LOCAL, REMOTE, make_node
from secio_peer import CHOSEN, Ours, Theirs, at_exchange, framed, opened, shaken
from stranger import one_by_one

from anyp2p.providers.entropy import OsEntropy
from anyp2p_core import ConnectionClosed, HandshakeError, PrivateKey, RemoteError
from anyp2p_core.multistream import encode
from anyp2p_core.secio import MAX_FRAME, MAX_HANDSHAKE, SecioSecurity

KEY, PEER, OTHER = (
    PrivateKey.generate(CRYPTO, secio_peer.entropy("row", number)) for number in range(3)
)


def ours(**options):
    return Ours(KEY, CRYPTO, **options)


def recording():
    """What an honest peer says to a machine with this entropy, message by message."""
    side, peer = ours(), Theirs(PEER)
    proposal = shaken(side, peer)
    return [
        framed(peer.proposal),
        peer.exchange(proposal),
        peer.sending.frame(peer.remote.rand),
        peer.sending.frame(b"the first"),
        peer.sending.frame(b"the second"),
    ]


SAID = recording()
WHOLE = b"".join(SAID)
PLAIN = b"the firstthe second"


def fed(*pieces):
    """The machine, and how it ended: None, or the peer's error."""
    side = ours()
    try:
        side.feed(*pieces)
        side.channel.receive_eof()
    except RemoteError as error:
        assert isinstance(error, HandshakeError)
        return side, error
    return side, None


def test_the_honest_peer():
    for pieces in ([WHOLE], one_by_one(WHOLE)):
        side, error = fed(*pieces)
        assert error is None and side.data == PLAIN


# Truncation


def test_truncated_at_every_byte():
    complete = {sum(map(len, SAID[:count])) for count in (3, 4, 5)}
    for size in range(len(WHOLE) + 1):
        side, error = fed(WHOLE[:size])
        assert (error is None) == (size in complete)
        assert PLAIN.startswith(side.data) and side.data in (b"", b"the first", PLAIN)


@pytest.mark.parametrize("number", range(5))
def test_every_message_cut_and_its_length_corrected(number):
    body = SAID[number][4:]
    for size in range(0, len(body), 1 if number != 1 else 3):
        for changed in (body[:size], body[size + 1 :], body[:size] + body[size + 1 :]):
            side, error = fed(*SAID[:number], framed(changed))
            assert error is not None and side.data in (b"", b"the first")
            assert side.opened == (number > 2)


# Flipped bits


@pytest.mark.parametrize("number", range(5))
def test_every_bit_counts(number):
    message = SAID[number]
    before, after = SAID[:number], SAID[number + 1 :]
    choice = random.Random(number)
    for at in range(len(message)):
        # All bits of what is parsed; of what is only signed or sealed, one of each byte.
        for bit in range(8) if at < 24 else (choice.randrange(8),):
            changed = bytearray(message)
            changed[at] ^= 1 << bit
            side, error = fed(b"".join(before) + bytes(changed) + b"".join(after))
            assert error is not None, (number, at, bit)
            assert side.opened == (number > 2)
            assert side.data == (b"the first" if number == 4 else b"")


def test_every_field_of_the_handshake_flipped_by_one_who_signs():
    """The peer itself lies: it signs what it says, so that only the checks can refuse it."""
    proposal = ours().messages()[0]
    peer = Theirs(PEER)
    good = peer.propose()
    for at in range(4, len(good)):
        changed = bytearray(good)
        changed[at] ^= 1 << at % 8
        side = ours()
        peer.proposal = bytes(changed[4:])
        try:
            side.feed(bytes(changed))
            side.feed(peer.exchange(proposal))
        except HandshakeError:
            assert not side.opened and not side.seen
            continue
        # It may have changed its nonce or a name that is not chosen; then it gets no further.
        assert not side.opened and not side.seen
    exchange = peer.exchange(proposal)
    for at in range(6, 6 + 65):
        point = bytearray(exchange[6 : 6 + 65])
        point[at - 6] ^= 1 << at % 8
        side, peer = ours(), Theirs(PEER)
        proposal = at_exchange(side, peer)
        with pytest.raises(HandshakeError, match="point of the curve"):
            side.feed(peer.exchange(proposal, point=bytes(point)))
        assert not side.opened


# Length bombs


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("size", [0x7FFFFFFF, 0xFFFFFFFF, 0x01000000, 0x00800000])
def test_length_bombs_cost_nothing(number, size):
    side = ours()
    side.feed(*SAID[:number])
    tracemalloc.start()
    try:
        with pytest.raises(HandshakeError, match=r"of \d+ bytes"):
            side.feed(*one_by_one(size.to_bytes(4, "big")))
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("number", range(4))
def test_a_promised_frame_costs_what_came_of_it(number):
    limit = MAX_HANDSHAKE if number < 2 else MAX_FRAME
    side = ours()
    side.feed(*SAID[:number])
    pieces = one_by_one(bytes(10_000))
    tracemalloc.start()
    try:
        side.feed(limit.to_bytes(4, "big"), bytes(1000))
        assert tracemalloc.get_traced_memory()[1] < 50_000
        start = time.process_time()
        for piece in pieces:
            side.feed(piece)
        assert time.process_time() - start < 1
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()
    with pytest.raises(HandshakeError, match="in the middle"):
        side.channel.receive_eof()


def test_many_tiny_frames_hold_nothing():
    side, peer = ours(), Theirs(PEER)
    opened(side, peer)
    frames = b"".join(peer.sending.frame(b"") for _ in range(20_000))
    tracemalloc.start()
    try:
        side.feed(frames)
        assert side.seen == [] and tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


# What is missing, huge, unknown, or of somebody else


def test_messages_in_another_order():
    for order in (
        (1,),
        (2,),
        (3,),
        (0, 0),
        (0, 2),
        (0, 1, 1),
        (0, 1, 0),
        (0, 1, 3),
        (0, 1, 2, 2, 2),
    ):
        side, error = fed(*(SAID[number] for number in order))
        if order == (0, 1, 2, 2, 2):
            # No place in the stream is authentic here: garbage, as the docstring warns.
            assert error is None and side.opened and len(side.data) == 32
        else:
            assert error is not None and not side.opened and not side.seen


def test_repeated_handshakes_of_another_connection():
    side = Ours(KEY, CRYPTO, name="another connection")
    with pytest.raises(HandshakeError, match="did not sign"):
        side.feed(WHOLE)
    assert not side.opened


@pytest.mark.parametrize("name", ["rand", "public_key", "exchanges", "ciphers", "hashes"])
@pytest.mark.parametrize("value", [None, b"", b"\0", b"\xff" * 15_000, b"," * 15_000, b"," * 900])
def test_every_field_of_a_proposal(name, value):
    start = time.process_time()
    side, error = fed(Theirs(PEER).propose(**{name: value}))
    assert error is not None and not side.opened
    assert "in the middle" not in str(error)  # it was refused, and not waited for more
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize("name", ["point", "signature"])
@pytest.mark.parametrize("value", [None, b"", b"\0", b"\4", b"\xff" * 15_000, bytes(65)])
def test_every_field_of_an_exchange(name, value):
    side, peer = ours(), Theirs(PEER)
    proposal = at_exchange(side, peer)
    with pytest.raises(HandshakeError):
        side.feed(peer.exchange(proposal, **{name: value}))
    assert not side.opened


def test_the_key_of_another_peer():
    """Claiming a key is not enough: the Exchange has to be signed with it."""
    side, liar = ours(), Theirs(PEER)
    (proposal,) = side.messages()
    side.feed(liar.propose(public_key=OTHER.public.encode()))
    with pytest.raises(HandshakeError, match=f"{OTHER.peer_id} did not sign"):
        side.feed(liar.exchange(proposal))


def test_curves_ciphers_and_hashes_of_the_past_are_never_used():
    for field, names in (
        ("exchanges", ["P-224", "P-192", "secp256k1", "Curve25519", "p-256"]),
        ("ciphers", ["Blowfish", "AES-128-CBC", "AES-256-CBC", "NULL", "", "None", "3DES"]),
        ("hashes", ["MD5", "SHA1", "SHA224", "SHA-256", ""]),
    ):
        for name in names:
            side, error = fed(Theirs(PEER).propose(**{field: name.encode()}))
            assert error is not None and "of ours" in str(error) and not side.opened


def test_curves_do_not_mix():
    """A point of the other curve, signed and all."""
    for curve in ("P-384", "P-521"):
        side, peer = ours(), Theirs(PEER)
        proposal = at_exchange(side, peer)
        with pytest.raises(HandshakeError, match="no uncompressed point"):
            side.feed(peer.exchange(proposal, (curve, *CHOSEN[1:])))


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200), st.integers(0, 5), st.booleans())
def test_garbage(data, keep, with_length):
    data = framed(data) if with_length else data
    results = []
    for pieces in ([data], one_by_one(data)):
        side, error = fed(*SAID[:keep], *pieces)
        assert error is not None or not data
        assert side.data == b"".join([b"the first", b"the second"][: max(0, keep - 3)])
        results.append(str(error))
    assert results[0] == results[1]


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300), st.integers(0, 3))
def test_through_a_node(data, keep):
    """A node that was told to accept secio lives on, and gives one reason of the peer's."""
    security = SecioSecurity(KEY, CRYPTO, secio_peer.entropy("secio", "ours"), secio_peer.SECIO)
    node = make_node(KEY, security=[security])
    conn = node.connected(None, LOCAL, REMOTE, 100.0)
    node.receive(conn, encode("/multistream/1.0.0") + encode("/secio/1.0.0"), 100.0)
    node.receive(conn, b"".join(SAID[:keep]) + data, 100.0)
    node.data_to_send(conn, 100.0)
    node.receive_eof(conn, 100.0)
    node.disconnected(conn, None, 100.0)
    (closed,) = (event for event in node.poll() if isinstance(event, ConnectionClosed))
    assert isinstance(closed.error, RemoteError) and node.connections() == []


# Secrets


def test_row_39_no_secret_in_what_a_failing_handshake_says(caplog):
    caplog.set_level(logging.DEBUG)
    log = logging.getLogger("anyp2p.test")
    drawn, keyed = [], []

    class Watched:
        """The provider, with the secrets that pass through it."""

        def ephemeral(self, exchange, entropy):
            made = secio_peer.SECIO.ephemeral(exchange, entropy)

            class Key:
                public = made.public

                def exchange(self, public):
                    keyed.append(made.exchange(public))
                    return keyed[-1]

            return Key()

        def aes_ctr(self, key, iv):
            keyed.extend((key, iv))
            return secio_peer.SECIO.aes_ctr(key, iv)

    def entropy(size):
        drawn.append(OsEntropy()(size))
        return drawn[-1]

    out = []
    security = SecioSecurity(KEY, CRYPTO, entropy, Watched())
    channel = security.start(initiator=False, expected=None, muxers=(), write=out.append, wall=0.0)
    peer = Theirs(PEER)
    channel.receive(peer.propose(), 0.0)
    channel.receive(peer.exchange(out[0][4:]), 0.0)
    for _ in range(3):
        with pytest.raises(HandshakeError) as caught:
            channel.receive(framed(bytes(100)), 0.0)
        log.warning("%s %r %s %r", caught.value, caught.value, channel, security)
        log.error("%s", "".join(traceback.format_exception(caught.value)))
        log.error("%s", [channel, security, out])
    secrets = [*drawn[1:], *keyed, KEY.encode()[-64:-32]]  # the first draw is the nonce: public
    assert len(secrets) == 1 + 5 + 1
    for secret in secrets:
        assert secret.hex() not in caplog.text and repr(secret)[2:-1] not in caplog.text


def test_row_41_after_a_fork_neither_direction_works():
    """In a process of its own: pytest's may have threads, with which a fork is unsafe."""
    program = """
import os
from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsEntropy
from anyp2p.providers.secio import OpensslSecio
from anyp2p_core import LocalError, PrivateKey
from anyp2p_core.secio import SecioSecurity
crypto, entropy, out, sides, heard = Cryptography(), OsEntropy(), ([], []), [], []
for mine in out:
    key = PrivateKey.generate(crypto, entropy)
    security = SecioSecurity(key, crypto, entropy, OpensslSecio())
    sides.append(security.start(
        initiator=True, expected=None, muxers=(), write=mine.append, wall=0.0
    ))
for _ in range(3):
    said = [mine.pop(0) for mine in out]
    sides[0].receive(said[1], 0.0)
    sides[1].receive(said[0], 0.0)
a, b = sides
b.on_data = lambda data, now: heard.append(data)
b.receive(a.seal([b"one"]), 0.0)
sealed = a.seal([b"two"])
assert a.open and heard == [b"one"]
child = os.fork()
if child == 0:
    failed = 0
    for act in (lambda: a.seal([b"twice under one key stream"]), lambda: b.receive(sealed, 0.0)):
        try:
            act()
        except LocalError:
            failed += 1
    os._exit(10 + failed if heard == [b"one"] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 12
b.receive(sealed, 0.0)
assert heard == [b"one", b"two"]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
