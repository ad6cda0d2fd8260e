"""Who may have written a message: the signature policies.

Spec: https://github.com/libp2p/specs/blob/master/pubsub/README.md#message-signing

    policy            we write              we accept
    STRICT_SIGN       from, seqno, signed   from, seqno and a good signature
    STRICT_NO_SIGN    only data and topic   none of from, seqno, signature, key
    LAX_SIGN          from, seqno, signed   anything, but no bad signature
    LAX_NO_SIGN       from, seqno           anything, but no bad signature

The author's key is in its peer id, or else in the message. Keys are kept: reading one costs a good
part of a verification.
"""

from enum import Enum

from ..crypto import Crypto
from ..errors import DecodeError
from ..keys import PrivateKey, PublicKey
from ..peer_id import PeerId
from .message import Message, build, sign

MAX_KEYS = 4096
"""Public keys that are kept."""
SEQNO_SIZE = 8


class SignaturePolicy(Enum):
    """What a topic wants to know of its authors."""

    STRICT_SIGN = "strict-sign"
    STRICT_NO_SIGN = "strict-no-sign"
    LAX_SIGN = "lax-sign"
    LAX_NO_SIGN = "lax-no-sign"


ANONYMOUS = SignaturePolicy.STRICT_NO_SIGN

# Why a message is refused, in the words that trace tools know.
MISSING_SIGNATURE = "missing signature"
INVALID_SIGNATURE = "invalid signature"
UNEXPECTED_SIGNATURE = "unexpected signature"
UNEXPECTED_AUTH_INFO = "unexpected auth info"


class Signing:
    """Signs our messages and judges those of others."""

    __slots__ = ("_author", "_crypto", "_key", "_keys", "_seqno")

    def __init__(self, key: PrivateKey, crypto: Crypto) -> None:
        self._author = bytes(key.peer_id)
        self._crypto = crypto
        self._key = key
        self._keys: dict[bytes, PublicKey] = {}
        self._seqno = 0

    def make(self, topic: bytes, data: bytes, policy: SignaturePolicy, wall: float) -> Message:
        """A message of ours. ``wall``: seconds since 1970, from where numbers start."""
        if policy is SignaturePolicy.STRICT_NO_SIGN:
            return build(None, data, None, topic)
        # They grow, also over restarts: others may ask for that.
        self._seqno = max(self._seqno + 1, int(wall * 1e9)) & 0xFFFF_FFFF_FFFF_FFFF
        seqno = self._seqno.to_bytes(SEQNO_SIZE, "big")
        message = build(self._author, data, seqno, topic)
        if policy is not SignaturePolicy.LAX_NO_SIGN:
            public = self._key.public
            inline = public.peer_id.inline_key() is not None
            sign(message, self._key.sign(message.signed), None if inline else public.encode())
        return message

    def objection(self, message: Message, policy: SignaturePolicy) -> str | None:
        """What is wrong with a message at the first look; None: nothing."""
        if policy is SignaturePolicy.STRICT_SIGN:
            if message.signature is None:
                return MISSING_SIGNATURE
            # Without them nobody has signed anything.
            if not message.from_ or message.seqno is None or len(message.seqno) != SEQNO_SIZE:
                return INVALID_SIGNATURE
        elif policy is SignaturePolicy.STRICT_NO_SIGN:
            if message.signature is not None:
                return UNEXPECTED_SIGNATURE
            if not message.from_ is message.seqno is message.key is None:
                return UNEXPECTED_AUTH_INFO
        return None

    def verify(self, message: Message) -> bool:
        """Whether the author signed the message. Costs about 0.1 ms."""
        if message.signature is None or message.from_ is None:
            return False
        key = self._keys.get(message.from_)
        if key is None or (message.key is not None and message.key != key.encode()):
            key = self._author_key(message.from_, message.key)
            if key is None:
                return False
            if len(self._keys) >= MAX_KEYS:
                del self._keys[next(iter(self._keys))]
            self._keys[message.from_] = key
        return key.verify(message.signature, message.signed)

    def _author_key(self, author: bytes, encoded: bytes | None) -> PublicKey | None:
        try:
            peer = PeerId(author)
            if encoded is None:
                return PublicKey.from_peer_id(peer, self._crypto)
            key = PublicKey.decode(encoded, self._crypto)
        except DecodeError:
            return None
        return key if key.peer_id == peer else None
