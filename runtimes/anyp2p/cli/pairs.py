"""Nodes on several event loops in one process, and what they measure with each other.

    the command's thread            one thread per runtime, with a node that listens and dials
      address of a node        ->   connects, identifies, pings, echoes, runs perf
                               <-   Pair: what was agreed on and measured, or the error
      None                     ->   the node closes

One pair at a time, so that nobody disturbs a measurement. A node cannot dial itself: its own
runtime is measured from a second node there, which lives as long as that takes.

Afterwards each thread gets a server of one DHT, because those would connect to each other in the
middle of a measurement. Each server puts a value into it; a fresh client on each loop looks for it,
and begins with another server than that one.

At last the loops form a line for pubsub: a message that is published at one end hops over all of
them, and each notes when it came.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from anyp2p_core.errors import Error

from . import hosts, runtimes
from .demo import ECHO, MESSAGES, PINGS
from .failures import Failure, describe

if TYPE_CHECKING:
    from anyp2p.host import BaseHost
    from anyp2p_core.kad.service import Kad
    from anyp2p_core.multiaddr import Multiaddr
    from anyp2p_core.peer_id import PeerId

LISTEN = "/ip4/127.0.0.1/tcp/0"
IN_FLIGHT = 128 * 1024
"""Echo bytes under way: less than the smallest window, so that one task can write and read."""
PATIENCE = 15.0
"""Seconds for one pair."""
TOPIC = "anyp2p demo"


@dataclass(slots=True)
class Pair:
    """What one runtime measured with a node on another; sizes in bytes, times in seconds."""

    dialer: str
    listener: str
    ok: bool = False
    error: str | None = None
    security: str = ""
    muxer: str = ""
    early_muxer: bool = False
    agent: str = ""
    protocols: tuple[str, ...] = ()
    connect_seconds: float = 0.0
    ping_seconds: float = 0.0
    """The median."""
    echo_bytes: int = 0
    echo_bytes_per_second: float = 0.0
    uploaded: int = 0
    upload_bytes_per_second: float = 0.0
    downloaded: int = 0
    download_bytes_per_second: float = 0.0
    dht_get_seconds: float = 0.0
    """To get a value that the listener's loop put, without knowing that node before."""


@dataclass(slots=True)
class Line:
    """How messages went from the first runtime over all others to the last one."""

    path: list[str]
    ok: bool = False
    """False also if it was not tried, because a pair had failed."""
    messages: int = 0
    hop_seconds: list[float] = field(default_factory=list)
    """From each to the next one, the median of all messages."""


