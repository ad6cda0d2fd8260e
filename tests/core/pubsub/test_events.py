from core.kad.people import peer

from anyp2p_core.pubsub.events import (
    ExtensionReceived,
    MessageReceived,
    PeerSubscribed,
    PeerUnsubscribed,
    PubSubPeerAdded,
    PubSubPeerRemoved,
    ValidationRequested,
)
from anyp2p_core.pubsub.message import build


def test_events_can_be_compared_and_shown():
    message = build(None, b"", None, b"t")
    for make in (
        lambda: MessageReceived("t", message, (1,)),
        lambda: ValidationRequested("t", message),
        lambda: PeerSubscribed(peer(1), "t"),
        lambda: PeerUnsubscribed(peer(1), "t"),
        lambda: PubSubPeerAdded(peer(1), "/floodsub/1.0.0"),
        lambda: PubSubPeerRemoved(peer(1)),
        lambda: ExtensionReceived(peer(1)),
    ):
        assert make() == make()
        assert repr(make()).startswith(type(make()).__name__ + "(")
