"""What a host speaks below its streams: exactly what it was told to, or what is installed.

security     noise, tls      by name also plaintext (no security at all) and secio (museum)
muxers       yamux           by name also mplex (no flow control)
psk          a private network: whoever does not have its key is shut out
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

from anyp2p_core.crypto import Crypto, Entropy
from anyp2p_core.errors import DecodeError, LocalError
from anyp2p_core.keys import PrivateKey
from anyp2p_core.layer import LayerMaker
from anyp2p_core.muxer import MuxerMaker
from anyp2p_core.pnet import PreSharedKey, PrivateNetwork
from anyp2p_core.route import TLS, WS
from anyp2p_core.security import NoiseSecurity, Security
from anyp2p_core.yamux import PROTOCOL as YAMUX, Yamux

from .extras import require

if TYPE_CHECKING:
    from anyp2p_core.quic_session import QuicProvider
    from anyp2p_core.quic_transport import MakeProvider

log = logging.getLogger("anyp2p")

File: TypeAlias = str | PathLike[str]
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Channels:
    """The options of a host that are about channels."""

    security: Sequence[str] | None = None
    muxers: Sequence[str] = ("yamux",)
    psk: PreSharedKey | File | None = None
    web_certificate: tuple[File, File] | None = None
    web_trust: File | None = None

    def make_security(self, key: PrivateKey, crypto: Crypto, entropy: Entropy) -> list[Security]:
        """What is offered and accepted, best first. Raises LocalError, or MissingExtra."""
        names = self.security
        if names is None:
            names = ("noise", "tls") if find_spec("OpenSSL") else ("noise",)
        return [
            _find(name, _SECURITY, "security protocol")(key, crypto, entropy)
            for name in _once(names, "security protocol")
        ]

    def make_muxers(self) -> dict[str, MuxerMaker]:
        """The same for multiplexers, by protocol name."""
        return dict(_find(name, _MUXERS, "muxer")() for name in _once(self.muxers, "muxer"))

    def make_layers(self) -> dict[str, LayerMaker]:
        """What may lie under connections, and is installed."""
        layers: dict[str, LayerMaker] = {}
        if find_spec("websockets"):
            from pathlib import Path

            from anyp2p_core.websocket import WebSockets

            from .providers.web_tls import WebTls
            from .providers.websocket import Websockets

            # Casts: pyright takes callbacks that have slots for methods.
            layers[WS] = cast("LayerMaker", WebSockets(Websockets()))
            certificate = None
            if self.web_certificate is not None:
                chain, key = self.web_certificate
                certificate = Path(chain), Path(key)
            trust = None if self.web_trust is None else Path(self.web_trust)
            layers[TLS] = WebTls(certificate=certificate, trust=trust)
        return layers

    def make_private(self, entropy: Entropy) -> LayerMaker | None:
        """The private network, None if there is none. Raises what reading the key raises."""
        key = self.psk
        if key is None:
            return None
        if not isinstance(key, PreSharedKey):
            try:
                with open(key, "rb") as file:
                    key = PreSharedKey.parse(file.read())
            except DecodeError as error:
                raise LocalError(f"{key} is no key of a private network: {error}") from None
        from .providers.xsalsa20 import SalsaCiphers

        return cast("LayerMaker", PrivateNetwork(key, SalsaCiphers(), entropy))


def make_quic(key: PrivateKey, max_streams: int) -> "MakeProvider | None":
    """QUIC, if it is installed. It is loaded when it is first used.

    ``max_streams``: how many a peer may have open on one connection.
    """
    if not (find_spec("aioquic") and find_spec("cryptography")):
        return None

    def make(wall: float) -> "QuicProvider":
        from .providers.quic import Aioquic

        return Aioquic(key, wall, max_streams=max_streams)

    return make


def _once(names: Sequence[str], what: str) -> list[str]:
    if isinstance(names, str):
        raise LocalError(f"give the {what}s as a list: [{names!r}]")
    found = list(dict.fromkeys(names))
    if not found:
        raise LocalError(f"name at least one {what}")
    return found


def _find(name: str, known: Mapping[str, T], what: str) -> T:
    if name not in known:
        raise LocalError(f"{name!r} is no {what}; there are {', '.join(known)}")
    return known[name]


def _noise(key: PrivateKey, crypto: Crypto, entropy: Entropy) -> Security:
    return cast("Security", NoiseSecurity(key, crypto, entropy))


def _tls(key: PrivateKey, crypto: Crypto, entropy: Entropy) -> Security:
    require("OpenSSL", "tls")
    from anyp2p_core.tls import TlsSecurity

    from .providers.tls import OpenSsl

    return cast("Security", TlsSecurity(key, crypto, OpenSsl()))


def _plaintext(key: PrivateKey, crypto: Crypto, entropy: Entropy) -> Security:
    from anyp2p_core.plaintext import PlaintextSecurity

    log.warning(
        "plaintext connections: anybody can read and change them, and claim to be anyone; "
        "for tests only"
    )
    return cast("Security", PlaintextSecurity(key, crypto))


def _secio(key: PrivateKey, crypto: Crypto, entropy: Entropy) -> Security:
    from anyp2p_core.secio import SecioSecurity

    from .providers.secio import OpensslSecio

    log.warning("SECIO connections: libp2p gave it up in 2020; for old peers only")
    return cast("Security", SecioSecurity(key, crypto, entropy, OpensslSecio()))


def _yamux() -> tuple[str, MuxerMaker]:
    return YAMUX, cast("MuxerMaker", Yamux)


def _mplex() -> tuple[str, MuxerMaker]:
    from anyp2p_core.mplex import PROTOCOL, Mplex

    return PROTOCOL, cast("MuxerMaker", Mplex)


_SECURITY: dict[str, Callable[[PrivateKey, Crypto, Entropy], Security]] = {
    "noise": _noise,
    "tls": _tls,
    "plaintext": _plaintext,
    "secio": _secio,
}
_MUXERS: dict[str, Callable[[], tuple[str, MuxerMaker]]] = {"yamux": _yamux, "mplex": _mplex}
