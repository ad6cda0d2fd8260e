"""Private networks: what must not be shown, what must not get stuck, and what a fork does."""

import logging
import pickle
import random
import subprocess
import sys
import traceback
from collections import deque

import pytest
from hypothesis import given, settings, strategies as st
from node_pair import LOCAL, REMOTE, Pair, make_node
from stranger import one_by_one

from anyp2p.providers.entropy import OsEntropy
from anyp2p.providers.xsalsa20 import SalsaCiphers
from anyp2p_core import (
    CloseConnection,
    ConnectionClosed,
    ConnectionOpened,
    DialFailed,
    HandshakeError,
    NegotiationError,
    PingSucceeded,
    RemoteError,
    TimedOut,
)
from anyp2p_core.pnet import Pnet, PreSharedKey, PrivateNetwork

CIPHERS = SalsaCiphers()
HELLO = b"\x13/multistream/1.0.0\n\x07/noise\n"
KEY, OTHER = (PreSharedKey.generate(OsEntropy()) for _ in range(2))


def network(key=KEY):
    return PrivateNetwork(key, CIPHERS, OsEntropy())


def member(key=KEY, **options):
    return make_node(private=network(key), **options)


def ways_to_show(key):
    raw = bytes.fromhex(key.to_text().splitlines()[2])
    return [raw.hex(), raw.hex().upper(), repr(raw)[2:-1], repr(list(raw))[1:-1]]


# Row 39


def test_row_39_the_key_is_in_no_text(caplog):
    caplog.set_level(logging.DEBUG)
    log = logging.getLogger("anyp2p.test")
    node, stranger = member(), member(OTHER)
    pair = Pair(node, stranger, connect=False)
    pair.connect()
    (failed,) = pair.a.of(DialFailed)
    layer = network().start(initiator=True, route=None, write=lambda data: None)
    things = [KEY, layer, network(), node, failed, failed.error, vars(node)]
    for thing in things:
        log.warning("%s %r %s", thing, thing, {"key": thing, "keys": [thing]})
    for act in (pickle.dumps, hash, len, PreSharedKey.parse):
        try:
            act(KEY)
        except TypeError:
            log.exception("as it should be")
    content = KEY.to_text()
    for wrong in (content[:-5], content.replace("psk", "kps"), content + "x", content + content):
        try:
            PreSharedKey.parse(wrong)
        except RemoteError as error:
            log.warning("%s %r %s", error, error, "".join(traceback.format_exception(error)))
    while len(caplog.text) < 64 * 1024:
        log.warning("%r", things)
    for shown in ways_to_show(KEY):
        assert shown not in caplog.text


def test_row_39_not_even_where_local_variables_are_shown():
    nonce = OsEntropy()(24)
    texts = []
    for data in (HELLO, nonce):
        layer = Pnet(KEY, ciphers=CIPHERS, entropy=lambda n: nonce, write=lambda data: None)
        with pytest.raises(HandshakeError) as caught:
            layer.receive(data, 0.0)
        report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        texts.append("".join(report.format()))
    for shown in ways_to_show(KEY):
        assert not any(shown in text for text in texts)
    assert all("<Pnet" in text for text in texts)


# Row 40


def exchange(pair):
    """Whether the connection works in both directions."""
    for side in (pair.a, pair.b):
        (connection,) = side.node.connections()
        side.node.ping(connection.peer, pair.now)
        pair.run()
        assert side.of(PingSucceeded)


@pytest.mark.parametrize("cut", [None, one_by_one, lambda data: [data[:7], b"", data[7:]]])
def test_row_40_members_understand_each_other(cut):
    pair = Pair(member(), member(), cut=cut)
    exchange(pair)
    said = b"".join(pair.a.received + pair.b.received)
    assert b"/multistream" not in said and b"/noise" not in said


