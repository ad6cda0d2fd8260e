"""WebSocket as a layer: a byte stream in binary messages, behind one HTTP upgrade.

Specs: https://www.rfc-editor.org/rfc/rfc6455
       https://github.com/libp2p/specs/blob/master/websockets/README.md

    client                                              server
      GET / HTTP/1.1, Upgrade: websocket          ->
                                                  <-      101 Switching Protocols
      binary messages, masked                    <->      binary messages, bare
      close 1000                                 <->      close 1000

The payloads one after the other are the stream; where a message begins and ends means nothing.
There are no extensions, so nothing is ever compressed, and no subprotocols.

    frame    FIN RSV*3 opcode*4 | MASK length*7 | length 16 or 64 | masking key 32 | payload

Payload goes up as it comes, whole frame or not: what is held is a head of up to ``MAX_HEAD`` bytes,
or a frame header or control frame that is not complete, less than 140 bytes. HTTP itself, masking
and masking keys are the provider's; whoever is not let in is told why in HTTP.
"""

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, NoReturn, Protocol

from .errors import DecodeError, HandshakeError, LocalError
from .varint import Data

if TYPE_CHECKING:
    from .layer import Write
    from .route import Route

MAX_HEAD = 8 * 1024
"""Longest HTTP request or response head accepted."""
MAX_HEADERS = 64
"""Header lines accepted: browsers send about 15, each proxy adds a few."""
MAX_FRAME = 16 * 1024 * 1024
"""Largest payload of one frame that is accepted. None of it is held, so that this costs nothing."""
MAX_MESSAGE = 64 * 1024
"""Largest payload that is sent in one message."""
CONTROL_BURST = 64
"""Pings and pongs accepted at once ..."""
CONTROL_RATE = 8.0
"""... and per second after that."""


class Upgrade(Protocol):
    """The client's half of one HTTP upgrade."""

    request: bytes
    """What to send: a GET with its head complete."""

    def check(self, response: bytes) -> None:
        """HandshakeError unless the head of this 101 response accepts ``request`` as it is."""
        ...


class WebSocketProvider(Protocol):
    """HTTP and masking, driven by bytes. Heads come whole, within the limits, with CR LF ends."""

    def upgrade(self, host: str, path: str) -> Upgrade:
        """Ask for an upgrade; no extension and no subprotocol is offered."""
        ...

    def answer(self, request: bytes) -> tuple[bytes, str | None]:
        """The response to a request head, and None or why it refuses.

        Path, Host and Origin may be anything; extensions and subprotocols are not accepted.
        """
        ...

    def masking_key(self) -> bytes:
        """Four bytes that nobody can foretell."""
        ...

    def apply_mask(self, data: Data, key: bytes, /) -> bytes:
        """``data`` XOR the repeated ``key``."""
        ...


class WebSockets:
    """Makes the WebSocket layers of a node."""

    def __init__(self, provider: WebSocketProvider) -> None:
        self._provider = provider

    def check(self, route: "Route") -> None:
        """LocalError if what a route asks for cannot stand in an HTTP request."""
        _check_target(route.authority, route.http_path)

    def start(self, *, initiator: bool, route: "Route | None", write: "Write") -> "WebSocket":
        host, path = ("", "/") if route is None else (route.authority, route.http_path)
        return WebSocket(
            initiator=initiator, host=host, path=path, provider=self._provider, write=write
        )


