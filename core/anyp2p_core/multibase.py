"""Bytes as text whose first character names the base.

https://github.com/multiformats/multibase

    prefix  base                            prefix  base
    0       base2                           b B     base32 (lower, upper)
    7       base8                           c C     base32 with padding
    9       base10                          v V     base32hex
    f F     base16 (lower, upper)           t T     base32hex with padding
    k K     base36 (lower, upper)           h       base32z
    z       base58btc                       m M     base64 (without, with padding)
    Z       base58flickr                    u U     base64url (without, with padding)

Reading ignores case where the alphabet has only one, and accepts one spelling per value: no
spare characters, no bits set in the unused end. Bases 10, 36 and 58 are big-number arithmetic,
whose time grows with the square of the length, so their inputs are bounded first.
"""

from typing import Protocol

from .errors import DecodeError, LocalError
from .varint import Data

BASE16 = "f"
BASE32 = "b"
BASE36 = "k"
BASE58BTC = "z"
BASE64URL = "u"

MAX_NUMBER_DATA = 1024
"""The most bytes that bases 10, 36 and 58 write."""
MAX_NUMBER_TEXT = 2467
"""The most characters that they read: 1024 bytes in base 10."""


def encode(base: str, data: Data) -> str:
    """``data`` with its prefix. ``base`` is a prefix ("b") or a name ("base32")."""
    codec = _CODECS.get(base) or _NAMES.get(base)
    if codec is None:
        raise LocalError(f"unknown multibase {base!r}")
    return codec.prefix + codec.encode(data)


def decode(text: str) -> bytes:
    """The bytes of a text with its prefix."""
    codec = _CODECS.get(text[:1])
    if codec is None:
        raise DecodeError(f"unknown multibase prefix {text[:1]!r}")
    return codec.decode(text[1:])


def b58encode(data: Data) -> str:
    """base58btc without a prefix, of at most MAX_NUMBER_DATA bytes."""
    return _BASE58BTC.encode(data)


def b58decode(text: str) -> bytes:
    """The bytes of base58btc without a prefix, of at most MAX_NUMBER_TEXT characters."""
    return _BASE58BTC.decode(text)


class _Codec(Protocol):
    prefix: str

    def encode(self, data: Data) -> str: ...

    def decode(self, text: str) -> bytes: ...


class _Digits(dict[int, str]):
    """A table for ``str.translate`` that spoils the number where a character is foreign."""

    def __missing__(self, key: int) -> str:
        return "!"


