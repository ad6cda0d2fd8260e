"""Exits with 77 and one sentence when py-libp2p's dependencies cannot be compiled here.

fastecdsa, which it needs, comes as source only: it wants a C compiler and the headers of GMP.
"""

import subprocess
import sys

compiled = subprocess.run(
    ["cc", "-E", "-"],
    input=b"#include <gmp.h>\n",
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)
if compiled.returncode:
    print("py-libp2p needs the headers of GMP (Debian: libgmp-dev)")
    sys.exit(77)
