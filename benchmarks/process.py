"""What a measured process knows about itself. Standard library only: both sides' workers use it."""

import ctypes
import gc
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import NamedTuple


class Memory(NamedTuple):
    """Bytes. `heap` is what the allocators have handed out: exact, and blind to page rounding."""

    resident: int
    heap: int


def memory() -> Memory:
    """Taken after a full collection, with free heap pages given back to the system."""
    gc.collect()
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    return Memory(resident(), _python_heap() + _c_heap(libc))


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def usage() -> dict[str, float]:
    """User + system CPU seconds of this process so far, and its resident bytes."""
    return {"seconds": time.process_time(), "rss": resident()}


def say(message: Mapping[str, object]) -> None:
    """Write one line of the protocol."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _python_heap() -> int:
    """Bytes in allocated blocks of the small-object allocator, from its own report on stderr."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            sys._debugmallocstats()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        file.seek(0)
        found = re.search(rb"# bytes in allocated blocks\s*=\s*([\d,]+)", file.read())
    return int(found[1].replace(b",", b"")) if found else 0


_MALLINFO = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in _MALLINFO)


def _c_heap(libc: ctypes.CDLL) -> int:
    if not hasattr(libc, "mallinfo2"):  # glibc before 2.33, musl, macOS
        return 0
    libc.mallinfo2.restype = _Mallinfo
    info = libc.mallinfo2()
    return int(info.uordblks + info.hblkhd)
