"""Between multiaddrs and what socket functions take and return."""

from typing import Any

from anyp2p_core.errors import DecodeError, LocalError
from anyp2p_core.multiaddr import Multiaddr

HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")


def tcp_target(address: Multiaddr) -> tuple[str, int]:
    """Host and port of a /tcp address. Raises ``LocalError`` for any other."""
    parts = address.components
    zone = ""
    if parts and parts[0].name == "ip6zone":
        zone = "%" + parts[0].value
        parts = parts[1:]
    if len(parts) == 2 and parts[0].name in HOSTS and parts[1].name == "tcp":
        return parts[0].value + zone, int(parts[1].value)
    raise LocalError(f"{address}: only /ip4, /ip6 or /dns addresses with /tcp can be used so far")


def tcp_multiaddr(name: Any) -> Multiaddr | None:
    """The address that ``getsockname`` or ``getpeername`` returned; None if it is of no use."""
    if not isinstance(name, tuple) or len(name) < 2:
        return None
    host, _, _ = str(name[0]).partition("%")
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    family = "ip6" if ":" in host else "ip4"
    try:
        return Multiaddr(f"/{family}/{host}/tcp/{name[1]}")
    except DecodeError:
        return None
