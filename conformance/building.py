"""Finds the peers beside this file and builds them into a cache outside the checkout.

    peers/NAME/peer.json -> discover() -> Spec -> prepare() -> Built: a command that can be run

The cache is ``$XDG_CACHE_HOME/anyp2p/peers/NAME-HASH``; HASH covers the build commands and
their inputs. A build goes into a temporary directory that is renamed when it is complete, under a
lock file, so neither an interrupted build nor two harnesses at once leave half a peer behind.
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PEERS = Path(__file__).resolve().parent / "peers"
NOT_HERE = 77
"""Exit code of a build command that cannot work on this machine; its last line says why."""

Log = Callable[[str], object]


class NotHere(Exception):
    """The peer cannot be built on this machine; the message names what is missing."""


class BuildFailed(Exception):
    """A build command failed; the message ends with the last lines of its output."""


@dataclass(slots=True)
class Spec:
    """One peer.json; PROTOCOL.md explains the fields."""

    name: str
    implementation: str
    version: str
    source: Path
    needs: list[str]
    inputs: list[str]
    build: list[list[str]]
    run: list[str]
    env: dict[str, str]
    keys: list[str]
    cannot: dict[str, str]
    runtimes: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, source: Path) -> "Spec":
        """Read ``source``/peer.json; ValueError says which field is wrong."""
        path = source / "peer.json"
        content: dict[str, Any] = json.loads(path.read_text())
        known = set(cls.__slots__) - {"source"}
        missing = {"name", "implementation", "version", "run"} - content.keys()
        unknown = content.keys() - known
        if missing or unknown:
            raise ValueError(f"{path}: missing {sorted(missing)}, unknown {sorted(unknown)}")
        if content["name"] != source.name:
            raise ValueError(f"{path}: the name {content['name']!r} is not the directory's")
        defaults: dict[str, Any] = {
            "needs": [],
            "inputs": [],
            "build": [],
            "env": {},
            "keys": ["ed25519"],
            "cannot": {},
        }
        return cls(source=source, **(defaults | content))

    def digest(self) -> str:
        """Hash of everything that decides what a build produces."""
        digest = hashlib.sha256(repr((self.build, self.env, self.inputs)).encode())
        files = {path for pattern in self.inputs for path in self.source.glob(pattern)}
        for path in sorted(files):
            if path.is_file():
                content = path.read_bytes()
                digest.update(f"{path.relative_to(self.source)} {len(content)}\n".encode())
                digest.update(content)
        return digest.hexdigest()[:16]

    def expand(self, words: list[str], out: Path) -> list[str]:
        return [self._fill(word, out) for word in words]

    def environment(self, out: Path) -> dict[str, str]:
        own = {name: self._fill(value, out) for name, value in self.env.items()}
        return dict(os.environ) | own

    def _fill(self, word: str, out: Path) -> str:
        word = word.replace("{python}", sys.executable)
        return word.replace("{src}", str(self.source)).replace("{out}", str(out))


@dataclass(slots=True)
class Built:
    """A peer that is ready to run."""

    spec: Spec
    out: Path

    @property
    def command(self) -> list[str]:
        return self.spec.expand(self.spec.run, self.out)

    @property
    def environment(self) -> dict[str, str]:
        return self.spec.environment(self.out)


def discover(directory: Path = PEERS) -> dict[str, Spec]:
    """Every peer that has a peer.json, by name."""
    found = sorted(path.parent for path in directory.glob("*/peer.json"))
    return {source.name: Spec.load(source) for source in found}


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "anyp2p" / "peers"


def prepare(spec: Spec, log: Log) -> Built:
    """Build the peer unless the cache has it. Raises NotHere or BuildFailed."""
    out = cache() / f"{spec.name}-{spec.digest()}"
    if not spec.build or out.is_dir():
        return Built(spec, out)
    missing = [tool for tool in spec.needs if shutil.which(tool) is None]
    if missing:
        raise NotHere(f"{spec.name}: not found on PATH: {', '.join(missing)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with _locked(out.parent / f"{spec.name}.lock", spec.name, log):
        if not out.is_dir():
            _build(spec, out, log)
    return Built(spec, out)


def _build(spec: Spec, out: Path, log: Log) -> None:
    started = time.monotonic()
    for left_over in out.parent.glob(f".{spec.name}-*"):  # we hold the lock: nobody is at it
        shutil.rmtree(left_over, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{spec.name}-", dir=out.parent))
    try:
        for words in spec.build:
            command = spec.expand(words, unfinished)
            log(f"{spec.name}: building: {' '.join(words)}")
            _run(spec, command, unfinished)
        unfinished.chmod(0o755)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    log(f"{spec.name}: built in {time.monotonic() - started:.0f} s")


def _run(spec: Spec, command: list[str], out: Path) -> None:
    try:
        process = subprocess.Popen(
            command,
            cwd=spec.source,
            env=spec.environment(out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise BuildFailed(f"{spec.name}: {command[0]}: {error.strerror}") from error
    try:
        output, _ = process.communicate()
    except BaseException:  # Ctrl-C or SIGTERM: a compiler's own children have to end too
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    lines = output.strip().splitlines() or ["no output"]
    if process.returncode == NOT_HERE:
        raise NotHere(f"{spec.name}: {lines[-1]}")
    if process.returncode:
        tail = "\n".join(f"    {line}" for line in lines[-20:])
        raise BuildFailed(f"{spec.name}: {command[0]} exited with {process.returncode}\n{tail}")


@contextmanager
def _locked(path: Path, name: str, log: Log) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"{name}: waiting for another harness that builds it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
