"""anyp2p id: whose key a file holds."""

import argparse

from . import hosts, output
from .arguments import Commands, add_command


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "id",
        run,
        "show the peer id of a key file",
        "Prints the peer id alone; with --json also the kind of key, the public key and the id "
        "as a CID.",
    )
    parser.add_argument("file", metavar="FILE", help="a key file")


def run(args: argparse.Namespace) -> int:
    key = hosts.load_key(args.file)
    if args.json:
        output.document(
            {
                "peer": str(key.peer_id),
                "cid": key.peer_id.to_cid_text(),
                "key_type": key.kind.name.lower(),
                "public_key": key.public.encode().hex(),
            }
        )
    else:
        output.say(str(key.peer_id))
    return 0
