"""Self-describing network addresses: /ip4/192.0.2.1/udp/4001/quic-v1/p2p/12D3Koo...

https://github.com/multiformats/multiaddr

    text    ("/" name ["/" value])+
    binary  (varint(code) [value of fixed size | varint(length) value])+

What is accepted is unambiguous: the text of a Multiaddr reads back as the same bytes, and the
other way round. The text is canonical, whatever it was read from: "p2p" for "ipfs", base58btc for
peer ids, base64url for certificate hashes, no trailing slash.
"""

import base64
from collections.abc import Callable
from functools import partial, total_ordering
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from . import multibase, multihash, varint
from .cid import CID, LIBP2P_KEY
from .errors import DecodeError

MAX_BYTES = 1024
MAX_TEXT = 2048
MAX_COMPONENTS = 16


class Component(NamedTuple):
    """One protocol of an address. ``value`` and ``raw`` are empty if it has none."""

    name: str
    code: int
    value: str
    raw: bytes


@total_ordering
class Multiaddr:
    """An immutable address; equal, hashed and ordered by its bytes.

    DecodeError for text or bytes that are malformed, name an unknown protocol or exceed
    MAX_BYTES, MAX_TEXT or MAX_COMPONENTS.

    >>> Multiaddr("/ip4/192.0.2.1/tcp/4001").get("tcp")
    '4001'
    >>> Multiaddr("/ip4/192.0.2.1") / "/tcp/4001/ws"
    Multiaddr('/ip4/192.0.2.1/tcp/4001/ws')
    """

    __slots__ = ("_bytes", "_components", "_parts", "_text")

    _bytes: bytes
    _parts: "tuple[_Part, ...]"
    _components: tuple[Component, ...] | None
    _text: str | None

    def __init__(self, text: str) -> None:
        parts = _parse(text)
        data = b"".join(map(_encode, parts))
        _check_size(data)
        self._set(parts, data)

    @classmethod
    def from_bytes(cls, data: varint.Data) -> "Multiaddr":
        """Reads an address that takes up all of ``data``."""
        _check_size(data)
        data = bytes(data)
        self = cls.__new__(cls)
        self._set(_split(data), data)
        return self

    def _set(self, parts: "tuple[_Part, ...]", data: bytes) -> None:
        self._parts = parts
        self._bytes = data
        self._components = None
        self._text = None
        # Escapes triple a path. The text of a small address fits, whatever it is.
        if len(data) > MAX_BYTES // 2 and len(str(self)) > MAX_TEXT:
            raise DecodeError(f"an address whose text is longer than {MAX_TEXT} characters")

    def __bytes__(self) -> bytes:
        return self._bytes

    def __str__(self) -> str:
        if self._text is None:
            self._text = "".join(map(_text, self._parts))
        return self._text

    def __repr__(self) -> str:
        return f"Multiaddr({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return self._bytes == other._bytes if isinstance(other, Multiaddr) else NotImplemented

    def __lt__(self, other: "Multiaddr") -> bool:
        return self._bytes < other._bytes if isinstance(other, Multiaddr) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __reduce__(self) -> "tuple[Callable[[bytes], Multiaddr], tuple[bytes]]":
        return Multiaddr.from_bytes, (self._bytes,)

    @property
    def components(self) -> tuple[Component, ...]:
        """The protocols and their values, outermost first."""
        if self._components is None:
            self._components = tuple(
                Component(protocol.name, protocol.code, protocol.to_text(raw), raw)
                for protocol, raw in self._parts
            )
        return self._components

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the protocols, outermost first."""
        return tuple([protocol.name for protocol, _ in self._parts])

    def get(self, name: str) -> str | None:
        """The first value of a protocol: "" if it takes none, None if it is not there."""
        for protocol, raw in self._parts:
            if protocol.name == name:
                return protocol.to_text(raw)
        return None

    def split_peer(self) -> "tuple[Multiaddr | None, bytes | None]":
        """The address without a final /p2p component, and that component's multihash.

        >>> where, peer = Multiaddr("/ip4/192.0.2.1/tcp/4001").split_peer()
        >>> str(where), peer
        ('/ip4/192.0.2.1/tcp/4001', None)
        """
        protocol, raw = self._parts[-1]
        if protocol is _UNIX:
            return self._split_path(raw)
        if protocol is not _P2P:
            return self, None
        if len(self._parts) == 1:
            return None, raw
        rest = Multiaddr.__new__(Multiaddr)
        rest._set(self._parts[:-1], self._bytes[: -len(_encode((protocol, raw)))])
        return rest, raw

    def _split_path(self, raw: bytes) -> "tuple[Multiaddr | None, bytes | None]":
        """The same where the last component is a path, which takes up all that follows it."""
        path, found, peer = raw.rpartition(b"/p2p/")
        if path and found:
            try:
                named = _peer(peer.decode())
                _check_peer(named)
                return Multiaddr(f"/unix{path.decode()}"), named
            except ValueError:
                pass
        return self, None

    def encapsulate(self, other: "Multiaddr | str") -> "Multiaddr":
        """This address followed by another one."""
        if self._parts[-1][0] is _UNIX:
            return Multiaddr(str(self) + str(_coerce(other)))
        return Multiaddr.from_bytes(self._bytes + _coerce(other)._bytes)

    __truediv__ = encapsulate

    def decapsulate(self, other: "Multiaddr | str") -> "Multiaddr | None":
        """What stands before the last occurrence of another address, all if there is none.

        None if nothing would be left.
        """
        mine, theirs = self._parts, _coerce(other)._parts
        for start in range(len(mine) - len(theirs), -1, -1):
            if mine[start : start + len(theirs)] == theirs:
                if start == 0:
                    return None
                rest = Multiaddr.__new__(Multiaddr)
                rest._set(mine[:start], b"".join(map(_encode, mine[:start])))
                return rest
        return self


def _coerce(address: Multiaddr | str) -> Multiaddr:
    return Multiaddr(address) if isinstance(address, str) else address


class _Protocol:
    """How a protocol's value is written. ``size`` is in bytes, _VARIABLE if a length precedes.

    ``from_text`` and ``check`` (of bytes, where the size says too little) raise ValueError.
    """

    __slots__ = ("check", "code", "from_text", "name", "prefix", "size", "to_text")

    def __init__(
        self,
        name: str,
        code: int,
        size: int = 0,
        from_text: Callable[[str], bytes] = str.encode,
        to_text: Callable[[bytes], str] = bytes.decode,
        check: Callable[[bytes], object] | None = None,
    ) -> None:
        self.name = name
        self.code = code
        self.size = size
        self.from_text = from_text
        self.to_text = to_text
        self.check = check
        self.prefix = varint.encode(code)


_Part = tuple[_Protocol, bytes]
_VARIABLE: Final = -1


def _check_size(data: varint.Data) -> None:
    if not 0 < len(data) <= MAX_BYTES:
        raise DecodeError(f"an address of {len(data)} bytes; 1 to {MAX_BYTES} are allowed")


def _split(data: bytes) -> tuple[_Part, ...]:
    end = len(data)
    parts: list[_Part] = []
    pos = 0
    while pos < end:
        if len(parts) == MAX_COMPONENTS:
            raise DecodeError(f"an address of more than {MAX_COMPONENTS} components")
        code = data[pos]
        pos += 1
        if code > 0x7F:
            code, pos = varint.decode(data, pos - 1)
        protocol = _BY_CODE.get(code)
        if protocol is None:
            raise DecodeError(f"unknown protocol {code:#x} in an address")
        size = protocol.size
        if size == 0:
            parts.append((protocol, b""))
            continue
        if size == _VARIABLE:
            size, pos = varint.decode(data, pos)
        start, pos = pos, pos + size
        if pos > end or size == 0:
            raise DecodeError(f"the value of {protocol.name} is cut off or empty")
        raw = data[start:pos]
        if protocol.check is not None:
            try:
                protocol.check(raw)
            except ValueError as error:
                raise DecodeError(f"{protocol.name}: {error}") from None
            if protocol is _UNIX and pos < end:
                raise DecodeError("a path of unix takes up the rest of an address")
        parts.append((protocol, raw))
    return tuple(parts)


def _parse(text: str) -> tuple[_Part, ...]:
    if len(text) > MAX_TEXT:
        raise DecodeError(f"an address of {len(text)} characters; the limit is {MAX_TEXT}")
    if not text.startswith("/"):
        raise DecodeError(f"{text[:100]!r} is not an address: it has to start with a slash")
    words = text.removesuffix("/").split("/")[::-1]  # a stack
    words.pop()
    parts: list[_Part] = []
    while words:
        if len(parts) == MAX_COMPONENTS:
            raise DecodeError(f"an address of more than {MAX_COMPONENTS} components")
        name = words.pop()
        protocol = _BY_NAME.get(name)
        if protocol is None:
            raise DecodeError(f"{text[:100]!r}: unknown protocol {name[:40]!r}")
        raw = b""
        if protocol.size:
            if not words:
                raise DecodeError(f"{text[:100]!r}: {name} needs a value")
            value = words.pop()
            if protocol is _UNIX:
                value = "/".join(["", value, *reversed(words)])
                words.clear()
            try:
                raw = protocol.from_text(value)
                if not raw:
                    raise ValueError("an empty value")
                if protocol.check is not None:
                    protocol.check(raw)
            except ValueError as error:
                raise DecodeError(f"{text[:100]!r}: {name}: {error}") from None
        parts.append((protocol, raw))
    return tuple(parts)


def _encode(part: _Part) -> bytes:
    protocol, raw = part
    if protocol.size == _VARIABLE:
        return protocol.prefix + varint.delimited(raw)
    return protocol.prefix + raw


def _text(part: _Part) -> str:
    protocol, raw = part
    if not protocol.size:
        return f"/{protocol.name}"
    # The value of unix brings its own slash.
    slash = "" if protocol is _UNIX else "/"
    return f"/{protocol.name}{slash}{protocol.to_text(raw)}"


# Values. What reads text raises ValueError, of which DecodeError is one.


def _number(size: int, text: str) -> bytes:
    # Twenty digits are enough for 64 bits; int() also takes signs, spaces and other scripts.
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ValueError(f"{text[:40]!r} is not a number")
    number = int(text)
    if number >> 8 * size:
        raise ValueError(f"{number} is too large")
    return number.to_bytes(size)


def _number_text(raw: bytes) -> str:
    return str(int.from_bytes(raw))


def _ip4(text: str) -> bytes:
    return IPv4Address(text).packed


def _ip4_text(raw: bytes) -> str:
    return ".".join(map(str, raw))


def _ip6(text: str) -> bytes:
    if "%" in text:
        raise ValueError("a zone goes into ip6zone")
    return IPv6Address(text).packed


def _ip6_text(raw: bytes) -> str:
    if raw.startswith(b"\0" * 10 + b"\xff\xff"):  # spelled differently by versions of Python
        return "::ffff:" + _ip4_text(raw[12:])
    return IPv6Address(raw).compressed


def _check_host(raw: bytes) -> None:
    text = raw.decode()
    # Control characters could forge lines of a log or move a terminal's cursor.
    if "/" in text or not text.isprintable():
        raise ValueError("a slash or an unprintable character")


def _check_path(raw: bytes) -> None:
    if not (raw.decode().isprintable() and raw.startswith(b"/") and not raw.endswith(b"/")):
        raise ValueError("a path starts with a slash, does not end with one, and is printable")


def _peer(text: str) -> bytes:
    if text.startswith(("1", "Qm")):
        return multibase.b58decode(text)
    cid = CID.from_text(text)
    if cid.codec != LIBP2P_KEY:
        raise ValueError(f"codec {cid.codec:#x} is not that of a key")
    return cid.multihash


def _check_peer(raw: bytes) -> None:
    """Peer ids are sha2-256 or an inlined key of 1 to 42 bytes."""
    size = len(raw) - 2  # of the digest: both kinds have one-byte codes and lengths
    if raw.startswith(b"\x12\x20") and size == 32:
        return
    if not (raw.startswith(b"\0") and 0 < size <= 42 and raw[1] == size):
        raise ValueError("not a sha2-256 multihash, and not an inlined key of up to 42 bytes")


def _onion(size: int, text: str) -> bytes:
    host, _, port = text.partition(":")
    raw = base64.b32decode(host, casefold=True)
    if len(raw) != size:
        raise ValueError(f"an onion address of {len(raw)} bytes, not {size}")
    return raw + _number(2, port)


def _onion_text(raw: bytes) -> str:
    return f"{base64.b32encode(raw[:-2]).decode().lower()}:{_number_text(raw[-2:])}"


def _check_onion(raw: bytes) -> None:
    if raw.endswith(b"\0\0"):
        raise ValueError("port 0")


def _garlic64(text: str) -> bytes:
    if "+" in text:  # which the alternative alphabet lacks, but Python accepts
        raise ValueError("not I2P base64")
    return base64.b64decode(text, altchars=b"-~", validate=True)


def _garlic64_text(raw: bytes) -> str:
    return base64.b64encode(raw, altchars=b"-~").decode()


def _check_garlic64(raw: bytes) -> None:
    if len(raw) < 386:
        raise ValueError(f"an I2P destination of {len(raw)} bytes; it has 386 or more")


def _garlic32(text: str) -> bytes:
    if "=" in text:
        raise ValueError("padding")
    return base64.b32decode(text + "=" * (-len(text) % 8), casefold=True)


def _garlic32_text(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()


def _check_garlic32(raw: bytes) -> None:
    if len(raw) < 35 and len(raw) != 32:
        raise ValueError(f"an I2P address of {len(raw)} bytes; it has 32, or 35 and more")


_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_ESCAPED = [chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in range(256)]


def _http_path(text: str) -> bytes:
    first, *rest = text.split("%")
    raw = [first.encode()]
    for piece in rest:
        # bytes.fromhex() skips spaces.
        if len(piece) < 2 or not piece[:2].isalnum():
            raise ValueError("two hex digits have to follow a percent sign")
        raw += bytes.fromhex(piece[:2]), piece[2:].encode()
    return b"".join(raw)


def _http_path_text(raw: bytes) -> str:
    return "".join([_ESCAPED[byte] for byte in raw])


_PORT = partial(_number, 2), _number_text
_HOST = str.encode, bytes.decode, _check_host
_UNIX = _Protocol("unix", 400, _VARIABLE, check=_check_path)
_P2P = _Protocol("p2p", 421, _VARIABLE, _peer, multibase.b58encode, _check_peer)

_PROTOCOLS = (
    _Protocol("ip4", 4, 4, _ip4, _ip4_text),
    _Protocol("tcp", 6, 2, *_PORT),
    _Protocol("dccp", 33, 2, *_PORT),
    _Protocol("ip6", 41, 16, _ip6, _ip6_text),
    _Protocol("ip6zone", 42, _VARIABLE, *_HOST),
    _Protocol("ipcidr", 43, 1, partial(_number, 1), _number_text),
    _Protocol("dns", 53, _VARIABLE, *_HOST),
    _Protocol("dns4", 54, _VARIABLE, *_HOST),
    _Protocol("dns6", 55, _VARIABLE, *_HOST),
    _Protocol("dnsaddr", 56, _VARIABLE, *_HOST),
    _Protocol("sctp", 132, 2, *_PORT),
    _Protocol("udp", 273, 2, *_PORT),
    _Protocol("p2p-webrtc-star", 275),
    _Protocol("p2p-webrtc-direct", 276),
    _Protocol("p2p-stardust", 277),
    _Protocol("webrtc-direct", 280),
    _Protocol("webrtc", 281),
    _Protocol("p2p-circuit", 290),
    _Protocol("udt", 301),
    _Protocol("utp", 302),
    _UNIX,
    _P2P,
    _Protocol("https", 443),
    _Protocol("onion", 444, 12, partial(_onion, 10), _onion_text, _check_onion),
    _Protocol("onion3", 445, 37, partial(_onion, 35), _onion_text, _check_onion),
    _Protocol("garlic64", 446, _VARIABLE, _garlic64, _garlic64_text, _check_garlic64),
    _Protocol("garlic32", 447, _VARIABLE, _garlic32, _garlic32_text, _check_garlic32),
    _Protocol("tls", 448),
    _Protocol("sni", 449, _VARIABLE, *_HOST),
    _Protocol("noise", 454),
    _Protocol("quic", 460),
    _Protocol("quic-v1", 461),
    _Protocol("webtransport", 465),
    _Protocol(
        "certhash",
        466,
        _VARIABLE,
        multibase.decode,
        partial(multibase.encode, multibase.BASE64URL),
        multihash.decode,
    ),
    _Protocol("ws", 477),
    _Protocol("wss", 478),
    _Protocol("p2p-websocket-star", 479),
    _Protocol("http", 480),
    _Protocol("http-path", 481, _VARIABLE, _http_path, _http_path_text),
    # The table gives it a variable size; every peer writes 8 bytes without a length.
    _Protocol("memory", 777, 8, partial(_number, 8), _number_text),
    _Protocol("plaintextv2", 0x706C61),
)
_BY_CODE = {protocol.code: protocol for protocol in _PROTOCOLS}
_BY_NAME = {protocol.name: protocol for protocol in _PROTOCOLS}
_BY_NAME["ipfs"] = _BY_NAME["p2p"]
