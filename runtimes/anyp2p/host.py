"""The awaitable API, written once for every event loop.

A runtime subclasses ``BaseHost``, implements its abstract methods, and calls ``on_connected``,
``on_data`` and the other ``on_`` methods when something happened. It moves bytes and tells the
time; everything else is the node's.

Every awaitable below is "ask the node; if there is nothing, wait; ask again", and
``make_event().wait()`` is the only thing that ever suspends. So the same coroutines run on any
loop, a cancelled read has lost nothing, and a cancelled write has written a prefix.
"""

import inspect
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

from anyp2p_core.carriers import PLAIN
from anyp2p_core.crypto import Entropy
from anyp2p_core.errors import ConnectionLost, LocalError
from anyp2p_core.events import (
    CloseConnection,
    ConnectionClosed,
    ConnectionOpened,
    Dial,
    DialFailed,
    IdentifyFailed,
    OpenSocket,
    PauseReading,
    PeerConnected,
    PeerIdentified,
    PerfFailed,
    PerfFinished,
    PerfProgressed,
    PingFailed,
    PingSucceeded,
    ResumeReading,
    StreamDrained,
    StreamFailed,
    StreamOpened,
    StreamReadable,
    StreamWritable,
)
from anyp2p_core.identify import IdentifyInfo
from anyp2p_core.keys import PrivateKey
from anyp2p_core.limits import Limits
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.node import Node
from anyp2p_core.peer_id import PeerId
from anyp2p_core.route import route
from anyp2p_core.service import Service
from anyp2p_core.timers import Timers

from ._version import VERSION
from .channels import Channels, make_quic
from .forks import fork_check
from .listening import Listening
from .names import HostResolver
from .services import default_services
from .sockets import AddressInfo, keep_heap
from .stream import Event, Stream
from .udp import UdpDoor, open_udp, rows, udp_multiaddr

if TYPE_CHECKING:
    from anyp2p_core.kad.service import Kad
    from anyp2p_core.pnet import PreSharedKey
    from anyp2p_core.resolver import Resolver

    from .channels import File
    from .dht import Dht, Network
    from .pubsub import Option, PubSub, Router

log = logging.getLogger("anyp2p")

S = TypeVar("S", bound=Stream)
Target: TypeAlias = PeerId | Multiaddr | str
Handler = Callable[[S], Awaitable[None] | None]


@dataclass(slots=True)
class PerfResult:
    """What a perf run measured. Seconds and bytes."""

    uploaded: int
    downloaded: int
    upload_seconds: float
    download_seconds: float


class _Waiter:
    """Everyone who waits for one outcome."""

    __slots__ = ("count", "done", "error", "event", "value")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.count = 0
        self.done = False
        self.error: Exception | None = None
        self.value: Any = None


