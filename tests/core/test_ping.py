"""anyp2p_core.ping"""

import random

import pytest
from hypothesis import given, settings, strategies as st
from node_pair import Pair, make_node
from stranger import KEYS, Stranger, meet, one_by_one

from anyp2p_core import (
    CloseConnection,
    LimitReached,
    Limits,
    LocalError,
    PingFailed,
    PingSucceeded,
    RemoteError,
    Service,
    TimedOut,
)
from anyp2p_core.errors import ConnectionLost, Error
from anyp2p_core.ping import MAX_IN_FLIGHT, PROTOCOL, SIZE, Ping

THEM = KEYS[2].peer_id


def ping(pair, count=1):
    """Requests whose pings are on the way."""
    requests = [pair.node.ping(THEM, pair.now) for _ in range(count)]
    pair.run()
    return requests


def wire_of(pair):
    """The newest ping stream at the stranger's end."""
    return pair.them.of(PROTOCOL)[-1]


def succeeded(pair):
    return [event.request for event in pair.ours.of(PingSucceeded)]


def failure_of(pair, *requests):
    """Why these failed, all for one reason; nothing of them is left."""
    events = pair.ours.of(PingFailed)
    assert [event.request for event in events] == list(requests)
    assert len({id(event.error) for event in events}) == 1
    assert all((event.conn, event.peer) == (pair.ours.conn, THEM) for event in events)
    assert isinstance(events[0].error, Error)
    assert "ping" not in pair.node.timers.reasons()
    pair.ours.events.clear()
    return events[0].error


def idle(pair):
    """No stream of ours is left beside identify's."""
    connections = pair.node.connections()
    return all(len(one.muxer.streams) <= 1 for one in connections)


# We ask


def test_two_nodes():
    pair = Pair(make_node(KEYS[0]), make_node(KEYS[1]))
    for here, there in pair.sides:
        request = here.node.ping(there.node.peer_id, pair.now)
        pair.now += 0.25
        pair.run()
        (event,) = here.of(PingSucceeded)
        assert (event.request, event.conn, event.peer) == (
            request, here.conn, there.node.peer_id,
        )  # fmt: skip
        assert event.rtt == 0.25
    pair.wait(11)
    for here, _ in pair.sides:
        assert "ping" not in here.node.timers.reasons()


@pytest.mark.parametrize("cut", [one_by_one, lambda data: [data[:40], data[40:]]])
def test_two_nodes_and_any_segments(cut):
    pair = Pair(make_node(KEYS[0]), make_node(KEYS[1]), cut=cut)
    requests = [pair.a.node.ping(KEYS[1].peer_id, pair.now) for _ in range(5)]
    pair.run()
    assert [event.request for event in pair.a.of(PingSucceeded)] == requests


def test_32_random_bytes_on_one_stream():
    pair = meet()
    first = ping(pair)
    wire = wire_of(pair)
    assert len(wire.received) == SIZE
    wire.send(bytes(wire.received))
    pair.run()
    second = ping(pair)
    assert len(wire.received) == 2 * SIZE and wire.received[:SIZE] != wire.received[SIZE:]
    wire.send(bytes(wire.received[SIZE:]))
    pair.run()
    assert succeeded(pair) == first + second
    assert len(pair.them.of(PROTOCOL)) == 1


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.lists(st.integers(1, 200), max_size=12))
def test_echoes_cut_and_joined_anyhow(count, sizes):
    pair = meet()
    requests = ping(pair, count)
    wire = wire_of(pair)
    data = bytes(wire.received)
    for size in (*sizes, len(data)):
        pair.now += 1 / 64
        wire.send(data[:size])
        pair.run()
        data = data[size:]
    assert succeeded(pair) == requests
    rtts = [event.rtt for event in pair.ours.of(PingSucceeded)]
    assert rtts == sorted(rtts) and rtts[0] > 0


def test_answers_come_one_at_a_time():
    pair = meet()
    requests = ping(pair, 3)
    wire = wire_of(pair)
    echo = bytes(wire.received)
    wire.send(echo[: SIZE + 1])
    pair.run()
    assert succeeded(pair) == requests[:1]
    assert pair.node.timers.reasons().count("ping") == 1
    wire.send(echo[SIZE + 1 :])
    pair.run()
    assert succeeded(pair) == requests


