"""What ``anyp2p_core.websocket`` leaves to others, on the `websockets` package.

Spec: https://www.rfc-editor.org/rfc/rfc6455

HTTP is done by the library's protocol classes, which have no sockets: each sees one head and is
dropped. Masking is its C function. Frames are read by the core: it passes on a payload while it
arrives, and it bounds the answers to pings.
"""

from secrets import token_bytes
from typing import Any

from anyp2p.extras import require
from anyp2p_core.errors import HandshakeError

require("websockets", "websocket")

from websockets.client import ClientProtocol  # noqa: E402
from websockets.http11 import Request, Response  # noqa: E402
from websockets.server import ServerProtocol  # noqa: E402
from websockets.uri import parse_uri  # noqa: E402

try:
    from websockets.speedups import apply_mask
except ImportError:  # no compiled part for this platform
    from websockets.utils import apply_mask


class Websockets:
    """The WebSocket provider. It has no state: share one or make many."""

    def upgrade(self, host: str, path: str) -> "_Upgrade":
        return _Upgrade(host, path)

    def answer(self, request: bytes) -> tuple[bytes, str | None]:
        protocol = ServerProtocol(max_size=0)
        head = _feed(protocol, request)
        if not isinstance(head, Request):
            return _BAD_REQUEST, _reason(protocol.handshake_exc)
        if len(head.headers.get_all("Host")) != 1:
            return _BAD_REQUEST, "the request has no Host header, or several"
        response = protocol.accept(head).serialize()
        error = protocol.handshake_exc
        return response, None if error is None else _reason(error)

    def masking_key(self) -> bytes:
        return token_bytes(4)

    apply_mask = staticmethod(apply_mask)  # no call of Python for each frame


class _Upgrade:
    """A request, and the key that its response must prove to have seen."""

    def __init__(self, host: str, path: str) -> None:
        self._protocol = ClientProtocol(_ANYWHERE, max_size=0)
        request = self._protocol.connect()
        request.path = path
        del request.headers["Host"]
        request.headers["Host"] = host
        self.request = request.serialize()

    def check(self, response: bytes) -> None:
        protocol = self._protocol
        head = _feed(protocol, response)
        if not isinstance(head, Response) or protocol.handshake_exc is not None:
            reason = _reason(protocol.handshake_exc)
            raise HandshakeError(f"the server's WebSocket upgrade is not valid: {reason}")


def _feed(protocol: ClientProtocol | ServerProtocol, head: bytes) -> Any:
    """The request or response of a complete head; None for what is neither."""
    protocol.receive_data(head)
    return next(iter(protocol.events_received()), None)


def _reason(error: BaseException | None) -> str:
    """The innermost reason: the outer ones say that it is not valid HTTP."""
    if error is None:
        return "it is not complete"
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)[:200]


_ANYWHERE = parse_uri("ws://localhost/")
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
