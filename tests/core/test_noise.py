import copy
import json
import pickle
import tracemalloc
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsEntropy
from anyp2p_core import noise as noise_module
from anyp2p_core.crypto import KeyType
from anyp2p_core.errors import HandshakeError, LocalError, MuxerError, PeerIdMismatch
from anyp2p_core.keys import PrivateKey
from anyp2p_core.multistream import Dialer, Listener
from anyp2p_core.noise import (
    MAX_MUXERS,
    MAX_PAYLOAD,
    MAX_PLAINTEXT,
    Handshake,
    Noise,
    NoiseKeys,
)
from anyp2p_core.varint import delimited

VECTORS = Path(__file__).parents[2] / "conformance" / "vectors"
NOISE = json.loads((VECTORS / "noise.json").read_text())
JS = json.loads((VECTORS / "noise_libp2p_transcript_js.json").read_text())

CRYPTO = Cryptography()
XX = "Noise_XX_25519_ChaChaPoly_SHA256"
YAMUX = ("/yamux/1.0.0",)
DOMAIN = b"noise-libp2p-static-key:"
TAG = 16


class Draws:
    """Entropy that gives what it was told to give, or a counter's hash."""

    simulated = True

    def __init__(self, *draws, seed=""):
        self.draws = list(draws)
        self.seed = seed
        self.count = 0

    def __call__(self, n):
        self.count += 1
        if self.draws:
            return self.draws.pop(0)
        assert n == 32
        return sha256(f"{self.seed} {self.count}".encode()).digest()


@cache
def identity(name, kind=KeyType.ED25519):
    entropy = OsEntropy() if kind == KeyType.RSA else Draws(seed=name)
    return PrivateKey.generate(CRYPTO, entropy, kind)


@cache
def keys(name, kind=KeyType.ED25519):
    return NoiseKeys(identity(name, kind), CRYPTO, Draws(seed=f"static {name}"))


@dataclass
class Side:
    """A machine and everything it did, in order."""

    noise: Noise
    out: list
    events: list = field(default_factory=list)

    def __post_init__(self):
        self.noise.on_open = lambda: self.events.append("open")
        self.noise.on_data = lambda data, now: self.events.append((data, now))

    @property
    def received(self):
        return b"".join(event[0] for event in self.events if event != "open")

    def feed(self, pieces):
        """HandshakeError's class if one is raised, else None."""
        try:
            for piece in pieces:
                self.noise.receive(piece, 1.5)
        except HandshakeError as error:
            return type(error)
        return None

    def take(self):
        data = b"".join(self.out)
        self.out.clear()
        return data


def make(role, *, name=None, ephemeral=None, muxers=YAMUX, **arguments):
    """``role`` is "initiator" or "responder"; equal arguments make equal machines."""
    name = name or role
    draws = Draws(ephemeral) if ephemeral else Draws(seed=f"ephemeral {name}")
    arguments.setdefault("keys", keys(name))
    out = []
    machine = Noise(
        initiator=role == "initiator",
        crypto=CRYPTO,
        entropy=draws,
        write=out.append,
        muxers=muxers,
        **arguments,
    )
    return Side(machine, out)


def shake(initiator, responder):
    responder.noise.receive(initiator.take(), 0.5)
    initiator.noise.receive(responder.take(), 0.5)
    responder.noise.receive(initiator.take(), 0.5)
    return initiator, responder


def open_pair(initiator=None, responder=None):
    return shake(make("initiator", **initiator or {}), make("responder", **responder or {}))


def one_by_one(data):
    return [data[i : i + 1] for i in range(len(data))]