@pytest.mark.parametrize(
    "spoil",
    [
        lambda echo: bytes(SIZE),
        lambda echo: b"\0",
        lambda echo: echo[:-1] + bytes((echo[-1] ^ 1,)),
        lambda echo: echo[:5] + bytes((echo[5] ^ 1,)),
        lambda echo: echo + b"\0",
        lambda echo: echo + echo,
        lambda echo: random.Random(0).randbytes(200_000),
    ],
)
@pytest.mark.parametrize("bytewise", [False, True])
def test_another_echo_fails_at_the_first_wrong_byte(spoil, bytewise):
    pair = meet()
    (request,) = ping(pair)
    wire = wire_of(pair)
    echo = bytes(wire.received)
    wrong = spoil(echo)
    if bytewise:
        for byte in one_by_one(wrong[:64]):
            if wire.reset is None:
                wire.send(byte)
                pair.run()
    else:
        wire.send(wrong)
        pair.run()
    assert wire.reset is not None and idle(pair)
    if wrong.startswith(echo):  # it was answered before it went wrong
        assert succeeded(pair) == [request] and not pair.ours.of(PingFailed)
    else:
        error = failure_of(pair, request)
        assert type(error) is RemoteError and "differs" in str(error)
    (again,) = ping(pair)
    assert wire_of(pair) is not wire
    wire_of(pair).send(bytes(wire_of(pair).received))
    pair.run()
    assert succeeded(pair)[-1] == again


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=100), st.integers(0, 100))
def test_garbage(data, keep):
    pair = meet()
    requests = ping(pair, 2)
    wire = wire_of(pair)
    wire.send(bytes(wire.received[:keep]) + data)
    pair.run()
    for event in pair.ours.of(PingFailed):
        assert isinstance(event.error, RemoteError)
    pair.wait(10.0)
    done = {event.request for kind in (PingFailed, PingSucceeded) for event in pair.ours.of(kind)}
    assert sorted(done) == requests and pair.node.connections()


def test_the_timeout_of_a_later_ping_is_its_own():
    pair = meet()
    (first,) = ping(pair)
    pair.wait(4.0)
    (second,) = ping(pair)
    wire = wire_of(pair)
    wire.send(bytes(wire.received[:SIZE]))
    pair.run()
    pair.wait(9.9)
    assert succeeded(pair) == [first] and not pair.ours.of(PingFailed)
    pair.wait(0.2)
    assert isinstance(failure_of(pair, second), TimedOut)


def test_timeout_of_all_that_wait_and_a_new_stream_then():
    pair = meet()
    (first,) = ping(pair)
    pair.wait(4.0)
    (second,) = ping(pair)
    pair.wait(5.9)
    assert not pair.ours.of(PingFailed)
    pair.wait(0.2)
    error = failure_of(pair, first, second)
    assert isinstance(error, TimedOut) and "10 s" in str(error)
    assert wire_of(pair).reset is not None and idle(pair)
    old = wire_of(pair)
    ping(pair)
    assert wire_of(pair) is not old


def test_the_peer_closes_between_pings():
    pair = meet()
    (first,) = ping(pair)
    wire = wire_of(pair)
    wire.finish(bytes(wire.received))
    pair.run()
    assert succeeded(pair) == [first] and not pair.ours.of(PingFailed)
    assert wire.ended and idle(pair)
    ping(pair)
    assert wire_of(pair) is not wire


def test_the_peer_resets_between_pings():
    pair = meet()
    ping(pair)
    wire = wire_of(pair)
    wire.send(bytes(wire.received))
    pair.run()
    wire.abort()
    pair.run()
    assert not pair.ours.of(PingFailed) and idle(pair)
    ping(pair)
    assert wire_of(pair) is not wire


def test_the_peer_closes_meanwhile():
    pair = meet()
    requests = ping(pair, 2)
    wire_of(pair).finish(b"\0"[:0])
    pair.run()
    assert "closed the ping stream" in str(failure_of(pair, *requests))
    assert idle(pair)


def test_a_reset_of_the_old_stream_leaves_the_new_one_alone():
    """It meets our FIN on the way."""
    pair = meet()
    requests = ping(pair)
    wire = wire_of(pair)
    wire.finish()
    step(pair)
    wire.abort()
    request = pair.node.ping(THEM, pair.now)
    step(pair)
    pair.run()
    assert [event.request for event in pair.ours.of(PingFailed)] == requests
    wire_of(pair).send(bytes(wire_of(pair).received))
    pair.run()
    assert succeeded(pair) == [request]


def test_the_peer_resets_meanwhile():
    pair = meet()
    requests = ping(pair, 2)
    wire_of(pair).abort(9)
    pair.run()
    assert "code 0x9" in str(failure_of(pair, *requests))


def test_the_peer_refuses():
    them = Stranger()
    them.refused = (PROTOCOL,)
    pair = meet(them=them)
    requests = ping(pair, 2)
    assert isinstance(failure_of(pair, *requests), RemoteError)
    assert isinstance(failure_of(pair, *ping(pair)), RemoteError)


