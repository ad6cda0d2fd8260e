"""The ``Crypto`` interface on the `cryptography` package (OpenSSL).

Specs: https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md
       https://www.rfc-editor.org/rfc/rfc8017 (RSA), rfc5915 (SEC1), rfc3279 (SubjectPublicKeyInfo)

A public key comes from the peer. What is variable in it is checked here, on the raw bytes, before
OpenSSL makes large integers of it; what is fixed is compared with a constant:

    RSA         SEQ { rsaEncryption NULL, BIT STRING { SEQ { INTEGER n, INTEGER e } } }
    ECDSA       a constant header per curve, then 04 x y
    SECP256K1   02|03 x
    ED25519     32 bytes, not one of the points of low order, for which anybody can sign
"""

from collections.abc import Callable
from typing import Any, NoReturn

from anyp2p_core.certificate import SEQUENCE, read_der
from anyp2p_core.crypto import Crypto, Entropy, KeyType, Signer, Verifier, is_simulated
from anyp2p_core.errors import DecodeError, HandshakeError, LocalError

try:
    from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.utils import (
        decode_dss_signature,
        encode_dss_signature,
    )
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_der_private_key,
    )
except ImportError as error:
    raise ImportError(
        "anyp2p needs the 'cryptography' package: pip install 'anyp2p[crypto]'"
    ) from error


class Cryptography(Crypto):
    """Everything the machines need, from one library. It has no state: share one or make many."""

    invalid_tag = InvalidTag

    def chacha20poly1305(self, key: bytes) -> ChaCha20Poly1305:
        return ChaCha20Poly1305(key)

    def x25519(self, private: bytes) -> "_X25519":
        return _X25519(private)

    def generate(self, kind: KeyType, entropy: Entropy, bits: int = 2048) -> Signer:
        if kind == KeyType.ED25519:
            return _ed25519(ed25519.Ed25519PrivateKey.from_private_bytes(_draw(entropy)))
        if kind == KeyType.SECP256K1:
            return _secp256k1(_scalar(ec.SECP256K1(), entropy))
        if kind == KeyType.ECDSA:
            return _ecdsa(_scalar(ec.SECP256R1(), entropy))
        if not RSA_MIN_BITS <= bits <= RSA_MAX_BITS:
            raise LocalError(f"RSA keys have {RSA_MIN_BITS} to {RSA_MAX_BITS} bits, not {bits}")
        if is_simulated(entropy):
            raise LocalError("RSA keys cannot be made from seeded entropy: load one instead")
        return _rsa(rsa.generate_private_key(65537, bits))

    def load_private(self, kind: KeyType, data: bytes) -> Signer:
        try:
            return _LOAD_PRIVATE[kind](data)
        except DecodeError as error:
            reason = str(error)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            reason = "the library refuses it"
        # Raised out here, so that no traceback links to frames that hold parts of the key.
        raise DecodeError(f"not a private {kind.name} key: {reason}")

    def load_public(self, kind: KeyType, data: bytes) -> Verifier:
        try:
            return _LOAD_PUBLIC[kind](data)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise DecodeError(f"not a public {kind.name} key: {error}") from None


RSA_MIN_BITS = 2048
RSA_MAX_BITS = 8192


class _Secret:
    """Base of what holds a private key: never copied, never pickled. The default repr is safe."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("private keys are neither pickled nor copied")


class _X25519(_Secret):
    """One private Diffie-Hellman key."""

    __slots__ = ("_key", "public")

    def __init__(self, private: bytes) -> None:
        self._key = x25519.X25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    def exchange(self, public: bytes) -> bytes:
        try:
            return self._key.exchange(x25519.X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise HandshakeError("the peer's X25519 key is of low order or not 32 bytes") from None


class _Signer(_Secret):
    """A library key: its ``sign`` with the arguments for its kind, and how it is exported."""

    __slots__ = ("_arguments", "_export", "_sign", "public")

    def __init__(
        self,
        sign: Callable[..., bytes],
        arguments: tuple[Any, ...],
        public: bytes,
        export: Callable[[], bytes],
    ) -> None:
        self._sign = sign
        self._arguments = arguments
        self._export = export
        self.public = public

    @property
    def private(self) -> bytes:
        return self._export()

    def sign(self, message: bytes) -> bytes:
        return self._sign(message, *self._arguments)


class _LowSSigner(_Signer):
    """secp256k1: of the two equivalent values of S, the smaller."""

    __slots__ = ()

    def sign(self, message: bytes) -> bytes:
        signature = self._sign(message, *self._arguments)
        r, s = decode_dss_signature(signature)
        if s <= _SECP256K1_ORDER // 2:
            return signature
        return encode_dss_signature(r, _SECP256K1_ORDER - s)


class _Verifier:
    """A library key's ``verify`` with the arguments for its kind."""

    __slots__ = ("_arguments", "_verify")

    def __init__(self, verify: Callable[..., None], *arguments: Any) -> None:
        self._verify = verify
        self._arguments = arguments

    def verify(self, signature: bytes, message: bytes) -> bool:
        try:
            self._verify(signature, message, *self._arguments)
        except InvalidSignature:
            return False
        return True