class BaseHost(ABC, Generic[S]):
    """One peer: a node and the loop that drives it."""

    def __init__(
        self,
        key: PrivateKey | None = None,
        *,
        listen: Iterable[Multiaddr | str] = (),
        agent: str = f"anyp2p/{VERSION}",
        limits: Limits | None = None,
        services: Iterable[Service] = (),
        echo: bool = False,
        perf: bool = False,
        dht: "Network | Iterable[Network] | None" = None,
        pubsub: "Option | None" = None,
        security: Sequence[str] | None = None,
        muxers: Sequence[str] = ("yamux",),
        psk: "PreSharedKey | File | None" = None,
        web_certificate: "tuple[File, File] | None" = None,
        web_trust: "File | None" = None,
        resolver: "Resolver | None" = None,
    ) -> None:
        """A fresh Ed25519 identity unless ``key`` is given.

        ``echo`` and ``perf`` serve these two test protocols, which let any peer use our bandwidth.
        ``dht``: the Kademlia networks to be in, each a ``KadConfig`` or a ``Kad``. ``pubsub``: a
        ``GossipConfig``, which the presets make, or a ``FloodConfig``, or a router made of one.

        ``security`` and ``muxers`` are offered and accepted, the best first, and nothing else is:
        ``noise``, and ``tls`` if it is installed; by name also ``plaintext`` and ``secio``, and
        ``mplex`` beside ``yamux``. ``psk``: the key of a private network, or the file of it.
        ``web_certificate``: files of the chain and the key that /wss addresses are served with;
        ``web_trust``: a file of authorities to believe instead of the system's. ``resolver`` looks
        names up in place of this system.
        """
        self.channels = Channels(
            security=security,
            muxers=muxers,
            psk=psk,
            web_certificate=web_certificate,
            web_trust=web_trust,
        )
        self._resolver = resolver
        self._names: HostResolver | None = None
        networks = [] if dht is None else _make_networks(dht)
        router = None if pubsub is None else _make_router(pubsub)
        running = [*default_services(services, echo, perf), *networks]
        if router is not None:
            running.append(router)
        self.node = self._make_node(key, agent=agent, limits=limits, services=running)
        self._listen_on = [_multiaddr(address) for address in listen]
        self._listening = Listening(self)
        self._doors: dict[int, UdpDoor] = {}
        self._takers: dict[int, Callable[[bytes, tuple[str, int], float], object]] = {}
        self._handlers: dict[str, Handler[S]] = {}
        self._streams: dict[int, S] = {}
        self._waiters: dict[int, _Waiter] = {}
        self._open: dict[int, ConnectionOpened] = {}
        self._armed: float | None = None
        self._flushing = False
        self._began = False
        """A handler has begun since this was reset."""
        self._state = "new"
        self._thread = 0
        self._forked = fork_check()
        self._progress: dict[int, Callable[[int, int], object]] = {}
        self._dispatch: dict[type, Callable[[Any], object]] = {
            Dial: self._on_dial,
            CloseConnection: lambda a: self._close_transport(a.conn, a.abort),
            OpenSocket: self._on_open_socket,
            PauseReading: lambda a: self._pause_reading(a.conn),
            ResumeReading: lambda a: self._resume_reading(a.conn),
            ConnectionOpened: self._on_opened,
            ConnectionClosed: self._on_closed,
            PeerConnected: lambda e: self._resolve(e.dial, e.peer),
            DialFailed: lambda e: self._reject(e.dial, e.error),
            StreamOpened: self._on_stream,
            StreamFailed: lambda e: self._reject(e.stream, e.error),
            StreamReadable: self._on_readable,
            StreamWritable: self._on_writable,
            StreamDrained: self._on_drained,
            PingSucceeded: lambda e: self._resolve(e.request, e.rtt),
            PingFailed: lambda e: self._reject(e.request, e.error),
            PeerIdentified: lambda e: self._resolve(-e.conn, e.info),
            IdentifyFailed: lambda e: self._reject(-e.conn, e.error),
            PerfProgressed: self._on_perf_progress,
            PerfFinished: lambda e: self._resolve(
                e.request,
                PerfResult(e.uploaded, e.downloaded, e.upload_seconds, e.download_seconds),
            ),
            PerfFailed: lambda e: self._reject(e.request, e.error),
        }
        self.dhts: tuple[Dht, ...] = ()
        """The networks that ``dht`` named, in that order."""
        if networks:
            from .dht import join

            self.dhts = join(self, networks)
        self._pubsub = None if router is None else _make_pubsub(self, router)

    # What a runtime implements.

    @abstractmethod
    def now(self) -> float:
        """Seconds of the loop's clock, which never goes back."""

    @abstractmethod
    def _set_timer(self, when: float) -> None:
        """Call ``on_timer()`` at ``when``, in place of the previous timer."""

    @abstractmethod
    def make_event(self) -> Event:
        """A fresh one-shot event of this loop."""

    @abstractmethod
    def _spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Run a coroutine function beside the others; it ends with the host."""

    @abstractmethod
    def _dial(self, conn: int, address: Multiaddr) -> None:
        """Connect, then ``on_connected(conn, ...)`` or ``on_dial_failed(conn, error)``."""

    @abstractmethod
    def _send(self, conn: int, data: bytes) -> None:
        """Start sending; say ``on_blocked(conn, True)`` when the socket is full."""

    @abstractmethod
    def _close_transport(self, conn: int, abort: bool) -> None:
        """Close as ``CloseConnection`` says, also a dial; then ``on_disconnected``."""

    @abstractmethod
    def _pause_reading(self, conn: int) -> None:
        """Stop reading."""

    @abstractmethod
    def _resume_reading(self, conn: int) -> None:
        """Read again."""

    @abstractmethod
    async def _listen(self, address: Multiaddr) -> list[Multiaddr]:
        """Accept connections; returns the real addresses. Raises ``ListenError``."""

    @abstractmethod
    async def _start(self) -> None:
        """Get ready to run; called once, inside the loop. If it raises, nothing is left behind."""

    @abstractmethod
    async def _stop(self) -> None:
        """End listeners, transports, tasks and timers; called once, when all is closed."""

    @abstractmethod
    def _stop_listening(self) -> None:
        """Accept no more connections."""

    @abstractmethod
    def _watch_door(self, door: UdpDoor) -> None:
        """Call ``door.readable()`` whenever its socket is readable, until the host stops.

        ``_stop`` closes all ``_doors``.
        """

    @abstractmethod
    def _make_stream(self, stream: int, peer: PeerId, protocol: str, inbound: bool) -> S:
        """The stream object of this loop."""

    def _listen_quic(self, address: Multiaddr) -> Multiaddr:
        """Take calls at a UDP address; returns the real one. Raises OSError."""
        number = self.node.next_id()
        bound = self._open_door(number, address)
        self.node.socket_opened(number, bound, self.now(), listening=True)
        return bound.encapsulate("/quic-v1")

    def _on_open_socket(self, action: OpenSocket) -> None:
        try:
            bound = self._open_door(action.sock, action.address)
        except OSError as error:
            self.node.socket_failed(action.sock, error, self.now())
        else:
            self.node.socket_opened(action.sock, bound, self.now())

    async def _within(self, seconds: float, function: Callable[..., Any], *args: Any) -> Any:
        """What the function returns, or ``LATE``: then it is cancelled, if the loop can do that."""
        return await function(*args)

    def _flush_soon(self) -> None:
        """Flush after the tasks that are ready now have run: what they write goes out together."""
        self.flush()

    def _open_door(self, number: int, address: Multiaddr) -> Multiaddr:
        """Open a UDP socket under a number; returns where. Raises OSError."""
        sock = open_udp(route(address))
        door = self._doors[number] = UdpDoor(self, number, sock)
        self._watch_door(door)
        return udp_multiaddr(sock.getsockname())

    def _close_door(self, number: int) -> None:
        """Close a UDP socket."""
        self._takers.pop(number, None)
        door = self._doors.pop(number, None)
        if door is not None:
            door.close()

    def take_datagrams(
        self, door: int, function: Callable[[bytes, tuple[str, int], float], object]
    ) -> None:
        """Have ``function(data, source, now)`` called for what comes to a door, not the node."""
        self._takers[door] = function

    async def _look_up(self, host: str, port: int, family: int) -> Sequence[AddressInfo]:
        """What ``socket.getaddrinfo`` returns for a TCP connection, without blocking the loop."""
        raise OSError("this runtime looks up no names")

    def _send_datagrams(self, number: int, target: tuple[str, int], row: list[bytes]) -> None:
        """Send datagrams of one size, of which the last one may be shorter, or lose them."""
        self._doors[number].send(target, row)

    def _make_node(
        self,
        key: PrivateKey | None,
        *,
        agent: str,
        limits: Limits | None,
        services: Sequence[Service],
    ) -> Node:
        """A node on real cryptography and the system's randomness; nothing else can be injected."""
        from .providers.crypto import Cryptography
        from .providers.entropy import OsChoice, OsEntropy

        crypto, entropy = Cryptography(), OsEntropy()
        if key is None:
            key = PrivateKey.generate(crypto, entropy)
        if key.simulated:
            raise LocalError("a key made by the simulator is guessable: make a real one")
        return Node(
            key,
            crypto=crypto,
            entropy=entropy,
            choice=OsChoice(),
            limits=limits,
            agent=agent,
            services=services,
            security=self.channels.make_security(key, crypto, entropy),
            muxers=self.channels.make_muxers(),
            layers=self.channels.make_layers(),
            private=self.channels.make_private(entropy),
            quic=make_quic(key, (limits or Limits()).max_inbound_streams),
            resolver=lambda timers: self._make_resolver(entropy, timers),
        )

    def _make_resolver(self, entropy: Entropy, timers: Timers) -> "Resolver":
        if self._resolver is None:
            self._names = HostResolver(self, entropy, timers)
            return self._names
        return self._resolver

    def _wall(self) -> float:
        return time.time()

    # Called by the runtime when something happened.

    def on_connected(
        self, conn: int | None, local: Multiaddr | None, remote: Multiaddr | None
    ) -> int:
        """A transport opened: ``conn`` of ``_dial``, or None when accepted. Returns its id.

        Register the transport under the id before the next loop turn, then ``flush()``.
        """
        offers = PLAIN if conn is not None else self._listening.offers(local)
        return self.node.connected(conn, local, remote, self.now(), offers=offers)

    def on_dial_failed(self, conn: int, error: Exception) -> None:
        self.node.dial_failed(conn, error, self.now())
        self.flush()

    def on_data(self, conn: int, data: bytes) -> None:
        try:
            self.node.receive(conn, data, self.now())
        except Exception as error:
            self._internal_error(conn, error)
        if self._flushing:
            return
        items = self.node.poll()
        if items:
            self._began = False
            self._carry_out(items)
            if self._began:  # what the handler has to say goes out together with our consent
                self._flush_soon()
                return
        self.flush()

    def on_eof(self, conn: int) -> None:
        try:
            self.node.receive_eof(conn, self.now())
        except Exception as error:
            self._internal_error(conn, error)
        self.flush()

    def on_blocked(self, conn: int, full: bool) -> None:
        self.node.blocked(conn, full, self.now())
        if not full:
            self.flush()

    def on_disconnected(self, conn: int, error: Exception | None) -> None:
        try:
            self.node.disconnected(conn, error, self.now())
        except Exception as fault:
            self._internal_error(conn, fault)
        self.flush()

    def on_datagrams(self, door: int, datagrams: Sequence[tuple[bytes, tuple[str, int]]]) -> None:
        """Datagrams arrived, each with where it is from."""
        node, now = self.node, self.now()
        taker = self._takers.get(door)
        for data, source in datagrams:
            try:
                if taker is None:
                    node.datagram(door, data, source, now)
                else:
                    taker(data, source, now)
            except Exception as error:
                self._internal_error(0, error)
        self.flush()

    def on_timer(self) -> None:
        self._armed = None
        try:
            self.node.handle_timeout(self.now())
        except Exception as error:
            self._internal_error(0, error)
        self.flush()

    def flush(self) -> None:
        """Carry out everything that the node wants, until it wants nothing; then arm the timer.

        What goes wrong here is a fault of ours or of the runtime: it is logged, the rest goes on.
        """
        if self._flushing or self._forked():
            return  # the outer call goes on until nothing is left
        node = self.node
        if node.busy:
            self._flushing = True
            try:
                self._run_node(node)
            finally:
                self._flushing = False
        when = node.next_timeout()
        if when is not None:
            armed = self._armed
            if (armed is None or when < armed) and self._state != "closed":
                self._armed = when
                self._set_timer(when)

    def _run_node(self, node: Node) -> None:
        while True:
            ready = node.writable()
            if ready:
                now = self.now()
                for conn in ready:
                    try:
                        data = node.data_to_send(conn, now)
                        if data:
                            self._send(conn, data)
                    except Exception as error:
                        self._internal_error(conn, error)
            if node.has_datagrams:
                for door, target, row in rows(node.datagrams(self.now())):
                    self._send_datagrams(door, target, row)
            items = node.poll()
            if items:
                self._carry_out(items)
            if not node.busy:
                return

    def _carry_out(self, items: Sequence[object]) -> None:
        """Do what the node asks for, and tell what happened; what is to be sent waits."""
        dispatch = self._dispatch
        for item in items:
            found = dispatch.get(type(item))
            if found is not None:
                try:
                    found(item)
                except Exception as error:
                    self._internal_error(getattr(item, "conn", 0), error)

    # The application's interface.

    @property
    def peer_id(self) -> PeerId:
        """Who we are."""
        return self.node.peer_id

    @property
    def addresses(self) -> list[Multiaddr]:
        """Where we can be dialed, with our peer id."""
        suffix = Multiaddr(f"/p2p/{self.peer_id}")
        return [address.encapsulate(suffix) for address in self.node.addresses]

    @property
    def peers(self) -> list[PeerId]:
        """Peers that are connected, in the order of their first connection."""
        return self.node.connected_peers()

    @property
    def dht(self) -> "Dht":
        """The Kademlia network, the first one if there are several. LocalError if there is none."""
        if not self.dhts:
            raise LocalError("this host is in no DHT: make it with Host(dht=KadConfig(...))")
        return self.dhts[0]

    @property
    def pubsub(self) -> "PubSub":
        """Topics to publish in and to subscribe to. LocalError if the host was made without."""
        if self._pubsub is None:
            raise LocalError("this host has no pubsub: make it with Host(pubsub=GossipConfig())")
        return self._pubsub

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self._state == "closed"

    def handle(self, protocol: str) -> Callable[[Handler[S]], Handler[S]]:
        """Decorator: call the function with each stream that a peer opens with ``protocol``.

        When it returns the stream is closed; when it raises the stream is reset and the error is
        logged.
        """

        def register(handler: Handler[S]) -> Handler[S]:
            self.set_handler(protocol, handler)
            return handler

        return register

    def set_handler(self, protocol: str, handler: Handler[S]) -> None:
        """What ``handle`` does, as a call."""
        self.node.handle(protocol, self._time())
        self._handlers[protocol] = handler
        self._after_command()

    def remove_handler(self, protocol: str) -> None:
        """Accept no more streams of ``protocol``; those that are open go on."""
        self.node.unhandle(protocol, self._time())
        self._handlers.pop(protocol, None)
        self._after_command()

    async def listen(self, address: Multiaddr | str) -> list[Multiaddr]:
        """Accept connections at ``address``; returns the real addresses with our peer id.

        Raises ``ListenError``, with the address in the message.
        """
        self._check_usable()
        bound = await self._listening.open(_multiaddr(address))
        self.node.listening([*self.node.addresses, *bound], self.now())
        self.flush()
        suffix = Multiaddr(f"/p2p/{self.peer_id}")
        return [found.encapsulate(suffix) for found in bound]

    async def connect(self, target: Target, *more: Multiaddr | str) -> PeerId:
        """Connect to a peer by its addresses, or by its id when addresses are known.

        Returns at once when it is connected. Waiters for the same peer share one dial. Raises
        ``DialError``, which lists each address and what went wrong there.
        """
        self._check_usable()
        peer, addresses = _peer_and_addresses(target, more)
        dial = self.node.dial(peer, addresses, self.now())
        try:
            found: PeerId = await self._outcome(dial)
        finally:
            if dial not in self._waiters:
                self.node.cancel_dial(dial)
                self.flush()
        return found

    async def disconnect(self, peer: Target) -> None:
        """Close every connection to a peer; what was written is delivered first."""
        self._check_usable()
        found, _ = _peer_and_addresses(peer, ())
        if found is None:
            raise LocalError(f"{peer} names no peer: add /p2p/ and its id")
        await self._close_all([c.id for c in self.node.connections(found)])

    async def open_stream(self, peer: Target, *protocols: str, optimistic: bool = True) -> S:
        """Open a stream that speaks the first of ``protocols`` that the peer accepts.

        Connects first when ``peer`` is an address, or an id with known addresses. With a single
        protocol the stream is returned before the peer has confirmed it, unless ``optimistic`` is
        off or the peer is known not to speak it; a refusal then shows as an error on the stream.
        """
        self._check_usable()
        found = peer if isinstance(peer, PeerId) else _peer_and_addresses(peer, ())[0]
        if found is None or not self.node.is_connected(found):
            found = await self.connect(peer)
        stream = self.node.open_stream(found, protocols, self.now(), optimistic=optimistic)
        self._carry_out(self.node.poll())
        if stream in self._streams:  # the proposal goes out together with the first write
            self._flush_soon()
            return self._streams[stream]
        opened = False
        try:
            await self._outcome(stream)
            opened = True
        finally:
            if not opened:
                self.node.cancel_open(stream, self.now())
                self._streams.pop(stream, None)
                self.flush()
        return self._streams[stream]

    async def ping(self, peer: Target) -> float:
        """The round-trip time in seconds."""
        self._check_usable()
        if type(peer) is not PeerId or not self.node.is_connected(peer):
            peer = await self.connect(peer)
        rtt: float = await self._outcome(self.node.ping(peer, self.now()))
        return rtt

    async def identify(self, peer: Target) -> IdentifyInfo:
        """What the peer says of itself; asked once per connection, so mostly known already."""
        connected = await self._connected(peer)
        info = self.node.identified(connected)
        if info is None:
            info = await self._outcome(-self.node.connection(connected).id)
        return info

    async def perf(
        self,
        peer: Target,
        upload: int,
        download: int,
        progress: Callable[[int, int], object] | None = None,
    ) -> PerfResult:
        """Move bytes both ways and measure, calling ``progress(uploaded, downloaded)``."""
        connected = await self._connected(peer)
        request = self.node.perf(connected, upload, download, self.now())
        if progress is not None:
            self._progress[request] = progress
        try:
            result: PerfResult = await self._outcome(request)
        finally:
            self._progress.pop(request, None)
            self.node.cancel_perf(request, self.now())
            self.flush()
        return result

    async def start(self) -> None:
        """Begin; ``async with`` does it for you."""
        if self._state != "new":
            raise LocalError("a host is started once: make a new one")
        self._thread = self._thread_id()
        self._check_thread()
        keep_heap()
        self._state = "running"
        try:
            await self._start()
        except BaseException:
            self._state = "closed"
            raise
        try:
            self.node.epoch = self._wall() - self.now()
            for address in self._listen_on:
                await self.listen(address)
            for dht in self.dhts:
                dht.kad.start(self.now())
            self.flush()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close in order: what was written is delivered, within 5 s. Harmless when repeated.

        Whoever still waits for something gets an error. When cancelled, it closes without order.
        """
        if self._state in ("new", "closed") or self._forked():
            return  # a forked child leaves its parent's connections alone
        self._check_thread()
        if self._state == "closing":
            await self._outcome(_CLOSED)
            return
        self._state = "closing"
        try:
            self._stop_listening()
            self.node.stop_listening()
            if self._names is not None:
                self._names.close(self.now())
            await self._close_all([c.id for c in self.node.connections()])
        finally:
            self._state = "closed"
            try:
                await self._stop()
            finally:
                self._resolve(_CLOSED, None)
                for key in list(self._waiters):
                    self._reject(key, ConnectionLost("the host was closed"))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # Waiting.

    async def _outcome(self, key: int) -> Any:
        """Wait for the event that carries ``key``."""
        waiter = self._waiters.get(key)
        if waiter is None:
            waiter = self._waiters[key] = _Waiter(self.make_event())
        waiter.count += 1
        try:
            self.flush()
            if not waiter.done:
                await waiter.event.wait()
        finally:
            waiter.count -= 1
            if not waiter.count and self._waiters.get(key) is waiter:
                del self._waiters[key]
        if waiter.error is not None:
            raise waiter.error.with_traceback(None)
        return waiter.value

    def _resolve(self, key: int, value: Any) -> None:
        waiter = self._waiters.pop(key, None)
        if waiter is not None:
            waiter.value = value
            waiter.done = True
            waiter.event.set()

    def _reject(self, key: int, error: Exception) -> None:
        waiter = self._waiters.pop(key, None)
        if waiter is not None:
            waiter.error = error
            waiter.done = True
            waiter.event.set()

    async def _close_all(self, conns: Iterable[int]) -> None:
        for conn in conns:
            self.node.close(conn, self.now())
        self.flush()
        for conn in conns:
            if conn in self._open:
                await self._outcome(conn)

    async def _connected(self, target: Target) -> PeerId:
        self._check_usable()
        if isinstance(target, PeerId) and self.node.connections(target):
            return target
        return await self.connect(target)

    # Events of the node.

    def _on_dial(self, action: Dial) -> None:
        if self._state == "running":
            self._dial(action.conn, action.address)
        else:  # a service goes on while connections are being closed
            error = ConnectionLost("the host is closing")
            self.node.dial_failed(action.conn, error, self.now())

    def _on_opened(self, event: ConnectionOpened) -> None:
        self._open[event.conn] = event

    def _on_closed(self, event: ConnectionClosed) -> None:
        if self._open.pop(event.conn, None) is not None:
            self._resolve(event.conn, None)
            error = event.error or ConnectionLost("the connection to {} was closed", event.peer)
            self._reject(-event.conn, error)
        if event.error is not None:
            log.debug("connection to %s ended: %s", event.peer or "an unknown peer", event.error)

    def _on_stream(self, event: StreamOpened) -> None:
        stream = self._make_stream(event.stream, event.peer, event.protocol, event.inbound)
        self._streams[event.stream] = stream
        if event.inbound:
            handler = self._handlers.get(event.protocol)
            if handler is None:  # it was removed meanwhile
                stream.abandon(graceful=False)
            else:
                self._spawn(self._serve, handler, stream)
                self._began = True
        else:
            self._resolve(event.stream, stream)

    async def _serve(self, handler: Handler[S], stream: S) -> None:
        """Run one handler; whatever it raises ends its stream and nothing else."""
        finished = False
        try:
            result = handler(stream)
            if inspect.isawaitable(result):
                await result
            finished = True
        except Exception as error:
            if isinstance(error, ConnectionError | EOFError):
                log.debug("handler of %s stopped: %s", stream.protocol, error)
            else:
                log.exception("the handler of %s raised; its stream is reset", stream.protocol)
        finally:
            if not finished:
                self.flush()  # our consent to the protocol, which a reset would take back
            stream.abandon(graceful=finished)

    def _on_readable(self, event: StreamReadable) -> None:
        stream = self._streams.get(event.stream)
        if stream is not None and stream.readable is not None:
            stream.readable.set()

    def _on_writable(self, event: StreamWritable) -> None:
        stream = self._streams.get(event.stream)
        if stream is not None and stream.writable is not None:
            stream.writable.set()

    def _on_drained(self, event: StreamDrained) -> None:
        stream = self._streams.get(event.stream)
        if stream is not None and stream.drained is not None:
            stream.drained.set()
            stream.drained = None

    def _on_perf_progress(self, event: PerfProgressed) -> None:
        progress = self._progress.get(event.request)
        if progress is not None:
            try:
                progress(event.uploaded, event.downloaded)
            except Exception as error:
                self._reject(event.request, error)

    def _internal_error(self, conn: int, error: Exception) -> None:
        """A fault of ours, or of a service: only the connection where it was met pays for it.

        ``conn`` is 0 when it was met elsewhere.
        """
        self.internal_errors += 1
        if conn:
            log.error("internal error on connection %d: it is dropped", conn, exc_info=error)
            self.node.abort(conn, self.now())
        else:
            log.error("internal error", exc_info=error)

    internal_errors = 0
    """How often something was given up because of a fault of ours. Report it, please."""

    def watch(self, kind: type, function: Callable[[Any], object]) -> None:
        """Call a function with each event of the node that is of this very type.

        It must not wait. What it raises is logged as an internal error.
        """
        before = self._dispatch.get(kind)

        def both(event: Any) -> None:
            assert before is not None
            before(event)
            function(event)

        self._dispatch[kind] = function if before is None else both

    def forget(self, stream: int) -> None:
        """A stream object has closed itself."""
        self._streams.pop(stream, None)

    def _time(self) -> float:
        return self.now() if self._state == "running" else 0.0

    def _after_command(self) -> None:
        if self._state == "running":
            self.flush()

    def _check_usable(self) -> None:
        if self._state != "running":
            hint = "use `async with Host() as host`" if self._state == "new" else "make a new one"
            raise LocalError(f"this host is {_STATES[self._state]}: {hint}")
        if self._thread_id() != self._thread or self._forked():
            self._check_thread()  # which says what is wrong

    def _check_thread(self) -> None:
        """Refuse what would corrupt the state of a loop, or of a parent process."""
        if self._thread_id() != self._thread:
            raise LocalError("a host is used from the thread that it was started in, and no other")
        if self._forked():
            raise LocalError(
                "this process was forked after the host was made, which belongs to its parent: "
                "make a new host here"
            )

    _thread_id: Callable[[], int] = staticmethod(threading.get_ident)


_STATES = {"new": "not started", "closing": "closing", "closed": "closed"}
_CLOSED = 0
"""The key of those who wait for the host to be closed; ids begin with 1."""


def _make_networks(dht: "Network | Iterable[Network]") -> "list[Kad]":
    from .dht import make_networks  # only hosts in a DHT load it

    return make_networks(dht)


def _make_router(option: "Option") -> "Router":
    from .pubsub import make_router  # as above

    return make_router(option)


def _make_pubsub(host: BaseHost[Any], router: "Router") -> "PubSub":
    from .pubsub import PubSub

    return PubSub(host, router)


def _multiaddr(address: Multiaddr | str) -> Multiaddr:
    return address if isinstance(address, Multiaddr) else Multiaddr(address)


def _peer_and_addresses(
    target: Target, more: Sequence[Multiaddr | str]
) -> tuple[PeerId | None, list[Multiaddr]]:
    """Split what a person may pass for a peer: an id, or one or more addresses."""
    addresses = [_multiaddr(address) for address in more]
    if isinstance(target, str):
        target = Multiaddr(target) if target.startswith("/") else PeerId.parse(target)
    peer: PeerId | None = None
    if isinstance(target, PeerId):
        peer = target
    else:
        addresses.insert(0, target)
    transports: list[Multiaddr] = []
    for address in addresses:
        transport, named = address.split_peer()
        if transport is not None:
            transports.append(transport)
        if named is None:
            continue
        found = PeerId(named)
        if peer is not None and found != peer:
            raise LocalError(f"the addresses name two peers, {peer} and {found}")
        peer = found
    return peer, transports
