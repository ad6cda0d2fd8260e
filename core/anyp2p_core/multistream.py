"""multistream-select 1.0: agree on one protocol name.

Spec: https://github.com/multiformats/multistream-select

    dialer    "/multistream/1.0.0" "/a"  ->
              <-  "/multistream/1.0.0" "na"
              "/b"  ->
              <-  "/b"                       both sides now speak /b

Every line is an unsigned varint length, the text, and a newline that the length counts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache

from .errors import DecodeError, LocalError, NegotiationError
from .varint import delimited, peek

MAX_LINE = 1024
"""Longest line accepted or sent, newline included."""
MAX_PROPOSALS = 64
"""Proposals that a listener answers in one negotiation."""

_HEADER = delimited(b"/multistream/1.0.0\n")
_NOT_AVAILABLE = delimited(b"na\n")


class _Negotiation(ABC):
    """What both sides share: lines in, coalesced lines out, one end."""

    __slots__ = ("greeted", "protocol", "_buf", "_out", "_over", "_write")

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.protocol: str | None = None
        self._write = write
        self._buf = b""
        self._out = _HEADER
        self.greeted = False
        """Whether the peer has said that it speaks multistream."""
        self._over = False

    def receive(self, data: bytes) -> bytes | None:
        """Take bytes from the peer: None while negotiating, then what follows the agreement.

        Raises NegotiationError when there can be none or the peer breaks the rules; after either
        end, LocalError.
        """
        if self._over:
            raise LocalError("this negotiation is over")
        self._over = True  # an error is an end too; taken back when only bytes are missing
        buf = self._buf + data if self._buf else data
        self._buf = b""
        pos = 0
        if not self.greeted:
            if buf.startswith(_HEADER):
                self.greeted = True
                pos = len(_HEADER)
            elif not _HEADER.startswith(buf):
                raise NegotiationError(f"the peer does not speak multistream: {buf[:64]!r}")
        try:
            while self.greeted and self.protocol is None and (end := _line_end(buf, pos)):
                self._on_line(buf[pos:end])
                pos = end
        finally:  # what was answered before a broken line goes out, however the bytes came
            if self._out and self.greeted:
                self._write(self._out)
                self._out = b""
        if self.protocol is not None:
            return buf[pos:]
        self._buf = buf[pos:]
        self._over = False
        return None

    @abstractmethod
    def _on_line(self, line: bytes) -> None:
        """One line after the header, as it came, with its length and newline."""


class Dialer(_Negotiation):
    """The side that proposes protocols, the preferred one first.

    The header and the first proposal go out at construction, in one write. With a single protocol
    the caller may send its data right behind them.
    """

    __slots__ = ("_proposal", "_protocols", "_refused")

    def __init__(self, protocols: Sequence[str], write: Callable[[bytes], object]) -> None:
        super().__init__(write)
        if not protocols:
            raise LocalError("there is no protocol to propose")
        self._protocols = protocols
        self._refused = 0
        self._proposal = encode(protocols[0])
        self._out = b""
        write(_HEADER + self._proposal)

    def _on_line(self, line: bytes) -> None:
        if line == self._proposal:
            self.protocol = self._protocols[self._refused]
            return
        if line != _NOT_AVAILABLE:
            proposed = self._protocols[self._refused]
            raise NegotiationError(f"the peer answered {line[:64]!r} to {proposed}")
        self._refused += 1
        if self._refused == len(self._protocols):
            raise NegotiationError(f"the peer supports none of {', '.join(self._protocols)}")
        self._proposal = self._out = encode(self._protocols[self._refused])


class Listener(_Negotiation):
    """The side that accepts the first proposal for which ``supports(name)`` is true.

    Everything else, the old ``ls`` included, is answered with ``na``, ``MAX_PROPOSALS`` times.
    """

    __slots__ = ("_proposals", "_supports")

    def __init__(self, supports: Callable[[str], bool], write: Callable[[bytes], object]) -> None:
        super().__init__(write)
        self._supports = supports
        self._proposals = 0

    @property
    def refused(self) -> bool:
        """Whether the peer has proposed something, and nothing that is supported."""
        return self._proposals > 0 and self.protocol is None

    def _on_line(self, line: bytes) -> None:
        if self._proposals == MAX_PROPOSALS:
            raise NegotiationError(f"the peer made more than {MAX_PROPOSALS} proposals")
        self._proposals += 1
        name = _name(line)
        if name is not None and self._supports(name):
            self.protocol = name
            self._out += line
        else:
            self._out += _NOT_AVAILABLE


@lru_cache(maxsize=256)
def encode(protocol: str) -> bytes:
    """The line that names ``protocol``; LocalError if that is no protocol name.

    >>> encode("/a")
    b'\\x03/a\\n'
    """
    if not protocol.startswith("/") or not protocol.isprintable():
        raise LocalError(f"{protocol!r} is no protocol name: it starts with / and is printable")
    text = protocol.encode()
    if len(text) >= MAX_LINE:
        raise LocalError(f"a protocol name of {len(text)} bytes, the limit is {MAX_LINE - 1}")
    return delimited(text + b"\n")


def _name(line: bytes) -> str | None:
    """The protocol that a line names, None for what cannot be one."""
    start = 1 if line[0] < 0x80 else 2
    if line[start] != 0x2F:
        return None
    try:
        return line[start:-1].decode()
    except UnicodeDecodeError:
        return None


def _line_end(buf: bytes, pos: int) -> int:
    """Where the line at ``pos`` ends, 0 while it is incomplete."""
    try:
        prefix = peek(buf, pos, MAX_LINE)
    except DecodeError as error:
        raise NegotiationError(f"the length of a line is wrong: {error}") from error
    if prefix is None:
        return 0
    size, start = prefix
    end = start + size
    if end > len(buf):
        return 0
    if not size or buf[end - 1] != 0x0A:
        raise NegotiationError("a line does not end in a newline")
    return end