_SECP256K1_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141

_RSA_ARGUMENTS = (PKCS1v15(), SHA256())
try:
    # RFC 6979: a nonce that cannot repeat, and equal signatures in equal simulations.
    _EC_ARGUMENTS = (ec.ECDSA(SHA256(), deterministic_signing=True),)
except UnsupportedAlgorithm:
    _EC_ARGUMENTS = (ec.ECDSA(SHA256()),)


# Private keys


def _draw(entropy: Entropy) -> bytes:
    data = entropy(32)
    if len(data) != 32:
        raise LocalError(f"entropy gave {len(data)} bytes instead of 32")
    return data


def _scalar(curve: ec.EllipticCurve, entropy: Entropy) -> ec.EllipticCurvePrivateKey:
    """A private key from the first draw within the order of a 256-bit group."""
    for _ in range(8):  # each fails once in 2**32: all of them only if the source is broken
        try:
            return ec.derive_private_key(int.from_bytes(_draw(entropy), "big"), curve)
        except ValueError:
            continue
    raise LocalError("entropy gives no usable key: it is not random")


def _ed25519(key: ed25519.Ed25519PrivateKey) -> _Signer:
    public = key.public_key().public_bytes_raw()
    return _Signer(key.sign, (), public, lambda: key.private_bytes_raw() + public)


def _secp256k1(key: ec.EllipticCurvePrivateKey) -> _Signer:
    public = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return _LowSSigner(
        key.sign,
        _EC_ARGUMENTS,
        public,
        lambda: key.private_numbers().private_value.to_bytes(32, "big"),
    )


def _rsa(key: rsa.RSAPrivateKey) -> _Signer:
    return _Signer(key.sign, _RSA_ARGUMENTS, _spki(key.public_key()), lambda: _traditional(key))


def _ecdsa(key: ec.EllipticCurvePrivateKey) -> _Signer:
    return _Signer(key.sign, _EC_ARGUMENTS, _spki(key.public_key()), lambda: _traditional(key))


