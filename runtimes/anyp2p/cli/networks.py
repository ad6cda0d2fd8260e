"""The Kademlia network that a command's options describe."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyp2p_core.kad.service import Kad
    from anyp2p_core.kad.store import Store
    from anyp2p_core.multiaddr import Multiaddr


def make_network(
    args: argparse.Namespace,
    *,
    server: bool = False,
    bootstrap: "tuple[Multiaddr, ...]" = (),
    store: "Store | None" = None,
    timeout: float = 60.0,
    peer_timeout: float = 10.0,
) -> "Kad":
    """A service for a host. ``timeout``: seconds for one lookup."""
    from anyp2p_core.kad.config import KadConfig
    from anyp2p_core.kad.query import Walk
    from anyp2p_core.kad.records import AcceptAll
    from anyp2p_core.kad.service import Kad

    walk = Walk(timeout=timeout, peer_timeout=min(timeout, peer_timeout))
    config = KadConfig(protocol=args.protocol, server=server, bootstrap=bootstrap, walk=walk)
    return Kad(config, store=store, validators={name: AcceptAll() for name in args.accept or ()})
