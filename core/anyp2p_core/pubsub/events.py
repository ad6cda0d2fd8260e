"""What pubsub tells the application."""

from dataclasses import dataclass

from ..events import Event
from ..peer_id import PeerId
from .message import Message


@dataclass(slots=True, eq=False, repr=False)
class MessageReceived(Event):
    """A valid message of a topic that we subscribed to, once."""

    topic: str
    message: Message
    subscriptions: tuple[int, ...]
    """Whom it is for."""


@dataclass(slots=True, eq=False, repr=False)
class ValidationRequested(Event):
    """A message waits: ``report(message.id, verdict, now)`` decides what becomes of it."""

    topic: str
    message: Message


@dataclass(slots=True, eq=False, repr=False)
class PeerSubscribed(Event):
    """A peer takes part in a topic."""

    peer: PeerId
    topic: str


@dataclass(slots=True, eq=False, repr=False)
class PeerUnsubscribed(Event):
    """A peer takes no part in a topic any more, or is gone."""

    peer: PeerId
    topic: str


@dataclass(slots=True, eq=False, repr=False)
class PubSubPeerAdded(Event):
    """We can send to a peer, with this protocol."""

    peer: PeerId
    protocol: str


@dataclass(slots=True, eq=False, repr=False)
class PubSubPeerRemoved(Event):
    """We cannot send to a peer any more."""

    peer: PeerId


@dataclass(slots=True, eq=False, repr=False)
class ExtensionReceived(Event):
    """A peer answered the handshake of extensions with the test extension."""

    peer: PeerId
