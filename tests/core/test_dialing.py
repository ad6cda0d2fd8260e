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
from anyp2p_core.dialing import MAX_REFUSED, PATIENCE, Dialing
from anyp2p_core.errors import HandshakeError
from anyp2p_core.resolver import FakeResolver, LookupFailed
from anyp2p_core.timers import Timers

PEER, OTHER, SELF = (key.peer_id for key in KEYS)


def addresses(count, start=1):
    return [Multiaddr(f"/ip4/1.2.3.4/tcp/{port}") for port in range(start, start + count)]


class Owner:
    """A node without transports: the test plays them."""

    def __init__(self, *, resolver=None, why_not=None, **limits):
        self.actions = []
        self.events = []
        self.ids = itertools.count(1)
        self.limits = Limits(**limits)
        self.now = 0.0
        self.opened = {}
        """Connections whose transport is open, with the error that ended them."""
        self.peer_id = SELF
        self.timers = Timers()
        if callable(resolver):
            resolver = resolver(self.timers)
        self.dialing = Dialing(self, resolver=resolver, why_not=why_not)

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

    def dial(self, peer, targets, known=()):
        return self.dialing.dial(peer, targets, self.now, known=known)

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


# One dial


def test_attempts_start_a_quarter_of_a_second_apart():
    owner = Owner()
    six = Multiaddr("/ip6/2600::1/tcp/1")
    owner.dial(PEER, [*addresses(3), six])
    started = []
    for _ in range(8):
        started += [(owner.now, dial.address) for dial in owner.dials()]
        owner.wait(0.125)
    assert started == list(zip((0.0, 0.25, 0.5, 0.5), [six, *addresses(3)], strict=True))
    assert sorted(owner.timers.reasons()) == ["dial"] * 4


def test_a_failure_starts_the_next_one_at_once():
    owner = Owner()
    six = Multiaddr("/ip6/2600::1/tcp/1")
    owner.dial(PEER, [*addresses(2), six])
    (first,) = owner.dials()
    assert first.address == six
    owner.wait(0.1)
    owner.failed(first.conn)
    (second,) = owner.dials()
    assert second.address == addresses(1)[0]
    owner.wait(0.2)  # the quarter is counted from the last start
    assert owner.dials() == []
    owner.wait(0.05)
    assert [dial.address for dial in owner.dials()] == addresses(1, 2)


def test_a_turn_is_counted_from_the_last_start_also_when_that_was_late():
    owner = Owner()
    six = [Multiaddr(f"/ip6/2600::1/tcp/{port}") for port in (1, 2)]
    owner.dial(PEER, [*six, *addresses(1)])
    owner.now = 0.4
    owner.timers.run(0.4)
    assert [dial.address for dial in owner.dials()] == [six[0], addresses(1)[0]]
    assert owner.timers.next_timeout() == 0.65


def test_any_clock_will_do():
    owner = Owner()
    owner.now = -1000.0
    owner.dial(PEER, addresses(1))
    assert len(owner.dials()) == 1


def test_private_and_public_addresses_have_turns_of_their_own():
    owner = Owner()
    near = [Multiaddr(f"/ip4/10.0.0.1/tcp/{port}") for port in (1, 2)]
    owner.dial(PEER, [*addresses(2), *near])
    assert [dial.address for dial in owner.dials()] == [near[0], addresses(1)[0]]
    owner.wait(0.04)
    assert [dial.address for dial in owner.dials()] == near[1:]
    owner.wait(0.2)
    assert owner.dials() == []
    owner.wait(0.02)
    assert [dial.address for dial in owner.dials()] == addresses(1, 2)


def test_success_ends_the_others_at_once():
    owner = Owner()
    request = owner.dial(PEER, addresses(3))
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


@pytest.mark.parametrize("count", [1, 2, 12])
def test_an_attempt_that_fails_while_it_is_started(count):
    """As where there is no transport for it."""
    owner = Owner()

    def act(action):
        if isinstance(action, Dial) and action.address.get("tcp") != "7":
            owner.failed(action.conn)
        owner.actions.append(action)

    owner.act = act
    owner.dial(PEER, addresses(count))
    tried = owner.dials()
    if count < 7:
        assert len(owner.events) == 1 and owner.nothing_is_left()
        assert len(owner.events[0].error.attempts) == count == len(tried)
        return
    assert [dial.address for dial in tried] == addresses(count)
    assert owner.timers.reasons() == ["dial"] and owner.events == []
    owner.failed(tried[6].conn)
    assert len(owner.events[0].error.attempts) == count and owner.nothing_is_left()


