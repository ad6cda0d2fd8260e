"""Which accepted connections are looked at: decided before any byte of them is read.

accepted --admit--> negotiating --upgraded--> open --left--> gone
                    negotiating --left--> gone
         --refused: too many in all, or negotiating, or from one address--> closed at once
"""

from ipaddress import IPv4Address, IPv6Address, ip_address

from .limits import Limits
from .multiaddr import Multiaddr
from .ratelimit import RateLimiter


class Admission:
    """Counts the accepted connections of one node, and how fast each address makes new ones."""

    __slots__ = ("inbound", "pending", "_arrivals", "_limits")

    def __init__(self, limits: Limits) -> None:
        self.inbound = 0
        """Accepted connections."""
        self.pending = 0
        """Those of them that are still negotiating."""
        self._arrivals = RateLimiter(
            rate=limits.inbound_rate_per_ip, burst=limits.inbound_burst_per_ip
        )
        self._limits = limits

    def admit(self, connections: int, remote: Multiaddr | None, now: float) -> bool:
        """Count an accepted connection, the node having ``connections`` already; False: refuse it.

        Costs no cryptography, so that a flood cannot make us compute.
        """
        limits = self._limits
        if (
            connections >= limits.max_connections
            or self.inbound >= limits.max_inbound_connections
            or self.pending >= limits.max_pending_inbound
        ):
            return False
        source = source_of(remote)
        if source is not None and not self._arrivals.allow(source, now):
            return False
        self.inbound += 1
        self.pending += 1
        return True

    def upgraded(self) -> None:
        """One of them is authenticated and carries streams."""
        self.pending -= 1

    def left(self, *, upgraded: bool) -> None:
        """One of them is gone."""
        self.inbound -= 1
        if not upgraded:
            self.pending -= 1


def source_of(remote: Multiaddr | None) -> str | None:
    """Whom an arrival is counted against: an IPv4 address or an IPv6 /56; None for loopback.

    >>> source_of(Multiaddr("/ip6/2001:db8:1:2ff::1/tcp/4001"))
    '2001:db8:1:200::/56'
    """
    text = None if remote is None else remote.get("ip4") or remote.get("ip6")
    if text is None:
        return None
    ip: IPv4Address | IPv6Address = ip_address(text)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped  # as a socket for both families shows IPv4
    if ip.is_loopback:
        return None
    if isinstance(ip, IPv4Address):
        return str(ip)
    return f"{IPv6Address(int(ip) >> 72 << 72)}/56"
