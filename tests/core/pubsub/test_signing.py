from itertools import product

import pytest
from node_pair import CRYPTO

from anyp2p.providers.entropy import OsEntropy
from anyp2p_core import PrivateKey
from anyp2p_core.crypto import KeyType
from anyp2p_core.pubsub import signing as module
from anyp2p_core.pubsub.message import SIGN_PREFIX, build, parse, sign
from anyp2p_core.pubsub.rpc import WireLimits, parse as parse_rpc
from anyp2p_core.pubsub.signing import (
    INVALID_SIGNATURE,
    MISSING_SIGNATURE,
    UNEXPECTED_AUTH_INFO,
    UNEXPECTED_SIGNATURE,
    SignaturePolicy,
    Signing,
)

STRICT, NONE, LAX, LAX_NONE = SignaturePolicy
KEY = PrivateKey.generate(CRYPTO, OsEntropy())
OTHER = PrivateKey.generate(CRYPTO, OsEntropy())
SECP = PrivateKey.generate(CRYPTO, OsEntropy(), KeyType.SECP256K1)
ECDSA = PrivateKey.generate(CRYPTO, OsEntropy(), KeyType.ECDSA)

# What js peers sign (gossipsub 17.1.1): messages that carry their key although it is inline.
JS = [
    (
        "12af010a260024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c12"
        "0768656c6c6f20411a0818ea5f37575b3881220a746573742d746f7069632a408ab706bc2d63432503bcde18"
        "e2bcc33f78252c66803588ece2636e6405bf277b0077c4fa9ec871a0125e91433bb39478376d304015ce5d84"
        "fb4ed6455708e90a3224080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f"
        "6f5c"
    ),
    (
        "12bf010a27002508021221037777e994e452c21604f91de093ce415f5432f701dd8cd1a7a6fea0e630bfca99"
        "120f68656c6c6f20736563703235366b311a0818ea5f37575b3883220a746573742d746f7069632a46304402"
        "205ae52eb0e657b7544716c33dbf1abb553d265a5994b0ac071d17f6f2efb729f1022048639170e55287eee4"
        "5adbe68f8acfebce3ff7c6110db0c6102129bc48b79110322508021221037777e994e452c21604f91de093ce"
        "415f5432f701dd8cd1a7a6fea0e630bfca99"
    ),
]


def make(key=KEY, policy=STRICT, data=b"data", wall=1.7e9):
    return Signing(key, CRYPTO).make(b"topic", data, policy, wall)


@pytest.mark.parametrize("rpc", JS)
def test_messages_of_js(rpc):
    (raw,) = parse_rpc(bytes.fromhex(rpc), WireLimits()).publish
    message = parse(raw)
    signing = Signing(KEY, CRYPTO)
    assert signing.objection(message, STRICT) is None
    assert signing.verify(message) and signing.verify(message)
    message.data += b"!"
    assert signing.verify(parse(raw.replace(b"hello", b"hallo"))) is False


@pytest.mark.parametrize("key", [KEY, SECP, ECDSA])
def test_what_we_sign_can_be_verified(key):
    message = make(key)
    assert message.from_ == bytes(key.peer_id) and message.data == b"data"
    assert (message.key is None) == (key is not ECDSA)
    again = parse(message.raw)
    assert again.raw == message.raw and Signing(OTHER, CRYPTO).verify(again)
    unsigned = build(again.from_, again.data, again.seqno, again.topic)
    assert key.public.verify(again.signature, SIGN_PREFIX + unsigned.raw)


def test_numbers_grow_and_start_at_the_time():
    signing = Signing(KEY, CRYPTO)
    numbers = [
        int.from_bytes(signing.make(b"t", b"", STRICT, wall).seqno, "big")
        for wall in (1.7e9, 1.7e9, 1.6e9, 1.8e9)
    ]
    assert numbers[0] == int(1.7e18) and numbers[1:3] == [numbers[0] + 1, numbers[0] + 2]
    assert numbers[3] == int(1.8e18)


def test_what_each_policy_writes():
    signed, plain, lax, authored = (make(policy=policy) for policy in SignaturePolicy)
    assert signed.signature and signed.seqno and lax.signature and lax.seqno
    assert plain.raw == build(None, b"data", None, b"topic").raw
    assert authored.from_ == bytes(KEY.peer_id) and authored.seqno and not authored.signature


