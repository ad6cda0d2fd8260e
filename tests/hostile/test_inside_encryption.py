"""A peer that speaks noise in order and inside of it whatever it likes (promises 3 and 4)."""

from contextlib import suppress
from random import Random

import pytest
from hostile.arena import ECHO, HEADER, Arena, data_frame, proposal
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from anyp2p_core import (
    ConnectionClosed,
    Error,
    Limits,
    LocalError,
    StreamOpened,
)
from anyp2p_core.multistream import encode
from anyp2p_core.perf import Perf
from anyp2p_core.varint import delimited, encode as varint
from anyp2p_core.yamux_frame import (
    ACK,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    encode as frame,
)

PROTOCOLS = ["/app", ECHO, "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/none"]
SMALL = Limits(
    max_inbound_streams=6,
    max_negotiating_streams=3,
    max_outbound_streams=5,
    max_unread=600_000,
    max_unread_total=700_000,
    max_queued_control=4000,
    max_resets=20,
    max_unsent=5000,
)
IDENTIFY = delimited(b"\x2a\x04test" + b"\x1a\x05/app\n" + b"\x12\x00")

stream_ids = st.one_of(st.integers(0, 14), st.sampled_from([2**31, 2**32 - 1, 99]))
heads = st.one_of(
    st.sampled_from([0, WINDOW_UPDATE, PING, GO_AWAY]).flatmap(
        lambda kind: st.sampled_from(
            [0, SYN, ACK, FIN, RST, SYN | FIN, SYN | ACK, ACK | FIN, SYN | RST, FIN | RST, 0xFFFF]
        ).map(lambda flags: kind | flags)
    ),
    st.integers(0, 2**32 - 1),
)
lengths = st.one_of(
    st.integers(0, 50), st.sampled_from([262_144, 262_145, 2**31, 2**32 - 1, 65_507])
)
payloads = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            HEADER,
            HEADER[:7],
            HEADER + b"\x03ls\n",
            HEADER + encode("/none") + encode("/app"),
            b"\x03na\n",
            HEADER + b"\x03na\n",
            HEADER + encode("/app") + b"data",
            HEADER + encode("/a"),
            varint(2**62),
            IDENTIFY,
            IDENTIFY * 11,
            bytes(32),
            bytes(3000),
            b"\xff" * 12,
        ]
    ),
)


