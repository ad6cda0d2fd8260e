"""Streams of ours: used again, opened anew when the peer closed them, given up when it lies."""

import pytest
from core.kad.net import SMALL, Net
from core.kad.test_requests import ASK, Bench, echo

from anyp2p_core.errors import LimitReached, NegotiationError, RemoteError, TimedOut
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.messages import MESSAGE, Message, Peer, Type
from anyp2p_core.varint import delimited

ADD = Message(Type.ADD_PROVIDER, b"key", providers=[Peer(b"id")])
ANSWER = delimited(MESSAGE.encode(Message(Type.FIND_NODE)))


def test_one_stream_carries_one_request_after_the_other():
    bench = Bench()
    for _ in range(5):
        bench.send()
        bench.net.run()
    assert bench.results() == [Type.FIND_NODE] * 5
    assert len(bench.other.puppet.streams) == 1 and bench.quiet()


def test_so_many_streams_and_one_is_kept():
    bench = Bench(max_streams_per_peer=3)
    for _ in range(10):
        bench.send()
    assert bench.run() == [Type.FIND_NODE] * 10 and bench.quiet
    assert len(bench.other.puppet.streams) == 3
    bench.net.wait(1)
    assert [one.eof_received for one in bench.other.puppet.streams].count(False) == 1


def test_an_idle_stream_is_closed():
    bench = Bench(idle_timeout=30.0)
    bench.send()
    bench.net.wait(29.9)
    (stream,) = bench.other.puppet.streams
    assert not stream.eof_received
    bench.net.wait(0.2)
    assert stream.eof_received and stream.eof_sent
    assert len(bench.me.node.connections()[0].muxer.streams) == 0
    assert bench.quiet() and "kad idle" not in bench.me.node.timers.reasons()
    bench.send()
    assert bench.run() == [Type.FIND_NODE] * 2


def test_a_peer_that_does_not_close_its_side_is_not_waited_for():
    bench = Bench()
    bench.send()
    bench.net.run()
    (stream,) = bench.other.puppet.streams
    stream.on_eof = lambda now: None
    bench.net.wait(30)
    muxer = bench.me.node.connections()[0].muxer
    assert len(muxer.streams) == 1
    bench.net.wait(10)
    assert len(muxer.streams) == 0 and stream.is_reset and bench.quiet()


def closing(request, stream):
    """Answers, and closes the stream, as rust peers do."""
    stream.write(ANSWER)
    stream.write_eof()


def test_a_peer_may_close_after_each_answer():
    bench = Bench(closing, max_streams_per_peer=2)
    for _ in range(6):
        bench.send()
    assert bench.run() == [Type.FIND_NODE] * 6
    bench.net.wait(1)
    bench.send()
    assert bench.run() == [Type.FIND_NODE] * 7 and bench.quiet()


def test_a_request_that_meets_a_closed_stream_is_sent_once_more():
    bench = Bench()
    bench.send()
    bench.net.run()
    bench.other.puppet.behave = lambda request, stream: stream.reset()
    bench.send()
    # Once: the second stream is reset too, and that is the end.
    assert isinstance(bench.run()[1], RemoteError) and bench.quiet()
    assert len(bench.other.puppet.requests) == 3
    bench.other.puppet.behave = echo
    bench.send()
    assert bench.run()[2] == Type.FIND_NODE


def test_there_may_be_no_stream_for_the_second_try():
    bench = Bench()
    bench.send()
    bench.net.run()
    bench.other.puppet.behave = lambda request, stream: stream.write_eof()
    bench.send()
    bench.me.node.limits.max_outbound_streams = 0
    assert isinstance(bench.run()[1], LimitReached) and bench.quiet()


