"""Ends of connections: in order, but nobody is waited for for ever."""

import pytest
from connection_pair import noise, tls
from node_pair import LOCAL, REMOTE, Pair, Side, make_key, make_node

from anyp2p_core import (
    CloseConnection,
    ConnectionClosed,
    ConnectionLost,
    DialFailed,
    Limits,
    LocalError,
    StreamFailed,
    StreamReadable,
)

LARGE = bytes(range(256)) * 6000  # 1.5 MB, six windows


class Ends(Pair):
    """``a`` writes ``data`` on one stream and closes the connection."""

    def __init__(self, data=b"", security=None, **limits):
        nodes = []
        for options in ({"max_unsent": len(LARGE), **limits}, {"max_unsent": len(LARGE)}):
            key = make_key()
            offered = () if security is None else [security(key)]
            nodes.append(make_node(key, limits=Limits(**options), security=offered))
        super().__init__(*nodes)
        self.ours, self.theirs = self.opened()
        self.wait(10.0)  # what is unsettled after the start is over
        self.obeys = False
        assert self.a.node.stream_write(self.ours, data) == len(data)
        self.start = self.now
        self.got = bytearray()

    def close(self):
        self.a.node.close(self.a.conn, self.now)
        self.run()

    def read(self, size=1 << 30):
        data = self.b.node.stream_read(self.theirs, size, self.now)
        self.got += data or b""
        self.run()
        return data

    @property
    def closings(self):
        """What ``a`` wants done: how, and after how many seconds that was known."""
        return [action.abort for action in self.a.of(CloseConnection)]

    def aborted_after(self, most=20.0):
        """Seconds until ``a`` gave up."""
        while True not in self.closings:
            assert self.now < self.start + most
            self.wait(0.25)
        return self.now - self.start

    def gone(self):
        """Whether nothing is left, once the transport is away."""
        self.hang_up(self.a, self.b)
        for side in (self.a, self.b):
            assert len(side.of(ConnectionClosed)) == 1
            assert not side.node.connections() and len(side.node.timers) == 0
            assert not side.node.writable()
        return True


def test_everything_written_is_delivered_to_a_peer_that_reads():
    ends = Ends(LARGE)
    ends.close()
    assert ends.closings == []
    while ends.read():
        ends.wait(0.001)
    assert ends.got == LARGE
    assert ends.read() == b""  # the stream was ended, too
    assert ends.closings == [False]
    assert ends.gone()
    assert [side.last(ConnectionClosed).error for side in (ends.a, ends.b)] == [None, None]


def test_nothing_to_deliver_closes_at_once():
    ends = Ends()
    ends.a.node.stream_close(ends.ours, ends.now)
    ends.run()
    ends.a.node.close(ends.a.conn, ends.now)
    assert [item for item in ends.a.node.poll() if isinstance(item, CloseConnection)] == [
        CloseConnection(ends.a.conn, abort=False)
    ]
    assert ends.a.node.data_to_send(ends.a.conn, ends.now) == b""
    assert ends.gone()


def test_row_13_a_peer_that_reads_nothing_is_given_up_after_a_second():
    ends = Ends(LARGE)
    ends.close()
    assert ends.aborted_after() == 1.0
    assert ends.closings == [True]
    with pytest.raises(ConnectionLost):
        ends.a.node.stream_write(ends.ours, b"x")
    assert ends.gone()


def test_a_peer_that_does_not_close_its_side_is_given_up_after_a_second():
    ends = Ends(b"small")
    ends.close()
    assert ends.closings == [False]
    assert ends.aborted_after() == 1.0
    assert ends.gone()


def test_limit_close_timeout_for_a_peer_that_reads_slowly():
    ends = Ends(LARGE, close_timeout=2.5)
    ends.close()
    while True not in ends.closings:
        goal = len(ends.got) + 200_000
        while len(ends.got) < goal:
            ends.read(goal - len(ends.got))
        ends.wait(0.5)
    assert ends.now - ends.start == 2.5
    assert 500_000 < len(ends.got) < len(LARGE)
    assert ends.gone()


