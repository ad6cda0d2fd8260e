"""What peers are given when they start: web certificates, and keys of private networks.

with material() as files:   a temporary directory
    web, other_web          files of an authority that nobody else knows, and of another one:
        trust               its certificate
        cert, key           issued by it, for 127.0.0.1 and localhost
    psk, other_psk          keys of two private networks
"""

import secrets
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import IPv4Address
from pathlib import Path

VALID = timedelta(days=2)


@dataclass(slots=True)
class Web:
    """Paths of the files of WebSocket over TLS."""

    cert: str
    key: str
    trust: str
    pin: str
    """SHA-256 of the certificate's public key in base64, which browsers take."""

    @property
    def options(self) -> tuple[str, ...]:
        return "--web-cert", self.cert, "--web-key", self.key, "--web-trust", self.trust


@dataclass(slots=True)
class Material:
    """All there is."""

    web: Web
    other_web: Web
    psk: str
    other_psk: str


@contextmanager
def material() -> Iterator[Material]:
    """Make everything anew; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="anyp2p-peers-") as directory:
        here = Path(directory)
        yield Material(
            _certificates(here / "web"),
            _certificates(here / "other-web"),
            _network_key(here / "psk"),
            _network_key(here / "other-psk"),
        )


def _network_key(path: Path) -> str:
    path.write_text(f"/key/swarm/psk/1.0.0/\n/base16/\n{secrets.token_hex(32)}\n")
    return str(path)


def _certificates(directory: Path) -> Web:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)

    def draft(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("conformance authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - VALID)
            .not_valid_after(now + VALID)
        )

    def usage(*, signs: bool) -> x509.KeyUsage:
        others = (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        )
        return x509.KeyUsage(
            digital_signature=not signs,
            key_cert_sign=signs,
            crl_sign=signs,
            **dict.fromkeys(others, False),
        )

    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    known = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    root = (
        draft("conformance authority", authority)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs=True), critical=True)
        .add_extension(known, critical=False)
        .sign(authority, hashes.SHA256())
    )
    here = [x509.IPAddress(IPv4Address("127.0.0.1")), x509.DNSName("localhost")]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)
    leaf = (
        draft("localhost", own)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(here), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority, hashes.SHA256())
    )
    spki = own.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    contents = {
        "cert": leaf.public_bytes(Encoding.PEM),
        "key": own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "trust": root.public_bytes(Encoding.PEM),
    }
    directory.mkdir()
    for word, content in contents.items():
        (directory / word).write_bytes(content)
    pin = b64encode(sha256(spki).digest()).decode()
    return Web(*(str(directory / word) for word in contents), pin)
