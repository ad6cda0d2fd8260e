"""anyp2p_core.perf"""

import pytest
from hypothesis import given, settings, strategies as st
from node_pair import Pair, make_node
from stranger import KEYS, Stranger, meet, one_by_one

from anyp2p_core import (
    CloseConnection,
    LimitReached,
    Limits,
    LocalError,
    NegotiationError,
    PerfFailed,
    PerfFinished,
    PerfProgressed,
    RemoteError,
)
from anyp2p_core.errors import ConnectionLost
from anyp2p_core.perf import CHUNK, PROGRESS_EVERY, PROTOCOL, Perf

THEM = KEYS[2].peer_id


def run(pair, upload, download):
    """A run towards the stranger, and its end of the stream."""
    request = pair.node.perf(THEM, upload, download, pair.now)
    pair.run()
    return request, pair.them.of(PROTOCOL)[-1]


def streams(pair):
    (connection,) = pair.node.connections()
    return [one for one in connection.muxer.streams.values() if one.inbound or one.id > 2]


def full(wire):
    """A window of data was sent; the negotiation took some bytes of it."""
    return 255 * 1024 < len(wire.received) <= 256 * 1024


def failure_of(pair, request):
    (event,) = pair.ours.of(PerfFailed)
    assert event.request == request and not pair.ours.of(PerfFinished)
    assert not streams(pair)
    return event.error


def serving(**limits):
    """A node that serves perf, and a stranger's stream to it."""
    node = make_node(KEYS[0], services=[Perf(serve=True)], limits=Limits(**limits))
    pair = meet(node=node)
    pair.wire = pair.them.open(PROTOCOL, pair.now)
    pair.run()
    return pair


# We measure


SIZES = [0, 1, 65506, len(CHUNK), 65508, 300_001, 1_000_003]


@pytest.mark.parametrize("upload", SIZES)
@pytest.mark.parametrize("download", SIZES)
def test_two_nodes(upload, download):
    a, b = make_node(KEYS[0]), make_node(KEYS[1], services=[Perf(serve=True)])
    pair = Pair(a, b)
    request = a.perf(b.peer_id, upload, download, pair.now)
    pair.now += 0.5
    pair.run()
    (event,) = pair.a.of(PerfFinished)
    assert (event.request, event.uploaded, event.downloaded) == (request, upload, download)
    assert (event.upload_seconds, event.download_seconds) == (0.5, 0.0)
    assert not pair.a.of(PerfFailed)
    for node in (a, b):
        assert not node.connections()[0].muxer.streams


def test_two_nodes_byte_by_byte():
    a, b = make_node(KEYS[0]), make_node(KEYS[1], services=[Perf(serve=True)])
    pair = Pair(a, b, cut=one_by_one)
    a.perf(b.peer_id, 3000, 2000, pair.now)
    pair.run()
    assert pair.a.of(PerfFinished)


def test_what_goes_over_the_wire():
    pair = meet()
    request, wire = run(pair, 5, 0x0102030405)
    assert wire.received == bytes.fromhex("0000000102030405") + bytes(5) and wire.ended
    wire.abort()
    pair.run()
    failure_of(pair, request)


def test_times_and_progress():
    pair = meet()
    request, wire = run(pair, 400_000, 6)
    assert wire.ended
    pair.now += 2.0
    wire.send(b"123")
    pair.run()
    (progress,) = pair.ours.of(PerfProgressed)
    assert (progress.request, progress.uploaded, progress.downloaded) == (request, 400_000, 3)
    pair.now += PROGRESS_EVERY / 2
    wire.send(b"45")
    pair.run()
    assert len(pair.ours.of(PerfProgressed)) == 1
    pair.now += 1.0
    wire.finish(b"6")
    pair.run()
    (event,) = pair.ours.of(PerfFinished)
    assert event.upload_seconds == 2.0
    assert event.download_seconds == 1.0 + PROGRESS_EVERY / 2


def test_uploads_wait_for_the_reader():
    them = Stranger()
    them.answers[PROTOCOL] = lambda wire: setattr(wire, "reading", False)
    pair = meet(them=them)
    request, wire = run(pair, 2_000_000, 0)
    (stream,) = streams(pair)
    assert full(wire) and stream.unsent <= pair.node.limits.max_unsent
    pair.now += 1.0
    wire.catch_up(pair.now)
    pair.run()
    assert len(wire.received) == 2_000_008 and wire.ended
    progress = [event.uploaded for event in pair.ours.of(PerfProgressed)]
    assert progress and progress == sorted(progress) and progress[-1] <= 2_000_000
    wire.finish()
    pair.run()
    assert pair.ours.of(PerfFinished)[0].request == request


