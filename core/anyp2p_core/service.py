"""What a protocol that lives in the node looks like: one object, four notices, one context.

The built-in services (identify, ping, perf, echo) and those of applications are the same kind of
thing. A service sees no socket and no clock: ``now`` is an argument, timers come from the context.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .connection import Connection
    from .crypto import Choice, Crypto, Entropy
    from .events import Event
    from .keys import PrivateKey
    from .limits import Limits
    from .multiaddr import Multiaddr
    from .muxer import Stream
    from .peer_id import PeerId
    from .peerstore import Peerstore


class Context(Protocol):
    """What the node offers to its services."""

    @property
    def key(self) -> "PrivateKey": ...
    @property
    def peer_id(self) -> "PeerId": ...
    @property
    def crypto(self) -> "Crypto": ...
    @property
    def entropy(self) -> "Entropy": ...
    @property
    def choice(self) -> "Choice": ...
    @property
    def limits(self) -> "Limits": ...
    @property
    def peers(self) -> "Peerstore": ...
    @property
    def addresses(self) -> "Sequence[Multiaddr]": ...
    @property
    def protocols(self) -> Sequence[str]: ...
    @property
    def agent(self) -> str: ...

    def wall(self, now: float) -> float:
        """Seconds since 1970 at ``now``."""
        ...

    def next_id(self) -> int:
        """A number that nothing else in this node has."""
        ...

    def emit(self, event: "Event") -> object:
        """Tell the application."""
        ...

    def call_at(self, when: float, reason: str, callback: Callable[[float], object]) -> int: ...
    def cancel(self, handle: int) -> None: ...
    def touch(self, connection: "Connection") -> None:
        """Say that a connection has something to send, after acting outside of its own input."""
        ...

    def serve(self, service: "Service | None", protocol: str, now: float) -> None:
        """Begin to send streams of a protocol to a service. LocalError if somebody has it."""
        ...

    def unserve(self, protocol: str, now: float) -> None:
        """Accept no more streams of a protocol that was served."""
        ...

    def dial(
        self,
        peer: "PeerId | None",
        addresses: "Sequence[Multiaddr]",
        now: float,
        *,
        hearsay: bool = False,
    ) -> int:
        """Connect; ``hearsay``: others told of these addresses."""
        ...

    def connections(self, peer: "PeerId | None" = None) -> "list[Connection]":
        """Open connections, oldest first; all of them, or those to one peer."""
        ...


class Service:
    """Base class with notices that do nothing."""

    protocols: Sequence[str] = ()
    """Names whose inbound streams come to ``on_stream``."""

    context: Context

    def attach(self, context: Context) -> None:
        """Join a node, once, before anything else."""
        self.context = context

    def on_connected(self, connection: "Connection", now: float) -> None:
        """A connection can carry streams."""

    def on_disconnected(self, connection: "Connection", now: float) -> None:
        """A connection that ``on_connected`` told of is gone; its streams were reset before."""

    def on_stream(
        self, connection: "Connection", stream: "Stream", protocol: str, now: float
    ) -> None:
        """The peer opened a stream and agreed on ``protocol``: set the stream's callbacks.

        Whoever takes a stream's data gives credit for it.
        """

    def on_event(self, event: "Event", now: float) -> None:
        """Something happened in the node."""