class Pipe:
    """One direction between two layers that holds only so much, and now and then nothing."""

    def __init__(self, here, there, data, choice):
        self.here, self.there, self.choice = here, there, choice
        self.todo = deque(data[pos : pos + 700] for pos in range(0, len(data), 700))
        self.wire = bytearray()

    def step(self):
        choice = self.choice
        if choice.random() < 0.3:
            return  # stalled: nothing is taken and nothing arrives
        room = choice.randrange(2000) - len(self.wire)
        while self.todo and room > 0:
            chunks = [self.todo.popleft() for _ in range(min(len(self.todo), choice.randrange(4)))]
            sealed = self.here.seal(chunks)
            room -= len(sealed) + 1
            self.wire += sealed
        size = choice.choice([0, 1, 2, 23, 24, 25, 500, 5000])
        data = bytes(self.wire[:size])
        del self.wire[:size]
        self.there.receive(data, 0.0)


@settings(deadline=None, max_examples=40)
@given(st.integers())
def test_row_40_every_stall_ends(seed):
    choice = random.Random(seed)
    wires, layers, heard = ([], []), [], ([], [])
    for number in (0, 1):
        layer = network().start(initiator=True, route=None, write=wires[number].append)
        layer.on_data = lambda data, now, number=number: heard[number].append(data)
        layers.append(layer)
    texts = [choice.randbytes(choice.randrange(20_000)) for _ in layers]
    pipes = [Pipe(layers[number], layers[1 - number], texts[number], choice) for number in (0, 1)]
    for number in (0, 1):
        pipes[number].wire += b"".join(wires[number])
    for _ in range(5000):
        for pipe in pipes:
            pipe.step()
        if not any(pipe.todo or pipe.wire for pipe in pipes):
            break
    assert [b"".join(heard[1 - number]) for number in (0, 1)] == texts
    assert [len(wire) for wire in wires] == [1, 1]


@pytest.mark.parametrize("piece", [1, 23, 25, 1000])
def test_row_40_a_blocked_connection_goes_on(piece):
    """Through nodes: what waited while the socket took nothing is sent afterwards."""
    pair = Pair(member(), member())
    sides = [pair.a, pair.b]
    for side in sides:
        (connection,) = side.node.connections()
        for _ in range(3):
            side.node.ping(connection.peer, pair.now)
    held = [side.node.data_to_send(side.conn, pair.now) for side in sides]
    assert all(held)
    for side, data in zip(reversed(sides), held, strict=True):
        for pos in range(0, len(data), piece):
            side.node.receive(side.conn, data[pos : pos + piece], pair.now)
    pair.run()
    assert all(side.of(PingSucceeded) for side in sides)


def outcome(node, data):
    """What a node says to the bytes of a stranger, and why it ends the connection."""
    now = 100.0
    conn = node.connected(None, LOCAL, REMOTE, now)
    said = node.data_to_send(conn, now)
    node.receive(conn, data, now)
    seen = []
    while True:
        if conn in node.writable():
            said += node.data_to_send(conn, now)
        seen += node.poll()
        if any(isinstance(item, CloseConnection) for item in seen):
            break
        now = node.next_timeout()
        node.handle_timeout(now)
    node.disconnected(conn, None, now)
    seen += node.poll()
    (closed,) = (item for item in seen if isinstance(item, ConnectionClosed))
    return said, closed.error


def sealed_with(key):
    said = []
    layer = network(key).start(initiator=True, route=None, write=said.append)
    return said[0] + layer.seal([HELLO])


def test_row_40_a_wrong_key_is_garbage_and_no_oracle():
    """With a wrong key, random bytes and a flipped bit the node says the same: its nonce."""
    for _ in range(20):
        for data in (
            sealed_with(OTHER),
            random.randbytes(len(sealed_with(OTHER))),
            random.randbytes(24),
            b"",
        ):
            said, error = outcome(member(), data)
            assert isinstance(error, NegotiationError | TimedOut | HandshakeError), error
            assert len(said) <= 24 + 20
    said, _ = outcome(member(), sealed_with(KEY))
    assert len(said) > 24 + 20  # a member hears more, so that this test can fail