def _spki(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _traditional(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#1 for RSA, SEC1 for a curve."""
    return key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _load_ed25519(data: bytes) -> _Signer:
    if len(data) not in (64, 96):
        raise DecodeError("it has 64 bytes, or 96 in its old form")
    signer = _ed25519(ed25519.Ed25519PrivateKey.from_private_bytes(data[:32]))
    if data[32:] != signer.public * (len(data) // 32 - 1):
        raise DecodeError("its public half belongs to another key")
    return signer


def _load_secp256k1(data: bytes) -> _Signer:
    if len(data) != 32:
        raise DecodeError("it has 32 bytes")
    return _secp256k1(ec.derive_private_key(int.from_bytes(data, "big"), ec.SECP256K1()))


def _load_rsa(data: bytes) -> _Signer:
    pos, end = read_der(data, 0, len(data), SEQUENCE)
    _, pos = read_der(data, pos, end, _INTEGER)
    _rsa_numbers(data, pos, end)
    key = load_der_private_key(data, None)
    # Equality with the canonical form covers the version, the rest and the tail at once.
    if not isinstance(key, rsa.RSAPrivateKey) or _traditional(key) != data:
        raise DecodeError("it is not canonical PKCS#1")
    return _rsa(key)


def _load_ecdsa(data: bytes) -> _Signer:
    if len(data) > _MAX_EC_PRIVATE:
        raise DecodeError(f"it is longer than {_MAX_EC_PRIVATE} bytes")
    key = load_der_private_key(data, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _ECDSA_CURVES:
        raise DecodeError("it is on none of P-256, P-384 and P-521")
    # Written anew with the public half computed from the private one: equal, or not that key.
    pkcs8 = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    if data != _traditional(key) and data != pkcs8:
        raise DecodeError("it is not canonical, or its public half belongs to another key")
    return _ecdsa(key)


_LOAD_PRIVATE: dict[KeyType, Callable[[bytes], Signer]] = {
    KeyType.RSA: _load_rsa,
    KeyType.ED25519: _load_ed25519,
    KeyType.SECP256K1: _load_secp256k1,
    KeyType.ECDSA: _load_ecdsa,
}

_MAX_EC_PRIVATE = 256
"""A P-521 key in PKCS#8 has 241 bytes."""


# Public keys


def _load_public_ed25519(data: bytes) -> _Verifier:
    key = ed25519.Ed25519PublicKey.from_public_bytes(data)
    if bytes((*data[:31], data[31] & 0x7F)) in _LOW_ORDER:
        raise DecodeError("it is a point of low order")
    return _Verifier(key.verify)


def _load_public_secp256k1(data: bytes) -> _Verifier:
    if len(data) != 33:
        raise DecodeError("a compressed point has 33 bytes")
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), data)
    return _Verifier(key.verify, *_EC_ARGUMENTS)


def _load_public_ecdsa(data: bytes) -> _Verifier:
    header, curve = _ECDSA_HEADERS.get(len(data), (b"", None))
    if curve is None or not data.startswith(header):
        raise DecodeError("it is no canonical SubjectPublicKeyInfo of P-256, P-384 or P-521")
    key = ec.EllipticCurvePublicKey.from_encoded_point(curve, data[len(header) - 1 :])
    return _Verifier(key.verify, *_EC_ARGUMENTS)


def _load_public_rsa(data: bytes) -> _Verifier:
    pos, end = read_der(data, 0, len(data), SEQUENCE)
    if end != len(data) or not data.startswith(_RSA_ALGORITHM, pos, end):
        raise DecodeError("it is no SubjectPublicKeyInfo of RSA")
    pos, stop = read_der(data, pos + len(_RSA_ALGORITHM), end, _BIT_STRING)
    if stop != end or not data.startswith(b"\0", pos, end):
        raise DecodeError("its BIT STRING does not hold whole bytes up to the end")
    pos, stop = read_der(data, pos + 1, end, SEQUENCE)
    n, e, pos = _rsa_numbers(data, pos, stop)
    if pos != end:
        raise DecodeError("data follows the exponent")
    return _Verifier(rsa.RSAPublicNumbers(e, n).public_key().verify, *_RSA_ARGUMENTS)


_LOAD_PUBLIC: dict[KeyType, Callable[[bytes], Verifier]] = {
    KeyType.RSA: _load_public_rsa,
    KeyType.ED25519: _load_public_ed25519,
    KeyType.SECP256K1: _load_public_secp256k1,
    KeyType.ECDSA: _load_public_ecdsa,
}

_LOW_ORDER = frozenset(
    bytes.fromhex(y)
    for y in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Every encoding of the eight points of low order, without the bit for the sign of x."""

_ECDSA_CURVES = ("secp256r1", "secp384r1", "secp521r1")

# By length of the whole, which differs: what stands before the coordinates.
_ECDSA_HEADERS: dict[int, tuple[bytes, ec.EllipticCurve]] = {
    91: (
        bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
        ec.SECP256R1(),
    ),
    120: (bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004"), ec.SECP384R1()),
    158: (bytes.fromhex("30819b301006072a8648ce3d020106052b810400230381860004"), ec.SECP521R1()),
}

_RSA_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")


# DER

_INTEGER = 0x02
_BIT_STRING = 0x03


def _rsa_numbers(data: bytes, pos: int, end: int) -> tuple[int, int, int]:
    """Modulus, exponent and the position after them.

    The size is judged before an integer is made. A large exponent would make each verification
    hundreds of times dearer, whatever the size of the modulus.
    """
    n, pos = _der_integer(data, pos, end, RSA_MAX_BITS)
    if n.bit_length() < RSA_MIN_BITS or n % 2 == 0:
        raise DecodeError(f"RSA modulus is even or has fewer than {RSA_MIN_BITS} bits")
    e, pos = _der_integer(data, pos, end, 32)
    if e < 3 or e % 2 == 0:
        raise DecodeError("RSA exponent is even or less than 3")
    return n, e, pos


def _der_integer(data: bytes, pos: int, end: int, max_bits: int) -> tuple[int, int]:
    """A positive integer in its shortest form, and the position after it."""
    start, stop = read_der(data, pos, end, _INTEGER)
    if stop - start > max_bits // 8 + 1:
        raise DecodeError(f"RSA modulus or exponent has more than {max_bits} bits")
    head = data[start : min(start + 2, stop)]
    if not head or head[0] >= 0x80 or (head[0] == 0 and (len(head) == 1 or head[1] < 0x80)):
        raise DecodeError("DER integer is not positive or not minimal")
    number = int.from_bytes(data[start:stop], "big")
    if number.bit_length() > max_bits:
        raise DecodeError(f"RSA modulus or exponent has more than {max_bits} bits")
    return number, stop
