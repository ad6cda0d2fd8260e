"""libp2p certificates for TLS and QUIC, on the `cryptography` package.

Specs: https://github.com/libp2p/specs/blob/master/tls/tls.md
       https://www.rfc-editor.org/rfc/rfc5280 (X.509)

    make_certificate     identity key -> certificate with a new key of its own
    parse_certificate    a stranger's DER -> what anyp2p_core.certificate judges

A library reads the certificate as a whole, its dates and its key, and checks its signature. What
has to be known byte for byte is cut out here: the library would encode the key anew, and would not
name an extension twice.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from anyp2p.extras import MissingExtra
from anyp2p_core.certificate import (
    OCTET_STRING,
    SEQUENCE,
    Certificate,
    Extension,
    read_der,
    sign_extension,
)
from anyp2p_core.errors import DecodeError, HandshakeError
from anyp2p_core.keys import PrivateKey

from .crypto import RSA_MAX_BITS, RSA_MIN_BITS

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.asymmetric.padding import PSS, PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
except ImportError as error:
    raise MissingExtra(
        "certificates need the package 'cryptography': pip install 'anyp2p[crypto]'",
        name="cryptography",
    ) from error

LIFETIME = timedelta(days=36525)
"""How long our certificates are valid: nobody renews them, a restart makes new ones."""
MAX_CERTIFICATE = 16 * 1024
"""Longest certificate that is looked at; with an RSA identity of 8192 bits one has 4 KiB."""


def make_certificate(key: PrivateKey, wall: float) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
    """A certificate in DER, vouched for by ``key``, and its own key, made for it.

    ``wall``: seconds since 1970; it is valid from an hour before, for clocks that differ.
    """
    own = ec.generate_private_key(ec.SECP256R1())
    spki = own.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    start = datetime.fromtimestamp(wall, UTC) - timedelta(hours=1)
    # Some peers want an issuer, and some read the first extension only.
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "libp2p")])
    value = x509.UnrecognizedExtension(_OID, sign_extension(key, spki))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + LIFETIME)
        .add_extension(value, critical=False)
        .sign(own, SHA256())
    )
    return certificate.public_bytes(Encoding.DER), own


def parse_certificate(data: bytes) -> Certificate:
    """A peer's certificate. HandshakeError if it is malformed or its key is of an unusual kind.

    Certificate keys may be ECDSA on P-256, P-384 or P-521, Ed25519, and RSA within the bounds of
    identity keys; signatures use SHA-2.
    """
    if len(data) > MAX_CERTIFICATE:
        raise HandshakeError(f"the peer's certificate is longer than {MAX_CERTIFICATE} bytes")
    try:
        certificate = x509.load_der_x509_certificate(data)
        spki, extensions = _take_apart(data)
        return Certificate(
            spki=spki,
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
            self_signed=_is_self_signed(certificate),
            extensions=extensions,
        )
    except DecodeError as error:
        reason = str(error)
    except Exception as error:
        # The library has a dozen classes for what a stranger's certificate may have wrong, and
        # warns of some of it, which is an exception too where warnings are errors.
        reason = f"the library refuses it ({type(error).__name__})"
    raise HandshakeError(f"the peer's certificate is malformed: {reason}")


# Inside: a stranger's certificate.

_OID = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_HASHES = (SHA256, SHA384, SHA512)


def is_usual_key(key: object) -> bool:
    """Whether a certificate's key is of a kind that is cheap to verify with, and in use."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name in _CURVES
    if isinstance(key, rsa.RSAPublicKey):
        # A large exponent would make each verification hundreds of times dearer.
        return RSA_MIN_BITS <= key.key_size <= RSA_MAX_BITS and key.public_numbers().e < 2**32
    return isinstance(key, ed25519.Ed25519PublicKey)


def _is_self_signed(certificate: x509.Certificate) -> bool:
    key = certificate.public_key()
    if not is_usual_key(key):
        raise DecodeError("its key is of an unusual kind")
    how = certificate.signature_algorithm_parameters
    kind = certificate.signature_hash_algorithm
    signature, content = certificate.signature, certificate.tbs_certificate_bytes
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, content)
            return kind is None
        if not isinstance(kind, _HASHES):
            return False
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(how, ec.ECDSA):
            key.verify(signature, content, how)
            return True
        if isinstance(key, rsa.RSAPublicKey) and isinstance(how, PKCS1v15 | PSS):
            key.verify(signature, content, how, kind)
            return True
    except InvalidSignature:
        pass
    return False


_BOOLEAN = 0x01
_INTEGER = 0x02
_BIT_STRING = 0x03
_OBJECT_IDENTIFIER = 0x06
_VERSION = 0xA0
_EXTENSIONS = 0xA3


def _take_apart(data: bytes) -> tuple[bytes, list[Extension]]:
    """The SubjectPublicKeyInfo and the extensions, as they stand there."""
    start, stop = read_der(data, 0, len(data), SEQUENCE)
    pos, end = read_der(data, start, stop, SEQUENCE)
    _, start = read_der(data, end, stop, SEQUENCE)
    start, stop = read_der(data, start, stop, _BIT_STRING)
    if not data.startswith(b"\0", start, stop):  # the library does not look there
        raise DecodeError("its signature does not hold whole bytes")
    if data.startswith(bytes((_VERSION,)), pos, end):
        _, pos = read_der(data, pos, end, _VERSION)
    # Serial number, algorithm, issuer, validity and subject.
    for tag in (_INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE):
        _, pos = read_der(data, pos, end, tag)
    start = pos
    _, pos = read_der(data, pos, end, SEQUENCE)
    return data[start:pos], list(_extensions(data, pos, end))


def _extensions(data: bytes, pos: int, end: int) -> Iterator[Extension]:
    if pos == end:
        return
    pos, stop = read_der(data, pos, end, _EXTENSIONS)  # unique ids would come before: not used
    pos, stop = read_der(data, pos, stop, SEQUENCE)
    while pos < stop:
        pos, one = read_der(data, pos, stop, SEQUENCE)
        start, pos = read_der(data, pos, one, _OBJECT_IDENTIFIER)
        oid = data[start:pos]
        critical = False
        if data.startswith(bytes((_BOOLEAN,)), pos, one):
            start, pos = read_der(data, pos, one, _BOOLEAN)
            critical = any(data[start:pos])
        start, pos = read_der(data, pos, one, OCTET_STRING)
        yield Extension(oid, critical, data[start:pos])