@pytest.mark.parametrize("keys", [(KEY, OTHER), (OTHER, KEY), (KEY, None), (None, KEY)])
def test_row_40_strangers_do_not_meet(keys):
    nodes = [make_node() if key is None else member(key) for key in keys]
    pair = Pair(*nodes)
    assert not pair.a.of(ConnectionOpened) and not pair.b.of(ConnectionOpened)


def test_a_mirror_does_not_get_far():
    """Without the check both directions have one key stream, and what we say is valid."""
    node = member()
    conn = node.connected(None, LOCAL, REMOTE, 100.0)
    said = node.data_to_send(conn, 100.0)
    assert len(said) >= 24
    node.receive(conn, said, 100.0)
    node.poll()
    node.disconnected(conn, None, 100.0)
    (closed,) = (event for event in node.poll() if isinstance(event, ConnectionClosed))
    assert isinstance(closed.error, HandshakeError) and "mirror" in str(closed.error)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300), st.sampled_from([KEY, OTHER]))
def test_garbage_with_either_key(data, key):
    """Who has the key is still a stranger: only errors of the peer's, and the node lives."""
    node = member()
    conn = node.connected(None, LOCAL, REMOTE, 100.0)
    node.data_to_send(conn, 100.0)
    said = []
    layer = network(key).start(initiator=True, route=None, write=said.append)
    node.receive(conn, said[0] + layer.seal([data]), 100.0)
    node.receive_eof(conn, 100.0)
    node.disconnected(conn, None, 100.0)
    (closed,) = (event for event in node.poll() if isinstance(event, ConnectionClosed))
    assert isinstance(closed.error, RemoteError) and node.connections() == []


def test_every_flipped_bit_arrives_as_one_flipped_bit():
    """Nothing protects the bytes here: the secure channel above does, and must be there."""
    data = sealed_with(KEY)
    for bit in range(24 * 8, len(data) * 8, 5):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        heard = []
        layer = network().start(initiator=False, route=None, write=lambda data: None)
        layer.on_data = lambda data, now, heard=heard: heard.append(data)
        layer.receive(bytes(changed), 0.0)
        plain = b"".join(heard)
        differing = [a ^ b for a, b in zip(plain, HELLO, strict=True) if a != b]
        assert differing == [1 << bit % 8]


# Row 41


def test_row_41_after_a_fork_neither_direction_works():
    """In a process of its own: pytest's may have threads, with which a fork is unsafe."""
    program = """
import os
from anyp2p.providers.entropy import OsEntropy
from anyp2p.providers.xsalsa20 import SalsaCiphers
from anyp2p_core import LocalError
from anyp2p_core.pnet import PreSharedKey, PrivateNetwork
network = PrivateNetwork(PreSharedKey.generate(OsEntropy()), SalsaCiphers(), OsEntropy())
said, heard = [], []
a, b = (network.start(initiator=True, route=None, write=said.append) for _ in range(2))
b.on_data = lambda data, now: heard.append(data)
b.receive(said[0] + a.seal([b"one"]), 0.0)
assert heard == [b"one"]
sealed = a.seal([b"two"])
child = os.fork()
if child == 0:
    failed = 0
    for act in (lambda: a.seal([b"twice under one key stream"]), lambda: b.receive(sealed, 0.0)):
        try:
            act()
        except LocalError:
            failed += 1
    os._exit(10 + failed if heard == [b"one"] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 12
b.receive(sealed, 0.0)
assert heard == [b"one", b"two"]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_two_connections_never_share_a_nonce():
    said = []
    for _ in range(500):
        network().start(initiator=True, route=None, write=said.append)
    assert len(set(said)) == 500 and {len(nonce) for nonce in said} == {24}