def test_what_a_full_transport_still_holds_may_take_until_the_deadline():
    ends = Ends(b"small")
    ends.close()
    ends.a.node.blocked(ends.a.conn, True, ends.now)
    assert ends.aborted_after() == Limits().close_timeout == 5.0
    assert ends.gone()


def test_a_full_transport_of_a_peer_that_reads_nothing():
    ends = Ends(LARGE)
    ends.a.node.blocked(ends.a.conn, True, ends.now)
    ends.close()
    assert ends.aborted_after() == 1.0
    assert ends.gone()


def test_a_stuck_stream_that_the_peer_resets_is_waited_for_no_longer():
    ends = Ends(LARGE)
    ends.close()
    ends.b.node.stream_reset(ends.theirs, 0, ends.now)
    ends.run()
    assert ends.closings == [False]
    assert ends.gone()


def test_twice_is_once():
    ends = Ends(LARGE)
    ends.close()
    ends.close()
    assert ends.aborted_after() == 1.0
    ends.close()
    assert ends.closings == [True]
    ends.gone()
    ends.close()
    ends.a.node.abort(ends.a.conn, ends.now)
    assert ends.closings == [True]


def test_abort_drops_at_once_also_while_closing():
    ends = Ends(LARGE)
    ends.close()
    ends.a.node.abort(ends.a.conn, ends.now)
    ends.a.poll()
    assert ends.closings == [True]
    assert not ends.a.node.writable()
    assert ends.gone()
    assert ends.a.last(ConnectionClosed).error is None
    assert ends.read(1 << 30) is not None  # what had arrived
    while ends.got:
        ends.got.clear()
        try:
            ends.read()
        except ConnectionLost:
            break


def test_streams_are_refused_while_closing():
    ends = Ends(LARGE)
    ends.close()
    peer = ends.b.node.peer_id
    assert ends.a.node.connections() == [] == ends.a.node.connections(peer)
    assert not ends.a.node.is_connected(peer)
    with pytest.raises(LocalError, match="not connected"):
        ends.a.node.open_stream(peer, ["/app"], ends.now)
    failing = ends.b.node.open_stream(
        ends.a.node.peer_id, ["/ipfs/ping/1.0.0", "/b"], ends.now, optimistic=False
    )
    ends.run()
    assert ends.b.last(StreamFailed).stream == failing
    ends.read()
    assert ends.got  # what was on its way is not disturbed


def test_close_during_the_upgrade_fails_the_dial():
    pair = Pair(connect=False)
    pair.run = lambda: None
    pair.connect()
    del pair.run
    pair.a.node.close(pair.a.conn, pair.now)
    pair.run()
    assert pair.a.last(CloseConnection).abort
    assert "was closed" in str(pair.a.last(DialFailed).error)
    assert pair.a.last(ConnectionClosed).error is None
    assert pair.a.last(ConnectionClosed).peer is None
    assert len(pair.a.node.timers) == len(pair.b.node.timers) == 0


def test_the_end_by_the_peer_is_answered():
    ends = Ends()
    ends.a.node.stream_write(ends.ours, b"on its way")
    ends.run()
    ends.a.node.receive_eof(ends.a.conn, ends.now)
    ends.a.poll()
    assert ends.closings == [False]
    assert ends.gone()
    assert ends.read() == b"on its way"


def test_a_transport_that_does_not_end_after_the_peer_did_is_dropped():
    ends = Ends(LARGE)
    ends.a.node.receive_eof(ends.a.conn, ends.now)
    assert ends.a.node.timers.reasons() == ["close"]
    assert ends.aborted_after() == Limits().close_timeout
    assert ends.closings == [False, True]
    assert ends.gone()


def test_the_peer_ends_while_we_deliver():
    ends = Ends(LARGE)
    ends.close()
    ends.a.node.receive_eof(ends.a.conn, ends.now)
    ends.a.node.receive_eof(ends.a.conn, ends.now)
    ends.a.poll()
    assert ends.closings == [False]
    assert ends.aborted_after() <= 2.0
    assert ends.gone()


