"""A machine of the simulated world: what stays when its host does not.

    up     --crash()----------------> down      connections are reset, ports refuse
           --crash(silent=True)-----> off       nobody is told anything, nothing answers
           --stop()-----------------> down      the program is cancelled, its host closes in order
    down, off --restart()-----------> up        a new host: same key, same address, nothing else

A machine has one host at a time, and may have a program that runs inside ``async with host``.
"""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal

from anyp2p_core.errors import LocalError
from anyp2p_core.keys import PrivateKey

from . import keyed
from .host import Host
from .network import FIRST_EPHEMERAL, LAST_PORT, Network, address_of, check_rate
from .tasks import Task

if TYPE_CHECKING:
    from .world import World

Program = Callable[..., Coroutine[Any, Any, object]]
Firewall = Literal["accept", "drop", "refuse"]


class Machine:
    """One address of the network, and who lives there."""

    __slots__ = (
        "down_free", "down_rate", "firewall", "host", "index", "ip", "name", "network", "powered",
        "starts", "task", "up_free", "up_rate", "world",
        "_args", "_key", "_next_port", "_options", "_ports", "_program",
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
        self.ip = ip if ip is not None else address_of(self.index)
        self.firewall: Firewall = "accept"
        """What becomes of dials from elsewhere; connections that are open go on."""
        self.host: Host | None = None
        """The host that runs; None while there is none."""
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
        self._key = key
        self._program = program
        self._args = args
        self._options = options
        self._ports: dict[int, tuple[Host, bool]] = {}
        self._next_port = FIRST_EPHEMERAL
        network.add(self)

    def __repr__(self) -> str:
        return f"<Machine {self.name} {self.ip}>"

    @property
    def key(self) -> PrivateKey:
        """The identity of its hosts, decided by the seed and its name unless one was given."""
        if self._key is None:
            purpose = keyed.key(self.world.seed, "identity", self.name)
            entropy = keyed.SeededEntropy(purpose)
            self._key = PrivateKey.generate(self.world.crypto, entropy)
        return self._key

    def crash(self, *, silent: bool = False) -> None:
        """End the host and all of its tasks at once.

        ``silent``: as if the power had failed. Otherwise its connections are reset.
        """
        if silent:
            self.powered = False
            self.network.refresh()
        if self.host is not None:
            self.host.die(silent=silent)
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
        host = Host(self, self.key, **options)
        if self._program is not None:
            self.task = self.world.spawn(self._run, host, on=host, name=f"{self.name} program")
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
        if self.host is not None:
            raise LocalError(f"{self!r} has a running host: use world.host() for another peer")
        self.host = host

    def detach(self, host: Host) -> None:
        """A host has ended."""
        if self.host is host:
            self.host = None
            self.unbind(host)

    def bind(self, host: Host, port: int, *, local: bool) -> bool:
        """Open a port; False when it is taken."""
        if port in self._ports:
            return False
        self._ports[port] = (host, local)
        return True

    def unbind(self, host: Host) -> None:
        """Close all ports of a host."""
        self._ports = {port: held for port, held in self._ports.items() if held[0] is not host}

    def listening(self, port: int, source: "Machine") -> Host | None:
        """Who takes connections from a machine at a port."""
        host, local = self._ports.get(port, (None, False))
        if source is not self and (local or self.firewall != "accept"):
            return None
        return host

    def ephemeral(self) -> int:
        """A port that nobody listens on."""
        for _ in range(FIRST_EPHEMERAL, LAST_PORT + 1):
            port = self._next_port
            self._next_port = port + 1 if port < LAST_PORT else FIRST_EPHEMERAL
            if port not in self._ports:
                return port
        raise LocalError(f"{self!r} has no port left")