def cuts(data, positions):
    edges = [0, *sorted({p % (len(data) + 1) for p in positions}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def frames(data):
    """The bodies of complete frames."""
    found = []
    while data:
        size = int.from_bytes(data[:2], "big")
        assert len(data) >= 2 + size
        found.append(data[2 : 2 + size])
        data = data[2 + size :]
    return found


def frame(body):
    return len(body).to_bytes(2, "big") + body


# Published vectors.


def plain_side(initiator, static, ephemeral, prologue):
    return Handshake(
        initiator, CRYPTO.x25519(static), CRYPTO, Draws(ephemeral), bytes.fromhex(prologue)
    )


def run_vector(initiator, responder, messages, first_sender):
    """Both roles through all messages; the sender of transport messages alternates."""
    for index, (payload, ciphertext) in enumerate(messages[:3]):
        writer, reader = (initiator, responder) if index != 1 else (responder, initiator)
        assert writer.write(payload) == ciphertext
        assert reader.read(ciphertext) == payload
    assert initiator.hash == responder.hash
    ciphers = {"initiator": initiator.split(), "responder": responder.split()}
    sender, receiver = first_sender
    counters = {"initiator": 0, "responder": 0}
    for payload, ciphertext in messages[3:]:
        nonce = bytes(4) + counters[sender].to_bytes(8, "little")
        counters[sender] += 1
        assert ciphers[sender][0].encrypt(nonce, payload, b"") == ciphertext
        assert ciphers[receiver][1].decrypt(nonce, ciphertext, b"") == payload
        sender, receiver = receiver, sender


@pytest.mark.parametrize(
    "vector",
    [vector for vector in NOISE["snow_cacophony"] if vector["protocol_name"] == XX],
    ids=lambda vector: vector["file"],
)
def test_vectors_with_payloads(vector):
    h = bytes.fromhex
    initiator = plain_side(
        True, h(vector["init_static"]), h(vector["init_ephemeral"]), vector["init_prologue"]
    )
    responder = plain_side(
        False, h(vector["resp_static"]), h(vector["resp_ephemeral"]), vector["resp_prologue"]
    )
    messages = [(h(m["payload"]), h(m["ciphertext"])) for m in vector["messages"]]
    run_vector(initiator, responder, messages, ("responder", "initiator"))
    assert initiator.remote_static == CRYPTO.x25519(h(vector["resp_static"])).public
    assert responder.remote_static == CRYPTO.x25519(h(vector["init_static"])).public
    if "handshake_hash" in vector:
        assert initiator.hash.hex() == vector["handshake_hash"]


@pytest.mark.parametrize("vector", NOISE["flynn"])
def test_more_vectors(vector):
    assert vector["handshake"] == XX
    h = bytes.fromhex
    prologue = vector.get("prologue", "")
    initiator = plain_side(
        True, h(vector["init_static"]), h(vector["gen_init_ephemeral"]), prologue
    )
    responder = plain_side(
        False, h(vector["resp_static"]), h(vector["gen_resp_ephemeral"]), prologue
    )
    messages = [(h(vector[f"msg_{i}_payload"]), h(vector[f"msg_{i}_ciphertext"])) for i in range(5)]
    run_vector(initiator, responder, messages, ("initiator", "responder"))


def test_hkdf_vector():
    vector = NOISE["hkdf"]
    pair = noise_module._hkdf(bytes.fromhex(vector["ck"]), bytes.fromhex(vector["ikm"]))
    assert [key.hex() for key in pair] == [vector["k1"], vector["k2"]]


# The recorded session with a js peer, in both roles.


@cache
def js_keys(role):
    ours = JS[role]
    private = PrivateKey.generate(CRYPTO, Draws(bytes.fromhex(ours["identitySeed"])))
    assert str(private.peer_id) == ours["peerId"]
    return NoiseKeys(private, CRYPTO, Draws(bytes.fromhex(ours["staticPriv"])))


def js_stream(direction):
    """The recorded bytes of one direction, multistream excluded."""
    data = b"".join(bytes.fromhex(wire) for way, wire in JS["wire"] if way == direction)
    hello = delimited(b"/multistream/1.0.0\n") + delimited(b"/noise\n")
    assert data.startswith(hello)
    return data[len(hello) :]


JS_WRITES = {"initiator": js_stream("i->r"), "responder": js_stream("r->i")}
JS_PLAIN = {
    role: [bytes.fromhex(data) for way, data in JS["transport"] if way == direction]
    for role, direction in (("initiator", "i->r"), ("responder", "r->i"))
}
OTHER = {"initiator": "responder", "responder": "initiator"}
ROLES = ["initiator", "responder"]


def js_side(role, **arguments):
    ephemeral = bytes.fromhex(JS[role]["ephemeralPriv"])
    return make(role, keys=js_keys(role), ephemeral=ephemeral, **arguments)


def js_events(role):
    return ["open", *((data, 1.5) for data in JS_PLAIN[OTHER[role]])]


@pytest.mark.parametrize("role", ROLES)
def test_js_session_byte_for_byte(role):
    other = OTHER[role]
    assert js_keys(role).payload(YAMUX) == bytes.fromhex(JS[role]["payload"])
    side = js_side(role)
    assert side.feed([JS_WRITES[other]]) is None
    for data in JS_PLAIN[role]:
        side.out.append(side.noise.seal([data]))
    assert side.take() == JS_WRITES[role]
    assert side.events == js_events(role)
    assert str(side.noise.peer) == JS[other]["peerId"]
    assert side.noise.public_key.peer_id == side.noise.peer
    assert side.noise.muxer == JS["negotiated"]["mux"]


@pytest.mark.parametrize("role", ROLES)
def test_js_handshake_hash(role):
    draws = Draws(bytes.fromhex(JS[role]["ephemeralPriv"]))
    machine = Handshake(role == "initiator", js_keys(role).static, CRYPTO, draws, b"")
    ours, theirs = frames(JS_WRITES[role]), frames(JS_WRITES[OTHER[role]])
    if role == "initiator":
        assert machine.write(b"") == ours[0]
        assert machine.read(theirs[0]).hex() == JS["responder"]["payload"]
        assert machine.write(js_keys(role).payload(YAMUX)) == ours[1]
    else:
        assert machine.read(theirs[0]) == b""
        assert machine.write(js_keys(role).payload(YAMUX)) == ours[0]
        assert machine.read(theirs[1]).hex() == JS["initiator"]["payload"]
    assert machine.hash.hex() == JS["handshakeHash"]


@pytest.mark.parametrize("role", ROLES)
def test_js_session_with_its_multistream(role):
    wire = {way: b"" for way in ("i->r", "r->i")}
    for way, data in JS["wire"]:
        wire[way] += bytes.fromhex(data)
    inbound = wire["r->i" if role == "initiator" else "i->r"]
    out = []
    if role == "initiator":
        negotiation = Dialer(["/noise"], out.append)
    else:
        negotiation = Listener("/noise".__eq__, out.append)
    rest = negotiation.receive(inbound)
    side = js_side(role)
    assert side.feed([rest]) is None
    for data in JS_PLAIN[role]:
        side.out.append(side.noise.seal([data]))
    outbound = wire["i->r" if role == "initiator" else "r->i"]
    assert b"".join(out) + side.take() == outbound


# However the bytes are cut.


@pytest.mark.parametrize("role", ROLES)
def test_every_cut_in_two(role):
    data = JS_WRITES[OTHER[role]]
    whole = js_side(role)
    whole.feed([data])
    assert whole.events == js_events(role)
    for i in range(len(data) + 1):
        side = js_side(role)
        assert side.feed([data[:i], data[i:]]) is None
        assert side.events == whole.events
        assert side.out == whole.out
        side.noise.receive_eof()


@pytest.mark.parametrize("role", ROLES)
def test_byte_by_byte(role):
    side = js_side(role)
    assert side.feed([b"", *one_by_one(JS_WRITES[OTHER[role]]), b""]) is None
    assert side.events == js_events(role)


SIZES = [0, 1, 2, 100, 4079, 4080, 4081, MAX_PLAINTEXT, 5]


@cache
def long_session():
    """What a responder receives: a handshake, messages of all sizes, and a machine to fit it."""
    initiator, responder = make("initiator"), make("responder")
    data = initiator.take()
    responder.noise.receive(data, 0)
    initiator.noise.receive(responder.take(), 0)
    data += initiator.take()
    plain = [bytes([n % 251]) * size for n, size in enumerate(SIZES)]
    # An empty message, which our own seal never makes.
    cipher = initiator.noise._encrypt
    for message in plain:
        nonce = bytes(4) + initiator.noise._sent.to_bytes(8, "little")
        initiator.noise._sent += 1
        data += frame(cipher(nonce, message, b""))
    return data, [message for message in plain if message]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 2**18), max_size=12), st.integers(0, 400))
