"""Programs of this directory, run with every warning as an error."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Program:
    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", *arguments],
            cwd=HERE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def interrupt(self) -> None:
        """SIGINT, once it has said that it is ready."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", self.ended()
        self._process.send_signal(signal.SIGINT)

    def ended(self) -> Ended:
        try:
            out, err = self._process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            out, err = self._process.communicate()
            raise AssertionError(f"it hangs; it said {out} {err}") from None
        return Ended(self._process.returncode, out, err)
