"""A machine of the simulated world: what stays when its host does not.

    up     --crash()----------------> down      connections are reset, ports refuse
           --crash(silent=True)-----> off       nobody is told anything, nothing answers
           --stop()-----------------> down      the program is cancelled, its host closes in order
    down, off --restart()-----------> up        a new host: same key, same address, nothing else

A machine has one host of its own at a time, and may have a program that runs inside ``async with
host``. Other hosts may live beside it; they have other keys, and end with a crash for good.
"""

from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Literal

from anyp2p_core.errors import LocalError
from anyp2p_core.keys import PrivateKey
from anyp2p_core.multiaddr import Multiaddr

from . import keyed
from .datagrams import Door
from .host import Host
from .network import FIRST_EPHEMERAL, LAST_PORT, Network, Target, addresses_of, check_rate
from .tasks import Task

if TYPE_CHECKING:
    from .world import World

Program = Callable[..., Coroutine[Any, Any, object]]
Firewall = Literal["accept", "drop", "refuse"]


class Machine:
    """One address of the network, and who lives there."""

    __slots__ = (
        "down_free", "down_rate", "firewall", "host", "hosts", "index", "ip", "ip6", "name",
        "network", "powered", "starts", "task", "up_free", "up_rate", "world",
        "_args", "_doors", "_guests", "_key", "_next_port", "_options", "_ports", "_program",
    )  # fmt: skip

    def __init__(
        self,
        world: "World",
        network: Network,
        *,
        name: str | None,
        ip: str | None,
        key: PrivateKey | None,
        up: float | None,
        down: float | None,
        program: Program | None,
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> None:
        self.world = world
        self.network = network
        self.index = len(network.machines)
        self.name = name if name is not None else f"n{self.index}"
        self.ip, self.ip6 = addresses_of(self.index)
        if ip is not None:
            self.ip = str(IPv4Address(ip))
        self.firewall: Firewall = "accept"
        """What becomes of dials from elsewhere; connections that are open go on."""
        self.host: Host | None = None
        """Its own host; None while that does not run."""
        self.hosts: dict[Host, None] = {}
        """All hosts that were made and have not ended."""
        self.powered = True
        self.starts = 0
        """Hosts that it has had."""
        self.task: Task[None] | None = None
        """The program's, from its last start."""
        self.up_rate = check_rate(up)
        self.down_rate = check_rate(down)
        self.up_free = 0.0
        """When the uplink has sent everything that it was given."""
        self.down_free = 0.0
        self._guests = 0
        self._key = key
        self._program = program
        self._args = args
        self._options = options
        self._ports: dict[tuple[int, int], tuple[Host, bool]] = {}
        self._doors: dict[tuple[int, int], Door] = {}
        self._next_port = FIRST_EPHEMERAL
        network.add(self)

    def __repr__(self) -> str:
        return f"<Machine {self.name} {self.ip}>"

    @property
    def key(self) -> PrivateKey:
        """The identity of its hosts, decided by the seed and its name unless one was given."""
        if self._key is None:
            self._key = self._make_key(0)
        return self._key

    def _make_key(self, ordinal: int) -> PrivateKey:
        purpose = keyed.key(self.world.seed, "identity", self.name, ordinal)
        return PrivateKey.generate(self.world.crypto, keyed.SeededEntropy(purpose))

    def crash(self, *, silent: bool = False) -> None:
        """End its hosts and all of their tasks at once.

        ``silent``: as if the power had failed. Otherwise connections are reset.
        """
        if silent:
            self.powered = False
            self.network.refresh()
        for host in list(self.hosts):
            host.die(silent=silent)
        if self.task is not None:
            self.task.kill()

    def stop(self) -> None:
        """Cancel the program; its host closes in order, which takes time: ``await task.wait()``."""
        if self.task is None:
            raise LocalError(f"{self!r} runs no program: close its host instead")
        self.task.cancel()

    def restart(self) -> Host:
        """A new host with the same key and options; the program starts anew in it.

        Without a program the caller starts it, as it did with the first one.
        """
        if self.host is not None:
            raise LocalError(f"{self!r} is running: crash or stop it first")
        if not self.powered:
            self.powered = True
            self.network.refresh()
        return self.start()

    def set_rates(self, up: float | None, down: float | None) -> None:
        """Change the access link, in bytes per second; None: no bound."""
        self.up_rate = check_rate(up)
        self.down_rate = check_rate(down)
        self.network.refresh()

    # Inside.

    def start(self) -> Host:
        """Make the next host."""
        options = dict(self._options)
        services = options.get("services", ())
        if callable(services):
            options["services"] = services()
        elif services and self.starts:
            raise LocalError(
                "services keep state: give a function that makes them, services=lambda: [...]"
            )
        host = self._make(self.key, 0, options)
        if self._program is not None:
            self.task = self.world.spawn(self._run, host, on=host, name=f"{self.name} program")
        return host

    def guest(self, key: PrivateKey | None, options: dict[str, Any]) -> Host:
        """One more host, beside its own."""
        self._guests += 1
        if key is None:
            key = self._make_key(self._guests)
        return self._make(key, self._guests, options)

    def _make(self, key: PrivateKey, ordinal: int, options: dict[str, Any]) -> Host:
        host = Host(self, key, ordinal=ordinal, **options)
        self.hosts[host] = None
        return host

    async def _run(self, host: Host) -> None:
        assert self._program is not None
        async with host:
            await self._program(host, *self._args)

    def randomness(self) -> tuple[keyed.SeededEntropy, keyed.SeededChoice]:
        """For one more host."""
        self.starts += 1
        seed, name, starts = self.world.seed, self.name, self.starts
        return (
            keyed.SeededEntropy(keyed.key(seed, "entropy", name, starts)),
            keyed.SeededChoice(keyed.key(seed, "choice", name, starts)),
        )

    def attach(self, host: Host) -> None:
        """A host starts."""
        if not host.ordinal:
            if self.host is not None:
                raise LocalError(f"{self!r} has a running host already")
            self.host = host

    def detach(self, host: Host) -> None:
        """A host has ended."""
        if host in self.hosts:
            del self.hosts[host]
            self.unbind(host)
            self.unbind_udp(host)
        if self.host is host:
            self.host = None

    def address(self, family: int, port: int, local: bool = False) -> Multiaddr:
        """This machine's address of a family, with a port."""
        if family == 4:
            return Multiaddr(f"/ip4/{'127.0.0.1' if local else self.ip}/tcp/{port}")
        return Multiaddr(f"/ip6/{'::1' if local else self.ip6}/tcp/{port}")

    def bind(self, host: Host, target: Target) -> bool:
        """Open a port; False when it is taken."""
        place = (target.family, target.port)
        if place in self._ports:
            return False
        self._ports[place] = (host, target.local)
        return True

    def udp_address(self, family: int, port: int, local: bool = False) -> Multiaddr:
        """The same for UDP."""
        return Multiaddr(str(self.address(family, port, local)).replace("/tcp/", "/udp/"))

    def bind_udp(self, door: Door, family: int, port: int) -> bool:
        """Open a UDP port; False when it is taken."""
        return self._doors.setdefault((family, port), door) is door

    def door(self, family: int, port: int) -> Door | None:
        """Who gets the datagrams of a port."""
        return self._doors.get((family, port))

    def unbind_udp(self, host: Host) -> None:
        """Close all UDP ports of a host."""
        self._doors = {place: door for place, door in self._doors.items() if door.host is not host}

    def unbind(self, host: Host) -> None:
        """Close all ports of a host."""
        self._ports = {place: held for place, held in self._ports.items() if held[0] is not host}

    def listening(self, target: Target, source: "Machine") -> Host | None:
        """Who takes connections from a machine."""
        host, local = self._ports.get((target.family, target.port), (None, False))
        if source is not self and (local or self.firewall != "accept"):
            return None
        return host

    def ephemeral(self) -> int:
        """A port that nobody listens on."""
        for _ in range(FIRST_EPHEMERAL, LAST_PORT + 1):
            port = self._next_port
            self._next_port = port + 1 if port < LAST_PORT else FIRST_EPHEMERAL
            places = ((4, port), (6, port))
            if not any(place in self._ports or place in self._doors for place in places):
                return port
        raise LocalError(f"{self!r} has no port left")
