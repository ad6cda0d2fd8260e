"""One session of a host, recorded without any runtime, to be replayed on each of them.

The node under test is seeded and its clock is a number that the script sets, so that its whole
behaviour follows from the steps of the script:

    accept | data 0 b"..." | eof 0          what a remote peer did, by the number of its connection
    do NAME                                 a command of the application, in a task of its own
    timer 31.0                              the time is now 31.0, and the timer fires

Whatever goes into the node and comes out of it is a line of the trace.
"""

import errno
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NamedTuple

from selectors_loop import Event, Task

from anyp2p.host import BaseHost
from anyp2p.providers.crypto import Cryptography
from anyp2p.sockets import connect_error
from anyp2p.stream import Stream
from anyp2p_core.crypto import Choice, Entropy
from anyp2p_core.echo import Echo
from anyp2p_core.errors import DialError
from anyp2p_core.events import CloseConnection, StreamOpened
from anyp2p_core.keys import PrivateKey
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.node import Node
from anyp2p_core.peer_id import PeerId
from anyp2p_core.perf import Perf

OUR_ADDRESS = Multiaddr("/ip4/127.0.0.1/tcp/4001")
THEIR_ADDRESS = Multiaddr("/ip4/127.0.0.1/tcp/4002")
CLOSED_ADDRESS = Multiaddr("/ip4/127.0.0.1/tcp/1")
"""Nobody listens there, hopefully."""


class Seeded(Entropy):
    def __init__(self, name: str) -> None:
        self._random = random.Random(name)

    def __call__(self, n: int) -> bytes:
        return self._random.randbytes(n)


class SeededChoice(Choice):
    def __init__(self, name: str) -> None:
        self._random = random.Random(name)
        self.random = self._random.random
        self.below = self._random.randrange
        self.shuffle = self._random.shuffle
        self.sample = self._random.sample


def seeded_node(kind: type[Node], name: str, **options: Any) -> Node:
    crypto, entropy = Cryptography(), Seeded(name)
    key = PrivateKey.generate(crypto, entropy)
    return kind(key, crypto=crypto, entropy=entropy, choice=SeededChoice(name), **options)


class TracedNode(Node):
    """Writes down what goes in and what comes out."""

    trace: list[str]

    def connected(self, conn: int | None, *rest: Any, **offers: Any) -> int:
        found = super().connected(conn, *rest, **offers)
        self.trace.append(f"connected {conn} -> {found} {rest}")
        return found

    def receive(self, conn: int, data: bytes, now: float) -> None:
        self.trace.append(f"receive {conn} {data.hex()} {now}")
        super().receive(conn, data, now)

    def receive_eof(self, conn: int, now: float) -> None:
        self.trace.append(f"receive_eof {conn} {now}")
        super().receive_eof(conn, now)

    def disconnected(self, conn: int, error: Exception | None, now: float) -> None:
        self.trace.append(f"disconnected {conn} {error!r} {now}")
        super().disconnected(conn, error, now)

    def dial_failed(self, conn: int, error: Exception, now: float) -> None:
        self.trace.append(f"dial_failed {conn} {error} {now}")
        super().dial_failed(conn, error, now)

    def blocked(self, conn: int, full: bool, now: float) -> None:
        self.trace.append(f"blocked {conn} {full} {now}")
        super().blocked(conn, full, now)

    def handle_timeout(self, now: float) -> None:
        self.trace.append(f"handle_timeout {now}")
        super().handle_timeout(now)

    def data_to_send(self, conn: int, now: float) -> bytes:
        data = super().data_to_send(conn, now)
        self.trace.append(f"send {conn} {data.hex()} {now}")
        return data

    def poll(self) -> list[Any]:
        outputs = super().poll()
        self.trace += [f"output {item}" for item in outputs]
        return outputs


class Traced:
    """Makes a host of any runtime one whose time, identity and addresses are the script's."""

    node: Any
    time = 0.0

    def now(self) -> float:
        return self.time

    def _wall(self) -> float:
        return 1_000_000_000.0 + self.time

    def _set_timer(self, when: float) -> None:
        self.node.trace.append(f"set_timer {when}")

    def _flush_soon(self) -> None:
        self.flush()  # type: ignore[attr-defined]  # else the loop decides what travels together

    def _make_node(self, key: Any, *, agent: str, limits: Any, services: Any) -> Node:
        node = seeded_node(TracedNode, "ours", agent="test", limits=limits, services=services)
        assert isinstance(node, TracedNode)
        node.trace = []
        return node

    def on_connected(self, conn: int | None, local: Any, remote: Any) -> int:
        ends = (None, THEIR_ADDRESS) if conn is not None else (OUR_ADDRESS, None)
        found: int = super().on_connected(conn, *ends)  # type: ignore[misc]
        return found

    async def _listen(self, address: Multiaddr) -> list[Multiaddr]:
        self.really: list[Multiaddr] = await super()._listen(address)  # type: ignore[misc]
        return [OUR_ADDRESS]


