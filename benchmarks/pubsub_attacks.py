"""The attack scenarios of the gossipsub v1.1 evaluation, scaled to this simulator.

Honest nodes run the router as it ships. Sybils are of two kinds:

    Silent      subscribes, asks into every mesh and again every 15 s whatever it was answered,
                reads nothing, sends nothing
    Pretender   a real router that behaves until its Mood says otherwise, and from then on forwards
                and announces nothing, or only some of it, and late

    baseline     no sybils
    sybil        Silent ones beside the honest nodes
    eclipse-one  all of them around a single node
    eclipse-all  five times as many of their connections around every node
    cold-boot    Silent ones are there before honest nodes know each other
    covert       Pretenders that fall silent all at once
    degrade      Pretenders that forward every other message, and that half a second late

Parameters are those of the published evaluation; the weight of broken rules (P7), which it does not
name, is ours. "plain" is gossipsub 1.0 without scores and flood publishing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pubsub_network import PORT, TOPIC, Network, quantile

from anyp2p.sim import Host, World
from anyp2p_core.connection import Connection
from anyp2p_core.errors import LocalError
from anyp2p_core.events import Event, PeerIdentified
from anyp2p_core.pubsub import rpc as wire
from anyp2p_core.pubsub.config import GossipConfig
from anyp2p_core.pubsub.gossipsub import GossipSub
from anyp2p_core.pubsub.message import Message
from anyp2p_core.pubsub.peers import Topic
from anyp2p_core.pubsub.score_params import PeerScoreParams, Thresholds, TopicScoreParams
from anyp2p_core.service import Service
from anyp2p_core.yamux_stream import Stream

SCENARIOS = ("baseline", "sybil", "eclipse-one", "eclipse-all", "cold-boot", "covert", "degrade")
REGRAFT = 15.0
ASK = wire.graft_prune([TOPIC.encode()], ())
V1_0, V1_1 = "/meshsub/1.0.0", "/meshsub/1.1.0"


@dataclass(slots=True)
class Size:
    """How large a scenario is. Times are virtual seconds, sizes bytes."""

    honest: int = 100
    sybils: int = 400
    dials: int = 10
    """Of each honest node, to others: they have about twice as many connections."""
    sybil_dials: int = 10
    """Of each sybil."""
    eclipse_dials: int = 25
    """The same in eclipse-all: 100 sybils around every node, as in the published evaluation."""
    rate: float = 2.0
    """Messages per second."""
    message: int = 2048
    warm: float = 30.0
    attack: float = 120.0
    covert: float = 60.0
    """Good behaviour before it ends."""
    linger: float = 10.0
    activation: float = 60.0
    """P3: in the mesh before a peer is judged."""
    cold: float = 2.0
    """How much earlier sybils are in cold-boot."""


@dataclass(slots=True)
class Outcome:
    """What became of the messages that were published from the attack on."""

    messages: int
    expected: int
    lost: int
    p50: float
    p99: float
    worst: float
    joined: float
    """Seconds from the start of the attack until the links of meshes between honest nodes alone
    lead to all of them, and keep leading there."""
    full: float
    """The same until each honest node has d_lo honest mesh peers, or half of those it knows."""
    held: float
    """The share of honest nodes' mesh slots that sybils hold in the end."""
    worst_held: float
    """The most that they held at any time."""
    delays: list[float] = field(default_factory=list, repr=False)


def scores(activation: float) -> PeerScoreParams:
    """How honest nodes judge."""
    topic = TopicScoreParams(
        weight=0.25,
        time_in_mesh_weight=0.0027,
        time_in_mesh_cap=3600.0,
        first_deliveries_weight=0.664,
        first_deliveries_decay=0.9916,
        first_deliveries_cap=1500.0,
        mesh_deliveries_weight=-0.25,
        mesh_deliveries_decay=0.997,
        mesh_deliveries_cap=400.0,
        mesh_deliveries_threshold=10.0,
        mesh_deliveries_window=0.005,
        mesh_deliveries_activation=activation,
        mesh_failure_weight=-0.25,
        mesh_failure_decay=0.997,
        invalid_weight=-99.0,
        invalid_decay=0.9994,
    )
    return PeerScoreParams(
        topics={TOPIC: topic},
        behaviour_weight=-10.0,
        behaviour_decay=0.9,
        retain=30.0,
    )


