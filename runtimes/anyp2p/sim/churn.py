"""Machines that come and go.

    up for a drawn time -> crash, or stop in order -> down for a drawn time -> restart -> ...

Each machine draws its times from a purpose of its own: another set of machines, or another fault,
leaves them as they are.
"""

from collections.abc import Callable, Sequence
from math import isfinite, log
from typing import TYPE_CHECKING

from anyp2p_core.errors import LocalError

from . import keyed
from .tasks import Task

if TYPE_CHECKING:
    from .machine import Machine
    from .world import World

Draw = float | Callable[[float], float]
"""A mean of an exponential distribution, in seconds, or the inverse of any distribution function:
from a uniform draw in [0, 1) to seconds."""


class Churn:
    """Churn that goes on until ``stop``."""

    def __init__(
        self,
        world: "World",
        machines: "Sequence[Machine]",
        up: Draw,
        down: Draw,
        graceful: float,
        silent: float,
    ) -> None:
        self.departures = 0
        self.returns = 0
        self._world = world
        self._up = _inverse(up)
        self._down = _inverse(down)
        self._graceful = graceful
        self._silent = silent
        self._tasks: list[Task[None]] = []
        for machine in machines:
            name = f"churn of {machine.name}"
            self._tasks.append(world.spawn(self._run, machine, name=name))

    def stop(self) -> None:
        """Let everything stay as it is now."""
        for task in self._tasks:
            task.cancel()

    async def _run(self, machine: "Machine") -> None:
        world = self._world
        draw = keyed.SeededChoice(keyed.key(world.seed, "churn", machine.name)).random
        while True:
            await world.sleep(self._up(draw()))
            fate = draw()
            if machine.host is not None:
                self.departures += 1
                if fate < self._graceful and machine.task is not None:
                    machine.stop()
                    await machine.task.wait()
                else:
                    machine.crash(silent=fate >= 1.0 - self._silent)
            await world.sleep(self._down(draw()))
            if machine.host is None:
                self.returns += 1
                machine.restart()


def _inverse(draw: Draw) -> Callable[[float], float]:
    if callable(draw):
        return draw
    mean = draw
    if not (isfinite(mean) and mean > 0):
        raise LocalError(f"a mean time is a number of seconds above 0, not {mean}")
    return lambda uniform: -mean * log(1.0 - uniform)
