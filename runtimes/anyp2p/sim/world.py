"""A network of peers in one thread, on a virtual clock: the simulator's public face.

    world = World(seed=7)
    alice, bob = world.host(), world.host(listen=["/ip4/0.0.0.0/tcp/4001"])

    async def main():
        async with alice, bob:
            print(await alice.ping(bob.addresses[0]))

    world.spawn(main)
    world.run(10)
    print(world.now, world.digest())

Hosts are those of any other runtime. The same seed gives the same run, event by event, in any
process.
"""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from math import isnan
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from zlib import crc32

from anyp2p_core.crypto import Crypto
from anyp2p_core.errors import LocalError
from anyp2p_core.keys import PrivateKey

from . import keyed
from .churn import Churn, Draw
from .clock import Clock
from .crypto import NullCrypto, RememberingCrypto
from .host import Host
from .machine import Machine, Program
from .network import Latency, Network, Partition, check_loss, check_time
from .tasks import Event, Task, Timeout
from .trace import NOBODY, Recorder, Trace

T = TypeVar("T")
Where = Machine | Host | str
"""A machine, its host, or its name or address."""
Group = Machine | Host | str | Iterable[Where]


class World:
    """Everything that is simulated together."""

    def __init__(
        self,
        seed: int = 0,
        *,
        security: Literal["null", "noise"] = "null",
        latency: Latency = 0.05,
        jitter: float = 0.0,
        loss: float = 0.0,
        socket_buffer: int = 256 * 1024,
        trace: Trace | None = None,
    ) -> None:
        """``latency`` is that of one direction in seconds, or a function of two machines.

        ``jitter`` adds between nothing and so many seconds, ``loss`` is the probability that a
        packet has to be sent again, ``socket_buffer`` the bytes that a connection takes before it
        is full. ``security`` is what hosts speak: "noise" is the real thing, down to each byte.
        """
        self.seed = seed
        self.security = security
        self.crypto = _crypto(security)
        self._clock = Clock()
        self._recorder = Recorder(trace)
        self._network = Network(
            self._clock,
            self._recorder,
            seed,
            latency=latency,
            jitter=jitter,
            loss=loss,
            socket_buffer=socket_buffer,
        )
        self._tasks: dict[Task[Any], None] = {}
        self._spawned = 0

    # Peers.

    def host(
        self,
        key: PrivateKey | None = None,
        *,
        beside: Where | None = None,
        name: str | None = None,
        ip: str | None = None,
        up: float | None = None,
        down: float | None = None,
        **options: Any,
    ) -> Host:
        """A peer on a machine of its own, started with ``async with`` as anywhere.

        ``up`` and ``down`` bound its access link, in bytes per second. With ``beside`` it lives on
        the machine of another host, and both reach each other by 127.0.0.1. The other options are
        those of every host.
        """
        if beside is not None:
            return self._find(beside).guest(key, options)
        return self._machine(name, ip, key, up, down, None, (), options).start()

    def machine(
        self,
        program: Program | None = None,
        *args: Any,
        key: PrivateKey | None = None,
        name: str | None = None,
        ip: str | None = None,
        up: float | None = None,
        down: float | None = None,
        **options: Any,
    ) -> Machine:
        """A machine that runs ``program(host, *args)`` in a host, and again after each restart.

        When the program returns the host closes. Without one the host idles.
        """
        machine = self._machine(name, ip, key, up, down, program or self._idle, args, options)
        machine.start()
        return machine

    @property
    def machines(self) -> list[Machine]:
        """All machines, oldest first."""
        return list(self._network.machines)

    def _machine(
        self,
        name: str | None,
        ip: str | None,
        key: PrivateKey | None,
        up: float | None,
        down: float | None,
        program: Program | None,
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Machine:
        return Machine(
            self,
            self._network,
            name=name,
            ip=ip,
            key=key,
            up=up,
            down=down,
            program=program,
            args=args,
            options=options,
        )

    async def _idle(self, host: Host) -> None:
        await self.forever()

    # Time and tasks.

    @property
    def now(self) -> float:
        """Seconds since the world began."""
        return self._clock.now

    def spawn(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        *args: Any,
        on: Host | None = None,
        name: str | None = None,
    ) -> Task[T]:
        """Run a coroutine function beside the others; with ``on`` it ends with that host."""
        self._spawned += 1
        place = NOBODY if on is None else on.place
        if name is None:
            name = str(getattr(function, "__qualname__", type(function).__name__))

        def on_done(task: Task[Any]) -> None:
            del self._tasks[task]
            if on is not None:
                on.tasks.pop(task, None)
            self._recorder.happened(self._clock.now, "task", place, task.number, _outcome_of(task))

        task = Task(self._clock, self._spawned, name, function, args, on_done)
        self._tasks[task] = None
        if on is not None:
            on.tasks[task] = None
            if on.dead:
                task.kill()
        return task

    def run(self, seconds: float) -> None:
        """Let so much virtual time pass.

        Raises what a task raised that nobody has waited for by then; the clock stands where it
        happened, and ``run`` can be called again.
        """
        self._clock.run(self._clock.now + check_time("the time to run", seconds))

    def run_until(self, predicate: Callable[[], object], timeout: float) -> bool:
        """Run until ``predicate()`` holds at the end of an instant; False after ``timeout``."""
        until = self._clock.now + check_time("timeout", timeout)
        return self._clock.run(until, lambda: bool(predicate()))

    def run_task(self, task: Task[T], timeout: float) -> T:
        """Run until a task is done, and return its result. TimeoutError when that takes longer."""
        task.awaited = True
        if not self.run_until(lambda: task.done, timeout):
            raise TimeoutError(f"{task!r} did not end within {timeout:g} s of virtual time")
        return task.result()

    async def sleep(self, seconds: float) -> None:
        """Wait for so much virtual time; 0 lets whatever is ready go first."""
        if isnan(seconds):
            raise LocalError("a sleep takes a number of seconds")
        event = Event(self._clock)
        if seconds <= 0:
            self._clock.call_soon(_set, event)
            await event.wait()
            return
        timer = self._clock.timer(self._clock.now + seconds, _set, event)
        try:
            await event.wait()
        finally:
            self._clock.cancel(timer)

    async def forever(self) -> None:
        """Wait until the task is cancelled."""
        await Event(self._clock).wait()

    def event(self) -> Event:
        """Something that tasks can wait for."""
        return Event(self._clock)

    def timeout(self, seconds: float) -> Timeout:
        """``with world.timeout(5):`` raises TimeoutError in a body that takes longer."""
        return Timeout(self._clock, check_time("timeout", seconds))

    def cancel(self, task: Task[Any]) -> None:
        """Raise ``Cancelled`` where a task waits."""
        task.cancel()

    async def gather(self, *tasks: Task[Any]) -> list[Any]:
        """Wait for all of them; their results in order, or the first error in that order."""
        for task in tasks:
            task.awaited = True
        for task in tasks:
            await task.wait()
        return [task.result() for task in tasks]

    def choice(self, *purpose: str | int) -> keyed.SeededChoice:
        """Randomness for an application, of a purpose: no other purpose changes what is drawn."""
        return keyed.SeededChoice(keyed.key(self.seed, "application", *purpose))

    # The network.

    def link(
        self,
        a: Where,
        b: Where,
        *,
        latency: float | None = None,
        jitter: float | None = None,
        loss: float | None = None,
        oneway: bool = False,
    ) -> None:
        """Change the path between two machines; ``oneway``: only that from ``a`` to ``b``."""
        there = self._network.path(self._find(a), self._find(b))
        for path in (there,) if oneway else (there, there.reverse):
            if latency is not None:
                path.latency = check_time("latency", latency)
            if jitter is not None:
                path.jitter = check_time("jitter", jitter)
            if loss is not None:
                path.loss = check_loss(loss)
        there.refresh()
        there.reverse.refresh()

    def partition(self, a: Group, b: Group | None = None, *, oneway: bool = False) -> Partition:
        """Cut ``a`` off from ``b``, or from everyone else; nothing is told to either.

        ``oneway``: what goes from ``a`` to ``b`` is lost, the other direction works.
        """
        others = None if b is None else self._group(b)
        partition = Partition(self._network, self._group(a), others, oneway)
        self._network.partitions.append(partition)
        self._network.refresh()
        return partition

    def heal(self) -> None:
        """End all partitions."""
        self._network.partitions.clear()
        self._network.refresh()

    def reset(self, a: Where, b: Where | None = None) -> int:
        """Reset the connections of a machine, or those to another one; returns how many."""
        machine = self._find(a)
        other = None if b is None else self._find(b)
        ends = [end for host in machine.hosts for end in host.ends]
        ends = [end for end in ends if other in (None, end.path.to)]
        for end in ends:
            for one in (end, end.peer):
                one.break_off(ConnectionResetError("Connection reset by the network"))
        return len(ends)

    def crash(self, where: Where, *, silent: bool = False) -> None:
        """End the host of a machine at once; see ``Machine.crash``."""
        self._find(where).crash(silent=silent)

    def restart(self, where: Where) -> Host:
        """Start a new host after a crash; see ``Machine.restart``."""
        return self._find(where).restart()

    def churn(
        self,
        machines: Iterable[Where],
        *,
        up: Draw,
        down: Draw,
        graceful: float = 0.0,
        silent: float = 0.0,
    ) -> Churn:
        """Let machines come and go; ``up`` and ``down`` are mean seconds, or see ``churn.Draw``.

        ``graceful`` is the share of departures in which a program is stopped in order, ``silent``
        that in which the power fails; the rest are crashes.
        """
        found = [self._find(where) for where in machines]
        return Churn(self, found, up, down, graceful, silent)

    def _find(self, where: Where) -> Machine:
        return self._network.find(where.machine if isinstance(where, Host) else where)

    def _group(self, group: Group) -> Sequence[Machine]:
        if isinstance(group, str | Machine | Host):
            return [self._find(group)]
        return [self._find(where) for where in group]

    # The record.

    def digest(self) -> str:
        """Of everything that has happened; equal for equal runs."""
        return self._recorder.digest()

    def fail(self, error: Exception) -> None:
        """Stop the run with an error that is nobody's to handle."""
        self._clock.faults.append(error)

    def close(self) -> None:
        """End all tasks on the spot. A world that is just dropped ends so too."""
        self._clock.closed = True
        for task in list(self._tasks):
            task.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _crypto(security: str) -> Crypto:
    if security == "null":
        return NullCrypto()
    if security == "noise":
        from anyp2p.providers.crypto import Cryptography

        return RememberingCrypto(Cryptography())
    raise LocalError(f"security is 'null' or 'noise', not {security!r}")


def _outcome_of(task: Task[Any]) -> int:
    """0 when it returned, 1 when it was cancelled, else a number of the error's type."""
    if task.error is not None:
        return crc32(type(task.error).__qualname__.encode()) | 2
    return 1 if task.cancelled else 0


def _set(event: Event) -> None:
    event.set()
