"""anyp2p_core.quic_packet: headers, whole and cut off."""

import pytest
from hypothesis import given, strategies as st

from anyp2p_core.quic_packet import LongHeader, parse_long_header, version_negotiation

NAME, PEER = b"12345678", b"abc"


def long(version=1, destination=NAME, source=PEER, rest=b"\0", first=0xC0):
    head = bytes([first]) + version.to_bytes(4)
    return head + bytes([len(destination)]) + destination + bytes([len(source)]) + source + rest


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (long(), LongHeader(1, NAME, PEER, True)),
        (long(first=0xC3), LongHeader(1, NAME, PEER, True)),
        (long(rest=b"\x05token"), LongHeader(1, NAME, PEER, True, b"token")),
        (long(rest=b"\x40\x05token"), LongHeader(1, NAME, PEER, True, b"token")),
        (long(rest=b"\x80\0\0\x05token"), LongHeader(1, NAME, PEER, True, b"token")),
        (long(rest=b"\xc0" + bytes(6) + b"\x05token"), LongHeader(1, NAME, PEER, True, b"token")),
        (long(source=b""), LongHeader(1, NAME, b"", True)),
        (long(first=0xD0, rest=b""), LongHeader(1, NAME, PEER)),  # 0-RTT
        (long(first=0xE0, rest=b""), LongHeader(1, NAME, PEER)),
        (long(2, bytes(255), bytes(200), b""), LongHeader(2, bytes(255), bytes(200))),
        (long(2, first=0x80, rest=b""), LongHeader(2, NAME, PEER)),
        (long(0, rest=b""), LongHeader(0, NAME, PEER)),
    ],
)
def test_headers(data, header):
    assert parse_long_header(data) == header
    assert parse_long_header(data + b"more") == header
    for end in range(len(data)):
        assert parse_long_header(data[:end]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x40" + bytes(30),
        long(destination=bytes(21)),
        long(source=bytes(21)),
        long(first=0x80),
        long(rest=b"\x06token"),
        long(rest=b"\xff" * 8),
        long(rest=b"\x40"),
    ],
)
def test_what_is_none(data):
    assert parse_long_header(data) is None


@given(st.binary(max_size=300))
def test_anything(data):
    header = parse_long_header(data)
    if header is not None:
        assert data[0] & 0x80 and header.destination in data and header.token in data


def test_version_negotiation():
    packet = version_negotiation(LongHeader(7, NAME, PEER))
    assert packet[0] & 0x80
    assert packet[1:] == bytes(4) + b"\x03abc\x0812345678" + b"\0\0\0\1"
    assert parse_long_header(packet) == LongHeader(0, PEER, NAME)