class Hostile(RuleBasedStateMachine):
    """Two peers that obey nothing, one node, one friend."""

    @initialize()
    def start(self):
        self.arena = Arena(limits=SMALL, services=[Perf(serve=True)])
        self.peers = [self.arena.attacker(), self.arena.attacker()]
        self.streams = []
        self.seen = 0

    which = st.integers(0, 1)

    def peer(self, number):
        """A peer that is connected; a new one in the place of one that was thrown out."""
        if self.peers[number].closed:
            self.peers[number] = self.arena.attacker()
        return self.peers[number]

    def act(self, number, *frames):
        """Send; the other peer's connection must not notice."""
        peer, other = self.peer(number), self.peer(1 - number)
        if not peer.paused:
            peer.send(*frames)
        assert not other.closed
        self.look()

    def look(self):
        events = self.arena.events
        for event in events[self.seen :]:
            if isinstance(event, StreamOpened):
                self.streams.append(event.stream)
            elif isinstance(event, ConnectionClosed):
                assert event.error is None or isinstance(event.error, Error), event
        self.seen = len(events)

    @rule(which=which, head=heads, stream=stream_ids, length=lengths)
    def header(self, which, head, stream, length):
        self.act(which, frame(head, stream, length))

    @rule(which=which, flags=st.sampled_from([0, SYN, FIN, SYN | FIN, ACK, RST]), stream=stream_ids,
          payload=payloads)  # fmt: skip
    def data(self, which, flags, stream, payload):
        self.act(which, data_frame(flags, stream, payload))

    @rule(which=which, stream=st.integers(0, 9).map(lambda n: 2 * n + 1),
          protocol=st.sampled_from(PROTOCOLS), payload=payloads)  # fmt: skip
    def opens(self, which, stream, protocol, payload):
        self.act(which, proposal(stream, protocol, data=payload))

    @rule(which=which, garbage=st.binary(min_size=1, max_size=60))
    def garbage(self, which, garbage):
        self.act(which, garbage)

    @rule(which=which, stream=st.integers(0, 9), size=st.sampled_from([1000, 60_000, 262_144]))
    def flood(self, which, stream, size):
        self.act(which, data_frame(0, stream, bytes(size)))

    @rule(which=which)
    def answers(self, which):
        """Agree to everything that the node proposes."""
        replies = [
            data_frame(ACK, stream, payload)
            for head, stream, _, payload in self.peer(which).frames()
            if head & SYN and not stream % 2 and payload
        ]
        self.act(which, *replies)

    @rule(which=which)
    def stops_reading(self, which):
        self.peer(which).stall()

    @rule(which=which)
    def reads_again(self, which):
        peer = self.peer(which)
        self.arena.node.blocked(peer.conn, False, self.arena.now)
        self.arena.run()
        self.look()

    @rule(which=which, raw=st.binary(min_size=1, max_size=30))
    def tampers(self, which, raw):
        peer = self.peer(which)
        if not peer.paused:
            peer.raw(raw)
            self.arena.run()
            self.look()

    @rule(which=which, ended=st.booleans())
    def leaves(self, which, ended):
        peer = self.peer(which)
        if ended:
            self.arena.node.receive_eof(peer.conn, self.arena.now)
        else:
            self.arena.leave(peer)
            peer.closed = True
        self.arena.run()
        self.look()

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 6.0, 11.0, 31.0]))
    def time_passes(self, seconds):
        self.arena.wait(seconds)
        self.look()

    # The node's own side.

    @rule(which=which, protocols=st.lists(st.sampled_from(PROTOCOLS), min_size=1, max_size=3))
    def node_opens(self, which, protocols):
        with suppress(LocalError):
            peer = self.peer(which).key.peer_id
            self.arena.node.open_stream(peer, protocols, self.arena.now)
        self.arena.run()
        self.look()

    @rule(which=which, close=st.booleans())
    def node_ends(self, which, close):
        conn = self.peer(which).conn
        (self.arena.node.close if close else self.arena.node.abort)(conn, self.arena.now)
        self.arena.run()
        self.look()

    @rule(which=which)
    def node_pings(self, which):
        with suppress(LocalError):
            self.arena.node.ping(self.peer(which).key.peer_id, self.arena.now)
        self.arena.run()

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def application(self, data):
        node, now = self.arena.node, self.arena.now
        stream = data.draw(st.sampled_from(self.streams))
        what = data.draw(st.sampled_from(["read", "write", "eof", "close", "reset", "refuse"]))
        with suppress(Error):
            if what == "read":
                while node.stream_read(stream, 500, now):
                    pass
            elif what == "write":
                node.stream_write(stream, bytes(700))
            elif what == "eof":
                node.stream_write_eof(stream)
            elif what in ("close", "refuse"):
                node.stream_close(stream, now, discard=what == "close")
            else:
                node.stream_reset(stream, 5, now)
        self.arena.run()
        self.look()

    @invariant()
    def within_the_limits(self):
        if not hasattr(self, "arena"):
            return
        node = self.arena.node
        assert 0 <= node.unread <= SMALL.max_unread_total
        for connection in node.connections():
            muxer = connection.muxer
            inbound = sum(stream.inbound for stream in muxer.streams.values())
            assert inbound <= SMALL.max_inbound_streams
            assert len(muxer.streams) - inbound <= SMALL.max_outbound_streams
            assert 0 <= muxer.unread <= SMALL.max_unread
            assert muxer.queued_control <= SMALL.max_queued_control
            assert muxer.unread >= sum(stream.unread for stream in muxer.streams.values()) >= 0
            assert all(stream.unsent <= SMALL.max_unsent for stream in muxer.streams.values())

    def teardown(self):
        if not hasattr(self, "arena"):
            return
        arena = self.arena
        assert arena.survives()
        for stream in self.streams:
            arena.node.stream_close(stream, arena.now)
        for connection in arena.node.connections():
            streams = connection.muxer.streams.values()
            # What the application has let go of is charged no more; only what nobody agreed on yet.
            assert connection.muxer.unread == sum(stream.unread for stream in streams)
        assert arena.empty()


