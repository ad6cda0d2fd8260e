"""Several transports on one TCP port, told apart by how a connection begins.

    13 2f 6d          multistream-select: bare TCP                     "tcp"
    47 45 54          "GET": an HTTP upgrade to WebSocket              "ws"
    16 03 00 ... 04   a TLS record: web TLS, a WebSocket inside        "tls"
    anything else     bare TCP, with a private network's nonce first   "tcp"

Such a nonce is random: once in three million connections it looks like one of the others. The
connection fails then, and the peer dials again.
"""

from typing import Literal

Kind = Literal["tcp", "ws", "tls"]


class PortSharing:
    """The first bytes of one accepted connection. Holds two at most, decides on three at most.

    >>> sharing = PortSharing()
    >>> sharing.receive(b"G"), sharing.receive(b"ET / HTTP/1.1"), sharing.kind
    (None, b'GET / HTTP/1.1', 'ws')
    """

    __slots__ = ("kind", "_held")

    def __init__(self) -> None:
        self.kind: Kind | None = None
        self._held = b""

    def receive(self, data: bytes) -> bytes | None:
        """None while undecided, then all that came, for ``kind``. Not to be called after that."""
        data = self._held + data
        start = data[:3]
        if len(start) < 3 and any(known.startswith(start) for known in _KINDS):
            self._held = data
            return None
        self._held = b""
        self.kind = _KINDS.get(start, "tcp")
        return data


_KINDS: dict[bytes, Kind] = {
    b"GET": "ws",
    **{bytes((0x16, 0x03, minor)): "tls" for minor in range(5)},
}