def test_a_failed_start_does_not_leave_two_timers():
    owner = Owner()
    refused = []

    def act(action):
        owner.actions.append(action)
        if isinstance(action, Dial) and not refused:
            refused.append(action)
            owner.failed(action.conn)

    owner.act = act
    six = [Multiaddr(f"/ip6/2600::1/tcp/{port}") for port in (1, 2)]
    owner.dial(PEER, [*six, *addresses(2)])
    assert len(owner.dials()) == 2
    assert sorted(owner.timers.reasons()) == ["dial", "dial the next address"]


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
    request = owner.dial(PEER, addresses(2))
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


# What is known from before, and what cannot be dialed


def fail_all(owner):
    while dials := owner.dials():
        for dial in dials:
            owner.failed(dial.conn)


def test_what_failed_lately_is_spared_unless_somebody_asks_for_it():
    owner = Owner()
    one, two = addresses(2)
    owner.dial(PEER, [one])
    fail_all(owner)
    request = owner.dial(PEER, [], known=[one])
    assert owner.dials() == []
    event = owner.events[-1]
    assert event.dial == request
    assert event.error.attempts == ((str(one), "it failed lately; spared for 5 s more"),)
    assert "no address can be dialed" in str(event.error)
    owner.dial(PEER, [], known=[one, two])
    (dial,) = owner.dials()
    assert dial.address == two
    owner.dial(PEER, [one])  # it joins
    assert [dial.address for dial in owner.dials()] == [one]
    fail_all(owner)
    owner.dial(OTHER, [], known=[one])  # of that peer nothing is known
    assert [dial.address for dial in owner.dials()] == [one]


def test_an_asked_for_address_is_refused_no_more():
    owner = Owner()
    one, two = addresses(2)
    owner.dial(PEER, [one])
    fail_all(owner)
    owner.dial(PEER, [two], known=[one])
    owner.dial(PEER, [one])
    fail_all(owner)
    attempts = owner.events[-1].error.attempts
    assert sorted(attempts) == [(str(one), "refused"), (str(two), "refused")]


def test_a_success_and_time_forgive():
    owner = Owner()
    (one,) = addresses(1)
    owner.dial(PEER, [one])
    fail_all(owner)
    owner.wait(5.1)
    owner.dial(PEER, [], known=[one])
    fail_all(owner)
    owner.dial(PEER, [one])
    (dial,) = owner.dials()
    owner.connected(dial.conn)
    owner.dial(PEER, [], known=[one])
    assert len(owner.dials()) == 1


def test_dropped_attempts_are_no_failures():
    owner = Owner()
    request = owner.dial(PEER, addresses(2))
    owner.wait(0.3)
    owner.dialing.cancel(request)
    assert len(owner.dials()) == 2 and len(owner.dialing.history) == 0
    owner.dial(PEER, addresses(2))
    owner.wait(0.3)
    owner.connected(owner.dials()[1].conn)
    assert len(owner.dialing.history) == 0


def test_known_addresses_that_lead_nowhere():
    owner = Owner()
    nowhere = Multiaddr("/ip4/0.0.0.0/tcp/1")
    owner.dial(PEER, [], known=[nowhere])
    assert owner.dials() == [] and "names no host" in str(owner.events[-1].error)
    owner.dial(PEER, [nowhere])
    assert len(owner.dials()) == 1


def test_the_best_known_addresses_are_taken():
    owner = Owner(max_dial_addresses=3, dial_stagger=0.0)
    asked = Multiaddr("/ip4/1.2.3.4/tcp/60000")
    owner.dial(PEER, [asked], known=addresses(5)[::-1])
    assert [dial.address for dial in owner.dials()] == [*addresses(2), asked]