def test_the_connection_is_lost_meanwhile():
    pair = meet()
    requests = ping(pair, 2)
    pair.hang_up(pair.theirs, pair.ours)
    assert isinstance(failure_of(pair, *requests), ConnectionLost)
    assert pair.node.timers.reasons() == []
    with pytest.raises(LocalError, match="not connected"):
        pair.node.ping(THEM, pair.now)


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("answered", [False, True])
def test_row_73_we_close_meanwhile(how, answered):
    """Nothing but typed errors, and exactly one outcome for each ping."""
    pair = meet()
    requests = ping(pair, 3)
    connection = pair.node.connections()[0]
    getattr(pair.node, how)(pair.ours.conn, pair.now)
    with pytest.raises(LocalError):
        pair.node.ping(THEM, pair.now)
    if answered:
        wire_of(pair).send(bytes(wire_of(pair).received))
    pair.run()
    pair.wait(20.0)
    assert pair.ours.of(CloseConnection) and connection.error is not None
    outcomes = pair.ours.of(PingFailed) + pair.ours.of(PingSucceeded)
    assert sorted(event.request for event in outcomes) == requests
    assert all(isinstance(event.error, Error) for event in pair.ours.of(PingFailed))
    assert pair.node.timers.reasons() == []


def test_no_more_than_256_in_flight():
    pair = meet()
    requests = ping(pair, MAX_IN_FLIGHT)
    with pytest.raises(LimitReached, match="256"):
        pair.node.ping(THEM, pair.now)
    wire = wire_of(pair)
    wire.send(bytes(wire.received[:SIZE]))
    pair.run()
    assert succeeded(pair) == requests[:1]
    ping(pair)


def test_no_room_for_a_stream():
    limits = Limits()
    pair = meet(limits=limits)
    limits.max_outbound_streams = 0
    with pytest.raises(LimitReached):
        pair.node.ping(THEM, pair.now)
    assert "ping" not in pair.node.timers.reasons()
    limits.max_outbound_streams = 5
    ping(pair)
    assert len(wire_of(pair).received) == SIZE


def test_no_room_for_a_ping():
    pair = meet(limits=Limits(max_unsent=60))
    (request,) = ping(pair)
    assert isinstance(failure_of(pair, request), LocalError) and idle(pair)


def test_row_72_aborted_pings_leave_nothing():
    """However a ping ends, its stream and its timer are gone."""
    pair = meet()
    connection = pair.node.connections()[0]
    streams = len(connection.muxer.streams)
    spoilers = (
        lambda wire: wire.abort(),
        lambda wire: wire.finish(),
        lambda wire: wire.send(bytes(SIZE)),
        lambda wire: wire.finish(bytes(wire.received)),
    )
    for number in range(1000):
        ping(pair, 10 if number % 4 < 3 else 1)
        spoilers[number % 4](wire_of(pair))
        pair.run()
        assert "ping" not in pair.node.timers.reasons()
        pair.them.wires.clear()
        if number % 100 == 99:
            pair.now += 60.0  # a peer may not reset streams for ever
            assert len(connection.muxer.streams) == streams
    assert len(pair.ours.of(PingFailed)) == 7500 and len(succeeded(pair)) == 250
    assert len(pair.node.timers.reasons()) <= 3


def test_a_service_that_pings_again_at_each_outcome():
    class Again(Service):
        def on_event(self, event, now):
            if isinstance(event, PingFailed | PingSucceeded) and len(self.seen) < 5:
                self.seen.append(event)
                (connection,) = self.context.connections()
                self.ping.ping(connection, now)

    again = Again()
    again.seen, again.ping = [], Ping()
    again.ping.protocols = ()
    node = make_node(KEYS[0], services=[again])
    again.ping.attach(node)
    pair = meet(node=node)
    ping(pair)
    for spoil in (lambda wire: wire.send(bytes(wire.received)), lambda wire: wire.abort()) * 2:
        spoil(wire_of(pair))
        pair.run()
    assert [type(event) for event in again.seen] == [PingSucceeded, PingFailed] * 2
    again.seen = list(range(5))
    pair.hang_up(pair.theirs, pair.ours)
    assert "ping" not in pair.node.timers.reasons()


# We answer


def test_we_echo_whatever_way_it_comes():
    pair = meet()
    wire = pair.them.open(PROTOCOL, pair.now)
    data = random.Random(1).randbytes(10 * SIZE)
    for size in (1, 31, 32, 33, 63, 64, 0, 96):
        before = len(wire.received) // SIZE
        wire.send(data[:size])
        data = data[size:]
        pair.run()
        assert len(wire.received) % SIZE == 0 and len(wire.received) // SIZE >= before
    assert bytes(wire.received) == random.Random(1).randbytes(10 * SIZE)
    wire.finish()
    pair.run()
    assert wire.ended and idle(pair)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.binary(max_size=100), max_size=8), st.booleans())
