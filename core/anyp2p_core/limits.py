"""Every number that bounds what a peer can make us hold, in one place.

Sizes are bytes, times are seconds. The defaults follow the smallest value that go, rust and js
peers need, see SECURITY.md.
"""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(slots=True, kw_only=True)
class Limits:
    """Caps of one node. Change a field to change a limit; nothing reads the environment."""

    # Connections.
    max_connections: int = 1024
    max_inbound_connections: int = 768
    max_connections_per_peer: int = 8
    max_pending_inbound: int = 128
    """Accepted connections that are still negotiating."""
    upgrade_timeout: float = 10.0
    """From transport connection to multiplexed and authenticated; no bytes extend it."""
    inbound_rate_per_ip: float = 5.0
    """New connections per second from one address beyond the burst; loopback is exempt."""
    inbound_burst_per_ip: int = 16

    close_timeout: float = 5.0
    """To deliver what was written, after a connection was closed by us."""

    # Dialing.
    dial_timeout: float = 15.0
    """One address, including its upgrade."""
    dial_stagger: float = 0.25
    max_dial_addresses: int = 32
    max_parallel_dials: int = 8
    """Attempts at once towards one peer."""
    max_pending_dials: int = 256
    """Peers being dialed at once."""

    # Streams.
    max_inbound_streams: int = 256
    """Open streams that the peer opened, per connection."""
    max_outbound_streams: int = 512
    """Open streams that we opened, per connection: rust peers close the connection above 512."""
    max_negotiating_streams: int = 64
    """Inbound streams per connection that have not agreed on a protocol."""
    negotiation_timeout: float = 10.0
    """To agree on a stream's protocol."""
    max_stream_window: int = 16 * MIB
    """How far one stream's receive window may grow."""
    max_unread: int = 16 * MIB
    """Received and not yet read by the application, per connection. Windows stay within it."""
    max_unread_total: int = 256 * MIB
    """The same for the whole node."""
    max_unsent: int = 256 * KIB
    """Written and not yet sent, per stream; a writer waits above it."""
    max_queued_control: int = 1 * MIB
    """Answers (pongs, resets, window updates) that the peer does not read, per connection."""
    send_timeout: float = 30.0
    """How long a peer may leave our control frames unread before it is cut off."""
    max_resets: int = 200
    """Streams that a peer may open and reset within ``resets_period``."""
    resets_period: float = 10.0

    # Keepalive.
    keepalive_interval: float = 30.0
    keepalive_timeout: float = 10.0

    # Services.
    identify_timeout: float = 5.0
    max_pushes_per_minute: int = 12
    """identify/push messages accepted from one connection."""
    ping_timeout: float = 10.0
    max_inbound_pings: int = 2
    """Ping streams per connection that a peer may hold open."""

    # Peerstore.
    max_peers: int = 10_000
    """Peers that are remembered while they are not connected."""
    max_addresses_per_peer: int = 64
    max_addresses: int = 100_000
    """Addresses of all peers together."""
    max_protocols_per_peer: int = 256