# The application.


async def shout(stream: Any) -> None:
    """Its handler."""
    while data := await stream.read():
        await stream.write(data.upper())


async def ping(host: Any) -> None:
    await host.ping(host.peers[0])


async def collect(host: Any) -> None:
    stream = await host.open_stream(host.peers[0], "/collect/1")
    for number in range(3):
        await stream.write(bytes([number]) * 1000)
    await stream.close_write()
    assert await stream.read() == b""
    await stream.close()


async def perf(host: Any) -> None:
    await host.perf(host.peers[0], 10_000, 5_000)


async def dial_nobody(host: Any) -> None:
    with suppress(DialError):
        await host.connect(CLOSED_ADDRESS)


async def dial_out(host: Any) -> None:
    await host.connect(THEIR_ADDRESS)


async def disconnect(host: Any) -> None:
    await host.disconnect(host.peers[-1])


COMMANDS: dict[str, Callable[[Any], Coroutine[Any, Any, None]]] = {
    function.__name__: function
    for function in (ping, collect, perf, dial_nobody, dial_out, disconnect)
}


def prepare(host: Any) -> None:
    """What the application does before it starts."""
    host.set_handler("/shout/1", shout)


OPTIONS: dict[str, Any] = {"listen": ["/ip4/127.0.0.1/tcp/0"], "echo": True}

# Recording.


class Step(NamedTuple):
    what: str
    argument: Any
    data: bytes
    lines: int
    """The length of the trace when the step is done."""


class Ready:
    """As much of a loop as tasks need: they run when they are told to."""

    def __init__(self) -> None:
        self.ready: deque[Task] = deque()
        self.tasks: dict[Task, None] = {}
        self.current: Task | None = None

    def run(self) -> None:
        while self.ready:
            self.ready.popleft().step()


class MemoryHost(Traced, BaseHost[Stream]):
    """A host without any I/O."""

    def __init__(self, **options: Any) -> None:
        self.loop: Any = Ready()
        self.conns: list[int] = []
        self.sent: dict[int, list[bytes]] = {}
        self.ended: list[int] = []
        super().__init__(**options)

    def make_event(self) -> Event:
        return Event(self.loop)

    def _spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        Task(self.loop, function(*args))

    def _dial(self, conn: int, address: Multiaddr) -> None:
        async def answer() -> None:
            if address == CLOSED_ADDRESS:
                self.on_dial_failed(conn, connect_error(errno.ECONNREFUSED))
            else:
                self.on_connected(conn, None, None)
                self.flush()

        self._spawn(answer)

    def on_connected(self, conn: int | None, local: Any, remote: Any) -> int:
        found = super().on_connected(conn, local, remote)
        self.conns.append(found)
        self.sent[found] = []
        return found

    def _send(self, conn: int, data: bytes) -> None:
        self.sent[conn].append(data)

    def _close_transport(self, conn: int, abort: bool) -> None:
        async def end() -> None:
            self.end(conn)

        if abort:
            self._spawn(end)

    def end(self, conn: int) -> None:
        """The transport is gone, if it is not gone already."""
        if conn not in self.ended:
            self.ended.append(conn)
            self.on_disconnected(conn, None)

    def _pause_reading(self, conn: int) -> None:
        raise NotImplementedError

    def _resume_reading(self, conn: int) -> None:
        raise NotImplementedError

    def _watch_door(self, door: Any) -> None:
        raise NotImplementedError

    async def _listen(self, address: Multiaddr) -> list[Multiaddr]:
        return [OUR_ADDRESS]

    async def _start(self) -> None:
        pass

    async def _stop(self) -> None:
        pass

    def _stop_listening(self) -> None:
        pass

    def _make_stream(self, stream: int, peer: PeerId, protocol: str, inbound: bool) -> Stream:
        return Stream(self, stream, peer, protocol, inbound)


