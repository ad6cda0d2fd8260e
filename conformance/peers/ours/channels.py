"""What lies below the streams of our peer: options for its Host, names of what was agreed on."""

import argparse
from typing import Any

from anyp2p_core.multiaddr import Multiaddr

SHORT = {
    "/noise": "noise",
    "/tls/1.0.0": "tls",
    "/plaintext/2.0.0": "plaintext",
    "/yamux/1.0.0": "yamux",
    "/mplex/6.7.0": "mplex",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--security", default="noise", metavar="NAMES")
    parser.add_argument("--muxers", default="yamux", metavar="NAMES")
    parser.add_argument("--psk", metavar="FILE")
    parser.add_argument("--web-cert", metavar="FILE")
    parser.add_argument("--web-key", metavar="FILE")
    parser.add_argument("--web-trust", metavar="FILE")


def host_options(options: argparse.Namespace) -> dict[str, Any]:
    """What the Host is told."""
    found: dict[str, Any] = {
        "security": options.security.split(","),
        "muxers": options.muxers.split(","),
        "psk": options.psk,
        "web_trust": options.web_trust,
    }
    if options.web_cert is not None:
        found["web_certificate"] = options.web_cert, options.web_key
    return found


def channel_of(remote: Multiaddr | None, security: str, muxer: str) -> str:
    """tcp+noise+yamux, or quic-v1."""
    names = [component.name for component in remote.components] if remote is not None else []
    if "quic-v1" in names:
        return "quic-v1"
    transport = "ws" if "ws" in names else "tcp"
    if "wss" in names or "tls" in names:
        transport = "wss"
    return "+".join((transport, SHORT.get(security, "?"), SHORT.get(muxer, "?")))
