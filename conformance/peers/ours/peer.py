"""Our peer: speaks PROTOCOL.md on stdin and stdout and drives an anyp2p Host.

    peer.py --> on_RUNTIME.py   reads stdin, runs commands at the same time, bounds them
                    |
                commands.py     what each command does; the same for every runtime
                dht_commands.py, pubsub_commands.py, channels.py

A further runtime is a module ``on_NAME.py`` with ``main(options)``, a line in ``RUNTIMES`` and its
name in peer.json. Exit code 77 if its package, which has the same name, is not installed.
"""

import argparse
import importlib
import importlib.util
import sys

import channels

RUNTIMES = {
    "asyncio": "on_asyncio",
    "uvloop": "on_asyncio",
    "trio": "on_trio",
    "anyio": "on_anyio",
    "gevent": "on_gevent",
}

NOT_HERE = 77


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", action="append", metavar="MADDR")
    parser.add_argument(
        "--key", default="ed25519", choices=["ed25519", "secp256k1", "ecdsa", "rsa"]
    )
    channels.add_options(parser)
    parser.add_argument("--runtime", default="asyncio", choices=RUNTIMES)
    parser.add_argument("--dht", default="off", choices=["off", "server", "client"])
    parser.add_argument("--dht-protocol", default="/ipfs/kad/1.0.0")
    parser.add_argument("--pubsub", default="off", choices=["off", "gossipsub", "floodsub"])
    parser.add_argument("--pubsub-policy", default="sign", choices=["sign", "unsigned", "nosign"])
    parser.add_argument("--pubsub-score", default="off", choices=["off", "on"])
    options = parser.parse_args()
    options.listen = options.listen or ["/ip4/127.0.0.1/tcp/0"]
    for package in ("anyp2p", options.runtime):
        if importlib.util.find_spec(package) is None:
            print(f'{package} is not installed here: pip install -e ".[all]"', file=sys.stderr)
            return NOT_HERE
    importlib.import_module(RUNTIMES[options.runtime]).main(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