def config(draw: Random, *, plain: bool, activation: float = 60.0) -> GossipConfig:
    """An honest node's."""
    common: dict[str, Any] = {
        "d": 8, "d_lo": 6, "d_hi": 12, "d_score": 6, "d_lazy": 12, "floodsub": False,
        "heartbeat_delay": draw.uniform(0.1, 1.1),
    }  # fmt: skip
    if plain:
        return GossipConfig(
            **common | {"d_score": 0}, d_out=0, flood_publish=False, gossip_factor=0.0,
            versions=(V1_0,),
        )  # fmt: skip
    return GossipConfig(
        **common,
        versions=(V1_1, V1_0),
        score=scores(activation),
        thresholds=Thresholds(gossip=-4000.0, publish=-5000.0, graylist=-10_000.0),
    )


class Silent(Service):
    """A sybil that wants into meshes, and is of no use there."""

    protocols = (V1_1, V1_0)

    def __init__(self) -> None:
        self._started = False
        self._out: dict[Any, tuple[Connection, Stream]] = {}

    def on_event(self, event: Event, now: float) -> None:
        """Open a stream to whoever there is."""
        if isinstance(event, PeerIdentified) and event.peer not in self._out:
            (connection, *_) = self.context.connections(event.peer)

            def on_open(stream: Stream, protocol: str, now: float) -> None:
                self._out[event.peer] = connection, stream
                stream.write(wire.subscriptions([(True, TOPIC.encode())]) + ASK)

            spoken = [one for one in self.protocols if one in event.info.protocols]
            connection.open_stream(spoken[:1], on_open, lambda error, now: None, now)
            self.context.touch(connection)
            if not self._started:
                self._started = True
                self.context.call_at(now + REGRAFT, "graft", self._again)

    def on_stream(self, connection: Connection, stream: Stream, protocol: str, now: float) -> None:
        """Nothing that is said is of interest."""
        stream.stop_reading()

    def _again(self, now: float) -> None:
        self.context.call_at(now + REGRAFT, "graft", self._again)
        for connection, stream in self._out.values():
            if not stream.is_reset and stream.unsent < 1024:
                stream.write(ASK)
                self.context.touch(connection)


@dataclass(slots=True)
class Mood:
    """What all Pretenders do, decided by whoever leads them."""

    forwards: float = 1.0
    """The share of messages that they forward, and announce."""
    delay: float = 0.0


class Pretender(GossipSub):
    """A sybil that knows how to behave."""

    def __init__(self, config: GossipConfig, mood: Mood, draw: Random) -> None:
        super().__init__(config)
        self._mood = mood
        self._draw = draw

    def route(self, topic: Topic, message: Message, now: float) -> None:
        """Forward a message if that is the plan."""
        mood = self._mood
        if mood.forwards < 1.0 and self._draw.random() >= mood.forwards:
            return
        if not mood.delay:
            super().route(topic, message, now)
            return

        def later(now: float) -> None:
            if topic.mesh is not None:
                GossipSub.route(self, topic, message, now)

        self.context.call_at(now + mood.delay, "late", later)