def test_long_messages_in_any_segments(positions, dense):
    data, plain = long_session()
    side = make("responder")
    # Some cuts anywhere, and a run of one-byte segments somewhere.
    start = positions[0] % len(data) if positions else 0
    pieces = cuts(data, [*positions, *range(start, start + dense)])
    assert side.feed(pieces) is None
    assert side.events == ["open", *((message, 1.5) for message in plain)]


@pytest.mark.parametrize("cut", [lambda data: [data], one_by_one], ids=["whole", "one_by_one"])
def test_long_messages_come_whole_and_as_bytes(cut):
    data, plain = long_session()
    side = make("responder")
    assert side.feed(cut(data)) is None
    assert side.events == ["open", *((message, 1.5) for message in plain)]
    assert {type(event[0]) for event in side.events[1:]} == {bytes}


@pytest.mark.parametrize("role", ROLES)
def test_row_34_truncation_at_every_byte(role):
    data = JS_WRITES[OTHER[role]]
    boundaries = []
    pos = 0
    for body in frames(data):
        pos += 2 + len(body)
        boundaries.append(pos)
    handshakes = 1 if role == "initiator" else 2
    fine = boundaries[handshakes - 1 :]
    for i in range(len(data) + 1):
        side = js_side(role)
        assert side.feed([data[:i]]) is None
        if i in fine:
            side.noise.receive_eof()
        else:
            what = "message" if side.noise.open else "handshake"
            with pytest.raises(HandshakeError, match=f"ended in the middle of .*{what}"):
                side.noise.receive_eof()


# Both roles together.


KINDS = list(KeyType)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ROLES)
def test_every_kind_of_identity(kind, role):
    special = make(role, keys=keys(role, kind), expected=identity(OTHER[role]).peer_id)
    plain = make(OTHER[role], expected=identity(role, kind).peer_id)
    shake(*((special, plain) if role == "initiator" else (plain, special)))
    for side, other in ((special, identity(OTHER[role])), (plain, identity(role, kind))):
        assert side.noise.open
        assert side.noise.peer == other.peer_id
        assert side.noise.public_key == other.public
    exchange(special, plain)


def exchange(one, other):
    for a, b in ((one, other), (other, one)):
        for data in (b"x", b"hello" * 100):
            b.noise.receive(a.noise.seal([data]), 2.5)
            assert b.events[-1] == (data, 2.5)


