"""What all secure channels have alike: who is told, and that nothing is taken after a failure.

in the handshake --the peer is authenticated: on_open--> open: on_data, on_end
       any of them --receive raised--> failed: raises the same at every call
"""

from collections.abc import Callable
from typing import NoReturn

from .crypto import Crypto
from .errors import HandshakeError
from .keys import PublicKey
from .peer_id import PeerId
from .secret import Secret


class Channel(Secret):
    """The state that ``security.SecureChannel`` shows. ``expected``: None for any peer.

    A channel on which one message was wrong never yields another: ``receive`` calls ``_remember``
    with whatever it raises, and ``_raise_again`` from then on.
    """

    __slots__ = (
        "muxer", "on_data", "on_end", "on_open", "open", "peer", "public_key",
        "_crypto", "_expected", "_failure", "_write",
    )  # fmt: skip

    peer: PeerId
    public_key: PublicKey

    def __init__(
        self, crypto: Crypto, expected: PeerId | None, write: Callable[[bytes], object]
    ) -> None:
        self.open = False
        self.muxer: str | None = None
        self.on_open: Callable[[], object] = _ignore
        self.on_data: Callable[[bytes, float], object] = _ignore
        self.on_end: Callable[[float], object] = _ignore
        self._crypto = crypto
        self._expected = expected
        self._write = write
        self._failure: tuple[type[HandshakeError], str] | None = None

    def finish(self) -> bytes:
        """Last words, before our direction is closed; most channels have none."""
        return b""

    @property
    def _state(self) -> str:
        """For ``repr``."""
        if self._failure is not None:
            return f"failed: {self._failure[1]}"
        return f"open to {self.peer}" if self.open else "in the handshake"

    def _raise_again(self) -> NoReturn:
        assert self._failure is not None
        kind, text = self._failure
        raise kind(text)

    def _remember(self, error: BaseException) -> None:
        """What ``receive`` was given is lost, whoever raised: what comes later makes no sense."""
        kind = type(error) if isinstance(error, HandshakeError) else HandshakeError
        self._failure = kind, str(error)


def _ignore(*_: object) -> None:
    """The callbacks' default."""
