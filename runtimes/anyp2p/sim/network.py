"""The simulated network: machines, the paths between them, and everything that goes wrong on both.

    Machine   one address, its ports, its access link (``up`` and ``down`` in bytes per second)
    Path      from one machine to another: latency, jitter, loss, cut or not
    Partition a set of paths that is cut, until it is healed

A path exists once it is used or configured. Bandwidth is that of the access links alone, shared by
all connections of a machine in the order of their sends.
"""

from collections.abc import Callable, Iterable, Sequence
from errno import ECONNREFUSED, ENETUNREACH, ETIMEDOUT
from ipaddress import IPv4Address, IPv6Address, ip_address
from math import isfinite
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from anyp2p_core.errors import LocalError
from anyp2p_core.multiaddr import Multiaddr

from . import keyed
from .clock import Clock
from .trace import Recorder
from .transport import MIN_TIMEOUT, End

if TYPE_CHECKING:
    from .host import Host
    from .machine import Machine

SYN_TRIES = 7
"""The last one is given up 127 s after the first, as on Linux."""
LOOPBACK_LATENCY = 20e-6
FIRST_EPHEMERAL, LAST_PORT = 49152, 65535

Latency = float | Callable[["Machine", "Machine"], float]


class Path:
    """The way from one machine to another; times in seconds."""

    __slots__ = (
        "blocked", "connections", "cut", "datagrams", "jitter", "latency", "loss", "reverse",
        "shaped", "source", "timeout", "to",
    )  # fmt: skip

    reverse: "Path"

    def __init__(
        self, source: "Machine", to: "Machine", latency: float, jitter: float, loss: float
    ) -> None:
        self.source = source
        self.to = to
        self.latency = latency
        self.jitter = jitter
        self.loss = loss
        self.connections = 0
        """Connections dialed over it so far."""
        self.datagrams = 0
        """Datagrams sent over it so far."""
        self.blocked = False
        """Nothing gets through."""
        self.cut = False
        """Nothing gets through in this direction, or nothing in the other one."""
        self.shaped = False
        """Something other than the latency decides when things arrive."""
        self.timeout = MIN_TIMEOUT
        """Seconds after which a lost packet is sent again."""

    def refresh(self) -> None:
        """Work out what follows from the rest."""
        self.cut = self.blocked or self.reverse.blocked
        self.timeout = MIN_TIMEOUT + self.latency + self.reverse.latency
        self.shaped = bool(self.jitter or self.loss or self.source.up_rate or self.to.down_rate)


class Partition:
    """Paths that are cut. Ends with ``heal()``, or with its ``with`` block."""

    __slots__ = ("_a", "_b", "_network", "_oneway")

    def __init__(
        self,
        network: "Network",
        a: "Sequence[Machine]",
        b: "Sequence[Machine] | None",
        oneway: bool,
    ) -> None:
        self._network = network
        self._a = frozenset(machine.index for machine in a)
        self._b = None if b is None else frozenset(machine.index for machine in b)
        self._oneway = oneway

    def cuts(self, source: "Machine", to: "Machine") -> bool:
        """Whether this partition stops what goes from one machine to the other."""
        return self._leads(source, to) or (not self._oneway and self._leads(to, source))

    def heal(self) -> None:
        """Let everything through again. Harmless when repeated."""
        if self in self._network.partitions:
            self._network.partitions.remove(self)
            self._network.refresh()

    def _leads(self, source: "Machine", to: "Machine") -> bool:
        if self._b is None:
            return source.index in self._a and to.index not in self._a
        return source.index in self._a and to.index in self._b

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.heal()


class Dial:
    """A transport connection that a host asked for, until it is open."""

    __slots__ = ("conn", "host", "key", "over", "path", "target", "tries")

    def __init__(
        self, host: "Host", conn: int, path: Path | None, target: "Target", key: bytes
    ) -> None:
        self.host = host
        self.conn = conn
        self.path = path
        """None: nothing has that address."""
        self.target = target
        self.key = key
        self.tries = 0
        self.over = False


