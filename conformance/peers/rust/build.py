"""Builds the peer: ``build.py OUT`` leaves OUT/peer, ``build.py --update`` renews Cargo.lock.in.

Cargo.lock.in is a Cargo.lock without its "source" lines. They are all the same, cargo tells their
text, and so no address of a package registry stands in this directory. All versions and checksums
are there, and cargo builds with --locked.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PINNED = HERE / "Cargo.lock.in"
NOT_HERE = 77
"""Exit code for a machine on which this cannot work; the last line says why."""


def cargo(*words: str, target: Path | None = None) -> str:
    environment = dict(os.environ) | ({"CARGO_TARGET_DIR": str(target)} if target else {})
    return subprocess.run(
        ["cargo", *words], env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def not_here(reason: str) -> None:
    print(reason)
    sys.exit(NOT_HERE)


def package() -> dict:
    """What cargo says about Cargo.toml alone, without a lock file or a network."""
    manifest = str(HERE / "Cargo.toml")
    told = cargo("metadata", "--no-deps", "--format-version=1", "--manifest-path", manifest)
    return json.loads(told)["packages"][0]


def restore(pinned: str, source: str) -> str:
    return re.sub(r"^checksum = ", f'source = "{source}"\nchecksum = ', pinned, flags=re.M)


def strip(lock: str) -> str:
    return re.sub(r"^source = .*\n", "", lock, flags=re.M)


def copy_crate(out: Path) -> str:
    """Cargo writes beside its manifest, so it works on a copy; return the manifest's path."""
    shutil.copytree(HERE / "src", out / "src")
    shutil.copy(HERE / "Cargo.toml", out)
    return str(out / "Cargo.toml")


def fetch(manifest: str) -> None:
    told = subprocess.run(["rustc", "-vV"], stdout=subprocess.PIPE, text=True, check=True).stdout
    host = re.findall(r"^host: (\S+)", told, re.M)[0]
    command = ["cargo", "fetch", "--locked", "--target", host, "--manifest-path", manifest]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        print(done.stderr)
        if "--locked" in done.stderr:
            sys.exit("Cargo.lock.in does not fit Cargo.toml: run build.py --update")
        not_here("cargo could not fetch the dependencies")


def build(out: Path) -> None:
    told = package()
    version = re.search(r"\d+\.\d+", cargo("--version"))
    needed = told["rust_version"]
    if version and [*map(int, version[0].split("."))] < [*map(int, needed.split(".")[:2])]:
        not_here(f"needs rust {needed}, here is {version[0]}")
    manifest = copy_crate(out / "crate")
    lock = restore(PINNED.read_text(), told["dependencies"][0]["source"])
    (out / "crate" / "Cargo.lock").write_text(lock)
    os.nice(10)
    fetch(manifest)
    target = out / "target"
    cargo("build", "--release", "--locked", "--offline", "--manifest-path", manifest, target=target)
    shutil.copy(target / "release" / told["name"], out / "peer")
    shutil.rmtree(target)


def update() -> None:
    with tempfile.TemporaryDirectory() as directory:
        manifest = copy_crate(Path(directory) / "crate")
        cargo("generate-lockfile", "--manifest-path", manifest)
        lock = Path(manifest).with_name("Cargo.lock").read_text()
    pinned = strip(lock)
    source = package()["dependencies"][0]["source"]
    assert restore(pinned, source) == lock, "not all dependencies are of the same source"
    PINNED.write_text(pinned)


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        update()
    else:
        build(Path(sys.argv[1]).resolve())
