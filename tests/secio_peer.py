"""The other side of secio, written apart from it: says whatever a test wants."""

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from anyp2p.providers.secio import OpensslSecio
from anyp2p.sim.keyed import SeededEntropy, key as seed
from anyp2p_core import varint
from anyp2p_core.secio import PROPOSE, SecioSecurity
from anyp2p_core.varint import delimited

CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
LISTS = ("P-256,P-384,P-521", "AES-256,AES-128", "SHA256,SHA512")
CHOSEN = ("P-256", "AES-256", "SHA256")
SECIO = OpensslSecio()


def entropy(*name):
    return SeededEntropy(seed(1, *name))


def framed(message):
    return len(message).to_bytes(4, "big") + message


def fields(*values):
    """A protobuf message of byte strings; None leaves one out."""
    return b"".join(
        bytes((number << 3 | 2,)) + delimited(value)
        for number, value in enumerate(values, 1)
        if value is not None
    )


class Ours:
    """The machine under test, with what it wrote, and what it passed on."""

    def __init__(self, key, crypto, *, expected=None, name="ours", **offer):
        self.out = bytearray()
        self.seen = []
        self.opened = 0
        security = SecioSecurity(key, crypto, entropy("secio", name), SECIO, **offer)
        self.channel = security.start(
            initiator=expected is not None,
            expected=expected,
            muxers=("/yamux/1.0.0",),
            write=self.out.extend,
            wall=0.0,
        )
        self.channel.on_open = self._opened
        self.channel.on_data = lambda data, now: self.seen.append(data)

    def _opened(self):
        assert self.channel.open and self.channel.peer and not self.seen
        self.opened += 1

    def take(self):
        data = bytes(self.out)
        self.out.clear()
        return data

    def messages(self):
        """What was written since, message by message."""
        data, found = self.take(), []
        while data:
            size = int.from_bytes(data[:4], "big")
            found.append(data[4 : 4 + size])
            data = data[4 + size :]
        return found

    def feed(self, *pieces):
        for piece in pieces:
            self.channel.receive(piece, 1.0)

    @property
    def data(self):
        return b"".join(self.seen)


class Direction:
    """Keys of one direction."""

    def __init__(self, part, key_size, hash_):
        iv, key, self.mac = part[:16], part[16 : 16 + key_size], part[16 + key_size :]
        assert len(self.mac) == 20
        self.hash = hash_
        self.crypt = Cipher(AES(key), CTR(iv)).encryptor().update

    def frame(self, data):
        sealed = self.crypt(data)
        return framed(sealed + hmac.new(self.mac, sealed, self.hash).digest())

    def open(self, frame):
        size = len(frame) - hashlib.new(self.hash).digest_size
        assert hmac.new(self.mac, frame[:size], self.hash).digest() == frame[size:]
        return self.crypt(frame[:size])


class Theirs:
    """The scripted side. Whatever is given to a method replaces what would be right."""

    def __init__(self, key, number=0, lists=LISTS):
        self.key = key
        self.nonce = hashlib.sha256(b"nonce %d" % number).digest()[:16]
        self.lists = lists

    def propose(self, **changes):
        """Our first message; ``changes`` by field name, None leaves one out."""
        values = {
            "rand": self.nonce,
            "public_key": self.key.public.encode(),
            "exchanges": self.lists[0].encode(),
            "ciphers": self.lists[1].encode(),
            "hashes": self.lists[2].encode(),
        }
        self.proposal = fields(*(values | changes).values())
        return framed(self.proposal)

    def exchange(self, proposal, chosen=CHOSEN, **changes):
        """Our second message, in answer to their first."""
        self.chosen = chosen
        self.remote = PROPOSE.decode(proposal)
        self.private = ec.derive_private_key(77, CURVES[chosen[0]])
        self.point = self.private.public_key().public_bytes(
            Encoding.X962, PublicFormat.UncompressedPoint
        )
        point = changes.get("point", self.point)
        corpus = self.proposal + proposal + (point or b"")
        values = {"point": point, "signature": self.key.sign(corpus)}
        return framed(fields(*(values | changes).values()))

    def order(self):
        """Whether our preferences win."""
        high = hashlib.sha256(self.remote.public_key + self.nonce).digest()
        low = hashlib.sha256(self.key.public.encode() + self.remote.rand).digest()
        return high > low

    def keys(self, exchange):
        """Derive what their second message makes possible."""
        assert exchange[0] == 0x0A
        size, start = varint.decode(exchange, 1)
        curve = CURVES[self.chosen[0]]
        point = ec.EllipticCurvePublicKey.from_encoded_point(curve, exchange[start : start + size])
        secret = self.private.exchange(ec.ECDH(), point)
        name = self.chosen[2].lower()
        key_size = {"AES-128": 16, "AES-256": 32}[self.chosen[1]]
        half = 16 + key_size + 20
        stretched, state = b"", hmac.new(secret, b"key expansion", name).digest()
        while len(stretched) < 2 * half:
            stretched += hmac.new(secret, state + b"key expansion", name).digest()
            state = hmac.new(secret, state, name).digest()
        halves = [stretched[:half], stretched[half : 2 * half]]
        if not self.order():
            halves.reverse()
        self.sending, self.receiving = (Direction(part, key_size, name) for part in halves)


def at_exchange(ours, theirs, **changes):
    """Up to where our side has sent its Exchange; their Exchange."""
    (proposal,) = ours.messages()
    ours.feed(theirs.propose(**changes))
    return proposal


def shaken(ours, theirs, chosen=CHOSEN):
    """Up to where only the nonces are missing; checks the one that our side sends."""
    proposal = at_exchange(ours, theirs)
    exchange = theirs.exchange(proposal, chosen)
    ours.feed(exchange)
    mine, nonce = ours.messages()
    theirs.keys(mine)
    assert theirs.receiving.open(nonce) == theirs.nonce
    return proposal


def opened(ours, theirs, chosen=CHOSEN):
    """The whole handshake."""
    shaken(ours, theirs, chosen)
    ours.feed(theirs.sending.frame(theirs.remote.rand))
    assert ours.opened == 1 and ours.channel.open
