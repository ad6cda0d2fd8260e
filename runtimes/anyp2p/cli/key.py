"""anyp2p key generate: a new identity in a file that only its owner can read."""

import argparse

from . import output
from .arguments import Commands, add_command, count

TYPES = ("ed25519", "secp256k1", "ecdsa", "rsa")
RSA_BITS = 2048


def add_parser(commands: Commands) -> None:
    summary = "make key files"
    group = commands.add_parser("key", help=summary, description="Make key files.")
    generate = add_command(
        group.add_subparsers(metavar="COMMAND", required=True),
        "generate",
        run,
        "make a new identity",
        "Writes a new private key to FILE with mode 600 and prints its peer id. "
        "A file that exists is never overwritten.",
    )
    generate.add_argument("file", metavar="FILE", help="where to write the key")
    generate.add_argument(
        "--type", choices=TYPES, default=TYPES[0], help="the kind of key (default: ed25519)"
    )
    generate.add_argument(
        "--bits", metavar="N", type=count, help=f"the size of an RSA key (default: {RSA_BITS})"
    )


def run(args: argparse.Namespace) -> int:
    from anyp2p import keyfile
    from anyp2p.providers.crypto import Cryptography
    from anyp2p.providers.entropy import OsEntropy
    from anyp2p_core.crypto import KeyType
    from anyp2p_core.keys import PrivateKey

    from .failures import UsageError

    if args.bits is not None and args.type != "rsa":
        raise UsageError(f"--bits is for RSA keys: {args.type} keys have one size")
    kind = KeyType[args.type.upper()]
    key = PrivateKey.generate(Cryptography(), OsEntropy(), kind, bits=args.bits or RSA_BITS)
    keyfile.save(args.file, key)
    if args.json:
        output.document({"file": args.file, "peer": str(key.peer_id), "key_type": args.type})
    else:
        output.say(str(key.peer_id))
    return 0
