"""anyp2p_core.dialing"""

import itertools

import pytest
from hypothesis import given, settings, strategies as st
from node_pair import LOCAL, REMOTE, Pair, make_node
from stranger import KEYS

from anyp2p_core import (
    CloseConnection,
    ConnectionClosed,
    ConnectionOpened,
    Dial,
    DialError,
    DialFailed,
    LimitReached,
    Limits,
    Multiaddr,
    PeerConnected,
    PeerIdMismatch,
    TimedOut,
)
from anyp2p_core.dialing import Dialing, plan
from anyp2p_core.errors import HandshakeError
from anyp2p_core.timers import Timers

PEER, OTHER, SELF = (key.peer_id for key in KEYS)


def addresses(count, start=1):
    return [Multiaddr(f"/ip4/192.0.2.1/tcp/{port}") for port in range(start, start + count)]


class Owner:
    """A node without transports: the test plays them."""

    def __init__(self, **limits):
        self.actions = []
        self.events = []
        self.ids = itertools.count(1)
        self.limits = Limits(**limits)
        self.now = 0.0
        self.opened = {}
        """Connections whose transport is open, with the error that ended them."""
        self.peer_id = SELF
        self.timers = Timers()
        self.dialing = Dialing(self)

    def next_id(self):
        return next(self.ids)

    def act(self, action):
        self.actions.append(action)

    def emit(self, event):
        self.events.append(event)

    def fail(self, conn, error, now):
        if conn not in self.opened:
            return False
        self.opened[conn] = error
        self.act(CloseConnection(conn, abort=True))
        return True

    # What the test does.

    def dial(self, peer, targets):
        return self.dialing.dial(peer, targets, self.now)

    def dials(self):
        """Dial actions since the last call."""
        taken = [action for action in self.actions if isinstance(action, Dial)]
        self.actions = [action for action in self.actions if not isinstance(action, Dial)]
        return taken

    def closed(self):
        """Connections to be closed since the last call; all abruptly."""
        taken = [action for action in self.actions if isinstance(action, CloseConnection)]
        self.actions = [action for action in self.actions if action not in taken]
        assert all(action.abort for action in taken)
        return [action.conn for action in taken]

    def wait(self, seconds):
        end = self.now + seconds
        while (when := self.timers.next_timeout()) is not None and when <= end:
            self.now = max(self.now, when)
            self.timers.run(self.now)
        self.now = end

    def failed(self, conn, text="refused"):
        self.dialing.failed(conn, ConnectionError(text), self.now)

    def connected(self, conn, peer=PEER):
        return self.dialing.connected(conn, peer)

    def nothing_is_left(self):
        return len(self.dialing) == len(self.timers) == 0


# The order


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("", ""),
        ("4a", "4a"),
        ("6a", "6a"),
        ("4a 4b", "4a 4b"),
        ("4a 4a 4b 4a", "4a 4b"),
        ("4a 4b 6a", "6a 4a 4b"),
        ("6a 6b 6c 4a", "6a 4a 6b 6c"),
        ("4a 6a 4b 6b", "6a 4a 6b 4b"),
        ("da 6a 4a", "6a da 4a"),
    ],
)
def test_families_alternate(given_, expected):
    hosts = {"4": "/ip4/192.0.2.1", "6": "/ip6/2001:db8::1", "d": "/dns/example.com"}

    def read(text):
        return [Multiaddr(f"{hosts[word[0]]}/tcp/{ord(word[1])}") for word in text.split()]

    assert plan(read(given_)) == read(expected)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=20))
def test_a_plan_has_every_address_once(items):
    given_ = [Multiaddr(f"/{'ip6/::1' if six else 'ip4/127.0.0.1'}/tcp/{n}") for six, n in items]
    ordered = plan(given_)
    assert sorted(ordered) == sorted(set(given_))
    for name in ("ip4", "ip6"):
        assert [one for one in ordered if one.names[0] == name] == [
            one for one in dict.fromkeys(given_) if one.names[0] == name
        ]


# One dial


def test_attempts_start_a_quarter_of_a_second_apart():
    owner = Owner()
    owner.dial(PEER, addresses(3))
    started = []
    for _ in range(8):
        started += [(owner.now, dial.address) for dial in owner.dials()]
        owner.wait(0.125)
    assert started == list(zip((0.0, 0.25, 0.5), addresses(3), strict=True))
    assert sorted(owner.timers.reasons()) == ["dial"] * 3