class WebSocket:
    """One connection; the initiator writes its request at construction.

    ``host`` and ``path`` are what the initiator asks for, ``path`` percent-encoded; LocalError if
    they cannot stand in a request. HandshakeError ends the upgrade, DecodeError what comes after
    it, and both are raised again at every later call; what tells the peer why has been written
    then. ``on_end(now)`` says that the peer closed in order: ``ended`` is True from then on, what
    still comes is ignored, and sealing gives nothing, because nothing may follow our own close.
    """

    __slots__ = (
        "close_code", "ended", "on_data", "on_end", "on_open", "open",
        "_closed", "_failure", "_head", "_header", "_initiator", "_key", "_left", "_lines",
        "_provider", "_refilled", "_scanned", "_tokens", "_unfinished", "_upgrade", "_write",
    )  # fmt: skip

    def __init__(
        self,
        *,
        initiator: bool,
        host: str = "",
        path: str = "/",
        provider: WebSocketProvider,
        write: Callable[[bytes], object],
    ) -> None:
        self.open = False
        self.ended = False
        self.close_code: int | None = None
        """What the peer's close frame says; None before it came, and if it says nothing."""
        self.on_open: Callable[[float], object] = _ignore
        self.on_data: Callable[[bytes, float], object] = _ignore
        self.on_end: Callable[[float], object] = _ignore
        self._initiator = initiator
        self._provider = provider
        self._write = write
        self._failure: tuple[type[HandshakeError | DecodeError], str] | None = None
        # The head: what came, where its last line begins, and how many lines are before that.
        self._head = bytearray()
        self._scanned = 0
        self._lines = 0
        # The start of a frame that is not complete.
        self._header = b""
        # The payload that is under way: bytes missing, and the key for the next of them.
        self._left = 0
        self._key = b""
        self._unfinished = False  # a message goes on in another frame
        self._closed = False  # our close frame is written
        self._tokens = float(CONTROL_BURST)
        self._refilled = 0.0
        self._upgrade: Upgrade | None = None
        if initiator:
            _check_target(host, path)
            self._upgrade = provider.upgrade(host, path)
            write(self._upgrade.request)

    def __repr__(self) -> str:
        role = "client" if self._initiator else "server"
        if self._failure is not None:
            return f"<WebSocket {role}, failed: {self._failure[1]}>"
        state = "ended" if self.ended else "open" if self.open else "in the upgrade"
        return f"<WebSocket {role}, {state}>"

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the layer below."""
        if self._failure is not None:
            kind, text = self._failure
            raise kind(text)
        if self.ended:
            return
        try:
            if self.open:
                self._on_frames(data, now)
            else:
                self._on_head(data, now)
        except BaseException as error:
            # The rest of ``data`` is lost, whoever raised: what comes later makes no sense.
            kind = HandshakeError if isinstance(error, HandshakeError) else DecodeError
            self._failure = kind, str(error)
            raise

    def receive_eof(self) -> None:
        """The layer below ended; HandshakeError in the upgrade, a message or a frame.

        Between two messages it is an end like a close frame: peers that are in a hurry send none,
        and the layers above tell whether something is missing.
        """
        if self.ended:
            return
        if not self.open:
            raise HandshakeError("the connection ended in the middle of the WebSocket upgrade")
        if self._left or self._header or self._unfinished:
            raise HandshakeError("the connection ended in the middle of a WebSocket message")

    def seal(self, chunks: list[bytes]) -> bytes:
        """The join of ``chunks`` as messages of up to 64 KiB; LocalError before the upgrade.

        After our own close frame nothing may follow: then it gives ``b""``.
        """
        if not self.open:
            raise LocalError("the WebSocket is not open")
        size = sum(map(len, chunks))
        if not size or self._closed:
            return b""
        if size <= MAX_MESSAGE:
            return self._frame(_FIN | _BINARY, size, chunks)
        data = memoryview(b"".join(chunks))
        parts = [data[pos : pos + MAX_MESSAGE] for pos in range(0, size, MAX_MESSAGE)]
        return b"".join([self._frame(_FIN | _BINARY, len(part), [part]) for part in parts])

    def finish(self) -> bytes:
        """Our close frame, unless there was one. Data of the peer still goes up after it."""
        return self._close(NORMAL) if self.open else b""

    # The upgrade.

    def _on_head(self, data: bytes, now: float) -> None:
        """Collect lines up to the empty one, looking at every byte once."""
        head = self._head
        before = searched = len(head)
        head += data[: MAX_HEAD - before]
        while (at := head.find(b"\n", searched)) >= 0:
            # Lenient line ends are how two readers come to see two different requests.
            if not head.endswith(b"\r", self._scanned, at):
                self._refuse(_BAD, "a line of its head does not end in CR LF")
            if at == self._scanned + 1:
                end = at + 1
                self._on_complete_head(bytes(head[:end]))
                self._head = bytearray()
                self.open = True
                self.on_open(now)
                if len(data) > end - before:
                    self._on_frames(data[end - before :], now)
                return
            self._scanned = searched = at + 1
            self._lines += 1
            if self._lines > MAX_HEADERS + 1:
                self._refuse(_LARGE, f"its head has more than {MAX_HEADERS} lines")
        if len(head) == MAX_HEAD:
            self._refuse(_LARGE, f"its head has more than {MAX_HEAD} bytes")

    def _on_complete_head(self, head: bytes) -> None:
        if head.translate(None, _TEXT) or head.count(b"\r") != self._lines + 1 or not self._lines:
            self._refuse(_BAD, "its head has control characters, or no first line")
        upgrade = self._upgrade
        if upgrade is not None:
            if not head.startswith(b"HTTP/1.1 101 "):
                said = head[: head.find(b"\r")].decode("latin-1")[:100]
                raise HandshakeError(f"the server answers {said!r} instead of a WebSocket upgrade")
            upgrade.check(head)
            self._upgrade = None
            return
        response, refusal = self._provider.answer(head)
        self._write(response)
        if refusal is not None:
            raise HandshakeError(f"no WebSocket upgrade: {refusal}")

    def _refuse(self, status: str, text: str) -> NoReturn:
        if not self._initiator:
            response = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            self._write(response.encode())
        raise HandshakeError(f"the peer breaks HTTP: {text}")

    # Frames.

    def _on_frames(self, data: bytes, now: float) -> None:
        if self._header:
            data = self._header + data
            self._header = b""
        masked = not self._initiator
        pong: bytes | None = None
        pos, end = 0, len(data)
        while pos < end:
            if self._left:
                pos = self._on_payload(data, pos, end, now)
                continue
            if end - pos < 2:
                break
            first = data[pos]
            size = data[pos + 1]
            self._check(first, size)
            size &= 0x7F
            start = pos + 2
            if size >= 126:
                pack, least = _LENGTHS[size]
                if end - start < pack.size:
                    break
                (size,) = pack.unpack_from(data, start)
                start += pack.size
                if size < least:
                    self._fail(PROTOCOL_ERROR, "the length of a frame is not minimal")
                if size > MAX_FRAME:
                    self._fail(TOO_BIG, f"a frame of {size} bytes, {MAX_FRAME} are allowed")
            if masked:
                if end - start < 4:
                    break
                self._key = data[start : start + 4]
                start += 4
            if first & _CONTROL:
                if end - start < size:
                    break
                pos = start + size
                payload = data[start:pos]
                if masked:
                    payload = self._provider.apply_mask(payload, self._key)
                self._spend(now)
                if first & _OPCODE == _PING:
                    pong = payload
                elif first & _OPCODE == _CLOSE:
                    self._on_close(payload, now)
                    return
                continue
            self._unfinished = first < _FIN
            self._left = size
            pos = start
        if pos < end:
            self._header = data[pos:]
        if pong is not None and not self._closed:
            # One for all pings that came together: only the last of them needs an answer.
            self._write(self._frame(_FIN | _PONG, len(pong), [pong]))

    def _check(self, first: int, second: int) -> None:
        """Judge a frame by its first two bytes."""
        opcode = first & _OPCODE
        if first & _RESERVED:
            self._fail(PROTOCOL_ERROR, "a frame uses an extension, none was agreed on")
        if (second >= _MASKED) is self._initiator:
            said = "masked" if self._initiator else "not masked"
            self._fail(PROTOCOL_ERROR, f"a frame that is {said}")
        if opcode == _CONTINUATION:
            if not self._unfinished:
                self._fail(PROTOCOL_ERROR, "a continuation of nothing")
        elif opcode == _BINARY:
            if self._unfinished:
                self._fail(PROTOCOL_ERROR, "a message inside another one")
        elif opcode in (_CLOSE, _PING, _PONG):
            if first < _FIN or second & 0x7F > 125:
                self._fail(PROTOCOL_ERROR, "a control frame in pieces or of more than 125 bytes")
        elif opcode == _TEXT_MESSAGE:
            self._fail(UNSUPPORTED, "a text message; libp2p uses binary ones alone")
        else:
            self._fail(PROTOCOL_ERROR, f"a frame of the unknown kind {opcode}")

    def _on_payload(self, data: bytes, pos: int, end: int, now: float) -> int:
        """Pass on what came of a payload; returns where ``data`` goes on."""
        left = self._left
        size = end - pos
        if size >= left:
            size = left
        self._left = left - size
        stop = pos + size
        if self._initiator:
            self.on_data(data[pos:stop], now)  # the whole of ``data`` is not copied
            return stop
        key = self._key
        if size < left:
            turn = size & 3
            self._key = key[turn:] + key[:turn]
        # Below this size a copy costs less than a view.
        part = data[pos:stop] if size < 4096 else memoryview(data)[pos:stop]
        self.on_data(self._provider.apply_mask(part, key), now)
        return stop

    def _spend(self, now: float) -> None:
        """Control frames are paid for: each ping makes us write."""
        self._tokens += (now - self._refilled) * CONTROL_RATE
        self._tokens = min(self._tokens, float(CONTROL_BURST)) - 1.0
        self._refilled = now
        if self._tokens < 0.0:
            self._fail(POLICY, f"more than {CONTROL_RATE:g} pings or pongs a second")

    def _on_close(self, payload: bytes, now: float) -> None:
        if self._unfinished:
            self._fail(PROTOCOL_ERROR, "a close frame in the middle of a message")
        if payload:
            code = int.from_bytes(payload[:2], "big")
            if len(payload) < 2 or not (code in _CODES or 3000 <= code < 5000):
                self._fail(PROTOCOL_ERROR, "a close frame without a valid code")
            self.close_code = code
        answer = self._close(self.close_code)
        if answer:
            self._write(answer)
        self.ended = True
        self.on_end(now)

    def _fail(self, code: int, text: str) -> NoReturn:
        last = self._close(code)
        if last:
            self._write(last)
        raise DecodeError(f"the peer breaks WebSocket: {text}")

    def _close(self, code: int | None) -> bytes:
        """The one close frame that we send, then nothing."""
        if self._closed:
            return b""
        self._closed = True
        payload = b"" if code is None else code.to_bytes(2, "big")
        return self._frame(_FIN | _CLOSE, len(payload), [payload])

    def _frame(self, first: int, size: int, chunks: "list[bytes] | list[memoryview]") -> bytes:
        bit = _MASKED if self._initiator else 0
        if size < 126:
            header = bytes((first, bit | size))
        elif size < 1 << 16:
            header = _pack_16(first, bit | 126, size)
        else:
            header = _pack_64(first, bit | 127, size)
        if not bit:
            return b"".join([header, *chunks])
        provider = self._provider
        key = provider.masking_key()
        payload = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return b"".join((header, key, provider.apply_mask(payload, key)))


# Close codes, as RFC 6455 names them.
NORMAL = 1000
PROTOCOL_ERROR = 1002
UNSUPPORTED = 1003
POLICY = 1008
TOO_BIG = 1009
_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014)

_FIN = 0x80
_RESERVED = 0x70
_OPCODE = 0x0F
_MASKED = 0x80
_CONTROL = 0x08

_CONTINUATION = 0
_TEXT_MESSAGE = 1
_BINARY = 2
_CLOSE = 8
_PING = 9
_PONG = 10

# By the length that stands for it: a longer length, and the least that it may be used for.
_LENGTHS = {126: (Struct(">H"), 126), 127: (Struct(">Q"), 1 << 16)}
_pack_16 = Struct(">BBH").pack
_pack_64 = Struct(">BBQ").pack

_BAD = "400 Bad Request"
_LARGE = "431 Request Header Fields Too Large"
_TEXT = bytes((9, 10, 13, *range(0x20, 0x7F), *range(0x80, 0x100)))


def _check_target(host: str, path: str) -> None:
    if not _printable(host) or not _printable(path) or path[0] != "/":
        raise LocalError(f"host {host!r} and path {path!r} cannot stand in an HTTP request")


def _printable(text: str) -> bool:
    return bool(text) and all("!" <= character <= "~" for character in text)


def _ignore(*_: object) -> None:
    """The callbacks' default."""