class Remote:
    """The other end of a connection."""

    def __init__(self, name: str, *, dials: bool) -> None:
        self.node = seeded_node(Node, name, services=[Echo(), Perf(serve=True)])
        self.node.handle("/collect/1", 0.0)
        if dials:
            self.node.dial(None, [OUR_ADDRESS], 0.0)
            [dial] = self.node.poll()
            self.conn = self.node.connected(dial.conn, None, OUR_ADDRESS, 0.0)
        else:
            self.conn = self.node.connected(None, THEIR_ADDRESS, None, 0.0)
        self.inbound: list[int] = []
        self.finished = False

    @property
    def peer(self) -> PeerId:
        return self.node.connected_peers()[0]

    def output(self, now: float) -> bytes:
        data = b""
        while self.node.writable():
            data += self.node.data_to_send(self.conn, now)
        for item in self.node.poll():
            if isinstance(item, StreamOpened) and item.inbound:
                self.inbound.append(item.stream)
            elif isinstance(item, CloseConnection):
                self.finished = True
        return data

    def open(self, protocol: str, now: float) -> int:
        return self.node.open_stream(self.peer, [protocol], now)


class Session:
    """A host and its remote peers, which talk, and the steps that the host sees."""

    def __init__(self) -> None:
        self.host = MemoryHost(**OPTIONS)
        prepare(self.host)
        self.trace: list[str] = self.host.node.trace
        self.steps: list[Step] = []
        self.remotes: list[Remote] = []
        Task(self.host.loop, self.host.start())
        self.host.loop.run()

    def step(self, what: str, argument: Any = None, data: bytes = b"") -> None:
        """Do it to the host, and write it down."""
        host = self.host
        if what == "accept":
            host.on_connected(None, None, None)
            host.flush()
        elif what == "data":
            host.on_data(host.conns[argument], data)
        elif what == "eof":
            host.on_eof(host.conns[argument])
            host.end(host.conns[argument])
        elif what == "timer":
            host.time = argument
            host.on_timer()
        else:
            Task(host.loop, COMMANDS[argument](host))
        host.loop.run()
        self.steps.append(Step(what, argument, data, len(self.trace)))

    def exchange(self) -> None:
        """Carry bytes until nobody has more to say."""
        host, quiet = self.host, False
        while not quiet:
            quiet = True
            for number, remote in enumerate(self.remotes):
                taken, host.sent[host.conns[number]] = host.sent[host.conns[number]], []
                for data in taken:
                    remote.node.receive(remote.conn, data, host.time)
                data = remote.output(host.time)
                # Small, so that a socket takes and gives each of them in one piece.
                for begin in range(0, len(data), 8000):
                    self.step("data", number, data[begin : begin + 8000])
                quiet = quiet and not (taken or data)

    def talk(self) -> None:
        first = self._accept("first")
        node = first.node
        node.ping(first.peer, 0.0)
        node.ping(first.peer, 0.0)
        self.exchange()
        self._do("ping")
        stream = first.open("/echo/1.0.0", 0.0)
        node.stream_write(stream, bytes(20_000))
        node.stream_write_eof(stream)
        self.exchange()
        stream = first.open("/shout/1", 0.0)
        for word in (b"hello", b"world"):
            node.stream_write(stream, word)
            self.exchange()
        node.stream_write_eof(stream)
        self.exchange()
        first.open("/none/1", 0.0)
        self.exchange()
        stream = first.open("/shout/1", 0.0)
        node.stream_write(stream, b"to be reset")
        self.exchange()
        node.stream_reset(stream, 3, 0.0)
        self.exchange()
        self._do("collect")
        [stream] = first.inbound
        while node.stream_read(stream, 65536, 0.0):
            pass
        node.stream_close(stream, 0.0)
        self.exchange()
        self._do("perf")
        self._do("dial_nobody")
        self.step("timer", 31.0)
        self.exchange()
        self.step("do", "dial_out")
        self.remotes.append(Remote("second", dials=False))
        self.exchange()
        for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b""):
            self.step("accept")
            self.remotes.append(Remote("stranger", dials=True))
            self.remotes[-1].output(0.0)
            number = len(self.remotes) - 1
            if nonsense:
                self.step("data", number, nonsense)
            else:
                self.step("eof", number)
        node.close(first.conn, 31.0)
        self.exchange()
        assert first.finished
        self.step("eof", 0)
        self._do("disconnect")
        self.step("eof", 1)

    def _accept(self, name: str) -> Remote:
        remote = Remote(name, dials=True)
        self.step("accept")
        self.remotes.append(remote)
        self.exchange()
        return remote

    def _do(self, command: str) -> None:
        self.step("do", command)
        self.exchange()


def record() -> tuple[list[Step], list[str]]:
    """The steps, and the trace that they leave."""
    session = Session()
    session.talk()
    return session.steps, session.trace