@pytest.mark.parametrize("surplus", [1, 70_000])
def test_too_many_bytes(surplus):
    pair = meet()
    request, wire = run(pair, 0, 10)
    wire.send(bytes(10))
    pair.run()
    wire.send(bytes(surplus))
    pair.run()
    error = failure_of(pair, request)
    assert type(error) is RemoteError and "more bytes" in str(error)
    assert wire.reset is not None


def test_the_end_comes_early():
    pair = meet()
    request, wire = run(pair, 0, 10)
    wire.finish(bytes(9))
    pair.run()
    assert "9 of 10 bytes" in str(failure_of(pair, request))


@pytest.mark.parametrize("upload", [400_000, 2_000_000])
def test_the_end_comes_before_our_upload_was_taken(upload):
    """Also when all of it is written, but not yet sent."""
    them = Stranger()
    them.answers[PROTOCOL] = lambda wire: setattr(wire, "reading", False)
    pair = meet(them=them)
    request, wire = run(pair, upload, 0)
    wire.finish()
    pair.run()
    assert f"of our {upload} bytes to go" in str(failure_of(pair, request))
    assert wire.reset is not None


def test_the_peer_resets():
    pair = meet()
    request, wire = run(pair, 10, 10)
    wire.abort(5)
    pair.run()
    assert "code 0x5" in str(failure_of(pair, request))


def test_the_peer_does_not_speak_it():
    them = Stranger()
    them.refused = (PROTOCOL,)
    pair = meet(them=them)
    request = pair.node.perf(THEM, 0, 0, pair.now)
    pair.run()
    assert isinstance(failure_of(pair, request), RemoteError | NegotiationError)


def test_the_connection_is_lost():
    pair = meet()
    request, _ = run(pair, 10, 10)
    pair.hang_up(pair.theirs, pair.ours)
    (event,) = pair.ours.of(PerfFailed)
    assert event.request == request and isinstance(event.error, ConnectionLost)
    pair.node.cancel_perf(request, pair.now)
    pair.ours.poll()
    assert len(pair.ours.of(PerfFailed)) == 1 and pair.node.timers.reasons() == []


@pytest.mark.parametrize("upload", [10, 2_000_000])
def test_cancel(upload):
    pair = meet()
    request, wire = run(pair, upload, 10)
    pair.node.cancel_perf(request, pair.now)
    pair.run()
    assert isinstance(failure_of(pair, request), LocalError)
    assert wire.reset is not None
    pair.node.cancel_perf(request, pair.now)
    pair.node.cancel_perf(12345, pair.now)
    pair.run()
    assert len(pair.ours.of(PerfFailed)) == 1


def test_a_reset_after_the_failure_is_none_of_it():
    """Their reset meets ours on the way."""
    pair = meet()
    request, wire = run(pair, 0, 10)
    wire.finish(bytes(11))
    wire_data = pair.them.data_to_send(pair.theirs.conn, pair.now)
    pair.node.receive(pair.ours.conn, wire_data, pair.now)
    wire.abort()
    pair.run()
    failure_of(pair, request)


def test_a_run_fails_once():
    perf = Perf()
    pair = meet(node=make_node(KEYS[0], services=[perf]))
    request, _ = run(pair, 10, 10)
    broken = perf.runs[request]
    for _ in range(2):
        broken.fail(RemoteError("enough"), pair.now)
    pair.run()
    assert str(failure_of(pair, request)) == "enough"


@pytest.mark.parametrize(("upload", "download"), [(-1, 0), (0, -1), (2**64, 0), (0, 2**64)])
def test_numbers_that_do_not_fit(upload, download):
    pair = meet()
    with pytest.raises(LocalError, match="between 0 and"):
        pair.node.perf(THEM, upload, download, pair.now)
    pair.run()
    assert not pair.them.of(PROTOCOL)


def test_the_largest_numbers_are_bounded_by_the_reader():
    them = Stranger()
    them.answers[PROTOCOL] = lambda wire: setattr(wire, "reading", False)
    pair = meet(them=them)
    _, wire = run(pair, 2**64 - 1, 2**64 - 1)
    (stream,) = streams(pair)
    assert wire.received[:8] == b"\xff" * 8 and stream.unsent <= pair.node.limits.max_unsent


