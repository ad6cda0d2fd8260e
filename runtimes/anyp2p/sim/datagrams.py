"""Simulated UDP: what is lost is lost, what is late comes late, and nobody is told.

    send --uplink, latency, jitter--> arrives, if somebody listens there and no link is cut

Jitter may let one datagram overtake another. A firewall lets answers through: datagrams from where
this door has sent to.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING

from anyp2p_core.multiaddr import Multiaddr

from . import keyed

if TYPE_CHECKING:
    from .host import Host
    from .network import Path

MAX_DATAGRAM = 65507
MAX_KNOWN = 4096
"""Places that a firewall remembers for one door."""

Place = tuple[str, int]


class Door:
    """One UDP port of a host."""

    __slots__ = ("address", "host", "number", "_clock", "_family", "_known", "_local", "_port")

    def __init__(self, host: "Host", number: int, family: int, port: int, local: bool) -> None:
        self.host = host
        self.number = number
        self.address = host.machine.udp_address(family, port, local)
        self._clock = host.machine.network.clock
        self._family = family
        self._known: OrderedDict[Place, None] = OrderedDict()
        self._local = local
        self._port = port

    def send(self, target: Place, data: bytes) -> None:
        """Put a datagram on its way."""
        machine = self.host.machine
        network = machine.network
        ip, port = target
        here = ip.startswith("127.") or ip == "::1"
        to = machine if here else network.machine_at(ip)
        self._known[target] = None
        self._known.move_to_end(target)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        if to is None or len(data) > MAX_DATAGRAM or (self._local and to is not machine):
            return
        path = network.path(machine, to)
        path.datagrams += 1
        when = self._clock.now
        if machine.up_rate is not None:
            when = machine.up_free = max(when, machine.up_free) + len(data) / machine.up_rate
        purpose = keyed.key(network.seed, "datagram", machine.name, to.name)
        jitter, loss = keyed.uniforms(purpose, path.datagrams)
        if loss < path.loss:
            return
        source = (_ip(machine.udp_address(self._family, self._port, here)), self._port)
        when += path.latency + jitter * path.jitter
        self._clock.call_at(when, _arrive, (path, source, port, data))

    def takes(self, source: Place, path: "Path") -> bool:
        """Whether a datagram from there gets in."""
        if path.source is path.to:
            return True
        if self._local:
            return False
        return self.host.machine.firewall == "accept" or source in self._known


def _arrive(flight: "tuple[Path, Place, int, bytes]") -> None:
    path, source, port, data = flight
    machine = path.to
    door = machine.door(6 if ":" in source[0] else 4, port)
    if path.blocked or door is None or not door.takes(source, path):
        return
    clock = machine.network.clock
    if machine.down_rate is not None:
        machine.down_free = max(clock.now, machine.down_free) + len(data) / machine.down_rate
        clock.call_at(machine.down_free, _deliver, (door, source, data))
    else:
        _deliver((door, source, data))


def _deliver(arrived: tuple[Door, Place, bytes]) -> None:
    door, source, data = arrived
    host = door.host
    if not host.dead and not host.closed:
        network = host.machine.network
        network.recorder.delivered(network.clock.now, host.place, door.number, data)
        host.on_datagrams(door.number, [(data, source)])


def _ip(address: Multiaddr) -> str:
    return address.components[0].value
