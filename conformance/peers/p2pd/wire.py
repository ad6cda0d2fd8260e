"""The few encodings that the daemon's control socket needs: protobuf, base58, multiaddr.

Written for this shim alone, so that it shares no code with what it helps to test.
"""

import ipaddress

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
IP4, TCP, IP6 = 4, 6, 41

Value = int | bytes


def varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    n = shift = 0
    while True:
        byte = data[at]
        at += 1
        n |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return n, at


def message(*fields: tuple[int, Value | str]) -> bytes:
    """A protobuf message of varint and length-delimited fields, in the order given."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return bytes(out)


def parse(data: bytes) -> dict[int, list[Value]]:
    """The values of each field number, in the order they came."""
    fields: dict[int, list[Value]] = {}
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        value: Value
        match tag & 7:
            case 0:
                value, at = read_varint(data, at)
            case 2:
                size, at = read_varint(data, at)
                value = data[at : at + size]
                at += size
            case kind:
                raise ValueError(f"a field of wire type {kind}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def blobs(fields: dict[int, list[Value]], number: int) -> list[bytes]:
    """The length-delimited values of a field."""
    return [value for value in fields.get(number, []) if isinstance(value, bytes)]


def blob(fields: dict[int, list[Value]], number: int) -> bytes:
    """The last length-delimited value of a field, b"" if there is none."""
    return (blobs(fields, number) or [b""])[-1]


def text(fields: dict[int, list[Value]], number: int) -> str:
    return blob(fields, number).decode(errors="replace")


def number(fields: dict[int, list[Value]], at: int) -> int:
    """The last varint of a field, 0 if there is none."""
    found = [value for value in fields.get(at, []) if isinstance(value, int)]
    return found[-1] if found else 0


def peer_id_text(data: bytes) -> str:
    n = int.from_bytes(data)
    out = ""
    while n:
        n, digit = divmod(n, 58)
        out = ALPHABET[digit] + out
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + out


def peer_id_bytes(text: str) -> bytes:
    n = 0
    for character in text:
        n = n * 58 + ALPHABET.index(character)
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + n.to_bytes((n.bit_length() + 7) // 8)


def address_bytes(text: str) -> bytes:
    """/ip4/A/tcp/P or /ip6/A/tcp/P as binary multiaddr."""
    _, family, host, transport, port = text.split("/")
    if (family, transport) not in (("ip4", "tcp"), ("ip6", "tcp")):
        raise ValueError(f"not an address of TCP over IP: {text}")
    code = IP4 if family == "ip4" else IP6
    ip = ipaddress.ip_address(host).packed
    return varint(code) + ip + varint(TCP) + int(port).to_bytes(2)


def address_text(data: bytes) -> str | None:
    """A binary multiaddr of TCP over IP as text, None for any other."""
    at = 0
    out = ""
    while at < len(data):
        code, at = read_varint(data, at)
        size = {IP4: 4, IP6: 16, TCP: 2}.get(code)
        if size is None:
            return None
        value = data[at : at + size]
        at += size
        if code == TCP:
            out += f"/tcp/{int.from_bytes(value)}"
        else:
            out += f"/ip{4 if code == IP4 else 6}/{ipaddress.ip_address(value)}"
    return out