def test_each_message_is_one_write():
    initiator, responder = make("initiator"), make("responder")
    assert [len(data) for data in initiator.out] == [34]
    assert responder.out == []
    responder.noise.receive(initiator.take(), 0)
    assert len(responder.out) == 1
    initiator.noise.receive(responder.take(), 0)
    assert len(initiator.out) == 1


def test_message_3_is_written_before_on_open():
    initiator, responder = make("initiator"), make("responder")
    responder.noise.receive(initiator.take(), 0)
    written = []
    initiator.noise.on_open = lambda: written.extend(initiator.out)
    initiator.noise.receive(responder.take(), 0)
    assert written == initiator.out != []


def test_on_open_may_seal_and_set_the_next_layer():
    initiator, responder = make("initiator"), make("responder")
    got = []
    later = []

    def on_open():
        assert initiator.noise.open
        assert initiator.noise.peer == identity("responder").peer_id
        initiator.out.append(initiator.noise.seal([b"first"]))

    def first(data, now):
        got.append(data)
        responder.noise.on_data = lambda data, now: later.append(data)

    initiator.noise.on_open = on_open
    responder.noise.on_open = lambda: setattr(responder.noise, "on_data", first)
    responder.noise.receive(initiator.take(), 0)
    initiator.noise.receive(responder.take(), 0)
    # Message 3 and the data behind it arrive in one segment.
    responder.noise.receive(initiator.take() + initiator.noise.seal([b"second"]), 0)
    assert (got, later) == ([b"first"], [b"second"])


def test_callbacks_are_optional():
    out = []
    initiator = make("initiator")
    arguments = {"initiator": False, "keys": keys("responder"), "crypto": CRYPTO}
    responder = Noise(**arguments, entropy=Draws(seed="r"), write=out.append)
    responder.receive(initiator.take(), 0)
    initiator.noise.receive(out[0], 0)
    responder.receive(initiator.take() + initiator.noise.seal([b"unheard"]), 0)
    assert responder.open


def test_a_responder_spends_nothing_before_message_1():
    draws = Draws(seed="r")
    Noise(initiator=False, keys=keys("r"), crypto=CRYPTO, entropy=draws, write=lambda data: None)
    assert draws.count == 0


def test_every_connection_has_its_own_ephemeral():
    draws = Draws(seed="shared")
    out = []
    for _ in range(3):
        Noise(initiator=True, keys=keys("a"), crypto=CRYPTO, entropy=draws, write=out.append)
    assert len(set(out)) == 3


def test_prologue():
    pair = {"prologue": b"one"}, {"prologue": b"one"}
    assert open_pair(*pair)[0].noise.open
    initiator, responder = make("initiator", prologue=b"one"), make("responder", prologue=b"two")
    responder.noise.receive(initiator.take(), 0)
    assert initiator.feed([responder.take()]) is HandshakeError


MUXERS = [
    # initiator's, responder's, chosen
    (("/yamux/1.0.0",), ("/yamux/1.0.0",), "/yamux/1.0.0"),
    (("/a", "/b"), ("/b", "/a"), "/a"),
    (("/a", "/b"), ("/c", "/b"), "/b"),
    (("/a",), ("/b",), None),
    ((), ("/a",), None),
    (("/a",), (), None),
    ((), (), None),
    (tuple(f"/{n}" for n in range(MAX_MUXERS)), ("/99",), "/99"),
]


@pytest.mark.parametrize("initiators, responders, chosen", MUXERS)
def test_early_muxer(initiators, responders, chosen):
    initiator, responder = open_pair({"muxers": initiators}, {"muxers": responders})
    assert initiator.noise.muxer == responder.noise.muxer == chosen


# Sealing.


SEAL = [
    # sizes of chunks, sizes of messages
    ([], []),
    ([0], []),
    ([1], [1]),
    ([0, 5, 0, 7], [12]),
    ([12, 65507], [MAX_PLAINTEXT]),
    ([MAX_PLAINTEXT + 1], [MAX_PLAINTEXT, 1]),
    ([MAX_PLAINTEXT, MAX_PLAINTEXT], [MAX_PLAINTEXT] * 2),
    ([100_000, 100_000], [MAX_PLAINTEXT] * 3 + [200_000 - 3 * MAX_PLAINTEXT]),
]


@pytest.mark.parametrize("chunks, messages", SEAL)
def test_seal(chunks, messages):
    initiator, responder = open_pair()
    data = [bytes([n + 1]) * size for n, size in enumerate(chunks)]
    for _ in range(2):  # the counters agree afterwards as well
        responder.events.clear()
        sealed = initiator.noise.seal(data)
        assert type(sealed) is bytes
        assert [len(body) - TAG for body in frames(sealed)] == messages
        assert responder.feed([sealed]) is None
        assert [len(event[0]) for event in responder.events] == messages
        assert responder.received == b"".join(data)
    exchange(initiator, responder)


