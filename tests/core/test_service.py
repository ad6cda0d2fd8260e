"""anyp2p_core.service"""

import pytest
from node_pair import CRYPTO, Pair, make_node
from stranger import KEYS

from anyp2p_core import (
    ConnectionOpened,
    Context,
    Event,
    LocalError,
    PeerConnected,
    PeerIdentified,
    Service,
)


class Greeter(Service):
    """A service of an application: says hello on a stream, and tells what it heard."""

    protocols = ("/hello/1.0.0", "/hello/2.0.0")

    def __init__(self):
        self.notices = []
        self.heard = []

    def on_connected(self, connection, now):
        self.notices.append(("connected", connection.id, now))
        if connection.initiator:
            self.stream = connection.open_stream(self.protocols[:1], self.opened, self.failed, now)

    def opened(self, stream, protocol, now):
        stream.write(b"hello")
        stream.write_eof()
        stream.stop_reading()

    def failed(self, error, now):
        raise AssertionError(error)

    def on_disconnected(self, connection, now):
        self.notices.append(("disconnected", connection.id, now))

    def on_stream(self, connection, stream, protocol, now):
        self.notices.append(("stream", connection.id, protocol))

        def on_data(data, now):
            self.heard.append(data)
            stream.credit(len(data), now)

        stream.on_data = on_data
        stream.on_eof = lambda now: stream.write_eof()

    def on_event(self, event, now):
        self.notices.append((type(event).__name__, now))


def test_notices():
    a, b = Greeter(), Greeter()
    pair = Pair(make_node(KEYS[0], services=[a]), make_node(KEYS[1], services=[b]))
    start = pair.now
    assert b.heard == [b"hello"]
    assert ("connected", pair.b.conn, start) in b.notices
    assert ("stream", pair.b.conn, "/hello/1.0.0") in b.notices
    for side, service in ((pair.a, a), (pair.b, b)):
        seen = [notice for notice in service.notices if len(notice) == 2]
        assert seen == [(type(event).__name__, start) for event in side.events]
    assert [kind for kind in (ConnectionOpened, PeerConnected) if pair.a.of(kind)]
    pair.now += 1
    pair.hang_up(*pair.sides[0])
    for side, service in ((pair.a, a), (pair.b, b)):
        assert ("disconnected", side.conn, start + 1) in service.notices
        assert service.notices[-1] == ("ConnectionClosed", start + 1)


def test_a_service_that_does_nothing():
    class Quiet(Service):
        protocols = ("/quiet",)

    quiet = Quiet()
    node = make_node(KEYS[0], services=[quiet])
    assert quiet.context is node and "/quiet" in node.protocols
    pair = Pair(node, make_node(KEYS[1]))
    pair.b.node.open_stream(node.peer_id, ["/quiet"], pair.now)
    pair.run()
    quiet.on_event(Event(), pair.now)
    pair.hang_up(*pair.sides[0])
    assert Service.protocols == ()


def test_two_services_cannot_have_one_protocol():
    with pytest.raises(LocalError, match="has a handler already"):
        make_node(services=[Greeter(), Greeter()])
    node = make_node(services=[Greeter()])
    with pytest.raises(LocalError):
        node.handle("/hello/1.0.0", 0.0)
    with pytest.raises(LocalError):
        node.unhandle("/hello/1.0.0", 0.0)


def test_the_context():
    """A node is the context of its services: what services may use works."""
    called = []

    class Curious(Service):
        def attach(self, context):
            super().attach(context)
            called.append(context)

        def on_connected(self, connection, now):
            context = self.context
            assert context.connections() == context.connections(connection.peer) == [connection]
            assert context.connections(context.peer_id) == []
            handle = context.call_at(now + 1.0, "curious", called.append)
            context.cancel(context.call_at(now + 1.0, "never", called.append))
            assert handle
            context.emit(Event())
            context.touch(connection)
            context.dial(context.peer_id, [], now)

    node = make_node(KEYS[0], services=[Curious()], agent="x/1", epoch=1000.0)
    context: Context = node
    assert context.key is KEYS[0] and context.peer_id == KEYS[0].peer_id
    assert context.crypto is CRYPTO and len(context.entropy(5)) == 5
    assert context.choice.below(1) == 0 and context.limits is node.limits
    assert len(context.peers) == 0 and list(context.addresses) == []
    assert "/ipfs/ping/1.0.0" in context.protocols and context.agent == "x/1"
    assert context.wall(5.0) == 1005.0
    assert context.next_id() < context.next_id()
    pair = Pair(node, make_node(KEYS[1]))
    assert any(type(event) is Event for event in pair.a.events)
    pair.wait(1.0)
    assert called == [node, 101.0]
    assert pair.a.of(PeerIdentified)


def test_nothing_but_the_declared_members_is_needed():
    declared = {name for name in vars(Context) if not name.startswith("_")}
    assert all(hasattr(make_node(KEYS[0]), name) for name in declared)
