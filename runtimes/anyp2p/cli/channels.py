"""The demo's last part: what can lie between two nodes, one line for each channel."""

import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .runtimes import HostClass

if TYPE_CHECKING:
    from anyp2p.host import BaseHost

PINGS = 8
TCP = "/ip4/127.0.0.1/tcp/0"


@dataclass(slots=True, kw_only=True)
class Channel:
    """One way to be connected, and how it went. Times are in seconds."""

    name: str
    listen: str = TCP
    security: str = "noise"
    muxer: str = "yamux"
    private: bool = False
    needs: tuple[tuple[str, str], ...] = ()
    """Packages, and the extras that bring them."""
    install: str = ""
    """What to type if something is missing."""
    address: str = ""
    connect_seconds: float = 0.0
    ping_seconds: float = 0.0
    error: str = ""

    @property
    def ok(self) -> bool:
        return bool(self.ping_seconds)


_TLS = ("OpenSSL", "tls")
_WS = ("websockets", "websocket")


def channels(directory: str) -> list[Channel]:
    """All that this project can speak. ``directory`` is for a Unix socket."""
    found = [
        Channel(name="TCP, Noise"),
        Channel(name="TCP, TLS", security="tls", needs=(_TLS,)),
        Channel(name="TCP, Noise, mplex", muxer="mplex"),
        Channel(name="TCP, private network", private=True, needs=(("Crypto", "pnet"),)),
        Channel(name="WebSocket, Noise", listen=f"{TCP}/ws", needs=(_WS,)),
        Channel(name="WebSocket over web TLS", listen=f"{TCP}/tls/ws", needs=(_WS,)),
        Channel(
            name="QUIC",
            listen="/ip4/127.0.0.1/udp/0/quic-v1",
            needs=(("aioquic", "quic"),),
        ),
        Channel(name="Unix socket", listen=f"/unix{directory}/socket"),
        Channel(name="memory", listen="/memory/0"),
    ]
    for channel in found:
        missing = [extra for package, extra in channel.needs if not find_spec(package)]
        if missing:
            channel.install = f"pip install 'anyp2p[{','.join(missing)}]'"
    return found


async def meet(host_class: HostClass) -> list[Channel]:
    """Two hosts on one loop, connected by each channel in turn."""
    with tempfile.TemporaryDirectory() as directory:
        found = channels(directory)
        certificate = None
        for channel in found:
            if channel.install:
                continue
            if certificate is None and channel.listen.endswith("/tls/ws"):
                certificate = _certificate(Path(directory))
            try:
                await _connect(host_class, channel, certificate)
            except Exception as error:
                from .failures import describe

                channel.error = describe(error)
    return found


async def _connect(
    host_class: HostClass, channel: Channel, certificate: tuple[Path, Path] | None
) -> None:
    from anyp2p.providers.entropy import OsEntropy
    from anyp2p_core.pnet import PreSharedKey

    options: dict[str, Any] = {"security": [channel.security], "muxers": [channel.muxer]}
    if channel.private:
        options["psk"] = PreSharedKey.generate(OsEntropy())
    if channel.listen.endswith("/tls/ws"):
        assert certificate is not None
        options |= {"web_certificate": certificate, "web_trust": certificate[0]}
    async with (
        host_class(listen=[channel.listen], **options) as listener,
        host_class(**options) as dialer,
    ):
        await _measure(dialer, listener, channel)


async def _measure(dialer: "BaseHost[Any]", listener: "BaseHost[Any]", channel: Channel) -> None:
    channel.address = str(listener.node.addresses[0])
    started = time.monotonic()
    peer = await dialer.connect(listener.addresses[0])
    channel.connect_seconds = time.monotonic() - started
    times = sorted([await dialer.ping(peer) for _ in range(PINGS)])
    channel.ping_seconds = times[PINGS // 2]


def _certificate(directory: Path) -> tuple[Path, Path]:
    """A web certificate for this machine, which only the demo trusts."""
    from anyp2p.providers.web_certificate import self_signed

    files = directory / "chain.pem", directory / "key.pem"
    for file, content in zip(files, self_signed("127.0.0.1"), strict=True):
        file.write_bytes(content)
    return files
