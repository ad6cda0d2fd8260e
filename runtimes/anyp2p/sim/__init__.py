"""A deterministic network of peers on a virtual clock: one more runtime, for tests and studies.

from anyp2p.sim import World

    world = World(seed=7)                     one seed, one run
    host = world.host(listen=[...])           a Host like any other
    world.spawn(function, host)               tasks
    world.run(60)                             no sleeping: as fast as the processor is

Nothing that a seeded world makes is secret: its keys are marked, and real hosts refuse them.
"""

from .churn import Churn
from .host import Host
from .keyed import SeededChoice, SeededEntropy
from .machine import Machine
from .network import Partition
from .tasks import Cancelled, Event, Task, Timeout
from .trace import Divergence, Trace, compare, first_divergence
from .world import World

__all__ = [
    "Cancelled",
    "Churn",
    "Divergence",
    "Event",
    "Host",
    "Machine",
    "Partition",
    "SeededChoice",
    "SeededEntropy",
    "Task",
    "Timeout",
    "Trace",
    "World",
    "compare",
    "first_divergence",
]