class _Bits:
    """RFC 4648 style: every character is ``bits`` bits, the last one filled up with zeros."""

    __slots__ = ("_bits", "_chars", "_digits", "_padding", "prefix")

    def __init__(self, prefix: str, alphabet: str, padding: int = 1) -> None:
        self.prefix = prefix
        self._bits = bits = len(alphabet).bit_length() - 1
        self._padding = padding  # texts are filled with "=" to a multiple of this
        self._chars = {f"{value:0{bits}b}": char for value, char in enumerate(alphabet)}
        self._digits = _Digits()
        for digits, char in self._chars.items():
            for variant in _cases(char, alphabet):
                self._digits[ord(variant)] = digits

    def encode(self, data: Data) -> str:
        bits, chars = self._bits, self._chars
        count = -(-8 * len(data) // bits)
        if not count:
            return ""
        number = int.from_bytes(data) << count * bits - 8 * len(data)
        digits = f"{number:0{count * bits}b}"
        text = "".join([chars[digits[i : i + bits]] for i in range(0, len(digits), bits)])
        return text + "=" * (-count % self._padding)

    def decode(self, text: str) -> bytes:
        body = text.rstrip("=") if self._padding > 1 else text
        count = len(body)
        if len(text) != count + -count % self._padding:
            raise DecodeError("wrong padding")
        if not count:
            return b""
        try:
            # Power-of-two bases convert in linear time.
            number = int(body.translate(self._digits), 2)
        except ValueError:
            raise DecodeError(f"not a character of multibase {self.prefix!r}") from None
        size, unused = divmod(count * self._bits, 8)
        if unused >= self._bits or number & (1 << unused) - 1:
            raise DecodeError("spare characters or bits at the end")
        return (number >> unused).to_bytes(size)


_RUN = 5
"""Digits per operation on the big number: 58**5 is the largest power that fits in 30 bits, which
Python computes with fastest."""


class _Number:
    """One big number; every leading zero byte is one leading zero digit."""

    __slots__ = ("_alphabet", "_base", "_chunk", "_values", "prefix")

    def __init__(self, prefix: str, alphabet: str) -> None:
        self.prefix = prefix
        self._alphabet = alphabet
        self._base = len(alphabet)
        self._chunk = self._base**_RUN
        self._values = {
            variant: value
            for value, char in enumerate(alphabet)
            for variant in _cases(char, alphabet)
        }

    def encode(self, data: Data) -> str:
        if len(data) > MAX_NUMBER_DATA:
            raise LocalError(
                f"{len(data)} bytes in base {self._base}; the limit is {MAX_NUMBER_DATA}"
            )
        base, alphabet = self._base, self._alphabet
        number = int.from_bytes(data)
        zeros = len(data) - len(bytes(data).lstrip(b"\0"))
        digits: list[str] = []
        while number:
            number, part = divmod(number, self._chunk)
            for _ in range(_RUN):
                part, value = divmod(part, base)
                digits.append(alphabet[value])
        return alphabet[0] * zeros + "".join(reversed(digits)).lstrip(alphabet[0])

    def decode(self, text: str) -> bytes:
        if len(text) > MAX_NUMBER_TEXT:
            raise DecodeError(
                f"{len(text)} characters of base {self._base}; the limit is {MAX_NUMBER_TEXT}"
            )
        base, values = self._base, self._values
        number = 0
        try:
            for start in range(len(text) % _RUN - _RUN, len(text), _RUN):
                part = 0
                for char in text[max(start, 0) : start + _RUN]:
                    part = part * base + values[char]
                number = number * self._chunk + part
        except KeyError:
            raise DecodeError(f"not a character of multibase {self.prefix!r}") from None
        zeros = len(text) - len(text.lstrip(self._alphabet[0]))
        return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)


def _cases(char: str, alphabet: str) -> str:
    """The spellings of a character: both cases, unless the alphabet needs them both."""
    return char.lower() + char.upper() if alphabet in (alphabet.lower(), alphabet.upper()) else char


_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_BASE32_ALPHABET = _LETTERS + "234567"
_BASE32HEX = _DIGITS + _LETTERS[:22]
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE64 = _LETTERS.upper() + _LETTERS + _DIGITS
_BASE58BTC = _Number("z", _BASE58)

_NAMES: dict[str, _Codec] = {
    "base2": _Bits("0", "01"),
    "base8": _Bits("7", "01234567"),
    "base10": _Number("9", _DIGITS),
    "base16": _Bits("f", _DIGITS + "abcdef"),
    "base16upper": _Bits("F", _DIGITS + "ABCDEF"),
    "base32": _Bits("b", _BASE32_ALPHABET),
    "base32upper": _Bits("B", _BASE32_ALPHABET.upper()),
    "base32pad": _Bits("c", _BASE32_ALPHABET, padding=8),
    "base32padupper": _Bits("C", _BASE32_ALPHABET.upper(), padding=8),
    "base32hex": _Bits("v", _BASE32HEX),
    "base32hexupper": _Bits("V", _BASE32HEX.upper()),
    "base32hexpad": _Bits("t", _BASE32HEX, padding=8),
    "base32hexpadupper": _Bits("T", _BASE32HEX.upper(), padding=8),
    "base32z": _Bits("h", "ybndrfg8ejkmcpqxot1uwisza345h769"),
    "base36": _Number("k", _DIGITS + _LETTERS),
    "base36upper": _Number("K", _DIGITS + _LETTERS.upper()),
    "base58btc": _BASE58BTC,
    "base58flickr": _Number("Z", _BASE58[:9] + _BASE58[33:] + _BASE58[9:33]),
    "base64": _Bits("m", _BASE64 + "+/"),
    "base64pad": _Bits("M", _BASE64 + "+/", padding=4),
    "base64url": _Bits("u", _BASE64 + "-_"),
    "base64urlpad": _Bits("U", _BASE64 + "-_", padding=4),
}
_CODECS = {codec.prefix: codec for codec in _NAMES.values()}