def test_a_failure_starts_the_next_one_at_once():
    owner = Owner()
    owner.dial(PEER, addresses(3))
    (first,) = owner.dials()
    owner.wait(0.1)
    owner.failed(first.conn)
    (second,) = owner.dials()
    assert second.address == addresses(3)[1]
    owner.wait(0.2)  # the quarter is counted from the last start
    assert owner.dials() == []
    owner.wait(0.05)
    assert [dial.address for dial in owner.dials()] == addresses(1, 3)


def test_success_ends_the_others_at_once():
    owner = Owner()
    request = owner.dial(PEER, addresses(9))
    owner.wait(0.6)
    first, second, third = owner.dials()
    assert owner.connected(second.conn) == second.address
    assert owner.closed() == [first.conn, third.conn]
    assert owner.events == [PeerConnected(request, PEER, second.conn)]
    assert owner.nothing_is_left()
    for conn in (first.conn, third.conn):  # what the runtime reports then
        assert owner.dialing.attempt(conn) is None
        owner.failed(conn)
    owner.wait(60)
    assert len(owner.events) == 1 and owner.actions == []


def test_no_more_than_eight_at_once():
    owner = Owner()
    owner.dial(PEER, addresses(20))
    owner.wait(7 * 0.25)
    assert owner.timers.reasons() == ["dial"] * 8  # who comes next waits for a failure
    owner.wait(8.0)
    dials = owner.dials()
    assert len(dials) == 8 and owner.timers.reasons() == ["dial"] * 8
    owner.failed(dials[3].conn)
    assert len(owner.dials()) == 1
    owner.wait(1.0)
    assert owner.dials() == []


def test_every_address_is_tried_and_every_reason_is_told():
    owner = Owner()
    request = owner.dial(PEER, addresses(12))
    tried = []
    while not owner.events:
        for dial in owner.dials():
            tried.append(dial.address)
            owner.failed(dial.conn, f"no. {len(tried)}")
        owner.wait(0.25)
    assert tried == addresses(12)
    (event,) = owner.events
    assert isinstance(event, DialFailed) and event.dial == request
    assert isinstance(event.error, DialError)
    reasons = [(str(one), f"no. {number}") for number, one in enumerate(addresses(12), 1)]
    assert event.error.attempts == tuple(reasons)
    for address, reason in reasons:
        assert f"{address}: {reason}" in str(event.error)
    assert str(PEER) in str(event.error)
    assert owner.nothing_is_left()


def test_a_reason_without_words():
    owner = Owner()
    owner.dial(None, addresses(1))
    (dial,) = owner.dials()
    owner.dialing.failed(dial.conn, TimeoutError(), owner.now)
    (event,) = owner.events
    assert event.error.attempts == ((str(addresses(1)[0]), "TimeoutError"),)
    assert "cannot dial the peer" in str(event.error)


def test_no_address():
    owner = Owner()
    request = owner.dial(PEER, [])
    assert [event.dial for event in owner.events] == [request]
    assert "no address is known" in str(owner.events[0].error)
    assert owner.events[0].error.attempts == () and owner.nothing_is_left()


def test_an_attempt_has_15_seconds():
    owner = Owner()
    owner.dial(PEER, addresses(2))
    (first,) = owner.dials()
    owner.wait(0.3)
    (second,) = owner.dials()
    owner.wait(14.6)
    assert owner.closed() == []
    owner.wait(0.2)
    assert owner.closed() == [first.conn] and not owner.events
    owner.wait(0.2)
    assert owner.closed() == [second.conn]
    (event,) = owner.events
    assert [reason for _, reason in event.error.attempts] == ["no answer within 15 s"] * 2
    assert owner.nothing_is_left()
    owner.failed(first.conn)
    assert len(owner.events) == 1


def test_an_attempt_that_got_further_is_ended_by_its_connection():
    """The transport is open: the connection says goodbye, and then reports its end."""
    owner = Owner()
    owner.dial(PEER, addresses(2))
    (first,) = owner.dials()
    owner.opened[first.conn] = None
    owner.wait(0.3)
    owner.failed(owner.dials()[0].conn)
    owner.wait(15.0)
    assert isinstance(owner.opened[first.conn], TimedOut)
    assert owner.closed() == [first.conn] and not owner.events
    owner.dialing.failed(first.conn, owner.opened[first.conn], owner.now)
    assert "no answer" in str(owner.events[0].error) and owner.nothing_is_left()