def test_what_a_node_cannot_dial():
    def why_not(address):
        return "QUIC needs anyp2p[quic]" if "quic-v1" in address.names else None

    owner = Owner(why_not=why_not)
    quic = [Multiaddr(f"/ip4/1.2.3.4/udp/{port}/quic-v1") for port in range(1, 200)]
    owner.dial(PEER, quic[:1])
    message = str(owner.events[-1].error)
    assert f"no address can be dialed: {quic[0]}: QUIC needs anyp2p[quic]" in message
    owner.dial(PEER, [*quic, *addresses(1)])
    (dial,) = owner.dials()
    owner.failed(dial.conn)
    error = owner.events[-1].error
    assert len(error.attempts) == 1 + MAX_REFUSED
    assert error.attempts[0] == (str(dial.address), "refused")
    assert "no address can be dialed" not in str(error)


# Names


NAMED = Multiaddr("/dns4/a.example/tcp/443/tls/ws")
AT1, AT2 = (Multiaddr(f"/ip4/1.2.3.{n}/tcp/443/tls/ws") for n in (1, 2))
HOSTS = {("a.example", "A"): ["1.2.3.2", "1.2.3.1"], ("a.example", "AAAA"): ["2600::1"]}


def late(records, delay=1.0):
    return lambda timers: FakeResolver(records, timers, delay)


def test_without_a_resolver_names_go_to_the_transport():
    owner = Owner()
    names = [Multiaddr(f"/{name}/a.example/tcp/1") for name in ("dns", "dns4", "dns6")]
    owner.dial(PEER, names)
    owner.wait(1.0)
    assert sorted(dial.address for dial in owner.dials()) == names


@pytest.mark.parametrize("text", ["/dnsaddr/a.example", "/dns/a.example/udp/1/quic-v1"])
def test_without_a_resolver_some_names_mean_nothing(text):
    owner = Owner()
    owner.dial(PEER, [Multiaddr(text)])
    assert owner.dials() == []
    assert f"{text}: looking it up needs anyp2p[dns]" in str(owner.events[-1].error)
    assert owner.nothing_is_left()


def test_a_name_is_looked_up_and_every_ip_tried():
    owner = Owner(resolver=FakeResolver(HOSTS))
    request = owner.dial(PEER, [NAMED])
    (first,) = owner.dials()
    assert first.address == AT2  # as the server sorted them
    attempt = owner.dialing.attempt(first.conn).attempts[first.conn]
    assert (attempt.address, attempt.target, attempt.peer) == (NAMED, AT2, PEER)
    owner.failed(first.conn)
    (second,) = owner.dials()
    assert second.address == AT1
    assert owner.connected(second.conn) == NAMED  # for the peerstore
    assert owner.events == [PeerConnected(request, PEER, second.conn)] and owner.nothing_is_left()


def test_the_error_names_the_name():
    owner = Owner(resolver=FakeResolver(HOSTS))
    owner.dial(PEER, [NAMED, Multiaddr("/dns4/b.example/tcp/1")])
    fail_all(owner)
    attempts = owner.events[-1].error.attempts
    assert attempts[0][0] == "/dns4/b.example/tcp/1" and "no b.example" in attempts[0][1]
    assert attempts[1:] == ((str(NAMED), "refused"),) * 2
    assert owner.nothing_is_left()


def test_other_addresses_do_not_wait_for_an_answer():
    owner = Owner(resolver=late(HOSTS))
    request = owner.dial(PEER, [NAMED, *addresses(1)])
    (dial,) = owner.dials()
    assert dial.address == addresses(1)[0]
    owner.failed(dial.conn)
    assert owner.events == []  # the dial is not over
    owner.wait(1.0)
    assert [dial.address for dial in owner.dials()] == [AT2]
    owner.dialing.cancel(request)
    assert owner.nothing_is_left()


def test_a_dial_ends_with_its_last_answer():
    owner = Owner(resolver=late({}))
    owner.dial(PEER, [NAMED])
    owner.wait(0.9)
    assert owner.events == []
    owner.wait(0.1)
    assert isinstance(owner.events[0], DialFailed) and owner.nothing_is_left()


def test_no_answer_at_all():
    owner = Owner(resolver=late({}, 1e6))
    owner.dial(PEER, [NAMED])
    owner.wait(10.0)
    (event,) = owner.events
    assert "no DNS answer within 10 s" in str(event.error)
    assert owner.timers.reasons() == ["answer of the resolver"] and len(owner.dialing) == 0


