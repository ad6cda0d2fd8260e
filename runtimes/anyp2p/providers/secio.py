"""What secio needs, on the `cryptography` package (OpenSSL): ECDH on three curves, and AES-CTR.

Specs: https://www.secg.org/sec1-v2.pdf (points), NIST SP 800-38A (CTR)
"""

from collections.abc import Callable

from anyp2p.extras import require
from anyp2p_core.crypto import Entropy
from anyp2p_core.errors import HandshakeError, LocalError
from anyp2p_core.secio import SecioCrypto
from anyp2p_core.varint import Data

from .poison import poisoned_by_fork

require("cryptography", "crypto")

from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.hazmat.primitives.ciphers import Cipher  # noqa: E402
from cryptography.hazmat.primitives.ciphers.algorithms import AES  # noqa: E402
from cryptography.hazmat.primitives.ciphers.modes import CTR  # noqa: E402
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: E402


class OpensslSecio(SecioCrypto):
    """Has no state: share one or make many."""

    def ephemeral(self, exchange: str, entropy: Entropy) -> "_Ephemeral":
        return _Ephemeral(_CURVES[exchange], entropy)

    def aes_ctr(self, key: bytes, iv: bytes) -> Callable[[Data], bytes]:
        return poisoned_by_fork(Cipher(AES(key), CTR(iv)).encryptor().update)


_CURVES: dict[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}


class _Ephemeral:
    """Equal entropy gives equal keys."""

    __slots__ = ("_key", "public")

    def __init__(self, curve: ec.EllipticCurve, entropy: Entropy) -> None:
        self._key = _draw(curve, entropy)
        point = self._key.public_key()
        self.public = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def exchange(self, public: bytes) -> bytes:
        if len(public) != len(self.public):  # the library would take a compressed one as well
            raise HandshakeError("the peer's ephemeral key is no uncompressed point of the curve")
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(self._key.curve, public)
        except ValueError:
            raise HandshakeError("the peer's ephemeral key is no point of the curve") from None
        return self._key.exchange(ec.ECDH(), point)


def _draw(curve: ec.EllipticCurve, entropy: Entropy) -> ec.EllipticCurvePrivateKey:
    """A private key from the first draw within the order of the group."""
    bits = curve.key_size
    size = (bits + 7) // 8
    for _ in range(8):  # on these curves each fails once in 2**32 at most
        scalar = int.from_bytes(entropy(size), "big") & (1 << bits) - 1
        try:
            return ec.derive_private_key(scalar, curve)
        except ValueError:
            continue
    raise LocalError("entropy gives no usable key: it is not random")