def test_what_comes_after_we_have_finished_is_read_and_changes_nothing():
    ends = Ends(b"small")
    ends.close()
    ends.b.node.stream_write(ends.theirs, b"an answer")
    ends.run()
    assert ends.a.node.stream_read(ends.ours, 100, ends.now) == b"an answer"
    ends.run()
    assert ends.closings == [False]
    ends.a.node.abort(ends.a.conn, ends.now)
    ends.b.node.stream_write(ends.theirs, b"nobody reads this")
    ends.run()
    assert ends.closings == [False, True]
    assert ends.gone()


def test_the_last_second_begins_when_all_is_handed_out():
    ends = Ends()
    ends.a.node.blocked(ends.a.conn, True, ends.now)
    ends.close()
    ends.wait(0.75)
    ends.a.node.blocked(ends.a.conn, False, ends.now)
    ends.run()
    assert ends.closings == [False]
    assert ends.aborted_after() == 1.75
    assert ends.gone()


def test_the_peer_ends_after_we_have_finished():
    ends = Ends(b"small")
    ends.close()
    ends.a.node.receive_eof(ends.a.conn, ends.now)
    ends.a.poll()
    assert ends.closings == [False]
    assert ends.gone()


def test_the_reader_is_told_once_the_peer_has_closed():
    ends = Ends(b"small")
    ends.obeys = True
    ends.b.events.clear()
    ends.close()
    assert ends.b.of(StreamReadable)
    assert ends.read() == b"small"
    assert ends.read() == b""


# Last words.


def handed_out(side, now):
    """What a loop that asks until there is nothing gets for the transport."""
    sent = []
    while data := side.node.data_to_send(side.conn, now):
        sent.append(data)
    return sent


@pytest.mark.parametrize("data", [b"", b"small", LARGE])
def test_last_words_go_out_before_the_transport_is_closed(data):
    ends = Ends(data, tls)
    ends.a.node.close(ends.a.conn, ends.now)
    ended = False
    while not ended:
        ends.a.poll()
        assert ends.closings == []  # there is something to say still
        for segment in handed_out(ends.a, ends.now):
            assert not ended
            ends.b.node.receive(ends.b.conn, segment, ends.now)
            ended = not ends.b.node.connections()
        for segment in handed_out(ends.b, ends.now):
            ends.a.node.receive(ends.a.conn, segment, ends.now)
        while taken := ends.b.node.stream_read(ends.theirs, 1 << 30, ends.now):
            ends.got += taken
        ends.b.poll()
    ends.a.poll()
    assert ends.closings == [False]
    assert ends.a.node.writable() == [] == handed_out(ends.a, ends.now)
    ends.a.poll()
    assert ends.closings == [False]
    assert ends.got == data
    assert ends.b.of(CloseConnection)[0].abort is False  # the answer, behind its own last words
    assert ends.gone()
    assert ends.a.last(ConnectionClosed).error is None is ends.b.last(ConnectionClosed).error


def test_who_has_no_last_words_closes_at_once_and_once():
    ends = Ends(b"small", noise)
    ends.a.node.close(ends.a.conn, ends.now)
    assert len(handed_out(ends.a, ends.now)) == 1
    assert handed_out(ends.a, ends.now) == []
    ends.a.poll()
    assert ends.closings == [False]


def test_a_full_transport_gets_no_last_words():
    ends = Ends(b"", tls)
    ends.a.node.blocked(ends.a.conn, True, ends.now)
    ends.a.node.stream_close(ends.ours, ends.now)
    ends.run()
    ends.a.node.blocked(ends.a.conn, False, ends.now)
    ends.run()
    ends.a.node.blocked(ends.a.conn, True, ends.now)
    ends.close()
    assert ends.closings == [False]
    ends.a.node.blocked(ends.a.conn, False, ends.now)
    assert ends.a.node.writable() == []
    assert ends.a.node.data_to_send(ends.a.conn, ends.now) == b""
    ends.a.poll()
    assert ends.closings == [False]
    assert ends.gone()


