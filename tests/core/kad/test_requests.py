"""Requests of ours: dialing within the budget, deadlines, and a single end for each."""

import pytest
from core.kad.net import Net
from core.kad.people import peer, public

from anyp2p_core.dial_budget import DialBudget
from anyp2p_core.errors import DialError, LimitReached, LocalError, TimedOut
from anyp2p_core.events import DialFailed
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.framing import Held
from anyp2p_core.kad.messages import Message, Type
from anyp2p_core.kad.requests import Requests
from anyp2p_core.limits import Limits
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.service import Service

ASK = Message(Type.FIND_NODE, b"key")


def echo(request, stream):
    return Message(request.type, request.key)


class Asker(Service):
    """Requests in a node, and nothing else."""

    def __init__(self, config):
        self.config = config

    def attach(self, context):
        config = self.config
        budget = DialBudget(
            rate=config.dial_rate, burst=config.dial_burst, interval=config.dial_interval
        )
        self.requests = Requests(context, config, Held(config.max_held), budget)

    def on_connected(self, connection, now):
        self.requests.on_connected(connection, now)

    def on_disconnected(self, connection, now):
        self.requests.on_disconnected(connection, now)

    def on_event(self, event, now):
        self.requests.on_event(event, now)


class Bench:
    """One client, and a puppet that answers."""

    def __init__(self, behave=echo, *, limits=None, **config):
        self.net = Net()
        asker = Asker(KadConfig(**config))
        self.me = self.net._member([], [asker], limits=limits)
        self.other = self.net.puppet(behave)
        self.requests = asker.requests
        self.ends = []

    def send(self, message=ASK, to=None, addresses=None, timeout=10.0):
        to = self.other if to is None else to
        who, where = (to.peer, [to.address]) if addresses is None else (to, addresses)
        end = []
        self.ends.append(end)
        request = self.requests.send(
            who, where, message, timeout, lambda *result: end.append(result), self.net.now
        )
        self.net.touch(self.me)
        return request

    def run(self):
        self.net.run()
        return self.results()

    def wait(self, seconds):
        self.net.wait(seconds)
        return self.results()

    def results(self):
        """What became of each request: a type, an error, or None."""
        assert all(len(end) <= 1 for end in self.ends)
        return [None if not end else end[0][1] or end[0][0].type for end in self.ends]

    def quiet(self):
        """Whether nothing is left of any request."""
        requests = self.requests
        assert not (requests._dials or requests._waiting)
        names = [one for one in self.me.node.timers.reasons() if one.startswith("kad ")]
        assert set(names) <= {"kad idle"}, names
        assert all(not (link.busy or link.queue) for link in requests._links.values())
        assert requests.held.total == 0
        return True


def test_dialing_asking_and_asking_again():
    bench = Bench()
    bench.send()
    bench.send(Message(Type.GET_VALUE, b"x"))
    assert bench.run() == [Type.FIND_NODE, Type.GET_VALUE]
    assert bench.me.dialed == [bench.other.address]
    bench.send()
    assert bench.run()[2] == Type.FIND_NODE and bench.quiet()
    assert len(bench.other.puppet.requests) == 3


def test_nobody_is_there():
    bench = Bench()
    bench.send(to=peer(1), addresses=[Multiaddr("/ip4/127.9.9.9/tcp/1")])
    bench.send(to=peer(1), addresses=[])
    first, second = bench.run()
    assert isinstance(first, DialError) and first is second and bench.quiet()


def test_what_cannot_even_be_tried():
    bench = Bench()
    with pytest.raises(DialError, match="no address"):
        bench.send(to=peer(1), addresses=[])
    with pytest.raises(LocalError, match="itself"):
        bench.send(to=bench.me.peer, addresses=[public(1)])
    with pytest.raises(LocalError, match="16384"):
        bench.send(Message(Type.GET_VALUE, bytes(20_000)))
    assert bench.quiet() and bench.me.dialed == []
    full = Bench(limits=Limits(max_connections=0))
    with pytest.raises(LimitReached, match="max_connections"):
        full.send()
    assert full.quiet()