def test_the_first_addresses_found_wait_a_moment_for_better_ones():
    class Slow(FakeResolver):
        def query(self, name, kind, answered, now):
            self._delay = {"A": 1.0, "AAAA": 1.03}[kind]
            super().query(name, kind, answered, now)

    owner = Owner(resolver=lambda timers: Slow(HOSTS, timers))
    owner.dial(PEER, [Multiaddr("/dns/a.example/tcp/1")])
    owner.wait(1.02)
    assert owner.dials() == []
    owner.wait(0.01)
    (dial,) = owner.dials()
    assert dial.address == Multiaddr("/ip6/2600::1/tcp/1")


def test_they_do_not_wait_long():
    assert PATIENCE == 0.05
    both = {**HOSTS, ("b.example", "A"): ["1.2.3.9"]}

    class Slow(FakeResolver):
        def query(self, name, kind, answered, now):
            self._delay = {"a.example": 1.0, "b.example": 3.0}[name]
            super().query(name, kind, answered, now)

    owner = Owner(resolver=lambda timers: Slow(both, timers))
    owner.dial(PEER, [NAMED, Multiaddr("/dns4/b.example/tcp/1")])
    owner.wait(1.04)
    assert owner.dials() == []
    owner.wait(0.02)
    assert [dial.address for dial in owner.dials()] == [AT2]
    owner.wait(0.3)
    assert [dial.address for dial in owner.dials()] == [AT1]
    owner.wait(2.0)
    assert [str(dial.address) for dial in owner.dials()] == ["/ip4/1.2.3.9/tcp/1"]


def test_what_is_found_takes_its_place_in_the_queue():
    owner = Owner(resolver=late(HOSTS, 0.1))
    six = Multiaddr("/ip6/2600::9/tcp/1")
    owner.dial(PEER, [*addresses(1), six, Multiaddr("/dns6/a.example/tcp/1")])
    assert [dial.address for dial in owner.dials()] == [six]
    owner.wait(0.25)
    assert [str(dial.address) for dial in owner.dials()] == ["/ip6/2600::1/tcp/1"]
    owner.wait(0.25)
    assert [dial.address for dial in owner.dials()] == addresses(1)


def test_a_target_is_tried_once_for_each_name_that_matters():
    hosts = {(name, "A"): ["1.2.3.4"] for name in ("a.example", "b.example")}
    owner = Owner(resolver=FakeResolver(hosts))
    texts = ["/dns4/a.example/tcp/1", "/dns4/b.example/tcp/1"]
    owner.dial(PEER, [*map(Multiaddr, texts), *addresses(1)])
    fail_all(owner)
    assert len(owner.events[-1].error.attempts) == 1
    owner.dial(PEER, [Multiaddr(text + "/ws") for text in texts])
    fail_all(owner)
    assert [where for where, _ in owner.events[-1].error.attempts] == [f"{t}/ws" for t in texts]


def test_a_dnsaddr_of_the_wanted_peer():
    entries = [
        f"dnsaddr=/ip4/1.2.3.4/tcp/1/p2p/{PEER}",
        f"dnsaddr=/ip4/1.2.3.4/tcp/2/p2p/{OTHER}",
        "dnsaddr=/ip4/1.2.3.4/tcp/3",
    ]
    resolver = FakeResolver({("_dnsaddr.a.example", "TXT"): entries})
    for text in ("/dnsaddr/a.example", f"/dnsaddr/a.example/p2p/{PEER}"):
        owner = Owner(resolver=resolver)
        owner.dial(PEER, [Multiaddr(text)])
        (dial,) = owner.dials()
        assert dial.address == addresses(1)[0]
        owner.wait(1.0)
        assert owner.dials() == []


def test_a_dnsaddr_of_anybody_tells_who_has_to_answer():
    entries = [f"dnsaddr={one}/p2p/{OTHER}" for one in addresses(1)]
    owner = Owner(resolver=FakeResolver({("_dnsaddr.a.example", "TXT"): entries}))
    owner.dial(None, [Multiaddr("/dnsaddr/a.example")])
    (dial,) = owner.dials()
    found = owner.dialing.attempt(dial.conn)
    assert found.peer is None and found.expected(dial.conn) == OTHER


