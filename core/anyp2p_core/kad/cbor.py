"""The canonical CBOR of signed records: one map from names to numbers and bytes.

https://ipld.io/specs/codecs/dag-cbor/spec/ and https://www.rfc-editor.org/rfc/rfc8949

    item     head [bytes]            head = major type << 5 | argument, shortest spelling only
    map      0xa0 + n, n x (text, item)      names by length, then by bytes, none twice

What is written is canonical, and nothing else is read: equal maps have equal bytes. Values of
other kinds are checked and left out, so that names that are added later do no harm.
"""

from collections.abc import Mapping

from ..errors import DecodeError, LocalError

MAX_SIZE = 16 * 1024
"""The longest map, in bytes."""
MAX_NAMES = 64

Value = int | bytes

_UINT, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_LINK = 42
"""The only tag: a CID."""
_SIMPLE_VALUES = (20, 21, 22)
"""False, true and null."""
_FLOAT64 = 27


def encode(values: Mapping[str, Value]) -> bytes:
    """The canonical bytes of a map of numbers below 2**64 and byte strings.

    >>> encode({"TTL": 1, "A": b"x"}).hex()
    'a2614141786354544c01'
    """
    parts = [_head(_MAP, len(values))]
    named = [(name.encode(), value) for name, value in values.items()]
    for name, value in sorted(named, key=_canonical):
        parts += (_head(_TEXT, len(name)), name)
        if isinstance(value, int):
            parts.append(_head(_UINT, value))
        else:
            parts += (_head(_BYTES, len(value)), value)
    return b"".join(parts)


def decode(data: bytes) -> dict[str, Value]:
    """The numbers and byte strings of a canonical map that takes up all of ``data``."""
    if len(data) > MAX_SIZE:
        raise DecodeError(f"CBOR of {len(data)} bytes; the limit is {MAX_SIZE}")
    try:
        kind, count, pos = _read_head(data, 0)
        if kind != _MAP or count > MAX_NAMES:
            raise DecodeError(f"the CBOR is not a map of at most {MAX_NAMES} names")
        values: dict[str, Value] = {}
        last = (-1, b"")
        for _ in range(count):
            kind, size, pos = _read_head(data, pos)
            if kind != _TEXT:
                raise DecodeError("a name in the CBOR is not text")
            raw, pos = _take(data, pos, size)
            if (size, raw) <= last:
                raise DecodeError("the names in the CBOR are not in canonical order")
            last = size, raw
            kind, argument, after = _read_head(data, pos)
            if kind == _UINT:
                values[_text(raw)] = argument
                pos = after
            elif kind == _BYTES:
                values[_text(raw)], pos = _take(data, after, argument)
            else:
                _text(raw)
                pos = _skip(data, pos)
    except IndexError:
        raise DecodeError("the CBOR is cut off") from None
    if pos != len(data):
        raise DecodeError("something follows the CBOR")
    return values


def _canonical(item: tuple[bytes, Value]) -> tuple[int, bytes]:
    return len(item[0]), item[0]


def _head(kind: int, argument: int) -> bytes:
    if not 0 <= argument < 1 << 64:
        raise LocalError(f"{argument} does not fit into 64 bits")
    if argument < 24:
        return bytes((kind << 5 | argument,))
    power = max((argument.bit_length() + 7) // 8 - 1, 0).bit_length()  # 1, 2, 4 or 8 bytes
    return bytes((kind << 5 | 24 + power,)) + argument.to_bytes(1 << power)


def _read_head(data: bytes, pos: int) -> tuple[int, int, int]:
    """Major type, argument and the position behind them; IndexError if they are not all there."""
    kind, argument = data[pos] >> 5, data[pos] & 31
    pos += 1
    if argument >= 24:
        if argument > 27:
            raise DecodeError("the CBOR has an indefinite length or a reserved head")
        raw, pos = _take(data, pos, 1 << argument - 24)
        if kind == _SIMPLE:
            if argument != _FLOAT64:
                raise DecodeError("the CBOR has a number that is not of 64 bits")
            return kind, _FLOAT64, pos
        number = int.from_bytes(raw)
        least = 24 if argument == 24 else 1 << (4 << argument - 24)
        if number < least:
            raise DecodeError("a number in the CBOR is longer than it needs to be")
        return kind, number, pos
    if kind == _SIMPLE and argument not in _SIMPLE_VALUES:
        raise DecodeError(f"the CBOR has the simple value {argument}")
    return kind, argument, pos


def _take(data: bytes, pos: int, size: int) -> tuple[bytes, int]:
    end = pos + size
    if end > len(data):
        raise IndexError
    return data[pos:end], end


def _skip(data: bytes, pos: int) -> int:
    """The position behind one item of any kind, checked as far as its heads go."""
    left = 1
    while left:
        left -= 1
        kind, argument, pos = _read_head(data, pos)
        if kind in (_BYTES, _TEXT):
            pos = _take(data, pos, argument)[1]
        elif kind == _ARRAY:
            left += argument
        elif kind == _MAP:
            left += 2 * argument
        elif kind == _TAG:
            if argument != _LINK:
                raise DecodeError(f"the CBOR has the tag {argument}")
            left += 1
        if left > len(data) - pos:  # every item takes a byte at least
            raise IndexError
    return pos


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise DecodeError("a name in the CBOR is not UTF-8") from None