class Network:
    """All machines and paths of a world."""

    def __init__(
        self,
        clock: Clock,
        recorder: Recorder,
        seed: int,
        *,
        latency: Latency,
        jitter: float,
        loss: float,
        socket_buffer: int,
    ) -> None:
        self.clock = clock
        self.recorder = recorder
        self.seed = seed
        self.socket_buffer = socket_buffer
        self.machines: list[Machine] = []
        self.partitions: list[Partition] = []
        self._latency = latency
        self._jitter = check_time("jitter", jitter)
        self._loss = check_loss(loss)
        self._named: dict[str, Machine] = {}
        self._paths: dict[tuple[int, int], Path] = {}
        if not callable(latency):
            check_time("latency", latency)

    def add(self, machine: "Machine") -> None:
        """A machine joins, under its name and its addresses."""
        names = (machine.name, machine.ip, machine.ip6)
        for name in names:
            if name in self._named:
                raise LocalError(f"there is a machine {name} already")
        self.machines.append(machine)
        self._named.update(dict.fromkeys(names, machine))

    def find(self, where: "Machine | str") -> "Machine":
        """The machine that is meant: itself, or its name or address."""
        if isinstance(where, str):
            found = self._named.get(where)
            if found is None:
                raise LocalError(f"there is no machine {where}")
            return found
        if where.network is not self:
            raise LocalError(f"{where} belongs to another world")
        return where

    def machine_at(self, ip: str) -> "Machine | None":
        """The machine that has an address, if there is one."""
        return self._named.get(ip)

    # Paths.

    def path(self, source: "Machine", to: "Machine") -> Path:
        """The way from one machine to another."""
        found = self._paths.get((source.index, to.index))
        if found is not None:
            return found
        there = self._make_path(source, to)
        back = there if source is to else self._make_path(to, source)
        there.reverse, back.reverse = back, there
        self._refresh((there, back))
        return there

    def _make_path(self, source: "Machine", to: "Machine") -> Path:
        if source is to:
            path = Path(source, to, LOOPBACK_LATENCY, 0.0, 0.0)
        else:
            latency = self._latency
            if callable(latency):
                latency = check_time("latency", latency(source, to))
            path = Path(source, to, latency, self._jitter, self._loss)
        self._paths[source.index, to.index] = path
        return path

    def refresh(self) -> None:
        """Partitions, machines or rates have changed."""
        self._refresh(self._paths.values())

    def _refresh(self, paths: Iterable[Path]) -> None:
        paths = tuple(paths)
        for path in paths:
            source, to = path.source, path.to
            path.blocked = not to.powered
            for partition in self.partitions:
                path.blocked = path.blocked or partition.cuts(source, to)
        for path in paths:
            path.refresh()

    # Connections.

    def dial(self, host: "Host", conn: int, target: "Target") -> Dial:
        """Start to connect; the host learns how it went. OSError when there is no way at all."""
        source = host.machine
        local = target.local or target.unspecified
        to = source if local else self._named.get(target.host)
        path = None
        purpose = b""
        if to is not None:
            path = self.path(source, to)
            path.connections += 1
            purpose = keyed.key(self.seed, "link", source.name, to.name, path.connections)
        else:
            _check_routable(target.host)
        dial = Dial(host, conn, path, target, purpose)
        self._send_syn(dial)
        return dial

    def _send_syn(self, dial: Dial) -> None:
        if dial.over:
            return
        path, clock = dial.path, self.clock
        dial.tries += 1
        if dial.tries > SYN_TRIES:
            dial.host.dial_over(dial, TimeoutError(ETIMEDOUT, "Connect call failed"))
            return
        pause = 2.0 ** (dial.tries - 1)
        if path is None:
            clock.call_at(clock.now + pause, self._send_syn, dial)
            return
        jitter, loss = keyed.uniforms(dial.key, dial.tries)
        if loss < 1.0 - (1.0 - path.loss) * (1.0 - path.reverse.loss):
            clock.call_at(clock.now + pause, self._send_syn, dial)
        else:
            when = clock.now + path.latency + jitter * path.jitter
            clock.call_at(when, self._on_syn, dial)

    def _on_syn(self, dial: Dial) -> None:
        path, clock = dial.path, self.clock
        if dial.over or path is None:
            return
        if path.cut or path.to.firewall == "drop":
            pause = 2.0 ** (dial.tries - 1) - path.latency
            clock.call_at(clock.now + max(pause, 0.0), self._send_syn, dial)
            return
        listener = path.to.listening(dial.target, path.source)
        answer = self._on_refused if listener is None else self._on_syn_ack
        clock.call_at(clock.now + path.reverse.latency, answer, dial)

    def _on_refused(self, dial: Dial) -> None:
        if not dial.over:
            error = ConnectionRefusedError(ECONNREFUSED, "Connect call failed")
            dial.host.dial_over(dial, error)

    def _on_syn_ack(self, dial: Dial) -> None:
        path = dial.path
        if dial.over or path is None:
            return
        listener = path.to.listening(dial.target, path.source)
        if listener is None:
            self._on_refused(dial)
            return
        family = dial.target.family
        local = path.source.address(family, path.source.ephemeral(), path.source is path.to)
        remote = path.to.address(family, dial.target.port, path.source is path.to)
        here = End(self, dial.host, path, local, remote, dial.key + b">")
        there = End(self, listener, path.reverse, remote, local, dial.key + b"<")
        here.peer, there.peer = there, here
        here.greet()
        dial.host.dialed(dial, here)

    def accept(self, end: End) -> None:
        """The handshake of a dialer is complete: its other end comes into being."""
        target = Target.of(end.local)
        if end.host.machine.listening(target, end.path.to) is end.host:
            end.host.accepted(end)
        else:
            end.refuse()


