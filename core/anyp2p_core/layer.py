"""What lies between a transport and multistream-select: web TLS, WebSocket, a private network.

    bytes of the socket -> receive -> on_data -> the layer above
    seal <- pieces of the layer above; its bytes go to the socket, behind what the layer wrote

A layer that is not ``open`` yet (an HTTP upgrade, a handshake) lets nothing of above through.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .route import Route

Write = Callable[[bytes], object]


class Layer(Protocol):
    """One transformation of a byte stream. Raises ``RemoteError`` when the peer breaks its rules.

    What the layer has to say by itself goes to the ``write`` that it was made with.
    """

    on_open: Callable[[float], object]
    on_data: Callable[[bytes, float], object]
    on_end: Callable[[float], object]
    """The peer ended its direction in order, without ending the transport."""

    @property
    def open(self) -> bool: ...
    def receive(self, data: bytes, now: float) -> None: ...
    def receive_eof(self) -> None:
        """The transport ended; HandshakeError if that was too early."""
        ...

    def seal(self, chunks: list[bytes]) -> bytes:
        """The pieces as bytes for the layer below. Only while ``open``."""
        ...

    def finish(self) -> bytes:
        """Last words, before our direction of the transport is closed."""
        ...


class LayerMaker(Protocol):
    """Makes the layers of one kind."""

    def check(self, route: "Route") -> None:
        """Raises LocalError if it cannot be dialed there with this layer."""
        ...

    def start(self, *, initiator: bool, route: "Route | None", write: Write) -> Layer:
        """``route`` is where a dial goes; None for what was accepted."""
        ...


class Stacked:
    """Two layers as one: ``lower`` is next to the socket."""

    def __init__(self, lower: Layer, make_upper: Callable[[Write], Layer], write: Write) -> None:
        self._said: list[bytes] = []
        self._write = write
        self._lower = lower
        self._upper = upper = make_upper(self._said.append)
        self.on_open: Callable[[float], object] = _ignore
        lower.on_data = upper.receive
        lower.on_open = self._opened
        upper.on_open = self._opened

    @property
    def open(self) -> bool:
        return self._lower.open and self._upper.open

    @property
    def on_data(self) -> Callable[[bytes, float], object]:
        return self._upper.on_data

    @on_data.setter
    def on_data(self, receive: Callable[[bytes, float], object]) -> None:
        self._upper.on_data = receive

    @property
    def on_end(self) -> Callable[[float], object]:
        return self._upper.on_end

    @on_end.setter
    def on_end(self, told: Callable[[float], object]) -> None:
        self._lower.on_end = self._upper.on_end = told

    def receive(self, data: bytes, now: float) -> None:
        try:
            self._lower.receive(data, now)
        finally:  # an upper layer that refuses may have said why
            self._pass_on()

    def receive_eof(self) -> None:
        self._lower.receive_eof()
        self._upper.receive_eof()

    def seal(self, chunks: list[bytes]) -> bytes:
        return self._lower.seal([*self._take(), self._upper.seal(chunks)])

    def finish(self) -> bytes:
        if not self._lower.open:
            return self._lower.finish()
        said = [*self._take(), self._upper.finish()]
        return (self._lower.seal(said) if any(said) else b"") + self._lower.finish()

    def _opened(self, now: float) -> None:
        self._pass_on()
        if self.open:
            self.on_open(now)

    def _take(self) -> list[bytes]:
        said = self._said[:]
        self._said.clear()  # in place: the upper layer holds its append
        return said

    def _pass_on(self) -> None:
        if self._said and self._lower.open:
            self._write(self._lower.seal(self._take()))


def _ignore(now: float) -> None:
    """Until the layer above takes over."""