def test_duplicates_are_dialed_once_and_32_addresses_at_most():
    owner = Owner(dial_stagger=0.0, max_parallel_dials=100)
    owner.dial(PEER, addresses(3) * 3 + addresses(100))
    owner.wait(1.0)
    assert [dial.address for dial in owner.dials()] == addresses(32)


def test_dialing_oneself():
    owner = Owner(max_pending_dials=0)
    request = owner.dial(SELF, addresses(1))
    (event,) = owner.events
    assert event.dial == request and "this node itself" in str(event.error)
    assert owner.nothing_is_left() and not owner.actions


# Dials to the same peer


def test_dials_of_one_peer_are_joined():
    owner = Owner()
    request = owner.dial(PEER, addresses(1))
    assert owner.dial(PEER, addresses(2)) == request
    first, second = owner.dials()  # the new address does not wait for the old one
    assert [first.address, second.address] == addresses(2)
    assert owner.dial(PEER, addresses(2)) == request and owner.dials() == []
    owner.connected(first.conn)
    assert owner.events == [PeerConnected(request, PEER, first.conn)]
    assert owner.closed() == [second.conn] and owner.nothing_is_left()


def test_a_joined_address_waits_for_its_turn():
    owner = Owner()
    owner.dial(PEER, addresses(2))
    owner.dial(PEER, addresses(3))
    assert len(owner.dials()) == 1
    owner.wait(0.6)
    assert [dial.address for dial in owner.dials()] == addresses(2, 2)


def test_a_joined_address_waits_for_room():
    owner = Owner(max_parallel_dials=1)
    owner.dial(PEER, addresses(1))
    owner.dial(PEER, addresses(2))
    (first,) = owner.dials()
    owner.wait(5.0)
    assert owner.dials() == []
    owner.failed(first.conn)
    assert len(owner.dials()) == 1


def test_dials_without_a_peer_id_are_not_joined():
    owner = Owner()
    requests = [owner.dial(None, addresses(1)) for _ in range(2)]
    assert len(set(requests)) == 2 and len(owner.dials()) == 2 and len(owner.dialing) == 2


def test_whoever_answers_ends_the_dial_of_its_own_id_too():
    owner = Owner()
    named = owner.dial(PEER, addresses(1))
    anyone = owner.dial(None, addresses(1, 2))
    first, second = owner.dials()
    assert owner.connected(second.conn) == second.address
    assert owner.events == [
        PeerConnected(anyone, PEER, second.conn),
        PeerConnected(named, PEER, second.conn),
    ]
    assert owner.closed() == [first.conn] and owner.nothing_is_left()


def test_a_peer_that_comes_to_us_ends_the_dial_but_not_its_attempts():
    owner = Owner()
    request = owner.dial(PEER, addresses(4))
    owner.wait(0.3)
    first, second = owner.dials()
    assert owner.connected(999) is None
    assert owner.events == [PeerConnected(request, PEER, 999)]
    owner.wait(1)
    assert len(owner.dialing) == 0 and owner.dials() == [] == owner.closed()
    assert owner.connected(1000, OTHER) is None and len(owner.events) == 1
    owner.failed(first.conn)
    assert not owner.nothing_is_left()
    assert owner.connected(second.conn) == second.address
    assert len(owner.events) == 1 and owner.nothing_is_left()


def test_attempts_that_outlive_their_dial_end_in_time():
    owner = Owner()
    owner.dial(PEER, addresses(1))
    (only,) = owner.dials()
    owner.connected(999)
    assert owner.dial(PEER, addresses(1)) != 0  # a new dial, which is not confused with it
    owner.wait(owner.limits.dial_timeout + 1)
    assert only.conn in owner.closed() and owner.nothing_is_left()


def test_cancel():
    owner = Owner()
    request = owner.dial(PEER, addresses(3))
    owner.wait(0.3)
    conns = [dial.conn for dial in owner.dials()]
    owner.dialing.cancel(request)
    assert owner.closed() == conns and owner.events == [] and owner.nothing_is_left()
    owner.dialing.cancel(request)
    owner.dialing.cancel(12345)
    assert owner.actions == []
    assert owner.dial(PEER, addresses(1)) != request  # a new dial
    assert len(owner.dials()) == 1


