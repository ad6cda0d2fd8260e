"""anyp2p identify: what a peer says of itself."""

import argparse
from typing import TYPE_CHECKING, Any

from . import hosts, output
from .arguments import Commands, add_command, add_host_options, add_target

if TYPE_CHECKING:
    from anyp2p.host import BaseHost
    from anyp2p_core.identify import IdentifyInfo


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "identify",
        run,
        "ask a peer who it is and what it speaks",
        "The peer id and the key type are proven, the rest is what the peer claims.",
    )
    add_target(parser)
    add_host_options(parser)


def run(args: argparse.Namespace) -> int:
    async def ask(host: "BaseHost[Any]") -> "IdentifyInfo":
        return await host.identify(await host.connect(args.address))

    info = hosts.run(args, ask)
    kind = info.public_key.kind.name.lower() if info.public_key is not None else None
    if args.json:
        output.document(
            {
                "peer": str(info.peer),
                "agent": info.agent,
                "protocol_version": info.protocol_version,
                "key_type": kind,
                "addresses": [str(address) for address in info.addresses],
                "protocols": list(info.protocols),
                "observed": str(info.observed) if info.observed is not None else None,
                "signed_record": info.signed_record,
            }
        )
        return 0
    rows = [
        ("peer id", str(info.peer)),
        ("agent", info.agent or "-"),
        ("protocol version", info.protocol_version or "-"),
        ("key type", kind or "-"),
        *_list("addresses", [str(address) for address in info.addresses]),
        *_list("protocols", list(info.protocols)),
        ("observed address", str(info.observed) if info.observed is not None else "-"),
        ("signed record", "yes" if info.signed_record else "no"),
    ]
    output.table(rows)
    return 0


def _list(label: str, values: list[str]) -> list[tuple[str, str]]:
    """One row per value; the first has the label."""
    if not values:
        return [(label, "-")]
    return [(label if not number else "", value) for number, value in enumerate(values)]
