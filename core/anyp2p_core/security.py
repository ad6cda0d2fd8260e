"""What a secure channel must offer to a connection, and which ones there are.

Security (one per node)  --start-->  SecureChannel (one per connection)

bytes of the transport -> receive -> on_open (once: the peer is known) -> on_data (plaintext)
plaintext pieces -> seal -> bytes for the transport
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from .crypto import Crypto, Entropy
from .keys import PrivateKey, PublicKey
from .noise import Noise, NoiseKeys
from .peer_id import PeerId


class SecureChannel(Protocol):
    """One secured connection. Raises ``HandshakeError`` for whatever the peer does wrong."""

    peer: PeerId
    public_key: PublicKey
    muxer: str | None
    """The muxer agreed on during the handshake, None: negotiate it."""
    on_open: Callable[[], object]
    on_data: Callable[[bytes, float], object]
    on_end: Callable[[float], object]
    """The peer ended its direction in order, without ending the transport."""

    def receive(self, data: bytes, now: float) -> None: ...
    def receive_eof(self) -> None: ...
    def seal(self, chunks: list[bytes]) -> bytes: ...
    def finish(self) -> bytes:
        """Last words, before our direction is closed."""
        ...


class Security(Protocol):
    """A security protocol that a node offers and accepts."""

    protocol: str

    def start(
        self,
        *,
        initiator: bool,
        expected: PeerId | None,
        muxers: Sequence[str],
        write: Callable[[bytes], object],
        wall: float,
    ) -> SecureChannel:
        """Begin a handshake; handshake messages go to ``write``, each in one call.

        ``wall``: seconds since 1970.
        """
        ...


class NoiseSecurity:
    """Noise XX: the default."""

    protocol = "/noise"

    def __init__(self, key: PrivateKey, crypto: Crypto, entropy: Entropy) -> None:
        self._keys = NoiseKeys(key, crypto, entropy)
        self._crypto = crypto
        self._entropy = entropy

    def start(
        self,
        *,
        initiator: bool,
        expected: PeerId | None,
        muxers: Sequence[str],
        write: Callable[[bytes], object],
        wall: float,
    ) -> Noise:
        return Noise(
            initiator=initiator,
            keys=self._keys,
            crypto=self._crypto,
            entropy=self._entropy,
            write=write,
            muxers=muxers,
            expected=expected,
        )
