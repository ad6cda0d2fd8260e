"""anyp2p_core.certificate"""

import time

import pytest
import vectors
from hypothesis import example, given, settings, strategies as st

from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsEntropy
from anyp2p_core.certificate import (
    EXTENSION,
    MAX_EXTENSION,
    OCTET_STRING,
    SEQUENCE,
    Certificate,
    Extension,
    check_certificate,
    der,
    read_der,
    sign_extension,
)
from anyp2p_core.crypto import KeyType
from anyp2p_core.errors import DecodeError, HandshakeError, PeerIdMismatch
from anyp2p_core.keys import PrivateKey

CRYPTO = Cryptography()
KEY, OTHER = (PrivateKey.generate(CRYPTO, OsEntropy()) for _ in range(2))
SPKI = bytes.fromhex("3059") + bytes(89)
NOW = 1_800_000_000.0
FOREIGN = bytes.fromhex("551d13")


def libp2p(value, critical=False):
    return Extension(EXTENSION, critical, value)


GOOD = libp2p(sign_extension(KEY, SPKI))


def certificate(*extensions, **changes):
    fields = {
        "spki": SPKI,
        "not_before": NOW - 3600,
        "not_after": NOW + 3600,
        "self_signed": True,
        "extensions": list(extensions),
    }
    return Certificate(**fields | changes)


def check(found, expected=None, wall=NOW):
    return check_certificate(found, CRYPTO, expected=expected, wall=wall)


def test_the_identity_behind_a_certificate():
    assert check(certificate(GOOD)) == KEY.public
    assert check(certificate(GOOD), expected=KEY.peer_id) == KEY.public


def test_the_extension_as_others_write_it():
    """The certificates of the spec, cut by hand: the extension stands there as its last part."""
    for case in vectors.load("tls")["spec"][:3]:
        data = bytes.fromhex(case["cert"])
        at = data.index(der(0x06, EXTENSION)) + 2 + len(EXTENSION)
        start, stop = read_der(data, at, len(data), OCTET_STRING)
        value = data[start:stop]
        at = data.index(bytes.fromhex("301306072a8648ce3d0201")) - 2
        _, stop = read_der(data, at, len(data), SEQUENCE)
        found = certificate(libp2p(value), spki=data[at:stop])
        assert str(check(found).peer_id) == case["peerId"]
        # Our own encoder writes the same bytes, whatever their lengths.
        start, _ = read_der(value, 0, len(value), SEQUENCE)
        start, stop = read_der(value, start, len(value), OCTET_STRING)
        key = der(OCTET_STRING, value[start:stop])
        start, stop = read_der(value, stop, len(value), OCTET_STRING)
        assert der(SEQUENCE, key + der(OCTET_STRING, value[start:stop])) == value
        assert check(found).encode() in key


@pytest.mark.parametrize("kind", KeyType)
def test_every_kind_of_key(kind):
    key = PrivateKey.generate(CRYPTO, OsEntropy(), kind)
    found = certificate(libp2p(sign_extension(key, SPKI)))
    assert check(found, expected=key.peer_id) == key.public


def test_the_largest_key_fits():
    assert MAX_EXTENSION > 2 * 1024 + 40


@pytest.mark.parametrize("critical", [False, True])
def test_row_31_the_extension_may_be_critical(critical):
    assert check(certificate(libp2p(GOOD.value, critical))) == KEY.public


def test_extensions_that_are_not_ours():
    harmless = Extension(FOREIGN, False, b"\xff")
    for extensions in ([harmless, GOOD], [GOOD, harmless], [harmless] * 50 + [GOOD]):
        assert check(certificate(*extensions)) == KEY.public
    unknown = Extension(FOREIGN, True, b"")
    for extensions in ([unknown, GOOD], [GOOD, unknown], [unknown]):
        with pytest.raises(HandshakeError, match="unknown critical"):
            check(certificate(*extensions))


def test_exactly_one_extension():
    for extensions in ([], [Extension(EXTENSION[:-1] + b"\x02", False, GOOD.value)]):
        with pytest.raises(HandshakeError, match="has no libp2p extension"):
            check(certificate(*extensions))
    for second in (GOOD, libp2p(b""), libp2p(sign_extension(OTHER, SPKI), True)):
        for extensions in ([GOOD, second], [second, GOOD]):
            with pytest.raises(HandshakeError, match="twice"):
                check(certificate(*extensions))


def test_the_time_of_validity():
    found = certificate(GOOD)
    for wall in (NOW - 3600, NOW + 3600):
        assert check(found, wall=wall) == KEY.public
    with pytest.raises(HandshakeError, match="not valid yet"):
        check(found, wall=NOW - 3600.5)
    with pytest.raises(HandshakeError, match="expired"):
        check(found, wall=NOW + 3600.5)


def test_its_own_key_has_to_have_signed_it():
    with pytest.raises(HandshakeError, match="not signed by its own key"):
        check(certificate(GOOD, self_signed=False))