def test_row_81_silence_ends_at_the_deadline():
    bench = Bench(lambda request, stream: None)
    bench.send(timeout=7.0)
    bench.net.holes.add(Multiaddr("/ip4/127.9.9.9/tcp/1"))
    bench.send(to=peer(1), addresses=[Multiaddr("/ip4/127.9.9.9/tcp/1")], timeout=3.0)
    assert bench.wait(2.9) == [None, None]
    assert isinstance(bench.wait(0.1)[1], TimedOut)
    assert bench.wait(3.9)[0] is None
    assert isinstance(bench.wait(0.1)[0], TimedOut)
    assert bench.quiet()
    bench.net.wait(60)  # the dial itself ends, and nobody minds
    assert bench.quiet() and bench.me.of(DialFailed)


def test_cancelling():
    bench = Bench(lambda request, stream: None)
    waiting, other = bench.send(), bench.send()
    bench.requests.cancel(waiting, bench.net.now)
    bench.requests.cancel(waiting, bench.net.now)
    bench.requests.cancel(other, bench.net.now)
    assert bench.run() == [None, None] and bench.quiet()
    sent = bench.send()
    bench.net.run()
    assert len(bench.other.puppet.requests) == 1
    bench.requests.cancel(sent, bench.net.now)
    assert bench.wait(20) == [None] * 3 and bench.quiet()
    bench.other.puppet.behave = echo
    over = bench.send()
    assert bench.run()[3] == Type.FIND_NODE
    bench.requests.cancel(over, bench.net.now)
    assert bench.quiet()


def test_cancelling_what_is_queued():
    bench = Bench(lambda request, stream: None, max_streams_per_peer=2)
    requests = [bench.send() for _ in range(4)]
    bench.net.run()
    bench.requests.cancel(requests[3], bench.net.now)
    bench.requests.cancel(requests[0], bench.net.now)  # now there is a stream for the third
    bench.net.touch(bench.me)
    bench.net.run()
    assert len(bench.other.puppet.requests) == 3
    results = bench.wait(20)
    assert [type(one) for one in results] == [type(None), TimedOut, TimedOut, type(None)]
    assert bench.quiet()


def test_so_many_wait_for_a_peer():
    bench = Bench(max_queued_per_peer=3, max_streams_per_peer=2)
    for _ in range(3):
        bench.send()
    with pytest.raises(LimitReached, match="max_queued_per_peer"):
        bench.send()
    assert bench.run() == [Type.FIND_NODE] * 3 + [None] and bench.quiet()
    # The connection may be there and take none of them.
    bench.net.cut(bench.me, bench.other)
    bench.requests.config.max_queued_per_peer = 9
    for _ in range(5):
        bench.send()
    bench.requests.config.max_queued_per_peer = 2
    assert [type(one).__name__ for one in bench.run()[4:]] == ["Type"] * 4 + ["LimitReached"]


def test_the_connection_is_lost():
    bench = Bench(lambda request, stream: None, max_streams_per_peer=2)
    for _ in range(4):
        bench.send()
    bench.net.run()
    bench.net.cut(bench.me, bench.other)
    results = bench.results()
    assert all("cable" in str(one) for one in results) and bench.quiet()
    assert bench.requests._links == {}


def test_row_139_the_budget_delays_dials_to_strangers():
    bench = Bench(dial_rate=2.0, dial_burst=3)
    where = [public(n) for n in range(9)]
    bench.net.holes.update(where)
    for number, address in enumerate(where):
        bench.send(to=peer(number), addresses=[address], timeout=60.0)
    bench.net.run()
    assert bench.me.dialed == where[:3]
    bench.wait(1.0)
    assert bench.me.dialed == where[:5]
    bench.wait(5.0)
    assert bench.me.dialed == where
    assert all(bench.wait(60)) and bench.quiet()


def test_this_network_does_not_wait_for_the_budget():
    bench = Bench(dial_rate=1.0, dial_burst=1)
    bench.net.holes.update([public(1), public(2)])
    bench.send(to=peer(1), addresses=[public(1)])
    bench.send(to=peer(2), addresses=[public(2)])
    bench.send()
    assert bench.run() == [None, None, Type.FIND_NODE]


