"""The command ``anyp2p``.

    anyp2p COMMAND ...    each command is a file of this package: add_parser() declares its
                          arguments, run(args) does the work and returns the exit code
    exit codes            0  it worked
                          1  it failed, or the peer could not be reached
                          2  the command line is wrong
                          130  interrupted

Results go to stdout; an error is one line on stderr, also with --json. Only what a command needs
is imported, and only when it runs: ``anyp2p --help`` loads no cryptography and no event loop.
"""

import sys
from collections.abc import Sequence

from . import (
    addr,
    demo,
    dht,
    hosts,
    identify,
    identity,
    key,
    listen,
    output,
    perf,
    ping,
    pubsub,
    sim,
)
from .arguments import Parser

FAILED = 1
INTERRUPTED = 130

COMMANDS = (demo, listen, ping, identify, perf, dht, pubsub, sim, key, identity, addr)
"""In the order of the help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Raises SystemExit for a wrong command line."""
    output.prepare()
    parser = _parser()
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    args = None
    try:
        args = parser.parse_args(arguments)  # reading an address takes a part of the start-up
        code: int = args.run(args)
        if sys.stdout is not None:  # it is None when it was closed before we started
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        hosts.end_on_next_interrupt()
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads our output has seen enough
        output.discard()
        return FAILED
    except Exception as error:
        from .failures import describe, exit_code

        if "--debug" in arguments:
            output.traceback()
        output.complain("" if args is None else args.command, describe(error))
        return exit_code(error)


def _parser() -> Parser:
    parser = Parser(
        prog="anyp2p",
        description="libp2p from the command line. `anyp2p COMMAND --help` tells more.",
    )
    parser.add_argument(
        "--version", action="version", version=f"anyp2p {_version()}", help="show it and exit"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def _version() -> str:
    from anyp2p._version import VERSION

    return VERSION