def test_seal_needs_an_open_channel():
    for side in (make("initiator"), make("responder")):
        with pytest.raises(LocalError, match="not open"):
            side.noise.seal([b"early"])


LAST = 2**64 - 1


def test_nonces_run_out():
    initiator, responder = open_pair()
    initiator.noise._sent = responder.noise._received = LAST - 1
    last = initiator.noise.seal([b"last"])
    with pytest.raises(LocalError, match="nonces"):
        initiator.noise.seal([b"one too many"])
    with pytest.raises(LocalError, match="nonces"):
        initiator.noise.seal([b"one too many"])
    assert responder.feed([last]) is None
    assert responder.received == b"last"
    assert responder.feed([frame(bytes(20))]) is HandshakeError
    with pytest.raises(HandshakeError, match="nonces"):
        responder.noise.receive(b"", 0)


def test_nonces_for_several_messages_are_there_for_all_or_none():
    initiator, responder = open_pair()
    initiator.noise._sent = responder.noise._received = LAST - 2
    with pytest.raises(LocalError, match="nonces"):
        initiator.noise.seal([bytes(2 * MAX_PLAINTEXT + 1)])
    assert responder.feed([initiator.noise.seal([bytes(2 * MAX_PLAINTEXT)])]) is None
    assert len(responder.received) == 2 * MAX_PLAINTEXT


# A layer above that fails.


def test_an_error_of_the_next_layer_ends_receiving_but_not_sealing():
    initiator, responder = open_pair()

    def refuse(data, now):
        raise MuxerError("bad frame", 1)

    responder.noise.on_data = refuse
    data = initiator.noise.seal([b"a"]) + initiator.noise.seal([b"b"])
    with pytest.raises(MuxerError):
        responder.noise.receive(data, 0)
    with pytest.raises(HandshakeError, match="bad frame"):
        responder.noise.receive(initiator.noise.seal([b"c"]), 0)
    assert initiator.feed([responder.noise.seal([b"go away"])]) is None
    assert initiator.received == b"go away"


# Nothing leaks.


def test_row_39_repr_says_what_matters_and_no_more():
    initiator, responder = make("initiator"), make("responder")
    assert repr(initiator.noise) == "<Noise initiator, in the handshake>"
    assert repr(responder.noise) == "<Noise responder, in the handshake>"
    shake(initiator, responder)
    assert str(identity("responder").peer_id) in repr(initiator.noise)
    responder.feed([bytes(100)])
    assert "failed" in repr(responder.noise)
    secrets = [sha256(b"static initiator 1").digest(), sha256(b"ephemeral initiator 1").digest()]
    shown = repr(initiator.noise) + repr(keys("initiator")) + repr(keys("initiator").static)
    for secret in secrets:
        assert secret.hex() not in shown
        assert repr(secret) not in shown


@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy])
def test_row_39_neither_pickled_nor_copied(act):
    handshake = Handshake(True, keys("a").static, CRYPTO, Draws(seed="a"), b"")
    for secret in (keys("a"), make("initiator").noise, open_pair()[1].noise, handshake):
        with pytest.raises(TypeError):
            act(secret)


# Tampering: one bit at a time.


def flips(data):
    for i in range(len(data)):
        for bit in range(8):
            yield data[:i] + bytes((data[i] ^ 1 << bit,)) + data[i + 1 :]


def test_every_bit_of_message_1_counts():
    for changed in flips(make("initiator").take()):
        responder = make("responder")
        if responder.feed([changed]) is None and responder.out:
            victim = make("initiator")
            victim.take()
            assert victim.feed([responder.take()]) is HandshakeError
            assert not victim.noise.open
            assert victim.out == []
        assert not responder.noise.open


def assert_rejected(side, data):
    """Refused, or waiting for bytes that can only be refused: at any rate never open."""
    if side.feed([data]) is None:
        with pytest.raises(HandshakeError):
            side.noise.receive_eof()
        assert side.feed([bytes(1 << 16)]) is HandshakeError
    assert side.events == []
    assert not side.noise.open
    assert not hasattr(side.noise, "peer")


def test_every_bit_of_message_2_counts():
    message = frames(JS_WRITES["responder"])[0]
    for changed in flips(frame(message)):
        side = js_side("initiator")
        side.take()
        assert_rejected(side, changed)
        assert side.out == []


def test_every_bit_of_message_3_counts():
    first, third = frames(JS_WRITES["initiator"])[:2]
    for changed in flips(frame(third)):
        side = js_side("responder")
        side.feed([frame(first)])
        assert_rejected(side, changed)


