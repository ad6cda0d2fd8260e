"""The frame header of yamux: 12 bytes, big-endian.

Spec: https://github.com/hashicorp/yamux/blob/master/spec.md

    +---------+------+-------+-----------+--------+----------------------------
    | version | type | flags | stream id | length | payload (DATA frames only)
    +---------+------+-------+-----------+--------+----------------------------
        1        1      2          4          4     bytes

Version, type and flags are handled as one number, the ``head``: ``WINDOW_UPDATE | SYN``. A DATA
frame without flags has head 0, which is what a receiver sees most.
"""

from struct import Struct

HEADER_SIZE = 12

# Types. The version above them is 0.
DATA = 0x0_0000
WINDOW_UPDATE = 0x1_0000
PING = 0x2_0000
GO_AWAY = 0x3_0000

# Flags. Bits without a name are ignored when received.
FLAGS = 0xFFFF
SYN = 1
ACK = 2
FIN = 4
RST = 8

_header = Struct(">III")

encode = _header.pack
"""``encode(head, stream_id, length)`` makes the 12 bytes."""

decode = _header.unpack_from
"""``decode(data, pos)`` returns ``(head, stream_id, length)``; 12 bytes must be there."""