def test_whoever_the_budget_keeps_waiting_is_not_to_blame():
    bench = Bench(dial_rate=0.1, dial_burst=1)
    bench.net.holes.update([public(1), public(2), public(3)])
    bench.send(to=peer(1), addresses=[public(1)], timeout=5.0)
    bench.send(to=peer(2), addresses=[public(2)], timeout=5.0)
    gone = bench.send(to=peer(3), addresses=[public(3)], timeout=5.0)
    bench.requests.cancel(gone, bench.net.now)
    one, other, _ = bench.wait(5.0)
    assert type(one) is TimedOut
    assert isinstance(other, LimitReached) and "dial_rate" in str(other)
    assert bench.wait(60.0)[2] is None and bench.quiet()
    assert bench.me.dialed == [public(1)]


def test_a_delayed_dial_may_fail_at_once_or_not_be_needed():
    bench = Bench(dial_rate=1.0, dial_burst=1, limits=Limits(max_pending_dials=1))
    bench.net.holes.update([public(1)])
    bench.send(to=peer(1), addresses=[public(1)])
    bench.send(to=peer(2), addresses=[public(2)])
    # The third one comes to us meanwhile.
    third = bench.net.puppet(echo, address="/ip4/130.9.9.9/tcp/1")
    bench.send(to=third)
    bench.net.connect(third, bench.me)
    assert bench.results() == [None, None, Type.FIND_NODE]
    bench.wait(3.0)
    assert isinstance(bench.results()[1], LimitReached)
    assert third.address not in bench.me.dialed
    assert isinstance(bench.wait(20)[0], TimedOut) and bench.quiet()


def test_row_139_one_target_is_not_dialed_again_soon():
    bench = Bench()
    bench.send(to=peer(1), addresses=[public(1)])
    assert isinstance(bench.run()[0], DialError)
    with pytest.raises(LimitReached, match="dial_interval"):
        bench.send(to=peer(2), addresses=[public(1, 80)])
    assert bench.requests.refused == 1
    bench.net.wait(10)
    bench.send(to=peer(2), addresses=[public(1, 80)])
    assert isinstance(bench.run()[-1], DialError) and bench.quiet()


def test_row_139_what_a_peer_said_of_itself_counts_too():
    bench = Bench()
    bench.me.node.peers.add_addresses(peer(2), [public(1), public(2)], bench.net.now)
    bench.send(to=peer(1), addresses=[public(1)])
    with pytest.raises(LimitReached, match="dial_interval"):
        bench.send(to=peer(2), addresses=[public(3)])
    bench.run()
    assert bench.me.dialed == [public(1)]


def test_a_dial_of_the_application_is_joined():
    bench = Bench()
    bench.me.node.dial(bench.other.peer, [bench.other.address], bench.net.now)
    bench.send()
    assert bench.run() == [Type.FIND_NODE]
    assert bench.me.dialed == [bench.other.address]
    # Somebody else's failure is not ours.
    bench.me.node.dial(peer(5), [public(5)], bench.net.now)
    bench.net.touch(bench.me)
    bench.send()
    assert bench.run() == [Type.FIND_NODE] * 2 and bench.quiet()


def test_the_application_may_give_up_a_dial_that_is_shared():
    bench = Bench()
    hole = Multiaddr("/ip4/127.9.9.9/tcp/1")
    bench.net.holes.add(hole)
    dial = bench.me.node.dial(peer(1), [hole], bench.net.now)
    bench.send(to=peer(1), addresses=[hole])
    bench.net.run()
    bench.me.node.cancel_dial(dial)
    assert isinstance(bench.wait(10)[0], TimedOut) and bench.quiet()


def test_connections_that_were_never_used():
    bench = Bench()
    bench.net.connect(bench.other, bench.me)
    bench.net.cut(bench.me, bench.other)
    assert bench.requests._links == {} and bench.quiet()


def test_whoever_hears_of_a_failure_may_cancel_the_request_that_led_to_it():
    bench = Bench(lambda request, stream: None, max_streams_per_peer=1)
    first = bench.send(timeout=5.0)
    bench.net.run()
    heard = []

    def done(answer, error, now):
        heard.append(error)
        bench.requests.cancel(first, now)

    bench.requests.send(bench.other.peer, [], ASK, 10.0, done, bench.net.now)
    bench.me.node.limits.max_outbound_streams = 0
    assert bench.wait(5.0) == [None]
    assert isinstance(heard[0], LimitReached) and bench.quiet()