def test_no_room_for_a_stream():
    limits = Limits()
    pair = meet(limits=limits)
    limits.max_outbound_streams = 0
    with pytest.raises(LimitReached):
        pair.node.perf(THEM, 1, 1, pair.now)
    pair.run()
    assert not pair.ours.of(PerfFailed)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 300), st.lists(st.integers(0, 300), max_size=6), st.sampled_from("ern"))
def test_whatever_the_peer_sends(download, pieces, end):
    pair = meet()
    request, wire = run(pair, 3, download)
    for size in pieces:
        if wire.reset is None:
            wire.send(bytes(size))
            pair.run()
    if wire.reset is None:
        if end == "e":
            wire.finish()
        elif end == "r":
            wire.abort()
        pair.run()
    sent = sum(pieces)
    if sent == download and end == "e":
        assert pair.ours.of(PerfFinished)[0].downloaded == download
    elif sent > download or end != "n":
        assert isinstance(failure_of(pair, request), RemoteError)
    else:
        assert streams(pair)


# We serve


def test_it_is_off_by_default():
    assert PROTOCOL not in make_node().protocols
    assert PROTOCOL not in make_node(services=[Perf()]).protocols
    assert PROTOCOL in make_node(services=[Perf(serve=True)]).protocols


@pytest.mark.parametrize("wanted", [0, 1, 65507, 200_001])
def test_the_header_may_come_in_any_pieces(wanted):
    header = wanted.to_bytes(8, "big")
    for cut in range(9):
        pair = serving()
        pair.wire.send(header[:cut])
        pair.run()
        pair.wire.send(header[cut:] + bytes(cut * 100))
        pair.run()
        assert not pair.wire.received  # the upload first
        pair.wire.finish()
        pair.run()
        assert len(pair.wire.received) == wanted and pair.wire.ended
        assert not streams(pair)


def test_the_header_byte_by_byte():
    pair = serving()
    for byte in one_by_one((1000).to_bytes(8, "big") + b"abc"):
        pair.wire.send(byte)
        pair.run()
    pair.wire.finish()
    pair.run()
    assert len(pair.wire.received) == 1000 and pair.wire.ended


@pytest.mark.parametrize("size", range(8))
def test_half_a_header_is_reset(size):
    pair = serving()
    pair.wire.finish(bytes(size))
    pair.run()
    assert pair.wire.reset is not None and not streams(pair)


def test_a_large_upload_is_read_and_dropped():
    pair = serving()
    pair.wire.send(bytes(8))
    for _ in range(40):
        assert pair.wire.send(bytes(60_000)) == 60_000
        pair.run()
    (connection,) = pair.node.connections()
    assert connection.muxer.unread == 0
    pair.wire.finish()
    pair.run()
    assert pair.wire.ended and not pair.wire.received


@pytest.mark.parametrize("wanted", [10**6, 2**64 - 1])
def test_a_peer_that_does_not_read_what_it_wanted(wanted):
    pair = serving()
    pair.wire.reading = False
    pair.wire.finish(wanted.to_bytes(8, "big"))
    pair.run()
    (stream,) = streams(pair)
    assert full(pair.wire)
    assert stream.unsent <= pair.node.limits.max_unsent
    if wanted == 10**6:
        pair.wire.catch_up(pair.now)
        pair.run()
        assert len(pair.wire.received) == wanted and pair.wire.ended
    else:
        pair.wire.abort()
        pair.run()
        assert not streams(pair)


def test_row_13_we_close_while_the_peer_does_not_read():
    pair = serving()
    pair.wire.reading = False
    pair.wire.finish(b"\xff" * 8)
    pair.run()
    pair.node.close(pair.ours.conn, pair.now)
    pair.run()
    pair.wait(1.1)
    assert pair.ours.of(CloseConnection) and not pair.open
    assert pair.node.timers.reasons() == []


def test_row_13_we_close_while_the_peer_reads_on_and_on():
    pair = serving()
    pair.wire.reading = False
    pair.wire.finish(b"\xff" * 8)
    pair.run()
    pair.node.close(pair.ours.conn, pair.now)
    pair.wire.catch_up(pair.now)
    pair.run()
    pair.wait(0.1)
    assert pair.wire.reset is not None and pair.ours.of(CloseConnection)
    assert not any(one.abort for one in pair.ours.of(CloseConnection))
