"""Writes the first two files of a peer in another language."""

import json
import re
import sys

from building import PEERS

README = """\
# The {name} peer

A program that speaks [PROTOCOL.md](../../PROTOCOL.md) on stdin and stdout. The harness found it by
`peer.json`; fill in what is empty there:

- `implementation`, `version`: the library it is built on
- `needs`: tools that must be on PATH; `inputs`: files whose content decides about a rebuild
- `build`: commands that put everything into `{{out}}`, run in this directory
- `run`: how to start it
- `keys`: what `--key` knows; `cannot`: command or feature -> why not; `channels`, `dht`, `pubsub`
  stand for all of these

    python conformance/interop.py --peers {name} -v
"""


def write_skeleton(name: str) -> int:
    """Make peers/``name``; returns the exit code."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        print(f"{name!r}: a name is lower-case letters, digits, - and _", file=sys.stderr)
        return 2
    directory = PEERS / name
    if directory.exists():
        print(f"peers/{name} is already there", file=sys.stderr)
        return 2
    content = {
        "name": name,
        "implementation": "",
        "version": "",
        "needs": [],
        "inputs": [],
        "build": [],
        "run": ["{out}/peer"],
        "env": {},
        "keys": ["ed25519"],
        "cannot": dict.fromkeys(("channels", "dht", "pubsub"), "not written yet"),
    }
    directory.mkdir()
    (directory / "peer.json").write_text(json.dumps(content, indent=2) + "\n")
    (directory / "README.md").write_text(README.format(name=name))
    print(f"wrote conformance/peers/{name}/peer.json and README.md: read them next")
    return 0
