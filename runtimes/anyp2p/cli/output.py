"""All that the command prints passes through here, made safe for a terminal.

Names, agents and errors come from peers: a control character in them could move the cursor, change
colours or forge a line.
"""

import io
import os
import sys
from collections.abc import Sequence
from typing import Any


def prepare() -> None:
    """Show what the terminal's encoding lacks as escapes; it must not be an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def clean(text: str) -> str:
    r"""Replace what is not printable.

    >>> clean("a\x1b[2Jb\n")
    'a\ufffd[2Jb\ufffd'
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def say(line: str = "") -> None:
    """Print one line at once, also into a pipe."""
    print(clean(line), flush=True)


def document(value: dict[str, Any]) -> None:
    """Print one JSON document on one line, in ASCII."""
    import json

    print(json.dumps(value), flush=True)


def table(rows: Sequence[Sequence[str]], right: int = 0) -> None:
    """Print rows with their columns aligned, the last ``right`` ones at their right edge."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = len(widths) - right
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:left], widths, strict=False)]
        cells += [cell.rjust(w) for cell, w in zip(row[left:], widths[left:], strict=True)]
        say("  ".join(cells).rstrip())


def complain(command: str, text: str) -> None:
    """Tell on stderr what went wrong, in one line."""
    print(clean(f"{f'anyp2p {command}'.rstrip()}: {text}"), file=sys.stderr, flush=True)


def traceback() -> None:
    """Show on stderr where the present exception comes from."""
    from traceback import format_exc

    for line in format_exc().splitlines():
        print(clean(line), file=sys.stderr)


def discard() -> None:
    """Nobody reads stdout any more: let what is still buffered go nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def log(command: str, *, debug: bool) -> None:
    """Show what is logged: warnings in one line each, with ``debug`` all of it and tracebacks."""
    import logging

    class Lines(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if debug:
                return "\n".join(map(clean, super().format(record).splitlines()))
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                error = record.exc_info[1]
                text += f" ({type(error).__name__}: {error})"
            return clean(f"anyp2p {command}: {text}")

    handler = logging.StreamHandler()
    handler.setFormatter(Lines("%(asctime)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.WARNING)
