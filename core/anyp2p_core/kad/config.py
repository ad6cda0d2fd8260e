"""The numbers of one Kademlia network, in one place. Times are seconds.

The public IPFS network is ``KadConfig(reach=Reach.WAN)``, its twin on the local network
``KadConfig(protocol=LAN_PROTOCOL, reach=Reach.LAN)``; a node can be in both, with one service each.
"""

from dataclasses import dataclass, field

from ..errors import LocalError
from ..multiaddr import Multiaddr
from .addresses import Reach
from .messages import PROTOCOL
from .query import Walk


@dataclass(slots=True, kw_only=True)
class KadConfig:
    """One network: which peers belong to it, and what we do for them and with them."""

    protocol: str = PROTOCOL
    """Networks with different names never meet."""
    reach: Reach = Reach.ANY
    server: bool = False
    """Answer requests. A server must be reachable: others put it into their tables."""
    bootstrap: tuple[Multiaddr, ...] = ()
    """Addresses with /p2p/, asked when the table is nearly empty."""
    walk: Walk = field(default_factory=Walk)

    # The table.
    max_per_group: int = 3
    """Peers of one IP group in the table; loopback and private addresses have none."""
    max_per_bucket: int = 2
    refresh_interval: float = 600.0
    refresh_timeout: float = 10.0
    """For one lookup of a refresh."""
    low_interval: float = 120.0
    """How often bootstrap peers are asked while fewer than ``low_peers`` are known."""
    low_peers: int = 10
    max_probes: int = 8
    """Peers at once that are asked whether they really answer, before they enter the table."""

    # Requests of ours.
    max_operations: int = 256
    """Commands under way at once."""
    max_streams_per_peer: int = 16
    """Requests to one peer at once; rust peers take 32."""
    max_queued_per_peer: int = 256
    idle_timeout: float = 30.0
    """How long a stream is kept for the next request."""
    dial_rate: float = 10.0
    """New connections per second to addresses that others told us, beyond the burst."""
    dial_burst: int = 30
    dial_interval: float = 10.0
    """Between two dials to one public IP address, whoever told us of it."""

    # Requests of others.
    max_inbound_streams: int = 32
    """Per peer."""
    inbound_idle: float = 60.0
    request_timeout: float = 10.0
    """For a request to arrive as a whole, from its first byte."""
    put_rate: float = 20.0
    """PUT_VALUEs per second of one peer, each of which may need a signature verified."""
    put_burst: int = 100
    max_held: int = 32 * 1024 * 1024
    """Bytes of incomplete messages, all peers together."""

    # What is kept.
    record_age: float = 48 * 3600.0
    republish_interval: float = 22 * 3600.0
    republish_check: float = 60.0
    sweep_interval: float = 3600.0

    def check(self) -> None:
        """LocalError for numbers that make no sense."""
        self.walk.check()
        if not self.protocol.startswith("/"):
            raise LocalError(f"{self.protocol!r} is no protocol name: it starts with a slash")
        for address in self.bootstrap:
            if address.names[-1] != "p2p":
                raise LocalError(f"{address}: a bootstrap address ends in /p2p/ and the peer's id")
        if not self.dial_rate > 0 or self.dial_burst < 1:
            raise LocalError("a DHT that may not dial finds nothing: dial_rate and dial_burst")
        for name in _INTERVALS:
            if not getattr(self, name) > 0:
                raise LocalError(f"{name} has to be more than 0 seconds")


_INTERVALS = (
    "refresh_interval", "refresh_timeout", "low_interval", "idle_timeout", "inbound_idle",
    "request_timeout", "republish_interval", "republish_check", "sweep_interval",
    "dial_interval",
)  # fmt: skip
