"""The certificate of a libp2p connection with the library calls alone that it costs, for bounds."""

import os
import time

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import (
    Certificate,
    ObjectIdentifier,
    UnrecognizedExtension,
    load_der_x509_certificate,
)

from anyp2p.providers.certificates import make_certificate
from anyp2p.providers.crypto import Cryptography
from anyp2p_core.keys import PrivateKey

_OID = ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
_PREFIX = b"libp2p-tls-handshake:"


def make() -> tuple[Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate and its key, vouched for by a new Ed25519 identity."""
    identity = PrivateKey.generate(Cryptography(), os.urandom)
    der, key = make_certificate(identity, time.time())
    return load_der_x509_certificate(der), key


def check(certificate: Certificate) -> None:
    """Verify its own signature and the identity's. Raises InvalidSignature."""
    key = certificate.public_key()
    how = certificate.signature_algorithm_parameters
    assert isinstance(key, ec.EllipticCurvePublicKey) and isinstance(how, ec.ECDSA)
    key.verify(certificate.signature, certificate.tbs_certificate_bytes, how)
    extension = certificate.extensions.get_extension_for_oid(_OID).value
    assert isinstance(extension, UnrecognizedExtension)
    value = extension.value  # 30 len, 04 36 08 01 12 32 KEY, 04 64 SIGNATURE
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    Ed25519PublicKey.from_public_bytes(value[-98:-66]).verify(value[-64:], _PREFIX + spki)