def test_no_more_than_256_peers_at_once():
    owner = Owner(max_pending_dials=2)
    first = owner.dial(PEER, addresses(1))
    owner.dial(None, addresses(1))
    with pytest.raises(LimitReached, match="max_pending_dials"):
        owner.dial(OTHER, addresses(1))
    assert owner.dial(PEER, addresses(2)) == first
    owner.dialing.cancel(first)
    owner.dial(OTHER, addresses(1))
    assert Limits().max_pending_dials == 256


def test_row_139_a_peer_cannot_make_us_dial_many_others():
    """What a peer says of its addresses costs 32 attempts, 8 at once, and each address once."""
    owner = Owner()
    many = addresses(200)
    owner.dial(PEER, many)
    at_once, tried = 0, []
    while not owner.events:
        dials = owner.dials()
        tried += [dial.address for dial in dials]
        owner.dial(PEER, many[::-1])
        at_once = max(at_once, owner.timers.reasons().count("dial"))
        owner.wait(0.25)
    assert tried == addresses(32) and at_once == 8


def test_row_143_as_many_timers_as_operations():
    """One for each attempt, and one for each dial that has more addresses to try."""
    owner = Owner(max_pending_dials=10**6)
    for _ in range(5):
        live = []
        for number in range(1000):
            request = owner.dial(None, addresses(1 + number % 2))
            live.append((request, *owner.dials()))
        assert len(owner.timers) == 1000 + 500 and len(owner.dialing) == 1000
        for number, (request, dial) in enumerate(live):
            if number % 3 == 0:
                owner.connected(dial.conn)
            elif number % 3 == 1:
                owner.failed(dial.conn)
                for other in owner.dials():
                    owner.failed(other.conn)
            else:
                owner.dialing.cancel(request)
        assert owner.nothing_is_left()
        owner.actions.clear()


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_course_of_events_ends_every_dial_once(data):
    owner = Owner(max_parallel_dials=3)
    requests, cancelled, live = set(), set(), {}
    for _ in range(data.draw(st.integers(1, 30))):
        step = data.draw(st.sampled_from("dddfwwoicx"))
        if step == "d":
            peer = data.draw(st.sampled_from([PEER, OTHER, None]))
            targets = data.draw(st.lists(st.sampled_from(addresses(8)), max_size=6))
            requests.add(owner.dial(peer, targets))
        elif step == "w":
            owner.wait(data.draw(st.sampled_from([0.1, 0.25, 1.0, 16.0])))
        elif step == "i":
            owner.connected(10**6, data.draw(st.sampled_from([PEER, OTHER])))
        elif step == "x" and requests:
            request = data.draw(st.sampled_from(sorted(requests)))
            if not any(event.dial == request for event in owner.events):
                cancelled.add(request)
            owner.dialing.cancel(request)
        elif live:
            conn = data.draw(st.sampled_from(sorted(live)))
            if step == "f":
                owner.failed(conn)
            elif step == "c":
                owner.connected(conn)
            elif step == "o":
                owner.opened[conn] = None
        live |= {dial.conn: dial for dial in owner.dials()}
        for conn in owner.closed():
            live.pop(conn, None)
            owner.failed(conn, "closed")  # as its transport does
            live |= {dial.conn: dial for dial in owner.dials()}
        live = {conn: dial for conn, dial in live.items() if owner.dialing.attempt(conn)}
        reasons = owner.timers.reasons()
        assert reasons.count("dial") <= len(live)
        assert reasons.count("dial the next address") <= len(owner.dialing)
    for _ in range(40):
        owner.wait(4.0)
        for conn in owner.closed():
            owner.failed(conn, "closed")
    assert owner.nothing_is_left()
    outcomes = [event.dial for event in owner.events]
    assert len(outcomes) == len(set(outcomes))
    assert set(outcomes) | cancelled == requests


# In a node