def test_every_bit_of_a_sealed_message_counts():
    sealed = open_pair()[0].noise.seal([b"sixteen bytes !!"])
    for changed in flips(sealed):
        _, side = open_pair()
        if side.feed([changed]) is None:
            with pytest.raises(HandshakeError, match="middle"):
                side.noise.receive_eof()
        assert side.events == ["open"]
    _, side = open_pair()
    assert side.feed([sealed]) is None
    assert side.received == b"sixteen bytes !!"


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(ROLES),
    st.booleans(),
    st.binary(max_size=300),
    st.lists(st.integers(0, 300), max_size=4),
)
def test_garbage_raises_or_waits(role, opened, garbage, positions):
    if opened:
        side = dict(zip(ROLES, open_pair(), strict=True))[role]
        side.events.clear()
    else:
        side = make(role)
    side.feed(cuts(garbage, positions))
    assert side.events == []


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(ROLES), st.binary(min_size=96, max_size=400))
def test_framed_garbage_is_refused(role, garbage):
    side = make(role)
    side.feed([frame(garbage), frame(garbage)])
    assert not side.noise.open


# The security catalogue.


def test_row_32_a_bad_tag_kills_the_channel():
    initiator, responder = open_pair()
    good = [initiator.noise.seal([bytes([n]) * 8]) for n in range(4)]
    bad = good[1][:-1] + bytes((good[1][-1] ^ 1,))
    with pytest.raises(HandshakeError, match="not authentic"):
        responder.noise.receive(good[0] + bad + good[1] + good[2], 3.5)
    # What came before the bad message was delivered; the counter stands where it stood.
    assert responder.events == ["open", (bytes(8), 3.5)]
    assert responder.noise._received == 1
    for data in (good[1], good[2], good[3], b""):
        with pytest.raises(HandshakeError, match="not authentic"):
            responder.noise.receive(data, 4.5)
    assert responder.events == ["open", (bytes(8), 3.5)]
    assert responder.noise._received == 1


def test_row_32_messages_in_another_order_or_twice():
    for order in ((1, 0), (0, 0), (0, 2)):
        initiator, responder = open_pair()
        sealed = [initiator.noise.seal([bytes([n])]) for n in range(3)]
        assert responder.feed([sealed[n] for n in order]) is HandshakeError
        assert responder.received == (b"" if order == (1, 0) else b"\0")


def test_row_32_our_own_messages_reflected():
    initiator, _ = open_pair()
    assert initiator.feed([initiator.noise.seal([b"mine"])]) is HandshakeError
    assert initiator.events == ["open"]


def sides():
    """A machine in every stage, by name."""
    initiator, responder = make("initiator"), make("responder")
    waiting = make("responder")
    waiting.feed([initiator.take()])
    one, two = open_pair()
    return {
        "initiator": initiator,
        "responder, message 1": responder,
        "responder, message 3": waiting,
        "initiator, open": one,
        "responder, open": two,
    }


STAGES = list(sides())


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", range(16))
@pytest.mark.parametrize("cut", [lambda data: [data], one_by_one], ids=["whole", "one_by_one"])
def test_row_34_short_lengths_are_judged_alone(stage, size, cut):
    side = sides()[stage]
    side.events.clear()
    assert side.feed(cut(size.to_bytes(2, "big"))) is HandshakeError
    assert side.feed([b""]) is HandshakeError
    assert side.events == []


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", [16, 17, 31, 32, 63, 64, 95, 96, 65534, 65535])
@pytest.mark.parametrize("byte", [0, 255])
def test_row_34_other_lengths_wait_for_the_message(stage, size, byte):
    side = sides()[stage]
    side.events.clear()
    body = bytes((byte,)) * size
    assert side.feed([frame(body)[:-1]]) is None
    if stage == "responder, message 1" and size in (32, 63, 64, 95, 96) and byte:
        # Message 1 is any 32 bytes that are a point; what follows them means nothing.
        assert side.feed([body[-1:]]) is None
        assert len(side.out) == 1
    else:
        assert side.feed([body[-1:]]) is HandshakeError
    assert side.events == []


SHORTEST = {"initiator": (2, 96), "responder, message 1": (1, 32), "responder, message 3": (3, 64)}


@pytest.mark.parametrize("stage", SHORTEST)
def test_row_34_a_handshake_message_has_a_least_length(stage):
    number, shortest = SHORTEST[stage]
    side = sides()[stage]
    side.take()
    with pytest.raises(HandshakeError, match=f"message {number} of {shortest - 1} bytes"):
        side.noise.receive(frame(bytes(shortest - 1)), 0)
    assert side.out == []


def test_row_34_the_longest_message_is_accepted():
    initiator, responder = open_pair()
    sealed = initiator.noise.seal([bytes(MAX_PLAINTEXT)])
    assert sealed[:2] == b"\xff\xff"
    assert responder.feed([sealed]) is None
    assert responder.received == bytes(MAX_PLAINTEXT)


def test_row_34_an_empty_message_is_no_data_and_no_end():
    initiator, responder = open_pair()
    cipher = initiator.noise._encrypt
    assert responder.feed([frame(cipher(bytes(12), b"", b""))]) is None
    assert responder.events == ["open"]
    initiator.noise._sent = 1
    exchange(initiator, responder)