def test_row_28_another_signer_or_another_key():
    theirs = OTHER.public.encode()
    _, start = read_der(GOOD.value, 2, len(GOOD.value), OCTET_STRING)
    swapped = der(SEQUENCE, der(OCTET_STRING, theirs) + GOOD.value[start:])
    for found in (
        certificate(libp2p(swapped)),
        certificate(GOOD, spki=SPKI[:-1] + b"\x01"),
        certificate(libp2p(sign_extension(KEY, SPKI + b"\0"))),
    ):
        with pytest.raises(HandshakeError, match="did not sign"):
            check(found)


def test_row_14_every_bit_of_the_signature_counts():
    value = bytearray(GOOD.value)
    for position in range(len(value) - 64, len(value)):
        value[position] ^= 1 << position % 8
        with pytest.raises(HandshakeError, match="did not sign"):
            check(certificate(libp2p(bytes(value))))
        value[position] ^= 1 << position % 8
    assert check(certificate(libp2p(bytes(value)))) == KEY.public


def test_row_37_another_peer_than_expected():
    with pytest.raises(PeerIdMismatch, match=str(OTHER.peer_id)):
        check(certificate(GOOD), expected=OTHER.peer_id)
    # One that proves nothing is no other peer.
    with pytest.raises(HandshakeError) as caught:
        check(certificate(GOOD, spki=b""), expected=OTHER.peer_id)
    assert not isinstance(caught.value, PeerIdMismatch)


IDENTITY = KEY.public.encode()
LONG = bytes(MAX_EXTENSION)
MALFORMED = {
    "empty": b"",
    "half a header": b"\x30",
    "nothing inside": b"\x30\x00",
    "a key alone": der(SEQUENCE, der(OCTET_STRING, IDENTITY)),
    "another tag": der(0x31, GOOD.value[2:]),
    "another tag of the key": der(SEQUENCE, der(0x03, IDENTITY) + der(OCTET_STRING, b"s")),
    "another tag of the signature": der(SEQUENCE, der(OCTET_STRING, IDENTITY) + der(0x03, b"s")),
    "data behind": GOOD.value + b"\0",
    "data inside": der(SEQUENCE, GOOD.value[2:] + b"\0"),
    "an indefinite length": b"\x30\x80" + GOOD.value[2:] + b"\0\0",
    "a length in too many bytes": b"\x30\x81" + GOOD.value[1:],
    "a length with a zero in front": b"\x30\x82\0\x80" + bytes(128),
    "a length of half a gigabyte": bytes.fromhex("30841fffffff") + GOOD.value[2:],
    "a length of 2**1016": b"\x30\xff" + b"\xff" * 127,
    "a length without its bytes": b"\x30\x82\x01",
    "a key longer than all": b"\x30\x04\x04\x05ab",
    "too long": der(SEQUENCE, der(OCTET_STRING, IDENTITY) + der(OCTET_STRING, LONG)),
    "no key": der(SEQUENCE, der(OCTET_STRING, b"") + der(OCTET_STRING, bytes(64))),
    "garbage as a key": der(SEQUENCE, der(OCTET_STRING, b"\xff" * 36) + der(OCTET_STRING, b"")),
    "unknown kind": der(SEQUENCE, der(OCTET_STRING, b"\x08\x09\x12\0") + der(OCTET_STRING, b"")),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name):
    with pytest.raises(HandshakeError, match="malformed"):
        check(certificate(libp2p(MALFORMED[name])))


def test_row_20_a_length_costs_nothing():
    data = b"\x30\x84\xff\xff\xff\xff" + bytes(MAX_EXTENSION - 6)
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        with pytest.raises(HandshakeError):
            check(certificate(libp2p(data)))
        best = min(best, time.process_time() - start)
    assert best < 0.001


def test_truncated_anywhere():
    for size in range(len(GOOD.value)):
        with pytest.raises(HandshakeError, match="malformed"):
            check(certificate(libp2p(GOOD.value[:size])))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 110))
@example(b"", len(GOOD.value))
def test_garbage(data, keep):
    value = GOOD.value[:keep] + data
    try:
        found = check(certificate(libp2p(value)))
    except HandshakeError:
        assert value != GOOD.value
    else:
        assert found == KEY.public and value == GOOD.value


@given(st.binary(max_size=300), st.sampled_from([OCTET_STRING, SEQUENCE]), st.binary(max_size=3))
def test_der_there_and_back(content, tag, rest):
    data = b"ab" + der(tag, content) + rest
    start, stop = read_der(data, 2, len(data), tag)
    assert data[start:stop] == content and stop + len(rest) == len(data)
    with pytest.raises(DecodeError):
        read_der(data, 2, stop - 1, tag)
    with pytest.raises(DecodeError):
        read_der(data, 2, len(data), 0x05)


@pytest.mark.parametrize("size", [0, 127, 128, 255, 256, 65535, 65536, 100_000])
def test_lengths_in_der(size):
    data = der(OCTET_STRING, bytes(size))
    assert read_der(data, 0, len(data), OCTET_STRING) == (len(data) - size, len(data))
    assert len(data) - size == 2 + sum(size >= limit for limit in (128, 256, 65536))