def test_a_wrong_peer_does_not_stop_the_dial_and_its_address_is_not_kept():
    """row 37"""
    wrong, right = addresses(2)
    a, b, c = (make_node(key) for key in KEYS)
    pair = Pair(a, c, connect=False)
    pair.dial = a.dial(b.peer_id, [wrong, right], pair.now)
    pair.a.poll()
    pair.answer(pair.a.last(Dial))
    assert not pair.a.of(ConnectionOpened) and not a.connected_peers()
    (event,) = pair.a.of(ConnectionClosed)
    assert isinstance(event.error, PeerIdMismatch)
    assert c.peer_id not in a.peers
    second = pair.a.last(Dial)
    assert second.address == right and not pair.a.of(DialFailed)
    pair.b.node, pair.b.events, pair.b.actions = b, [], []
    pair.answer(second)
    (event,) = pair.a.of(PeerConnected)
    assert (event.dial, event.peer) == (pair.dial, b.peer_id)
    assert a.peers.addresses(b.peer_id, pair.now) == [right]
    assert "dial" not in a.timers.reasons()


def test_only_the_wrong_peer_answers():
    a, b, c = (make_node(key) for key in KEYS)
    pair = Pair(a, c, connect=False)
    pair.connect(expected=b.peer_id)
    (event,) = pair.a.of(DialFailed)
    ((address, reason),) = event.error.attempts
    assert address == str(LOCAL) and str(c.peer_id) in reason
    assert b.peer_id not in a.peers and c.peer_id not in a.peers
    assert a.timers.reasons() == []


def test_the_dial_leads_back():
    a = make_node(KEYS[0])
    pair = Pair(a, make_node(KEYS[0]), connect=False)
    pair.connect(expected=None)
    (event,) = pair.a.of(DialFailed)
    assert "back to this node" in str(event.error)


def test_the_peer_connects_while_we_dial_it():
    a, b = make_node(KEYS[0]), make_node(KEYS[1])
    request = a.dial(b.peer_id, addresses(2), 100.0)
    pair = Pair(b, a)
    (dial,) = pair.b.of(Dial)
    (event,) = pair.b.of(PeerConnected)
    assert (event.dial, event.conn) == (request, pair.b.conn)
    assert not pair.b.of(CloseConnection)
    a.dial_failed(dial.conn, ConnectionRefusedError("refused"), pair.now)
    pair.run()
    assert not pair.b.of(DialFailed) and a.connections(b.peer_id)
    assert not {"dial", "dial the next address"} & set(a.timers.reasons())
    assert a.peers.addresses(b.peer_id, pair.now) == []  # it came to us


def test_the_transport_opens_after_the_dial_was_cancelled():
    a = make_node(KEYS[0])
    request = a.dial(OTHER, addresses(1), 1.0)
    (dial,) = a.poll()
    a.cancel_dial(request)
    assert a.poll() == [CloseConnection(dial.conn, abort=True)]
    assert a.connected(dial.conn, REMOTE, dial.address, 1.1) == dial.conn
    assert a.poll() == [CloseConnection(dial.conn, abort=True)]
    a.disconnected(dial.conn, None, 1.2)
    assert a.poll() == [] and a.timers.reasons() == []


def test_the_connection_breaks_during_its_handshake():
    a = make_node(KEYS[0])
    a.dial(OTHER, addresses(1), 1.0)
    (dial,) = a.poll()
    a.connected(dial.conn, REMOTE, dial.address, 1.1)
    a.receive_eof(dial.conn, 1.2)
    a.disconnected(dial.conn, None, 1.2)
    events = [item for item in a.poll() if isinstance(item, DialFailed)]
    assert len(events) == 1 and "handshake" in str(events[0].error)
    assert a.timers.reasons() == []


def test_a_handshake_that_never_ends_takes_10_seconds():
    """row 1: one absolute deadline, whatever drips in."""
    a = make_node(KEYS[0])
    a.dial(OTHER, addresses(1), 1.0)
    (dial,) = a.poll()
    a.connected(dial.conn, REMOTE, dial.address, 2.0)
    now = 2.0
    for byte in b"\x13/multistream/1.0.0\n":
        now += 0.5
        a.receive(dial.conn, bytes((byte,)), now)
        a.handle_timeout(now)
    assert now == 12.0
    assert CloseConnection(dial.conn, abort=True) in a.poll()
    a.disconnected(dial.conn, None, now)
    (event,) = (item for item in a.poll() if isinstance(item, DialFailed))
    assert "10 s" in str(event.error) and a.timers.reasons() == []


def test_handshake_errors_are_connection_errors():
    assert issubclass(HandshakeError, ConnectionError) and issubclass(DialError, ConnectionError)
