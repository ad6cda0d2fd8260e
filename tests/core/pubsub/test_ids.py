from hashlib import blake2b, sha256

from anyp2p_core.pubsub.ids import Ethereum, blake2b_of_data, from_and_seqno, sha256_of_data
from anyp2p_core.pubsub.message import build


def test_author_and_number():
    assert from_and_seqno(build(b"me", b"x", bytes(8), b"t")) == b"me" + bytes(8)
    assert from_and_seqno(build(None, b"x", bytes(8), b"t")) == b""
    assert from_and_seqno(build(b"me", b"x", None, b"t")) == b""


def test_hashes_of_the_data():
    message = build(None, b"hello", None, b"t")
    # What js peers have for an anonymous message.
    assert sha256_of_data(message).hex() == (
        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    )
    assert blake2b_of_data(message) == blake2b(b"hello", digest_size=32).digest()
    empty = build(None, None, None, b"t")
    assert sha256_of_data(empty) == sha256(b"").digest()
    assert blake2b_of_data(empty) == blake2b(b"", digest_size=32).digest()


def test_ethereum():
    topic, block = b"/eth2/00/x/ssz_snappy", b"\x05\x10hello"
    head = len(topic).to_bytes(8, "little") + topic
    good = sha256(b"\1\0\0\0" + head + b"hello").digest()[:20]
    assert Ethereum()(build(None, block, None, topic)) == good
    bad = sha256(b"\0\0\0\0" + head + b"hello").digest()[:20]
    assert Ethereum()(build(None, b"hello", None, topic)) == bad
    long = sha256(b"\0\0\0\0" + head + block).digest()[:20]
    assert Ethereum(4)(build(None, block, None, topic)) == long
    assert Ethereum()(build(None, None, None, topic)) == (sha256(b"\0\0\0\0" + head).digest()[:20])