WRONG = {
    "junk": b"\x03abc",
    "endless": b"\xff" * 5,
    "two answers": ANSWER * 2,
    "an answer and a half": ANSWER + b"\x05",
    "of another type": delimited(MESSAGE.encode(Message(Type.GET_VALUE))),
    "of no type": b"\x02\x08\x63",
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("used", [False, True])
def test_row_75_wrong_answers_fail_the_request_once(answer, used):
    bench = Bench()
    if used:
        bench.send()
        bench.net.run()
    bench.other.puppet.behave = lambda request, stream: answer
    bench.send()
    assert isinstance(bench.run()[-1], RemoteError) and bench.quiet()
    assert len(bench.other.puppet.requests) == 1 + used
    assert bench.other.puppet.streams[-1].is_reset


def test_an_answer_in_pieces():
    bench = Bench(lambda request, stream: ANSWER[:1])
    bench.send()
    assert bench.run() == [None]
    assert bench.requests.held.total == 1
    bench.other.puppet.streams[0].write(ANSWER[1:])
    bench.net.touch(bench.other)
    bench.other.node.touch(bench.other.node.connections()[0])
    assert bench.run() == [Type.FIND_NODE] and bench.quiet()


@pytest.mark.parametrize("ending", ["write_eof", "reset"])
def test_half_an_answer_is_none(ending):
    bench = Bench()
    bench.send()
    bench.net.run()

    def half(request, stream):
        stream.write(ANSWER[:1])
        if ending == "write_eof":
            stream.write_eof()

    bench.other.puppet.behave = half
    bench.send()
    bench.net.run()
    if ending == "reset":
        bench.other.puppet.streams[-1].reset()
        bench.other.node.touch(bench.other.node.connections()[0])
        bench.net.touch(bench.other)
    assert isinstance(bench.run()[1], RemoteError) and bench.quiet()
    assert len(bench.other.puppet.requests) == 2


def test_what_nobody_asked_for():
    bench = Bench()
    bench.send()
    bench.net.run()
    (stream,) = bench.other.puppet.streams
    stream.write(ANSWER)
    bench.other.node.touch(bench.other.node.connections()[0])
    bench.net.touch(bench.other)
    bench.net.run()
    assert stream.is_reset and bench.quiet()
    bench.send()
    assert bench.run() == [Type.FIND_NODE] * 2


def test_add_provider_is_done_when_it_is_sent_to_somebody_who_takes_it():
    bench = Bench(lambda request, stream: None)
    done = []
    who, where = bench.other.peer, [bench.other.address]

    def send():
        bench.requests.send(who, where, ADD, 10.0, lambda *one: done.append(one), bench.net.now)
        bench.net.touch(bench.me)
        bench.net.run()

    send()
    send()
    assert [one[:2] for one in done] == [(None, None)] * 2
    # A stream each: an answer, which some peers send, must not pass for that of the next request.
    assert len(bench.other.puppet.streams) == 2 and len(bench.other.puppet.requests) == 2
    assert bench.quiet()
    # Somebody who does not speak the protocol has taken nothing.
    who = bench.net.add(KadConfig(walk=SMALL)).peer
    where = [bench.net.members[-1].address]
    send()
    assert isinstance(done[2][1], NegotiationError) and bench.quiet()


def test_an_answer_to_add_provider_is_nobodys():
    bench = Bench(lambda request, stream: ANSWER)
    done = []
    who, where = bench.other.peer, [bench.other.address]
    bench.requests.send(who, where, ADD, 10.0, lambda *one: done.append(one), bench.net.now)
    bench.net.touch(bench.me)
    bench.net.run()
    bench.send()
    assert bench.run() == [Type.FIND_NODE]
    assert [one[:2] for one in done] == [(None, None)] and bench.quiet()


def test_a_peer_that_does_not_speak_the_protocol():
    bench = Bench()
    client = bench.net.add(KadConfig(walk=SMALL))
    bench.send(to=client)
    assert isinstance(bench.run()[0], NegotiationError) and bench.quiet()


def test_what_is_queued_fails_when_streams_run_out():
    bench = Bench(lambda request, stream: None, max_streams_per_peer=3)
    for _ in range(6):
        bench.send(timeout=5.0)
    bench.net.run()
    bench.me.node.limits.max_outbound_streams = 1
    results = bench.wait(5.0)
    assert [type(one) for one in results] == [TimedOut] * 3 + [LimitReached] * 3
    assert bench.quiet()


def test_a_failure_that_leads_to_more_of_them_does_not_nest():
    bench = Bench(lambda request, stream: None, max_streams_per_peer=3, max_queued_per_peer=5000)
    requests = []
    ended = []

    def done(answer, error, now):
        # Whoever hears of a failure cancels another request that has a stream.
        ended.append(error)
        if requests:
            bench.requests.cancel(requests.pop(0), now)

    for _ in range(3000):
        requests.append(
            bench.requests.send(
                bench.other.peer, [bench.other.address], ASK, 5.0, done, bench.net.now
            )
        )
    bench.net.touch(bench.me)
    bench.net.run()
    bench.me.node.limits.max_outbound_streams = 0
    bench.requests.cancel(requests.pop(0), bench.net.now)
    assert len(ended) > 900
    bench.net.wait(5)
    assert bench.quiet()


def test_the_connection_is_closing():
    bench = Bench()
    bench.send()
    bench.net.run()
    bench.net.wait(1)
    (connection,) = bench.me.node.connections()
    link = bench.requests._links[connection.id]
    bench.other.puppet.behave = lambda request, stream: None
    for _ in range(20):
        bench.send()
    bench.net.run()
    assert link.busy == 16 and len(link.queue) == 4
    bench.net.kill(bench.other)
    assert all(isinstance(one, Exception) for one in bench.results()[1:]) and bench.quiet()


def test_a_peer_may_not_hold_too_much_of_our_memory():
    bench = Bench(lambda request, stream: delimited(bytes(3000))[:2000], max_held=16_000)
    for _ in range(4):
        bench.send()
    results = bench.run()
    assert sum(isinstance(one, RemoteError) for one in results) == 2
    assert bench.requests.held.total == 4000
    bench.net.wait(10)
    assert bench.quiet()


def test_nets_repeat_themselves():
    peers = [[one.peer for one in Net(3).servers(3)] for _ in range(2)]
    assert peers[0] == peers[1]


def test_the_queue_is_bounded_and_can_be_left():
    bench = Bench(lambda request, stream: None, max_streams_per_peer=1, max_queued_per_peer=2)
    bench.net.connect(bench.other, bench.me)
    requests = [bench.send() for _ in range(3)]
    with pytest.raises(LimitReached, match="max_queued_per_peer"):
        bench.send()
    bench.requests.cancel(requests[1], bench.net.now)
    bench.send()
    results = bench.wait(10)
    assert results[1] is None and results.count(None) == 2 and bench.quiet()
