"""Decompression of the snappy block format, which Ethereum's message ids need.

Spec: https://github.com/google/snappy/blob/main/format_description.txt

    block    varint(length) element *
    element  literal          tag 00, length - 1 in its six bits or in 1 to 4 bytes behind it
             copy             tag 01: 4 to 11 bytes from up to 2 KiB back;  10: 1 to 64 from 64 KiB;
                              11: 1 to 64 from 4 GiB
"""

from ..errors import DecodeError


def decompress(data: bytes, limit: int) -> bytes:
    """The data; DecodeError unless it is a block of exactly the length it says, within limit."""
    try:
        return _decompress(data, limit)
    except IndexError:
        raise DecodeError("a snappy block is cut off") from None


def _decompress(data: bytes, limit: int) -> bytes:
    size = shift = pos = 0
    while True:
        byte = data[pos]
        pos += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 28:
            raise DecodeError("a snappy length has at most 32 bits")
    if size > limit:
        raise DecodeError(f"a snappy block of {size} bytes; the limit is {limit}")
    out = bytearray()
    end = len(data)
    while pos < end:
        tag = data[pos]
        pos += 1
        kind = tag & 3
        length = (tag >> 2) + 1
        if kind == 0:
            if length > 60:
                extra = length - 60
                if pos + extra > end:
                    raise DecodeError("a snappy block is cut off")
                length = int.from_bytes(data[pos : pos + extra], "little") + 1
                pos += extra
            if pos + length > end or len(out) + length > size:
                raise DecodeError("a snappy literal is too long")
            out += data[pos : pos + length]
            pos += length
            continue
        if kind == 1:
            length = (tag >> 2 & 7) + 4
            back = tag >> 5 << 8 | data[pos]
            pos += 1
        else:
            width = 2 if kind == 2 else 4
            if pos + width > end:
                raise DecodeError("a snappy block is cut off")
            back = int.from_bytes(data[pos : pos + width], "little")
            pos += width
        if not 0 < back <= len(out) or len(out) + length > size:
            raise DecodeError("a snappy copy reaches outside of the block")
        start = len(out) - back
        piece = out[start : start + length]
        # It may overlap with what it makes: then it repeats itself.
        out += piece if back >= length else (piece * (length // back + 1))[:length]
    if len(out) != size:
        raise DecodeError("a snappy block is not as long as it says")
    return bytes(out)
