"""anyp2p addr: an address, part by part."""

import argparse
import re
from typing import TYPE_CHECKING

from . import output
from .arguments import Commands, add_command, multiaddr

if TYPE_CHECKING:
    from anyp2p_core.multiaddr import Multiaddr


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "addr",
        run,
        "take an address apart",
        "Shows each protocol of a multiaddr with its code, its value and the value's bytes.",
    )
    parser.add_argument(
        "address", metavar="MADDR", type=_text_or_hex, help="an address, or its bytes in hex"
    )


def run(args: argparse.Namespace) -> int:
    address: Multiaddr = args.address
    if args.json:
        output.document(
            {
                "address": str(address),
                "hex": bytes(address).hex(),
                "components": [
                    {"name": c.name, "code": c.code, "value": c.value, "hex": c.raw.hex()}
                    for c in address.components
                ],
            }
        )
        return 0
    output.say(str(address))
    output.say(bytes(address).hex())
    output.say()
    rows = [("name", "code", "value", "hex")]
    rows += [(c.name, str(c.code), c.value, c.raw.hex()) for c in address.components]
    output.table(rows)
    return 0


def _text_or_hex(text: str) -> "Multiaddr":
    """An address in text starts with a slash, so that hex digits cannot be mistaken for one."""
    digits = text.removeprefix("0x")
    if not re.fullmatch(r"(?:[0-9a-fA-F]{2})+", digits):
        return multiaddr(text)
    from anyp2p_core.errors import DecodeError
    from anyp2p_core.multiaddr import Multiaddr

    try:
        return Multiaddr.from_bytes(bytes.fromhex(digits))
    except DecodeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
