"""What a benchmark prints, written to a file beside it as well, with the machine and the date."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from report import machine


@contextmanager
def written(path: Path, title: str) -> Iterator[None]:
    """Write what is printed in the body, unless that raises."""
    load = os.getloadavg()[0]
    command = " ".join(["python", "benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
    screen = sys.stdout
    kept = sys.stdout = _Both(screen)
    try:
        yield
    finally:
        sys.stdout = screen
    path.write_text(
        f"# {title}\n\nWritten by `{command}`; README.md says what is measured.\n\n"
        f"{machine({}, load)}\n\n```\n{kept.getvalue().strip()}\n```\n"
    )


class _Both(io.StringIO):
    def __init__(self, screen: TextIO) -> None:
        super().__init__()
        self._screen = screen

    def write(self, text: str) -> int:
        self._screen.write(text)
        return super().write(text)

    def flush(self) -> None:
        self._screen.flush()