class Member:
    """One runtime in its own thread. What happens there comes out of ``answer`` here."""

    def __init__(self, name: str, perf_size: int) -> None:
        self.name = name
        self.address: Any = None
        self.error: Exception | None = None
        self.thread = Thread(target=self._run, name=f"anyp2p demo {name}", daemon=True)
        self._perf_size = perf_size
        self._server: Any = None
        self._speaker: Any = None
        self._messages: Any = None
        self.times: list[float] = []
        """When each message was published, or came."""
        self._jobs: SimpleQueue[Callable[[BaseHost[Any]], Awaitable[Any]] | None] = SimpleQueue()
        self._answers: SimpleQueue[Any] = SimpleQueue()

    def answer(self) -> Any:
        """The next thing that the thread has to say; raises what ended it."""
        try:
            answer = self._answers.get(timeout=PATIENCE)
        except Empty:
            raise Failure(f"the {self.name} node said nothing for {PATIENCE:g} s") from None
        if self.error is not None:
            raise self.error
        return answer

    def measure(self, listener: "Member") -> Pair:
        """Dial the node of another runtime, or of this one."""
        pair = Pair(self.name, listener.name)

        async def meet(node: "BaseHost[Any]") -> None:
            if listener is not self:
                await try_pair(node, listener.address, pair, self._perf_size)
                return
            async with self._host_class() as second:
                await try_pair(second, listener.address, pair, self._perf_size)
            _check(second)

        self._do(meet)
        return pair

    def share(self, first: "Member | None") -> None:
        """Start a server of the DHT; all but the first know the server of another member."""

        async def join(_: "BaseHost[Any]") -> None:
            network = _network(None if first is None else first._server.addresses[0], server=True)
            host = self._host_class(listen=[LISTEN], dht=network)
            self._server = await self._stack.enter_async_context(host)
            if first is not None:
                await host.dht.bootstrap()

        self._do(join)

    def put(self, key: str) -> None:
        """Have the server put a value into the DHT: the key itself."""

        async def put(_: "BaseHost[Any]") -> None:
            try:
                await self._server.dht.put(key, key.encode())
            except Error:
                if len(self._server.dht.table):  # else it is alone, and keeps the value itself
                    raise

        self._do(put)

    def get(self, key: str, first: "Member", pair: Pair) -> None:
        """Have a fresh client on this loop look for a value, from the server of ``first`` on."""

        async def get(_: "BaseHost[Any]") -> None:
            network = _network(first._server.addresses[0])
            start = time.perf_counter()
            try:
                async with self._host_class(dht=network) as client:
                    await client.dht.bootstrap()
                    found = await client.dht.get(key, quorum=1)
                    seconds = time.perf_counter() - start
                _check(client)
                if found.value != key.encode():
                    raise Failure(f"the DHT gave {found.value!r} for {key}")
            except (Error, Failure) as error:
                pair.ok, pair.error = False, pair.error or f"DHT: {describe(error)}"
            else:
                pair.dht_get_seconds = seconds

        self._do(get)

    def tune_in(self, before: "Member | None") -> None:
        """Subscribe to the topic, behind another member."""

        async def tune_in(_: "BaseHost[Any]") -> None:
            from anyp2p.pubsub import GossipConfig
            from anyp2p_core.pubsub.events import MessageReceived

            host = self._host_class(listen=[LISTEN], pubsub=GossipConfig())
            self._speaker = await self._stack.enter_async_context(host)
            host.watch(MessageReceived, lambda _: self.times.append(time.perf_counter()))
            self._messages = host.pubsub.subscribe(TOPIC)
            if before is not None:
                await host.connect(before._speaker.addresses[0])

        self._do(tune_in)

    def meet(self, count: int) -> None:
        """Wait until so many neighbours take part in the topic."""

        async def meet(_: "BaseHost[Any]") -> None:
            await self._speaker.pubsub.wait_for_peers(TOPIC, count, timeout=PATIENCE / 2)

        self._do(meet)

    def publish(self) -> None:
        """Publish ``MESSAGES`` messages, one after the other."""

        async def publish(_: "BaseHost[Any]") -> None:
            for number in range(MESSAGES):
                self.times.append(time.perf_counter())
                await self._speaker.pubsub.publish(TOPIC, b"message %d" % number)
                await hosts.sleep(self._speaker, 0.005)

        self._do(publish)

    def listen(self) -> None:
        """Wait for all of these messages, in order."""

        async def listen(_: "BaseHost[Any]") -> None:
            for number in range(MESSAGES):
                message = await anext(self._messages)
                if message.data != b"message %d" % number:
                    raise Failure(f"pubsub gave {message.data!r} for message {number}")

        self._do(listen)

    def _do(self, job: "Callable[[BaseHost[Any]], Awaitable[Any]]") -> None:
        self._jobs.put(job)
        self.answer()

    def stop(self) -> None:
        """Have the node closed, once the pair under way is done; ``thread`` ends then."""
        self._jobs.put(None)

    def join(self) -> None:
        """Wait for the end of ``thread``, for a while."""
        if self.thread.ident is not None:
            self.thread.join(PATIENCE)

    # In the thread.

    def _run(self) -> None:
        try:
            runtimes.run(self.name, self._main)
        except Exception as error:
            self.error = error
            self._answers.put(None)

    async def _main(self, host_class: runtimes.HostClass) -> None:
        self._host_class = host_class
        async with AsyncExitStack() as self._stack:
            node = host_class(listen=[LISTEN], echo=True, perf=True)
            await self._stack.enter_async_context(node)
            self._answers.put(node.addresses[0])
            while (job := await self._next_job(node)) is not None:
                await job(node)
                self._answers.put(None)
        _check(node)
        for other in (self._server, self._speaker):
            if other is not None:
                _check(other)

    async def _next_job(
        self, host: "BaseHost[Any]"
    ) -> "Callable[[BaseHost[Any]], Awaitable[Any]] | None":
        """Wait without blocking the loop. Asking is the one way to do it that every loop knows."""
        while True:
            try:
                return self._jobs.get_nowait()
            except Empty:
                await hosts.sleep(host, 0.01)


