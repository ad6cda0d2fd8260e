"""What lies under the connections of one node, between the transport and multistream-select.

dialed      what the address says, the private network on top of it
accepted    what the listener offers; if that is more than one thing, the first bytes decide
"""

from collections.abc import Callable, Mapping
from typing import cast

from .errors import HandshakeError, LocalError
from .layer import Layer, LayerMaker, Stacked, Write
from .port_sharing import PortSharing
from .route import TLS, WS, Route

Offers = tuple[tuple[str, ...], ...]
"""Ways to be dialed at one socket, each a tuple of layers."""

PLAIN: Offers = ((),)
MakeCarrier = Callable[[Write], Layer]
Decided = Callable[[tuple[str, ...]], object]

_NEEDED = {
    WS: "WebSocket needs a provider: pip install 'anyp2p[websocket]'",
    TLS: "web TLS needs a provider, and to listen a certificate",
}


class Carriers:
    """Makes layers. ``private`` is on top of all others."""

    def __init__(self, layers: Mapping[str, LayerMaker], private: LayerMaker | None) -> None:
        self._layers = layers
        self._private = private

    @property
    def private(self) -> bool:
        """Whether only peers with the right key can talk to us."""
        return self._private is not None

    def check(self, route: Route) -> None:
        """Raises LocalError if we do not have what an address needs."""
        for name in route.layers:
            if name not in self._layers:
                raise LocalError(_NEEDED[name])
            self._layers[name].check(route)
        if route.quic and self.private:
            raise LocalError("QUIC cannot be used in a private network: it has no pre-shared keys")

    def dialed(self, route: Route) -> MakeCarrier | None:
        """For a connection that we made; None if there is nothing between."""
        return self._stack(route.layers, True, route)

    def accepted(self, offers: Offers, decided: Decided | None = None) -> MakeCarrier | None:
        """For a connection that a peer made to a listener with these offers.

        ``decided`` is told which one it is, when its first bytes have come and if that is needed.
        """
        if len(offers) == 1:
            return self._stack(offers[0], False, None)
        return lambda write: _Undecided(self, offers, write, decided or _ignore)

    def _stack(
        self, names: tuple[str, ...], initiator: bool, route: Route | None
    ) -> MakeCarrier | None:
        makers = [self._layers[name] for name in names]
        if self._private is not None:
            makers.append(self._private)
        if not makers:
            return None

        def make(write: Write) -> Layer:
            def starting(maker: LayerMaker) -> MakeCarrier:
                return lambda write: maker.start(initiator=initiator, route=route, write=write)

            layer: Layer = starting(makers[0])(write)
            for maker in makers[1:]:
                # A cast: pyright wants attributes where there are properties.
                layer = cast("Layer", Stacked(layer, starting(maker), write))
            return layer

        return make


class _Undecided:
    """A connection to a shared port, until its first bytes say what it is."""

    def __init__(self, carriers: Carriers, offers: Offers, write: Write, decided: Decided) -> None:
        self.open = False
        self.on_open: Callable[[float], object] = _ignore
        self.on_data: Callable[[bytes, float], object] = _ignore
        self.on_end: Callable[[float], object] = _ignore
        self._carriers = carriers
        self._decided = decided
        self._offers = offers
        self._write = write
        self._sharing = PortSharing()
        self._layer: Layer | None = None

    def receive(self, data: bytes, now: float) -> None:
        if self._layer is not None:
            self._layer.receive(data, now)
        elif self.open:
            self.on_data(data, now)
        else:
            held = self._sharing.receive(data)
            if held is not None and self._sharing.kind is not None:
                self._decide(_KINDS[self._sharing.kind], held, now)

    def receive_eof(self) -> None:
        if self._layer is not None:
            self._layer.receive_eof()
        elif not self.open:
            raise HandshakeError("the connection ended before it said what it is")

    def seal(self, chunks: list[bytes]) -> bytes:
        return b"".join(chunks) if self._layer is None else self._layer.seal(chunks)

    def finish(self) -> bytes:
        return b"" if self._layer is None else self._layer.finish()

    def _decide(self, names: tuple[str, ...], held: bytes, now: float) -> None:
        if names not in self._offers:
            spoken = "/".join(names) or "plain TCP"
            raise HandshakeError(f"the peer speaks {spoken}, which is not offered at this port")
        self._decided(names)
        make = self._carriers.accepted((names,))
        if make is None:
            self.open = True
            self.on_open(now)
            self.on_data(held, now)
            return
        layer = self._layer = make(self._write)
        layer.on_data = lambda data, now: self.on_data(data, now)
        layer.on_end = lambda now: self.on_end(now)
        layer.on_open = self._opened
        if layer.open:
            self._opened(now)
        layer.receive(held, now)

    def _opened(self, now: float) -> None:
        self.open = True
        self.on_open(now)


_KINDS: dict[str, tuple[str, ...]] = {"tcp": (), "ws": (WS,), "tls": (TLS, WS)}


def _ignore(*_: object) -> None:
    """Until somebody takes over."""