def test_known_names_are_looked_up_and_what_failed_is_spared():
    owner = Owner(resolver=FakeResolver(HOSTS))
    owner.dial(PEER, [NAMED])
    (dial,) = owner.dials()
    owner.failed(dial.conn)
    (dial,) = owner.dials()
    owner.connected(dial.conn)
    owner.dial(PEER, [], known=[NAMED])
    (dial,) = owner.dials()
    assert dial.address == AT1
    owner.failed(dial.conn)
    assert "spared" in str(owner.events[-1].error) and owner.nothing_is_left()


def test_a_name_that_is_asked_for_is_tried_whatever_failed():
    owner = Owner(resolver=FakeResolver(HOSTS))
    for _ in range(2):
        owner.dial(PEER, [NAMED])
        fail_all(owner)
        assert [reason for _, reason in owner.events[-1].error.attempts] == ["refused"] * 2


def test_what_is_found_has_to_be_dialable():
    entries = ["dnsaddr=/ip4/1.2.3.4/udp/1/quic-v1", f"dnsaddr={addresses(1)[0]}"]
    owner = Owner(
        resolver=FakeResolver({("_dnsaddr.a.example", "TXT"): entries}),
        why_not=lambda address: "no QUIC" if "udp" in address.names else None,
    )
    owner.dial(PEER, [Multiaddr("/dnsaddr/a.example")])
    assert owner.dials() == []  # neither names the peer
    owner.dial(None, [Multiaddr("/dnsaddr/a.example")])
    (dial,) = owner.dials()
    assert dial.address == addresses(1)[0]
    owner.failed(dial.conn)
    assert owner.events[-1].error.attempts == (
        (str(dial.address), "refused"),
        ("/ip4/1.2.3.4/udp/1/quic-v1", "no QUIC"),
    )


def test_names_stand_for_32_addresses_at_most():
    hosts = {("a.example", "A"): [f"1.2.4.{n}" for n in range(60)]}
    owner = Owner(resolver=FakeResolver(hosts), max_parallel_dials=100, dial_stagger=0.0)
    owner.dial(PEER, [*addresses(40), Multiaddr("/dns4/a.example/tcp/1")])
    assert len(owner.dials()) == 32  # no room for the name
    owner.dial(OTHER, [*addresses(31), Multiaddr("/dns4/a.example/tcp/1")])
    assert len(owner.dials()) == 31 + 32


def test_success_ends_the_looking_up():
    owner = Owner(resolver=late(HOSTS))
    owner.dial(PEER, [NAMED, *addresses(1)])
    (dial,) = owner.dials()
    owner.connected(dial.conn)
    assert owner.timers.reasons() == ["answer of the resolver"]
    owner.wait(2.0)
    assert owner.dials() == [] and len(owner.events) == 1


def test_an_answer_finds_a_joined_dial():
    owner = Owner(resolver=late(HOSTS, 0.1))
    request = owner.dial(PEER, addresses(2))
    assert owner.dial(PEER, [NAMED]) == request
    owner.dial(PEER, [NAMED])
    owner.wait(0.2)
    assert [dial.address for dial in owner.dials()] == addresses(1)
    owner.wait(0.1)
    assert [dial.address for dial in owner.dials()] == addresses(1, 2)
    owner.wait(0.6)
    assert [dial.address for dial in owner.dials()] == [AT2, AT1]


def test_an_answer_that_is_an_error():
    owner = Owner(resolver=FakeResolver({("a.example", "A"): LookupFailed("the server is down")}))
    owner.dial(PEER, [NAMED])
    assert "the server is down" in str(owner.events[-1].error)


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
    for conn in a.writable():
        a.data_to_send(conn, now)
    assert CloseConnection(dial.conn, abort=True) in a.poll()
    a.disconnected(dial.conn, None, now)
    (event,) = (item for item in a.poll() if isinstance(item, DialFailed))
    assert "10 s" in str(event.error) and a.timers.reasons() == []


def test_handshake_errors_are_connection_errors():
    assert issubclass(HandshakeError, ConnectionError) and issubclass(DialError, ConnectionError)