def test_we_echo_whole_pings_only(pieces, end):
    pair = meet()
    wire = pair.them.open(PROTOCOL, pair.now)
    for piece in pieces:
        wire.send(piece)
        pair.run()
    data = b"".join(pieces)
    assert wire.received == data[: len(data) // SIZE * SIZE]
    if end:
        wire.finish()
        pair.run()
        assert wire.ended


def test_a_peer_that_sends_pings_and_reads_nothing():
    pair = meet()
    wire = pair.them.open(PROTOCOL, pair.now)
    wire.reading = False
    connection = pair.node.connections()[0]
    for _ in range(100):
        if wire.reset is None:
            wire.send(bytes(32 * 1024))
            pair.run()
            unsent = max((one.unsent for one in connection.muxer.streams.values()), default=0)
            assert unsent <= pair.node.limits.max_unsent
    assert wire.reset is not None and idle(pair)
    # Its slot is free again.
    wires = [pair.them.open(PROTOCOL, pair.now) for _ in range(2)]
    pair.run()
    assert [one.reset for one in wires] == [None, None]


def test_more_streams_than_a_peer_may_hold():
    pair = meet(limits=Limits(max_inbound_pings=3))
    wires = [pair.them.open(PROTOCOL, pair.now) for _ in range(5)]
    for wire in wires:
        wire.send(bytes(SIZE))
    pair.run()
    assert [wire.reset is None for wire in wires] == [True, True, True, False, False]
    assert [len(wire.received) for wire in wires[:3]] == [SIZE] * 3
    wires[0].finish()
    wires[1].abort()
    pair.run()
    more = [pair.them.open(PROTOCOL, pair.now) for _ in range(3)]
    pair.run()
    assert [wire.reset is None for wire in more] == [True, True, False]


def step(pair):
    """One flush of the stranger, and none of the node."""
    data = pair.them.data_to_send(pair.theirs.conn, pair.now)
    pair.node.receive(pair.ours.conn, data, pair.now)


def test_a_slot_is_given_back_once():
    """End and reset of one stream must not make room for two."""
    pair = meet(limits=Limits(max_inbound_pings=2))
    held, spent = (pair.them.open(PROTOCOL, pair.now) for _ in range(2))
    pair.run()
    spent.finish()
    step(pair)
    spent.abort()
    step(pair)
    pair.run()
    wires = [pair.them.open(PROTOCOL, pair.now) for _ in range(2)]
    pair.run()
    assert [wire.reset is None for wire in (held, *wires)] == [True, True, False]


def test_a_slot_is_held_until_the_answers_are_taken():
    """Else each stream could leave a buffer full of answers behind."""
    pair = meet(limits=Limits(max_inbound_pings=1))
    wire = pair.them.open(PROTOCOL, pair.now)
    wire.reading = False
    for _ in range(5):
        wire.send(bytes(64 * 1024))
        pair.run()
    wire.finish()
    pair.run()
    assert not wire.ended
    assert refused(pair)
    wire.catch_up(pair.now)
    pair.run()
    assert wire.ended and len(wire.received) == 5 * 64 * 1024
    assert not refused(pair)


def test_a_slot_of_untaken_answers_is_given_back_by_a_reset():
    pair = meet(limits=Limits(max_inbound_pings=1))
    wire = pair.them.open(PROTOCOL, pair.now)
    wire.reading = False
    for _ in range(5):
        wire.send(bytes(64 * 1024))
        pair.run()
    wire.stream.write_eof()
    pair.them.touch(wire.connection)
    pair.run()
    wire.abort()
    pair.run()
    assert not refused(pair)


def refused(pair):
    wire = pair.them.open(PROTOCOL, pair.now)
    pair.run()
    if wire.reset is None:
        wire.abort()
        pair.run()
        return False
    return True


def test_row_13_we_close_while_the_peer_does_not_read():
    pair = meet()
    wire = pair.them.open(PROTOCOL, pair.now)
    wire.reading = False
    for _ in range(5):
        wire.send(bytes(64 * 1024))
        pair.run()
    pair.node.close(pair.ours.conn, pair.now)
    pair.run()
    pair.wait(1.1)
    assert pair.ours.of(CloseConnection) and not pair.open
    assert pair.node.timers.reasons() == []


def test_slots_are_counted_per_connection_and_forgotten_with_it():
    node = make_node(KEYS[0], limits=Limits(max_inbound_pings=1))
    for _ in range(3):
        pair = meet(node=node)
        wire = pair.them.open(PROTOCOL, pair.now)
        pair.run()
        assert wire.reset is None
        pair.hang_up(pair.theirs, pair.ours)


def test_the_end_in_the_middle_of_a_ping_is_an_end():
    pair = meet()
    wire = pair.them.open(PROTOCOL, pair.now)
    wire.finish(bytes(SIZE + 5))
    pair.run()
    assert wire.ended and len(wire.received) == SIZE and idle(pair)