@pytest.mark.parametrize("in_time", [True, False])
def test_a_transport_that_fills_up_before_the_last_words(in_time):
    ends = Ends(b"small", tls)
    ends.a.node.close(ends.a.conn, ends.now)
    data = ends.a.node.data_to_send(ends.a.conn, ends.now)
    ends.b.node.receive(ends.b.conn, data, ends.now)
    ends.a.node.blocked(ends.a.conn, True, ends.now)
    assert ends.a.node.writable() == []
    ends.a.poll()
    assert ends.closings == []
    if in_time:
        ends.a.node.blocked(ends.a.conn, False, ends.now)
        assert ends.a.node.writable() == [ends.a.conn]
        ends.run()
        assert ends.closings == [False]
    else:
        assert ends.aborted_after() == Limits().close_timeout
        ends.a.node.blocked(ends.a.conn, False, ends.now)
        assert ends.a.node.writable() == [] == handed_out(ends.a, ends.now)
        ends.a.poll()
        assert ends.closings == [True]
    assert ends.gone()


def test_the_peer_says_good_bye_while_we_deliver():
    ends = Ends(LARGE, tls)
    ends.close()
    ends.b.node.close(ends.b.conn, ends.now)
    ends.run()
    assert ends.closings == [False]
    assert [action.abort for action in ends.b.of(CloseConnection)] == [False]
    ends.a.node.receive_eof(ends.a.conn, ends.now)
    ends.b.node.receive_eof(ends.b.conn, ends.now)
    ends.run()
    assert ends.closings == [False]
    assert ends.gone()
    assert ends.a.last(ConnectionClosed).error is None is ends.b.last(ConnectionClosed).error


def test_the_peer_says_good_bye_while_something_is_unsent():
    ends = Ends(LARGE, tls)
    ends.run()
    assert ends.a.node.connections()[0].unsent()
    ends.b.node.close(ends.b.conn, ends.now)
    ends.run()
    assert ends.closings == [False]
    assert ends.a.node.timers.reasons() == ["close"]
    assert ends.a.node.data_to_send(ends.a.conn, ends.now) == b""
    assert ends.gone()


@pytest.mark.parametrize("security", [noise, tls])
def test_both_close_at_once(security):
    ends = Ends(b"small", security)
    ends.b.node.stream_write(ends.theirs, b"too")
    sent = []
    for side in (ends.a, ends.b):
        side.node.close(side.conn, ends.now)
        sent.append(handed_out(side, ends.now))
    for side, segments in ((ends.a, sent[1]), (ends.b, sent[0])):
        for segment in segments:
            side.node.receive(side.conn, segment, ends.now)
        side.node.receive_eof(side.conn, ends.now)
        side.poll()
        assert [action.abort for action in side.of(CloseConnection)] == [False]
    ends.run()
    assert ends.closings == [False]
    assert ends.read() == b"small"
    assert ends.gone()
    assert ends.a.last(ConnectionClosed).error is None is ends.b.last(ConnectionClosed).error


def test_good_bye_and_the_end_of_the_transport_are_one_end():
    ends = Ends(b"", tls)
    ends.b.node.close(ends.b.conn, ends.now)
    for segment in handed_out(ends.b, ends.now):
        ends.a.node.receive(ends.a.conn, segment, ends.now)
    ends.a.node.receive_eof(ends.a.conn, ends.now)
    ends.a.node.receive(ends.a.conn, b"whatever follows", ends.now)
    ends.a.node.receive_eof(ends.a.conn, ends.now)
    ends.run()
    assert ends.closings == [False]
    assert ends.gone()


def test_an_abort_takes_the_last_words_back():
    ends = Ends(b"", tls)
    ends.a.node.close(ends.a.conn, ends.now)
    ends.a.node.abort(ends.a.conn, ends.now)
    assert ends.a.node.writable() == [] == handed_out(ends.a, ends.now)
    ends.run()
    ends.wait(10.0)
    assert ends.closings == [True]
    assert ends.gone()


@pytest.mark.parametrize("command", ["close", "abort"])
def test_a_connection_that_is_dropped_before_it_said_anything(command):
    node = make_node()
    side = Side(node, node.connected(None, LOCAL, REMOTE, 1.0))
    node.receive(side.conn, b"\x13/multistream/1.0.0\n", 1.0)
    assert node.writable() == [side.conn]
    getattr(node, command)(side.conn, 1.0)
    assert node.writable() == [] == handed_out(side, 1.0)
    side.poll()
    assert [action.abort for action in side.of(CloseConnection)] == [True]