def variants():
    author, number = bytes(KEY.peer_id), bytes(8)
    for from_, seqno, signature, key in product((author, None), (number, None), (0, 1), (0, 1)):
        message = build(from_, b"data", seqno, b"topic")
        if signature:
            sign(message, b"s" * 64, None)
        message.key = b"k" if key else None
        yield message


@pytest.mark.parametrize("message", list(variants()))
def test_what_each_policy_accepts_at_first_sight(message):
    signing = Signing(KEY, CRYPTO)
    if message.signature is None:
        expected = MISSING_SIGNATURE
    elif message.from_ is None or message.seqno is None:
        expected = INVALID_SIGNATURE
    else:
        expected = None
    assert signing.objection(message, STRICT) == expected
    if message.signature is not None:
        expected = UNEXPECTED_SIGNATURE
    elif message.from_ or message.seqno or message.key:
        expected = UNEXPECTED_AUTH_INFO
    else:
        expected = None
    assert signing.objection(message, NONE) == expected
    assert signing.objection(message, LAX) is signing.objection(message, LAX_NONE) is None


@pytest.mark.parametrize("seqno", [b"", bytes(7), bytes(9)])
def test_numbers_have_eight_bytes(seqno):
    message = build(bytes(KEY.peer_id), b"", seqno, b"t")
    sign(message, b"s" * 64, None)
    assert Signing(KEY, CRYPTO).objection(message, STRICT) == INVALID_SIGNATURE


def forged(**change):
    message = make(change.pop("by", KEY))
    signature, key = message.signature, message.key
    fields = {"from_": message.from_, "data": b"data", "seqno": message.seqno, "topic": b"topic"}
    signature = change.pop("signature", signature)
    key = change.pop("key", key)
    fields.update(change)
    fake = build(**fields)
    sign(fake, signature, key)
    return parse(fake.raw)


@pytest.mark.parametrize(
    "message",
    [
        forged(data=b"dada"),
        forged(seqno=bytes(8)),
        forged(topic=b"other"),
        forged(from_=bytes(OTHER.peer_id)),
        forged(signature=b""),
        forged(signature=b"s" * 63),
        forged(signature=b"s" * 64),
        forged(key=OTHER.public.encode()),
        forged(key=b"junk"),
        forged(key=b""),
        forged(from_=b"junk"),
        forged(by=ECDSA, key=None),
        forged(by=ECDSA, key=KEY.public.encode()),
        build(bytes(KEY.peer_id), b"", bytes(8), b"t"),
        parse(make().raw[40:]),  # no author
    ],
)
def test_forgeries(message):
    assert Signing(OTHER, CRYPTO).verify(message) is False


def test_a_wrong_key_is_noticed_also_when_the_right_one_is_kept():
    signing = Signing(OTHER, CRYPTO)
    assert signing.verify(make())
    assert not signing.verify(forged(key=OTHER.public.encode()))
    assert signing.verify(forged(key=KEY.public.encode()))


def test_keys_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_KEYS", 2)
    signing = Signing(OTHER, CRYPTO)
    for key in (KEY, SECP, ECDSA, KEY):
        assert signing.verify(parse(make(key).raw))
        assert len(signing._keys) <= 2


@pytest.mark.parametrize("victim", [KEY, SECP, ECDSA])
def test_nobody_signs_for_somebody_else(victim):
    """The signature is good, and so is the key; it is only not that of the author."""
    message = build(bytes(victim.peer_id), b"data", bytes(8), b"topic")
    sign(message, OTHER.sign(message.signed), OTHER.public.encode())
    signing = Signing(KEY, CRYPTO)
    assert not signing.verify(parse(message.raw))
    assert signing.verify(parse(make(victim).raw))
    assert not signing.verify(parse(message.raw))


@pytest.mark.parametrize("policy", list(SignaturePolicy))
def test_what_is_signed_is_everything_but_signature_and_key(policy):
    message = make(policy=policy)
    unsigned = build(message.from_, message.data, message.seqno, message.topic)
    assert message.signed == SIGN_PREFIX + unsigned.raw