def test_row_34_nothing_is_allocated_for_a_length():
    _, responder = open_pair()
    tracemalloc.start()
    try:
        for data in (b"\xff", b"\xff", b"x"):
            responder.noise.receive(data, 0)
        assert tracemalloc.get_traced_memory()[1] < 4096
    finally:
        tracemalloc.stop()


# The points of order 1, 2, 4 and 8, with their spellings above the prime, and all of them with the
# top bit that X25519 ignores.
P = 2**255 - 19
LOW_ORDER = [
    *(number.to_bytes(32, "little") for number in (0, 1, P - 1, P, P + 1)),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]
LOW_ORDER += [point[:31] + bytes((point[31] | 128,)) for point in LOW_ORDER]


class FalseKey:
    """A key whose public half is chosen freely; what it agrees on is zero."""

    def __init__(self, public):
        self.public = public

    def exchange(self, public):
        return bytes(32)


class FalseCrypto(Cryptography):
    """Makes one kind of ephemeral."""

    def __init__(self, ephemeral):
        self.ephemeral = ephemeral

    def x25519(self, private):
        return self.ephemeral


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_row_35_low_order_ephemeral_of_the_initiator(point):
    side = make("responder")
    assert side.feed([frame(point)]) is HandshakeError
    assert side.out == []


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_row_35_low_order_ephemeral_of_the_responder(point):
    side = make("initiator")
    hostile = Handshake(
        False, keys("responder").static, FalseCrypto(FalseKey(point)), Draws(seed="h"), b""
    )
    hostile.read(frames(side.take())[0])
    assert side.feed([frame(hostile.write(keys("responder").payload(YAMUX)))]) is HandshakeError
    assert side.out == side.events == []


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
@pytest.mark.parametrize("role", ROLES)
def test_row_35_low_order_static(point, role):
    """The peer really owns the identity, and signed the point."""
    owner = identity("hostile")
    signature = owner.sign(DOMAIN + point)
    payload = b"\x0a" + delimited(owner.public.encode()) + b"\x12" + delimited(signature)
    outcome, side = hostile_peer(OTHER[role], payload, static=FalseKey(point))
    assert outcome is HandshakeError
    assert side.events == []


def hostile_peer(role, payload, *, static=None, **arguments):
    """Our machine against a peer that sends any payload under honest cryptography."""
    side = make(OTHER[role], **arguments)
    static = static or keys("hostile").static
    peer = Handshake(role == "initiator", static, CRYPTO, Draws(seed="hostile"), b"")
    if role == "initiator":
        assert side.feed([frame(peer.write(b""))]) is None
        peer.read(frames(side.take())[0])
    else:
        peer.read(frames(side.take())[0])
    return side.feed([frame(peer.write(payload))]), side


def message(*fields):
    """A protobuf message of length-delimited fields."""
    out = b""
    for number, value in fields:
        tag = number << 3 | 2
        out += bytes((tag,)) if tag < 128 else bytes((tag & 127 | 128, tag >> 7))
        out += delimited(value)
    return out


KEY = identity("hostile").public.encode()
SIGNATURE = identity("hostile").sign(DOMAIN + keys("hostile").static.public)
HONEST = ((1, KEY), (2, SIGNATURE))


def padded(size):
    """An honest payload with an unknown field that makes it this long."""
    bare = message(*HONEST)
    filler = bytes(size - len(bare))
    while len(payload := bare + message((9, filler))) > size:
        filler = filler[1:]
    return payload


ACCEPTED = {
    "plain": (message(*HONEST), None),
    "our own": (keys("hostile").payload(YAMUX), YAMUX[0]),
    "empty extensions": (message(*HONEST, (4, b"")), None),
    "early data": (message(*HONEST, (3, b"early data of old peers")), None),
    "unknown fields": (message((7, b"x"), *HONEST, (100, b"y" * 300)), None),
    "unknown fields in extensions": (
        message(*HONEST, (4, message((1, b"hash"), (9, b"?"), (2, YAMUX[0].encode()), (15, b"")))),
        YAMUX[0],
    ),
    "another order": (message((4, message((2, YAMUX[0].encode()))), *HONEST[::-1]), YAMUX[0]),
    "100 muxers": (
        message(*HONEST, (4, message(*[(2, b"/x")] * 99, (2, YAMUX[0].encode())))),
        YAMUX[0],
    ),
    "many certificate hashes": (message(*HONEST, (4, message(*[(1, b"h")] * 1000))), None),
    "a muxer that is not UTF-8": (message(*HONEST, (4, message((2, b"\xff")))), None),
    "16 KiB": (padded(MAX_PAYLOAD), None),
}
REFUSED = {
    "empty": b"",
    "no key": message((2, SIGNATURE)),
    "no signature": message((1, KEY)),
    "empty key": message((1, b""), (2, SIGNATURE)),
    "empty signature": message((1, KEY), (2, b"")),
    "signature of another key": message(
        (1, KEY), (2, identity("other").sign(DOMAIN + keys("hostile").static.public))
    ),
    "signature of another static key": message(
        (1, KEY), (2, identity("hostile").sign(DOMAIN + keys("other").static.public))
    ),
    "signature without the domain": message(
        (1, KEY), (2, identity("hostile").sign(keys("hostile").static.public))
    ),
    "somebody else's key": message((1, identity("other").public.encode()), (2, SIGNATURE)),
    "key of another type": message(
        (1, identity("hostile", KeyType.SECP256K1).public.encode()), (2, SIGNATURE)
    ),
    "type of another key": message((1, b"\x08\x02" + KEY[2:]), (2, SIGNATURE)),
    "unknown type": message((1, b"\x08\x09" + KEY[2:]), (2, SIGNATURE)),
    "short key": message((1, KEY[:-1]), (2, SIGNATURE)),
    "cut off": message(*HONEST)[:-1],
    "group": message(*HONEST) + b"\x4b\x4c",
    "101 muxers": message(*HONEST, (4, message(*[(2, b"/x")] * (MAX_MUXERS + 1)))),
    "101 muxers in two parts": message(
        *HONEST, (4, message(*[(2, b"/x")] * 51)), (4, message(*[(2, b"/x")] * 50))
    ),
    "16 KiB and a byte": padded(MAX_PAYLOAD + 1),
    "the most that fits": padded(65535 - 96),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ACCEPTED)
