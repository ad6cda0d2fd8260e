"""Names in a whole node."""

from node_pair import LOCAL, Pair, make_key, make_node

from anyp2p_core import (
    ConnectionClosed,
    ConnectionOpened,
    Dial,
    DialFailed,
    Multiaddr,
    PeerConnected,
    PeerIdMismatch,
)
from anyp2p_core.dialing import MAX_HEARSAY
from anyp2p_core.resolver import FakeResolver


def named(records):
    return make_node(resolver=lambda timers: FakeResolver(records, timers, 0.5))


def test_a_dnsaddr_leads_to_the_peer_it_names():
    b = make_node()
    entries = [f"dnsaddr=/dns4/b.example/tcp/4001/p2p/{b.peer_id}"]
    a = named({("_dnsaddr.a.example", "TXT"): entries, ("b.example", "A"): ["127.0.0.1"]})
    pair = Pair(a, b, connect=False)
    request = a.dial(b.peer_id, [Multiaddr(f"/dnsaddr/a.example/p2p/{b.peer_id}")], pair.now)
    assert a.poll() == []
    for _ in range(2):
        pair.now += 0.5
        a.handle_timeout(pair.now)
    (dial,) = a.poll()
    assert dial.address == LOCAL
    pair.answer(dial)
    (event,) = pair.a.of(PeerConnected)
    assert event.dial == request


def test_whoever_answers_is_who_the_dnsaddr_names():
    b, c = make_node(), make_node()
    entries = [f"dnsaddr={LOCAL}/p2p/{c.peer_id}"]
    a = make_node(resolver=lambda timers: FakeResolver({("_dnsaddr.a.example", "TXT"): entries}))
    pair = Pair(a, b, connect=False)
    a.dial(None, [Multiaddr("/dnsaddr/a.example")], pair.now)
    (dial,) = a.poll()
    pair.answer(dial)
    assert not pair.a.of(ConnectionOpened)
    (event,) = pair.a.of(ConnectionClosed)
    assert isinstance(event.error, PeerIdMismatch)
    assert pair.a.of(DialFailed)


def test_known_addresses_that_failed_lately_are_spared():
    a, peer = make_node(), make_key().peer_id
    a.dial(peer, [LOCAL], 1.0)
    (dial,) = a.poll()
    a.dial_failed(dial.conn, ConnectionRefusedError("refused"), 1.1)
    a.poll()
    a.peers.add_addresses(peer, [LOCAL], 1.2)
    a.dial(peer, [], 2.0)
    (event,) = a.poll()
    assert "spared" in str(event.error)
    a.dial(peer, [LOCAL], 2.0)
    (dial,) = a.poll()
    assert isinstance(dial, Dial)


def test_what_is_missing_is_told():
    a = make_node()
    a.dial(None, [Multiaddr("/ip4/1.2.3.4/udp/1/quic-v1"), Multiaddr("/dnsaddr/a.example")], 1.0)
    (event,) = a.poll()
    assert "anyp2p[quic]" in str(event.error) and "anyp2p[dns]" in str(event.error)


def test_what_others_told_of_is_neither_looked_up_far_nor_tried_again_at_once():
    peer = make_key().peer_id
    a = named({("b.example", "A"): [f"192.0.2.{n}" for n in range(1, 30)]})
    told = [Multiaddr("/dnsaddr/a.example"), Multiaddr("/dns4/b.example/tcp/1")]
    request = a.dial(peer, told, 0.0, hearsay=True)
    targets, failed = [], []
    for step in range(1, 400):
        now = step / 10
        a.handle_timeout(now)
        for item in a.poll():
            if isinstance(item, Dial):
                targets.append(item.address)
                a.dial_failed(item.conn, ConnectionRefusedError("refused"), now)
            elif isinstance(item, DialFailed):
                failed.append(item)
    assert len(targets) == MAX_HEARSAY
    (event,) = failed
    assert event.dial == request
    assert "/dnsaddr/a.example" in str(event.error)
