"""Ends of connections: in order, but nobody is waited for for ever."""

import pytest
from node_pair import Pair, make_node

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

    def __init__(self, data=b"", **limits):
        super().__init__(make_node(limits=Limits(max_unsent=len(LARGE), **limits)))
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
