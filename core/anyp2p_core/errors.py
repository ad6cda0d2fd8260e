"""What can go wrong, in two families: the caller's fault and the peer's fault.

    Error
      LocalError        the caller asked for what the current state does not allow
        LimitReached    one of our own limits refuses a command
      RemoteError       what came from outside is wrong; Node turns it into an event
        DecodeError     bytes or text that are not what they claim to be
        NegotiationError, HandshakeError, PeerIdMismatch, MuxerError, TimedOut
      ConnectionLost, StreamReset, IncompleteRead, DialError, ListenError
                        what awaiting users see

Machines raise ``RemoteError`` and ``LocalError`` only. ``Node`` never raises because of a peer.
Everything also derives from the built-in exception that a person would catch.
"""


class Error(Exception):
    """Base class of everything this project raises on purpose."""


class LocalError(Error):
    """The caller asked for something that the current state does not allow."""


class LimitReached(LocalError):
    """One of our own limits refuses the command; the message names the limit."""


class RemoteError(Error):
    """What came from outside broke a protocol."""


class DecodeError(RemoteError, ValueError):
    """Bytes or text that are not what they claim to be."""


class NegotiationError(RemoteError):
    """multistream-select found no common protocol, or the peer broke its rules."""


class HandshakeError(RemoteError, ConnectionError):
    """The secure channel could not be established."""


class PeerIdMismatch(HandshakeError):
    """The peer proved an identity other than the one that was dialed."""


class MuxerError(RemoteError, ConnectionError):
    """The peer broke the stream multiplexer's rules: the connection cannot go on.

    ``code`` is what our GoAway frame says: 1 protocol error, 2 internal error.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class TimedOut(RemoteError, TimeoutError):
    """The peer did not do its part before the deadline."""


class ConnectionLost(Error, ConnectionError):
    """The connection ended; the message says why and whose decision it was.

    ``parts`` go into ``message`` when somebody reads it: connections end often, and mostly nobody
    does.
    """

    def __init__(self, message: str, *parts: object) -> None:
        super().__init__(message)
        self.parts = parts

    def __str__(self) -> str:
        return super().__str__().format(*self.parts)


class StreamReset(Error, ConnectionResetError):
    """The stream was aborted. ``code`` is the peer's error code, 0 if it gave none."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class IncompleteRead(Error, EOFError):
    """The stream ended before the requested number of bytes. ``partial`` holds what came."""

    def __init__(self, message: str, partial: bytes = b"") -> None:
        super().__init__(message)
        self.partial = partial


class DialError(Error, ConnectionError):
    """No address of the peer could be reached. ``attempts`` pairs addresses and reasons."""

    def __init__(self, message: str, attempts: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.attempts = attempts


class ListenError(Error, OSError):
    """The address cannot be listened on; the message names it."""