TestHostile = Hostile.TestCase
TestHostile.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, derandomize=True
)


def conversation():
    """What a well-behaved peer says: frames, in order."""
    yield frame(PING | ACK, 0, 0)
    for n, protocol in enumerate(PROTOCOLS):
        yield proposal(2 * n + 1, protocol, data=bytes(32) + IDENTIFY)
        yield data_frame(0, 2 * n + 1, bytes(64))
        yield frame(WINDOW_UPDATE, 2 * n + 1, 1000)
        yield data_frame(FIN, 2 * n + 1, b"")
    yield data_frame(ACK, 2, HEADER + encode("/ipfs/id/1.0.0") + IDENTIFY)
    yield data_frame(FIN, 2, b"")
    yield frame(WINDOW_UPDATE | SYN, 101, 0)
    yield data_frame(0, 101, HEADER)
    yield data_frame(0, 101, encode("/none"))
    yield data_frame(0, 101, encode("/app"))
    yield frame(WINDOW_UPDATE | RST, 101, 4)
    yield frame(PING | SYN, 0, 7)
    yield frame(GO_AWAY, 0, 0)


FRAMES = list(conversation())


def mutate(random, frames):
    """Drop, double, exchange, resize, splice and damage some of them."""
    frames = list(frames)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(frames))
        other = random.randrange(len(frames))
        one = bytearray(frames[at].ljust(4, b"\0"))
        what = random.randrange(9)
        if what == 0 and len(frames) > 1:
            del frames[at]
            continue
        if what == 1:
            frames.insert(other, bytes(one))
            continue
        if what == 2:
            frames[at], frames[other] = frames[other], frames[at]
            continue
        if what == 3:
            one[8:12] = random.choice((0, 1, len(one), 2**18, 2**32 - 1)).to_bytes(4, "big")
        elif what == 4:
            one[4:8] = random.choice((0, 1, 2, 3, 101, 2**32 - 1)).to_bytes(4, "big")
        elif what == 5:
            one[3] ^= 1 << random.randrange(4)
        elif what == 6:
            one[random.randrange(len(one))] ^= random.randrange(1, 256)
        elif what == 7:
            del one[random.randrange(len(one)) :]
        else:
            one += frames[other][: random.randrange(len(frames[other]) + 1)]
        frames[at] = bytes(one)
    return frames


@pytest.mark.parametrize("seed", range(4))
def test_promise_4_frames_changed_below_the_encryption(seed):
    random = Random(seed)
    arena = Arena()
    for round_ in range(150):
        attacker, bystander = arena.attacker(), arena.attacker()
        bystander.send(proposal(1, ECHO, data=b"undisturbed"))
        data = b"".join(mutate(random, FRAMES))
        piece = random.choice((1, 7, 100, 1 << 20))
        for pos in range(0, len(data), piece):
            attacker.post(data[pos : pos + piece])
        arena.run()
        assert not bystander.closed
        said = b"".join(one[3] for one in bystander.frames() if one[1] == 1)
        assert said.endswith(b"undisturbed")
        for event in arena.events:
            if isinstance(event, StreamOpened):
                with suppress(Error):
                    while arena.node.stream_read(event.stream, 1 << 20, arena.now):
                        pass
                arena.node.stream_close(event.stream, arena.now)
        if attacker.closed:
            assert isinstance(arena.why(attacker), Error)
        else:
            (connection,) = arena.node._by_peer[attacker.key.peer_id].values()
            streams = connection.muxer.streams.values()
            assert connection.muxer.unread == sum(stream.unread for stream in streams), round_
        arena.leave(attacker, bystander)
        arena.events.clear()
        arena.actions.clear()
        assert arena.node.unread == 0
    assert arena.survives() and arena.empty()


def test_the_conversation_itself_is_welcome():
    arena = Arena()
    attacker = arena.attacker()
    attacker.send(*FRAMES[:-1])
    assert not attacker.closed
    opened = arena.of(StreamOpened)
    assert len(opened) == 2
    for event in opened:
        arena.node.stream_close(event.stream, arena.now)
    assert arena.survives() and arena.empty()
