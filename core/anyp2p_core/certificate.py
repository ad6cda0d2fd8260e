"""The certificate that TLS and QUIC show: a throwaway key, vouched for by the identity key.

Specs: https://github.com/libp2p/specs/blob/master/tls/tls.md
       https://www.rfc-editor.org/rfc/rfc5280 (X.509), https://www.itu.int/rec/T-REC-X.690 (DER)

    certificate
      SubjectPublicKeyInfo of the throwaway key        signed by the throwaway key itself
      extension 1.3.6.1.4.1.53594.1.1
        SEQUENCE { OCTET STRING identity key, OCTET STRING signature }
                                    signs: "libp2p-tls-handshake:" + SubjectPublicKeyInfo

Names, serial numbers and who issued it mean nothing. A library takes the certificate apart and
checks the throwaway key's own signature; what it found is judged here.
"""

from dataclasses import dataclass, field

from .crypto import Crypto
from .errors import DecodeError, HandshakeError, PeerIdMismatch
from .keys import PrivateKey, PublicKey
from .peer_id import PeerId

EXTENSION = bytes.fromhex("2b0601040183a25a0101")
"""1.3.6.1.4.1.53594.1.1, as the content of a DER OBJECT IDENTIFIER."""
MAX_EXTENSION = 8 * 1024
"""Longest value of the extension; an RSA identity of 8192 bits needs 2.1 KiB."""


@dataclass(slots=True)
class Extension:
    """One X.509 extension. ``oid``: the content of the DER object identifier."""

    oid: bytes
    critical: bool
    value: bytes


@dataclass(slots=True)
class Certificate:
    """What a certificate says.

    ``spki`` is the SubjectPublicKeyInfo byte for byte, ``extensions`` are all of them in their
    order. Times: seconds since 1970, both ends included. ``self_signed``: the certificate's own
    key made its signature.
    """

    spki: bytes
    not_before: float
    not_after: float
    self_signed: bool
    extensions: list[Extension] = field(default_factory=list)


def sign_extension(key: PrivateKey, spki: bytes) -> bytes:
    """The value of the extension by which ``key`` vouches for the certificate key ``spki``."""
    identity = der(OCTET_STRING, key.public.encode())
    return der(SEQUENCE, identity + der(OCTET_STRING, key.sign(_PREFIX + spki)))


def check_certificate(
    certificate: Certificate, crypto: Crypto, *, expected: PeerId | None, wall: float
) -> PublicKey:
    """The identity key behind a certificate whose own key the peer has proved to own.

    ``wall``: seconds since 1970. Raises HandshakeError, and PeerIdMismatch for a good certificate
    of a peer other than ``expected``.
    """
    if wall < certificate.not_before:
        raise HandshakeError("the peer's certificate is not valid yet: compare the clocks")
    if wall > certificate.not_after:
        raise HandshakeError("the peer's certificate has expired: compare the clocks")
    value: bytes | None = None
    for extension in certificate.extensions:
        if extension.oid != EXTENSION:
            if extension.critical:
                raise HandshakeError("the peer's certificate has an unknown critical extension")
        elif value is not None:
            raise HandshakeError("the peer's certificate has the libp2p extension twice")
        else:
            value = extension.value
    if value is None:
        raise HandshakeError("the peer's certificate has no libp2p extension")
    if not certificate.self_signed:
        raise HandshakeError("the peer's certificate is not signed by its own key")
    try:
        encoded, signature = _signed_key(value)
        key = PublicKey.decode(encoded, crypto)
    except DecodeError as error:
        raise HandshakeError(f"the libp2p extension is malformed: {error}") from None
    if not key.verify(signature, _PREFIX + certificate.spki):
        raise HandshakeError("the identity key did not sign the peer's certificate")
    if expected is not None and key.peer_id != expected:
        raise PeerIdMismatch(f"dialed {expected}, but {key.peer_id} answered")
    return key


# DER, as far as a certificate needs it.

OCTET_STRING = 0x04
SEQUENCE = 0x30


def der(tag: int, content: bytes) -> bytes:
    """One element."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(octets))) + octets + content


def read_der(data: bytes, pos: int, end: int, tag: int) -> tuple[int, int]:
    """Where the content of the element at ``pos`` starts and stops, all of it before ``end``.

    Raises DecodeError if another tag is there, if the length is not minimal, exceeds the data or
    needs more than three bytes.
    """
    if end - pos < 2 or data[pos] != tag:
        raise DecodeError(f"no DER element {tag:#04x} where one must be")
    size = data[pos + 1]
    start = pos + 2
    if size >= 0x80:
        octets = size - 0x80
        if not 1 <= octets <= 3 or end - start < octets:
            raise DecodeError("a DER length is indefinite, truncated or far too large")
        size = int.from_bytes(data[start : start + octets])
        if size < 0x80 or size >> 8 * (octets - 1) == 0:
            raise DecodeError("a DER length is not minimal")
        start += octets
    if size > end - start:
        raise DecodeError("a DER length exceeds the data")
    return start, start + size


_PREFIX = b"libp2p-tls-handshake:"


def _signed_key(data: bytes) -> tuple[bytes, bytes]:
    """The identity key, encoded, and its signature."""
    size = len(data)
    if size > MAX_EXTENSION:
        raise DecodeError(f"it is longer than {MAX_EXTENSION} bytes")
    start, stop = read_der(data, 0, size, SEQUENCE)
    key, key_end = read_der(data, start, stop, OCTET_STRING)
    signature, end = read_der(data, key_end, stop, OCTET_STRING)
    if end != size:  # the sequence ends there as well: an element never exceeds its parent
        raise DecodeError("data follows the signature")
    return data[key:key_end], data[signature:end]