def test_row_36_accepted_payloads(name, role):
    payload, muxer = ACCEPTED[name]
    outcome, side = hostile_peer(role, payload)
    assert outcome is None
    assert side.events == ["open"]
    assert side.noise.peer == identity("hostile").peer_id
    assert side.noise.muxer == muxer


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", REFUSED)
def test_row_36_refused_payloads_leave_nothing(name, role):
    outcome, side = hostile_peer(role, REFUSED[name])
    assert outcome is HandshakeError
    assert side.events == side.out == []
    assert not side.noise.open
    assert side.noise.muxer is None
    assert not hasattr(side.noise, "peer")
    assert not hasattr(side.noise, "public_key")
    with pytest.raises(LocalError):
        side.noise.seal([b"x"])


@pytest.mark.parametrize("role", ROLES)
def test_row_36_a_hundred_thousand_extensions(role):
    """So many do not fit: as many as fit in a payload are harmless, in a message too many."""
    outcome, side = hostile_peer(role, message(*HONEST, *[(4, b"")] * 8000))
    assert outcome is None
    assert side.noise.muxer is None
    outcome, side = hostile_peer(role, message(*HONEST, *[(4, b"")] * 32_000))
    assert outcome is HandshakeError
    assert side.events == []


@pytest.mark.parametrize("position", range(0, 512, 7))
def test_row_36_flipped_signatures(position):
    flipped = bytearray(SIGNATURE)
    flipped[position // 8] ^= 1 << position % 8
    outcome, side = hostile_peer("responder", message((1, KEY), (2, bytes(flipped))))
    assert outcome is HandshakeError
    assert side.events == []


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(ROLES), st.binary(max_size=200))
def test_row_36_garbage_payloads(role, payload):
    outcome, side = hostile_peer(role, payload)
    assert outcome is HandshakeError
    assert side.events == []


def test_row_36_message_1_carries_nothing():
    """Its payload is neither authentic nor read, only bounded."""
    for size, outcome in ((100, None), (MAX_PAYLOAD, None), (MAX_PAYLOAD + 1, HandshakeError)):
        initiator, side = make("initiator"), make("responder")
        point = frames(initiator.take())[0]
        assert side.feed([frame(point + bytes(size))]) is outcome
        assert len(side.out) == (outcome is None)


@pytest.mark.parametrize("role", ROLES)
def test_row_37_another_peer_than_expected(role):
    wanted = identity("wanted").peer_id
    outcome, side = hostile_peer(OTHER[role], message(*HONEST), expected=wanted)
    assert outcome is PeerIdMismatch
    assert side.events == side.out == []
    assert not side.noise.open
    with pytest.raises(PeerIdMismatch) as caught:
        side.noise.receive(b"", 0)
    assert str(wanted) in str(caught.value)
    assert str(identity("hostile").peer_id) in str(caught.value)


@pytest.mark.parametrize("role", ROLES)
def test_row_37_the_signature_is_judged_first(role):
    """Who merely claims to be another is not reported as that other."""
    wanted = identity("wanted").peer_id
    claim = REFUSED["somebody else's key"]
    outcome, _ = hostile_peer(OTHER[role], claim, expected=wanted)
    assert outcome is HandshakeError


@pytest.mark.parametrize("role", ROLES)
def test_row_37_the_expected_peer_is_welcome(role):
    expected = identity("hostile").peer_id
    outcome, side = hostile_peer(OTHER[role], message(*HONEST), expected=expected)
    assert outcome is None
    assert side.noise.peer == expected