def _check_routable(host: str) -> None:
    """Raise what a dial raises at once. Any other address is silent."""
    try:
        ip = ip_address(host)
    except ValueError:
        raise OSError(f"{host}: Name or service not known") from None
    if ip.is_multicast or ip.is_reserved or ip.is_unspecified:
        raise OSError(ENETUNREACH, "Network is unreachable")


def check_time(name: str, seconds: float) -> float:
    """Refuse what is no time."""
    if not (isfinite(seconds) and seconds >= 0.0):
        raise LocalError(f"{name} is a number of seconds, not {seconds}")
    return float(seconds)


def check_loss(loss: float) -> float:
    """Refuse what is no probability, and certainty: that is a partition."""
    if not 0.0 <= loss < 1.0:
        raise LocalError(f"loss is a probability below 1, not {loss}")
    return float(loss)


def check_rate(rate: float | None) -> float | None:
    """Refuse what is no rate."""
    if rate is not None and not (isfinite(rate) and rate > 0):
        raise LocalError(f"a rate is a number of bytes per second, not {rate}")
    return rate


class Target(NamedTuple):
    """Where a transport leads to or listens, as an address says it."""

    family: int
    host: str
    port: int

    @property
    def unspecified(self) -> bool:
        return self.host in ("0.0.0.0", "::")

    @property
    def local(self) -> bool:
        """Only this machine is meant."""
        return self.host.startswith("127.") or self.host in ("::1", "localhost")

    @classmethod
    def of(cls, address: Multiaddr) -> Self:
        """Raises LocalError for what is not simulated."""
        names = address.names
        if names[1:2] in (("tcp",), ("udp",)) and names[0] in _FAMILIES:
            host, port = address.components[:2]
            return cls(_FAMILIES[names[0]], host.value, int(port.value))
        raise LocalError(
            f"{address}: simulated machines have /ip4, /ip6 or /dns addresses with /tcp or /udp"
        )


_FAMILIES = {"ip4": 4, "ip6": 6, "dns": 4, "dns4": 4, "dns6": 6}


def addresses_of(index: int) -> tuple[str, str]:
    """The addresses of machine number ``index``: 10.0.0.1 and fd00::1, 10.0.0.2 and fd00::2 ..."""
    return str(IPv4Address(0x0A00_0001 + index)), str(IPv6Address((0xFD00 << 112) + 1 + index))
