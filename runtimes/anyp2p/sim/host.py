"""A peer of the simulated world: the same awaitable API, on the virtual clock."""

from collections.abc import Callable, Coroutine, Sequence
from errno import EADDRINUSE, EADDRNOTAVAIL
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from anyp2p.host import BaseHost
from anyp2p.stream import LATE, Stream
from anyp2p.udp import UdpDoor
from anyp2p_core.errors import ListenError, LocalError
from anyp2p_core.events import Event as NodeEvent
from anyp2p_core.keys import PrivateKey
from anyp2p_core.limits import Limits
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.node import Node
from anyp2p_core.peer_id import PeerId
from anyp2p_core.plaintext import PlaintextSecurity
from anyp2p_core.resolver import Resolver
from anyp2p_core.security import Security
from anyp2p_core.service import Service
from anyp2p_core.timers import Timers

from .datagrams import Door
from .network import Target
from .tasks import Event, Task
from .transport import End

if TYPE_CHECKING:
    from .machine import Machine
    from .network import Dial

EPOCH = 1735689600.0
"""The wall time at which every world begins: 2025-01-01."""


class Host(BaseHost[Stream]):
    """A peer in a simulated world; ``World.host`` makes it."""

    def __init__(
        self, machine: "Machine", key: PrivateKey, *, ordinal: int, **options: Any
    ) -> None:
        self.machine = machine
        self.ordinal = ordinal
        """0 for the machine's own host, others live beside it."""
        self.place = ordinal << 24 | machine.index
        """What traces call it."""
        self.dead = False
        """Its process has crashed."""
        self.tasks: dict[Task[Any], None] = {}
        """What runs in its process and ends with it."""
        self._clock = machine.network.clock
        self._ends: dict[int, End] = {}
        self._dials: dict[int, Dial] = {}
        self._sim_doors: dict[int, Door] = {}
        super().__init__(key, **options)
        self._forked = _never  # a fork of a world is another world, and may go on

    def __repr__(self) -> str:
        beside = f" beside it ({self.ordinal})" if self.ordinal else ""
        return f"<Host {self.machine.name} {self.machine.ip}{beside}>"

    def now(self) -> float:
        return self._clock.now

    def make_event(self) -> Event:
        return Event(self._clock)

    def _make_node(
        self,
        key: PrivateKey | None,
        *,
        agent: str,
        limits: Limits | None,
        services: Sequence[Service],
    ) -> Node:
        """A node whose randomness is decided by the seed, its machine and how often it started."""
        assert key is not None
        for name in ("security", "psk", "web_certificate", "web_trust"):
            if getattr(self.channels, name) is not None:
                raise LocalError(f"{name} is no option of simulated hosts: see World(security=...)")
        world = self.machine.world
        entropy, choice = self.machine.randomness()
        security: list[Security] = []
        if world.security == "null":
            security.append(PlaintextSecurity(key, world.crypto))
        return Node(
            key,
            crypto=world.crypto,
            entropy=entropy,
            choice=choice,
            limits=limits,
            agent=agent,
            services=[_Witness(self), *services],
            security=security,
            muxers=self.channels.make_muxers(),
            resolver=None if self._resolver is None else self._told,
        )

    def _told(self, timers: Timers) -> Resolver:
        assert self._resolver is not None
        return self._resolver

    def _wall(self) -> float:
        return EPOCH + self._clock.now

    def _internal_error(self, conn: int, error: Exception) -> None:
        """A fault of ours is what simulations are made to find: the run stops with it."""
        super()._internal_error(conn, error)
        self.machine.world.fail(error)

    # Time and tasks.

    async def _start(self) -> None:
        self.machine.attach(self)

    async def _stop(self) -> None:
        for end in list(self._ends.values()):
            end.abort()
        for dial in self._dials.values():
            dial.over = True
        self._dials.clear()
        self.machine.detach(self)
        current = self._clock.current
        tasks = [task for task in self.tasks if task is not current]
        for task in tasks:
            task.cancel()
        for task in tasks:
            await task.wait()
        while self._ends:
            event = self.make_event()
            self._clock.call_soon(_set, event)
            await event.wait()

    def _set_timer(self, when: float) -> None:
        self._clock.call_at(when, _on_timer, self)

    def _flush_soon(self) -> None:
        if not self._soon:
            self._soon = True
            self._clock.ready.append((_flush, self))

    _soon = False

    def _spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        self.machine.world.spawn(function, *args, on=self)

    async def _within(self, seconds: float, function: Callable[..., Any], *args: Any) -> Any:
        scope = self.machine.world.timeout(seconds)
        try:
            with scope:
                return await function(*args)
        except TimeoutError:
            if not scope.expired:
                raise
        return LATE

    # Transports.

    def _dial(self, conn: int, address: Multiaddr) -> None:
        try:
            if self.dead:
                raise LocalError("the machine has crashed")
            self._dials[conn] = self.machine.network.dial(self, conn, Target.of(address))
        except (LocalError, OSError) as error:
            self._clock.call_soon(lambda failed: self.on_dial_failed(conn, failed), error)

    def dial_over(self, dial: "Dial", error: Exception) -> None:
        """The network could not connect."""
        dial.over = True
        self._dials.pop(dial.conn, None)
        self.on_dial_failed(dial.conn, error)

    def dialed(self, dial: "Dial", end: End) -> None:
        """The network has connected."""
        dial.over = True
        self._dials.pop(dial.conn, None)
        self._register(dial.conn, end)

    def accepted(self, end: End) -> None:
        """Somebody has connected to us."""
        self._register(None, end)

    def _register(self, conn: int | None, end: End) -> None:
        conn = self.on_connected(conn, end.local, end.remote)
        end.open(conn)
        self._ends[conn] = end
        self.flush()

    def lost(self, end: End, error: Exception | None) -> None:
        """A transport is gone. Harmless when repeated."""
        if self._ends.get(end.conn) is end:
            del self._ends[end.conn]
            self.on_disconnected(end.conn, error)

    @property
    def ends(self) -> list[End]:
        """The open transports."""
        return list(self._ends.values())

    def _send(self, conn: int, data: bytes) -> None:
        self._ends[conn].send(data)

    def _close_transport(self, conn: int, abort: bool) -> None:
        end = self._ends.get(conn)
        if end is None:
            dial = self._dials.pop(conn, None)
            if dial is not None:
                dial.over = True
        elif abort:
            end.abort()
        else:
            end.finish()

    def _pause_reading(self, conn: int) -> None:
        self._ends[conn].paused = True

    def _resume_reading(self, conn: int) -> None:
        self._ends[conn].resume()

    async def _listen(self, address: Multiaddr) -> list[Multiaddr]:
        machine, target = self.machine, Target.of(address)
        own = (machine.ip, machine.ip6, machine.name)
        if not (target.unspecified or target.local or target.host in own):
            raise ListenError(
                EADDRNOTAVAIL,
                f"cannot listen on {address}: this machine has {machine.ip} and {machine.ip6}",
            )
        if not target.port:
            target = target._replace(port=machine.ephemeral())
        if not machine.bind(self, target):
            raise ListenError(EADDRINUSE, f"cannot listen on {address}: Address already in use")
        return [machine.address(target.family, target.port, target.local)]

    def _stop_listening(self) -> None:
        self.machine.unbind(self)

    def _open_door(self, number: int, address: Multiaddr) -> Multiaddr:
        machine, target = self.machine, Target.of(address)
        if not target.port:
            target = target._replace(port=machine.ephemeral())
        door = Door(self, number, target.family, target.port, target.local)
        if not machine.bind_udp(door, target.family, target.port):
            raise OSError(EADDRINUSE, "Address already in use")
        self._sim_doors[number] = door
        return door.address

    def _send_datagrams(self, number: int, target: tuple[str, int], row: list[bytes]) -> None:
        for data in row:
            self._sim_doors[number].send(target, data)

    def _watch_door(self, door: UdpDoor) -> None:
        """Simulated doors open without a socket to watch."""

    def _make_stream(self, stream: int, peer: PeerId, protocol: str, inbound: bool) -> Stream:
        return Stream(self, stream, peer, protocol, inbound)

    # Crashes.

    def die(self, *, silent: bool) -> None:
        """The process is gone. Whoever uses this host from elsewhere gets errors from now on."""
        self.dead = True
        self._state = "closed"
        self._stop_listening()
        for dial in list(self._dials.values()):
            self.dial_over(dial, ConnectionAbortedError("the machine has crashed"))
        error = ConnectionAbortedError("the machine has crashed")
        for end in list(self._ends.values()):
            if silent:
                end.break_off(error)
            else:
                end.abort()
                self.lost(end, error)
        self.machine.detach(self)
        for task in list(self.tasks):
            task.kill()


class _Witness(Service):
    """Tells the digest what the node reports."""

    def __init__(self, host: Host) -> None:
        self._place = host.place
        self._recorder = host.machine.network.recorder

    def on_event(self, event: NodeEvent, now: float) -> None:
        kind = type(event)
        known = _KINDS.get(kind)
        if known is None:
            names: tuple[str, ...] = getattr(kind, "__match_args__", ())
            known = _KINDS[kind] = (kind.__name__, attrgetter(names[0]) if names else _zero)
        name, number_of = known
        number = number_of(event)
        self._recorder.happened(now, name, self._place, number if type(number) is int else 0)


_KINDS: dict[type, tuple[str, Callable[[Any], object]]] = {}


def _never() -> bool:
    return False


def _zero(event: object) -> int:
    return 0


def _set(event: Event) -> None:
    event.set()


def _on_timer(host: Host) -> None:
    armed = host._armed
    if armed is not None and armed <= host._clock.now and not host.dead:
        host.on_timer()


def _flush(host: Host) -> None:
    host._soon = False
    host.flush()