def _network(first: "Multiaddr | None", *, server: bool = False) -> "Kad":
    """The part of a node in a DHT of our own, where every value of one namespace is valid."""
    from anyp2p_core.kad.config import KadConfig
    from anyp2p_core.kad.records import AcceptAll
    from anyp2p_core.kad.service import Kad

    known = () if first is None else (first,)
    config = KadConfig(protocol="/anyp2p/demo/kad/1.0.0", server=server, bootstrap=known)
    return Kad(config, validators={"demo": AcceptAll()})


def _check(host: "BaseHost[Any]") -> None:
    if host.internal_errors:
        raise Failure("a node met an internal error: --debug shows it; please report it")


async def try_pair(host: "BaseHost[Any]", address: "Multiaddr", pair: Pair, perf_size: int) -> None:
    """Do everything with one peer and write down how it went."""
    try:
        start = time.perf_counter()
        peer = await host.connect(address)
        pair.connect_seconds = time.perf_counter() - start
        negotiated = host.node.connections(peer)[0].negotiated
        pair.security, pair.muxer = negotiated.security, negotiated.muxer
        pair.early_muxer = negotiated.early_muxer
        info = await host.identify(peer)
        pair.agent, pair.protocols = info.agent, info.protocols
        if info.peer != peer or not info.agent or not info.signed_record:
            raise Failure(f"{peer} did not identify itself in full: {info}")
        rtts = sorted([await timed_ping(host, peer) for _ in range(PINGS)])
        pair.ping_seconds = rtts[PINGS // 2]
        seconds = await echo(host, peer)
        pair.echo_bytes, pair.echo_bytes_per_second = ECHO, ECHO / seconds
        perf = await host.perf(peer, perf_size, perf_size)
        pair.uploaded, pair.downloaded = perf.uploaded, perf.downloaded
        if (perf.uploaded, perf.downloaded) != (perf_size, perf_size):
            raise Failure(
                f"perf moved {perf.uploaded} and {perf.downloaded} bytes, not {perf_size} each way"
            )
        pair.upload_bytes_per_second = perf_size / max(perf.upload_seconds, 1e-6)
        pair.download_bytes_per_second = perf_size / max(perf.download_seconds, 1e-6)
        await host.disconnect(peer)
    except (Error, Failure) as error:
        pair.error = describe(error)
    else:
        pair.ok = True


async def timed_ping(host: "BaseHost[Any]", peer: "PeerId") -> float:
    """Seconds until the application has the answer: clocks of event loops differ in resolution."""
    start = time.perf_counter()
    await host.ping(peer)
    return time.perf_counter() - start


async def echo(host: "BaseHost[Any]", peer: "PeerId") -> float:
    """Send ``ECHO`` bytes and compare what comes back; returns the seconds that it took."""
    # 251 is prime: a shift by any power of two would not go unnoticed.
    data = (bytes(range(251)) * (ECHO // 251 + 1))[:ECHO]
    sent = received = 0
    start = time.perf_counter()
    async with await host.open_stream(peer, "/echo/1.0.0") as stream:
        while received < ECHO:
            while sent < ECHO and sent - received < IN_FLIGHT:
                chunk = data[sent : sent + IN_FLIGHT // 2]
                await stream.write(chunk)
                sent += len(chunk)
                if sent == ECHO:
                    await stream.close_write()
            back = await stream.read()
            if not back or back != data[received : received + len(back)]:
                raise Failure(f"the echo differs after {received} bytes")
            received += len(back)
        if await stream.read():
            raise Failure("the echo is longer than what was sent")
    return time.perf_counter() - start