class Attack:
    """One scenario in a world of its own."""

    def __init__(self, name: str, seed: int, size: Size, *, plain: bool = False) -> None:
        self.size = size
        self.name = name
        self.world = World(seed=seed, latency=0.025, jitter=0.0025)
        self.draw = draw = Random(f"{seed} {name}")
        self.plain = plain
        self.sybils: list[Host] = []
        self.mood = Mood()
        self.worst_held = 0.0
        self._samples: list[tuple[float, bool, bool]] = []
        """Each second of the attack: whether meshes were joined, and full."""

        def make(place: int) -> GossipSub:
            return GossipSub(config(draw, plain=plain, activation=size.activation))

        self.network = Network(self.world, size.honest, make)
        self.honest = {host.peer_id: None for host in self.network.hosts}

    def run(self) -> Outcome:
        """The whole of it."""
        size, network, world = self.size, self.network, self.world
        if self.name == "cold-boot":
            self._send_sybils(Silent, size.sybil_dials)
            world.run(size.cold)
            network.connect(size.dials)
            world.run(2.0)
            return self._measure()
        network.connect(size.dials)
        world.run(5.0)
        if self.name in ("covert", "degrade"):
            self._send_sybils(self._pretender, size.sybil_dials)
            network.publish_at(size.rate, size.covert, size.message, size.honest)
            self.mood.forwards = 0.0 if self.name == "covert" else 0.5
            self.mood.delay = 0.0 if self.name == "covert" else 0.5
            return self._measure()
        network.publish_at(size.rate, size.warm, size.message, size.honest)
        if self.name == "sybil":
            self._send_sybils(Silent, size.sybil_dials)
        elif self.name == "eclipse-all":
            self._send_sybils(Silent, size.eclipse_dials)
        elif self.name == "eclipse-one":
            self._send_sybils(Silent, 1, network.hosts[-1:])
        return self._measure()

    def _pretender(self) -> GossipSub:
        return Pretender(config(self.draw, plain=self.plain), self.mood, self.draw)

    def _send_sybils(
        self, make: Callable[[], Service], dials: int, victims: list[Host] | None = None
    ) -> None:
        size, world = self.size, self.world
        services = [make() for _ in range(size.sybils)]
        hosts = [world.host(listen=[PORT], services=[one]) for one in services]
        self.sybils += hosts

        async def begin() -> None:
            for host in hosts:
                await host.start()

        world.run_task(world.spawn(begin), 60.0)
        for host, service in zip(hosts, services, strict=True):
            if isinstance(service, GossipSub):
                service.subscribe(TOPIC, world.now)
            among = victims or self.network.hosts
            for other in self.draw.sample(among, min(dials, len(among))):
                self.network.dial(host, other)

    def _measure(self) -> Outcome:
        size, network, world = self.size, self.network, self.world
        first, begun = network.published, world.now
        network.delays.clear()
        while world.now - begun < size.attack - 1e-9:
            network.publish_at(size.rate, 1.0, size.message, size.honest)
            self._look(world.now - begun)
        world.run(size.linger)
        self._look(world.now - begun)
        delays = sorted(network.delays)
        messages = network.published - first
        outcome = Outcome(
            messages=messages,
            expected=messages * (size.honest - 1),
            lost=network.lost(first),
            p50=quantile(delays, 0.5),
            p99=quantile(delays, 0.99),
            worst=delays[-1] if delays else float("nan"),
            joined=self._since(1),
            full=self._since(2),
            held=self._held(),
            worst_held=self.worst_held,
            delays=delays,
        )
        world.close()
        return outcome

    def _look(self, since: float) -> None:
        self.worst_held = max(self.worst_held, self._held())
        full = all(map(self._is_full, range(self.size.honest)))
        self._samples.append((since, self._is_joined(), full))

    def _since(self, column: int) -> float:
        """When something became true for good."""
        found = 0.0
        for sample in self._samples:
            if not sample[column]:
                found = sample[0] + 1.0
        return found if self._samples[-1][column] else float("inf")

    def _is_joined(self) -> bool:
        """Whether forwarding by honest nodes to honest mesh peers reaches all of them."""
        routers = {
            host.peer_id: router
            for host, router in zip(self.network.hosts, self.network.routers, strict=True)
        }
        found = dict.fromkeys(list(routers)[:1])
        waiting = list(found)
        while waiting:
            for peer in routers[waiting.pop()].mesh(TOPIC):
                if peer in routers and peer not in found:
                    found[peer] = None
                    waiting.append(peer)
        return len(found) == len(routers)

    def _is_full(self, place: int) -> bool:
        router = self.network.routers[place]
        mesh = sum(peer in self.honest for peer in router.mesh(TOPIC))
        known = sum(peer in self.honest for peer in router.peers(TOPIC))
        return mesh >= min(router.config.d_lo, known / 2)

    def _held(self) -> float:
        meshes = [router.mesh(TOPIC) for router in self.network.routers]
        if self.name == "eclipse-one":
            meshes = meshes[-1:]
        slots = sum(map(len, meshes))
        return sum(peer not in self.honest for mesh in meshes for peer in mesh) / max(slots, 1)


def run(name: str, seed: int, size: Size, plain: bool = False) -> Outcome:
    """One scenario, once."""
    if name not in SCENARIOS:
        raise LocalError(f"{name} is none of {', '.join(SCENARIOS)}")
    return Attack(name, seed, size, plain=plain).run()
