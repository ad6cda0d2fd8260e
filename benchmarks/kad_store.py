"""The store on sqlite: how long it takes to add and to find provider records. Wall time.

python benchmarks/kad_store.py                     1,000,000 records, about five minutes
python benchmarks/kad_store.py --records 100000
python benchmarks/kad_store.py --directory /data   on that disk (default: the temporary one)

Added is by 10,000 peers, each record in a transaction of its own; values are put with everything
on the disk before the call returns.
"""

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parent.parent / "core"))
sys.path.insert(0, str(Path(__file__).parent.parent / "runtimes"))

from anyp2p.providers.sqlite_store import SqliteStore
from anyp2p_core import multihash
from anyp2p_core.kad.store import StoredRecord
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

NOW = 1_700_000_000.0


def timed(name: str, count: int, call: Callable[[int], object]) -> None:
    """Call it so many times, and print what one call takes."""
    times = []
    for number in range(count):
        started = perf_counter()
        call(number)
        times.append(perf_counter() - started)
    times.sort()
    cells = [f"{times[int(count * part)] * 1e6:9.0f} us" for part in (0.5, 0.9, 0.99, 0.999)]
    print(f"  {name:24}", *cells, f"{times[-1] * 1e3:9.1f} ms", flush=True)


def run(file: Path, records: int) -> None:
    per_key = 4
    keys = [multihash.sha2_256(b"key %d" % n) for n in range(max(records // per_key, 1))]
    peers = [PeerId(multihash.sha2_256(b"peer %d" % n)) for n in range(10_000)]
    addresses = [
        tuple(Multiaddr(f"/ip4/198.51.100.{n % 250 + 1}/tcp/{port}") for port in (4001, 4002))
        for n in range(len(peers))
    ]
    draw = random.Random(7)
    with SqliteStore(file, max_provider_keys=records, max_records=10_000, share=1.0) as store:
        print(
            f"  {'':24}", *(f"{name:>12}" for name in ("median", "90 %", "99 %", "99.9 %", "most"))
        )

        def add(number: int) -> None:
            who = (number * 7919 + number // len(keys)) % len(peers)
            assert store.add_provider(keys[number % len(keys)], peers[who], addresses[who], NOW)

        timed(f"add, 1 to {records}", records, add)
        held = store._db.execute("SELECT count(*) FROM providers").fetchone()[0]
        timed("add again", 20_000, lambda _: add(draw.randrange(records)))

        def find(_: int) -> None:
            assert store.providers(draw.choice(keys), NOW)

        timed("find", 20_000, find)
        timed("find nothing", 20_000, lambda n: store.providers(b"none %d" % n, NOW))
        value = bytes(1000)
        timed("put 1 kB, on the disk", 2000, lambda n: store.put(
            StoredRecord(b"/v/%d" % n, value, NOW, NOW + 1e5, b"sender"), NOW))  # fmt: skip
        timed("get", 2000, lambda n: store.get(b"/v/%d" % n, NOW))
    size = os.path.getsize(file)
    started = perf_counter()
    SqliteStore(file).close()
    opening = perf_counter() - started
    print(f"  {held} records of {len(keys)} keys, {size / 2**20:.0f} MiB, {size / held:.0f} B each")
    print(f"  opened again in {opening:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the store on sqlite.")
    parser.add_argument("--records", type=int, default=1_000_000, help="default: 1,000,000")
    parser.add_argument("--directory", help="where to put the file")
    args = parser.parse_args()
    print(f"provider records in sqlite, {args.records} (needed: medians under 1000 us)")
    with tempfile.TemporaryDirectory(dir=args.directory) as directory:
        run(Path(directory) / "store.sqlite", args.records)


if __name__ == "__main__":
    main()
