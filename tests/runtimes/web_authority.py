"""A certificate authority, and what a server of 127.0.0.1 shows, as files."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Files:
    """``web_certificate`` and ``web_trust`` of hosts."""

    chain: Path
    key: Path
    trust: Path

    @property
    def options(self) -> dict[str, object]:
        return {"web_certificate": (self.chain, self.key), "web_trust": self.trust}


def make_files(directory: Path) -> Files:
    now = datetime.now(UTC)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def build(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("an authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
        )

    top, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = (
        build("an authority", top)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(top, hashes.SHA256())
    )
    own = [
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
        x509.DNSName("localhost"),
    ]
    certificate = (
        build("a server", leaf)
        .add_extension(x509.SubjectAlternativeName(own), critical=False)
        .sign(top, hashes.SHA256())
    )
    files = Files(directory / "chain.pem", directory / "key.pem", directory / "trust.pem")
    pem = serialization.Encoding.PEM
    files.trust.write_bytes(authority.public_bytes(pem))
    files.chain.write_bytes(certificate.public_bytes(pem))
    files.key.write_bytes(
        leaf.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
