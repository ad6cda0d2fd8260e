"""The store on sqlite: what the one in memory does, and it survives crashes."""

import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from anyp2p.providers.sqlite_store import CHECKED, SWEEP_BATCH, SqliteStore, StoreError
from anyp2p_core import multihash
from anyp2p_core.errors import LocalError
from anyp2p_core.kad.providers import ADDRESS_VALIDITY, MAX_ADDRESSES, VALIDITY
from anyp2p_core.kad.store import MemoryStore, Store, StoredRecord
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

NOW = 1_700_000_000.0
ADDRESS = Multiaddr("/ip4/192.0.2.1/tcp/4001")


def peer(number: int) -> PeerId:
    return PeerId(multihash.sha2_256(b"peer %d" % number))


def record(
    key: bytes, value: bytes = b"value", sender: bytes = b"", age: float = 0
) -> StoredRecord:
    return StoredRecord(key, value, NOW - age, NOW + 100 - age, sender)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(path) as made:
        yield made


def test_what_is_stored_is_there_after_opening_again(path: Path) -> None:
    kept = record(b"/v/a", b"\0binary\xff", bytes(peer(1)))
    with SqliteStore(path) as store:
        a_store: Store = store
        assert a_store.put(kept, NOW)
        assert store.add_provider(b"key", peer(1), (ADDRESS, Multiaddr("/dns4/x/tcp/1")), NOW)
        assert store.add_provider(b"key", peer(2), (), NOW)
        for number, key in enumerate((b"one", b"two", b"one")):
            store.set_own(key, NOW + number)
    with SqliteStore(path) as store:
        assert store.get(b"/v/a", NOW) == kept
        assert store.get(b"/v/b", NOW) is None
        [first, second] = store.providers(b"key", NOW)
        assert (first.peer, second.peer) == (peer(1), peer(2))
        assert first.addresses == (ADDRESS, Multiaddr("/dns4/x/tcp/1"))
        assert second.addresses == ()
        assert list(store.own_keys().items()) == [(b"two", NOW + 1), (b"one", NOW + 2)]
        store.remove(b"/v/a")
        store.remove_provider(b"key", peer(1))
        store.remove_provider(b"none", peer(1))
        store.remove_own(b"one")
    with SqliteStore(path) as store:
        assert store.get(b"/v/a", NOW) is None
        assert [one.peer for one in store.providers(b"key", NOW)] == [peer(2)]
        assert store.own_keys() == {b"two": NOW + 1}


def test_what_has_expired_is_gone(store: SqliteStore) -> None:
    assert not store.put(record(b"/v/old", age=100), NOW)
    assert store.put(record(b"/v/a", age=99), NOW)
    assert store.get(b"/v/a", NOW + 0.5) is not None
    assert store.get(b"/v/a", NOW + 1) is None
    assert store.get(b"/v/a", NOW) is None  # really
    store.add_provider(b"key", peer(1), (ADDRESS,), NOW)
    store.add_provider(b"key", peer(2), (ADDRESS,), NOW + 10)
    later = NOW + ADDRESS_VALIDITY
    assert [one.addresses for one in store.providers(b"key", later)] == [(), (ADDRESS,)]
    later = NOW + VALIDITY
    assert [one.peer for one in store.providers(b"key", later)] == [peer(2)]
    assert [one.peer for one in store.providers(b"key", NOW)] == [peer(2)]
    for number in range(30):
        store.add_provider(b"%d" % number, peer(3), (), NOW)
        store.put(record(b"/v/%d" % number), NOW)
    assert store.sweep(NOW + VALIDITY) == 60
    assert store.sweep(NOW + VALIDITY) == 0
    assert counts(store) == {"keys": 1, "peers": 1, "providers": 1, "records": 0}


def counts(store: SqliteStore) -> dict[str, int]:
    """Rows, after checking that what the file says of them is right."""
    db = store._db
    tables = ("keys", "peers", "providers", "records")
    found = {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
    for name in ("keys", "records"):
        assert store._count(name) == found[name]
    wrong = (
        "SELECT count(*) FROM peers WHERE keys != (SELECT count(*) FROM providers WHERE peer = id)"
    )
    assert db.execute(wrong).fetchone() == (0,)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return found


def test_no_more_than_the_caps(path: Path) -> None:
    with SqliteStore(path, max_records=10, max_value=100, share=0.3) as store:
        assert not store.put(record(b"/v/long", bytes(101)), NOW)
        for number in range(5):  # three are its share
            assert store.put(record(b"/v/%d" % number, sender=b"flood"), NOW)
        assert [store.get(b"/v/%d" % number, NOW) is not None for number in range(5)] == (
            [False, False, True, True, True]
        )
        for number in range(7):
            assert store.put(record(b"/v/own%d" % number), NOW)
        assert store.put(record(b"/v/own7"), NOW)  # somebody else's goes
        assert store.get(b"/v/2", NOW) is None and store.get(b"/v/3", NOW) is not None
        assert store.put(record(b"/v/own8"), NOW) and store.put(record(b"/v/own9"), NOW)
        assert not store.put(record(b"/v/own10"), NOW)  # all of it is our own
        assert store.put(record(b"/v/own9", b"other"), NOW)
        assert counts(store)["records"] == 10
        assert store.put(StoredRecord(b"/v/x", b"", NOW, NOW + 999), NOW + 100)
        assert counts(store)["records"] == 1  # those that had expired made room


SMALL = {"max_provider_keys": 6, "max_providers_per_key": 3, "share": 0.5}

KEYS = st.integers(0, 8).map(lambda number: b"key %d" % number)
PEERS = st.integers(0, 5).map(peer)
STEP = st.one_of(
    st.tuples(st.just("add_provider"), KEYS, PEERS, st.sampled_from([(), (ADDRESS,)])),
    st.tuples(st.just("add_provider"), KEYS, PEERS, st.just((ADDRESS,) * 9)),
    st.tuples(st.just("providers"), KEYS),
    st.tuples(st.just("remove_provider"), KEYS, PEERS),
    st.tuples(st.just("pass"), st.sampled_from([1.0, 3600.0, VALIDITY / 2])),
    st.tuples(st.just("reopen")),
    st.tuples(st.just("own"), KEYS),
)


@given(
    steps=st.lists(STEP, max_size=60),
    share=st.sampled_from([0.1, 0.5, 1.0]),
    room=st.integers(1, 3),
)
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_same_as_in_memory(
    steps: list[tuple[object, ...]], share: float, room: int, tmp_path: Path
) -> None:
    """The same answers, and the same ones make room, whatever happens in whatever order."""
    path = tmp_path / "model.sqlite"
    for suffix in ("", "-wal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    caps = {**SMALL, "share": share, "max_providers_per_key": room}
    model = MemoryStore(**caps)  # type: ignore[arg-type]
    store = SqliteStore(path, **caps)  # type: ignore[arg-type]
    wall = NOW
    try:
        for name, *args in steps:
            if name == "pass":
                wall += args[0]  # type: ignore[operator]
            elif name == "reopen":
                store.close()
                store = SqliteStore(path, **caps)  # type: ignore[arg-type]
            elif name == "own":
                for one in (model, store):
                    one.set_own(args[0], wall)  # type: ignore[attr-defined]
                assert list(store.own_keys().items()) == list(model.own_keys().items())
            else:
                more = [] if name == "remove_provider" else [wall]
                found = [getattr(one, str(name))(*args, *more) for one in (model, store)]
                assert found[0] == found[1]
        for number in range(9):
            key = b"key %d" % number
            assert store.providers(key, wall) == model.providers(key, wall)
        found_counts = counts(store)
        assert found_counts["keys"] == len(model._providers) <= 6
    finally:
        store.close()


def test_addresses_are_bounded(store: SqliteStore) -> None:
    many = tuple(Multiaddr(f"/ip4/192.0.2.1/tcp/{port}") for port in range(1, 100))
    store.add_provider(b"key", peer(1), many, NOW)
    [found] = store.providers(b"key", NOW)
    assert found.addresses == many[:MAX_ADDRESSES]


def test_uses_survive_and_decide_who_makes_room(path: Path) -> None:
    caps = {"max_provider_keys": 3, "share": 1.0}
    with SqliteStore(path, **caps) as store:  # type: ignore[arg-type]
        for number, key in enumerate((b"a", b"b", b"c")):
            store.add_provider(key, peer(number), (), NOW)
        store.providers(b"a", NOW)
    with SqliteStore(path, **caps) as store:  # type: ignore[arg-type]
        store.add_provider(b"d", peer(3), (), NOW)
        assert [bool(store.providers(key, NOW)) for key in (b"a", b"b", b"c", b"d")] == (
            [True, False, True, True]
        )


# Files that are not what they should be.


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()


def newer(path: Path) -> None:
    SqliteStore(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 2")
    db.close()


def truncated(path: Path) -> None:
    with SqliteStore(path) as store:
        for number in range(200):
            store.put(record(b"/v/%d" % number, bytes(500)), NOW)
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def scribbled(path: Path) -> None:
    truncated(path)
    data = bytearray(path.read_bytes())
    data[4096:8192] = b"\xee" * 4096
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: path.write_bytes(b"not a database at all" * 100), "is no database"),
        (foreign, "a database of another program"),
        (newer, "has schema 2, this version of anyp2p reads 1"),
        (truncated, "damaged"),
        (scribbled, "damaged"),
        (lambda path: path.mkdir(), "unable to open"),
    ],
)
def test_a_file_that_cannot_be_used(
    path: Path, make: Callable[[Path], object], complaint: str
) -> None:
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StoreError, match=complaint) as caught:
        SqliteStore(path)
    assert str(path) in str(caught.value) and isinstance(caught.value, LocalError)
    assert (path.read_bytes() if path.is_file() else b"") == before, "it was changed"


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    path.touch()
    SqliteStore(path).close()
    with SqliteStore(path) as store:
        assert store.own_keys() == {}


def test_one_process_at_a_time(path: Path, store: SqliteStore) -> None:
    with pytest.raises(StoreError, match="another process uses this file"):
        SqliteStore(path)
    store.set_own(b"key", NOW)
    store.close()
    store.close()
    with SqliteStore(path) as again:
        assert b"key" in again.own_keys()
    with pytest.raises(StoreError, match="closed"):
        store.own_keys()


def test_a_full_disk_is_a_typed_error_and_nothing_is_half_done(
    path: Path, store: SqliteStore
) -> None:
    store.put(record(b"/v/a", b"before"), NOW)
    store._db.execute("PRAGMA max_page_count = 1")  # sqlite keeps what there is
    with pytest.raises(StoreError, match="full"):
        for number in range(100):
            store.put(record(b"/v/%d" % number, bytes(10_000)), NOW)
    store._db.execute("PRAGMA max_page_count = 100000")
    assert store.put(record(b"/v/b", b"after"), NOW)
    found = [store.get(key, NOW) for key in (b"/v/a", b"/v/b")]
    assert [one.value for one in found if one is not None] == [b"before", b"after"]
    counts(store)


def test_from_another_thread(path: Path) -> None:
    store = SqliteStore(path)
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(store.put(record(b"/v/a"), NOW)))
    thread.start()
    thread.join()
    assert done == [True] and store.get(b"/v/a", NOW) is not None
    store.close()


# Crashes.

WRITER = """
import sys
from anyp2p.providers.sqlite_store import SqliteStore
from anyp2p_core.kad.store import StoredRecord
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId
from anyp2p_core import multihash

store = SqliteStore(sys.argv[1], max_records=10**6, share=1.0, max_provider_keys=10**6)
address = (Multiaddr("/ip4/192.0.2.1/tcp/4001"),)
for number in range(10**6):
    name = b"%d" % number
    assert store.put(StoredRecord(b"/v/" + name, name, 1e9, 2e9, b"s"), 1.5e9)
    assert store.add_provider(name, PeerId(multihash.sha2_256(name)), address, 1.5e9)
    store.set_own(name, number)
    print(number, flush=True)  # acknowledged
"""


@pytest.mark.parametrize("seed", range(3))
def test_kill_minus_9_loses_nothing_acknowledged(path: Path, seed: int) -> None:
    draw = random.Random(seed)
    seen = -1
    for _ in range(2):  # the second one opens what the first one left
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(draw.randrange(1, 40)):
                seen = int(process.stdout.readline())
            time.sleep(draw.random() * 0.01)
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().splitlines()
            seen = int(rest[-1]) if rest and rest[-1].isdigit() else seen
            process.wait()
        with SqliteStore(path, max_records=10**6, max_provider_keys=10**6) as store:
            own = store.own_keys()
            for number in range(seen + 1):
                name = b"%d" % number
                found = store.get(b"/v/" + name, 1.5e9)
                assert found is not None and found.value == name
                [provider] = store.providers(name, 1.5e9)
                assert provider.peer == PeerId(multihash.sha2_256(name))
                assert provider.addresses == (ADDRESS,) and own[name] == number
            found_counts = counts(store)
            assert found_counts["records"] >= found_counts["providers"] >= len(own) > seen
        with SqliteStore(path) as store:
            for key in store.own_keys():
                store.remove_own(key)


def test_synchronous_where_something_is_acknowledged(store: SqliteStore) -> None:
    """The disk has it before ``put`` and ``set_own`` return; providers are with the system."""
    modes: list[tuple[str, int]] = []

    def trace(statement: str) -> None:
        if statement == "COMMIT":
            modes.append((doing, synchronous()))

    def synchronous() -> int:
        store._db.set_trace_callback(None)
        mode: int = store._db.execute("PRAGMA synchronous").fetchone()[0]
        store._db.set_trace_callback(trace)
        return mode

    store._db.set_trace_callback(trace)
    doing = "put"
    store.put(record(b"/v/a"), NOW)
    doing = "set_own"
    store.set_own(b"a", NOW)
    doing = "add"
    store.add_provider(b"a", peer(1), (), NOW)
    store._db.set_trace_callback(None)
    assert modes == [("put", 2), ("set_own", 2), ("add", 1)]
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_fast_enough(path: Path) -> None:
    """The figure for a million is in benchmarks/kad_store.py."""
    with SqliteStore(path, max_provider_keys=10**6) as store:
        keys = [multihash.sha2_256(b"%d" % number) for number in range(1000)]
        peers = [peer(number) for number in range(50)]
        adding, finding = [], []
        for number in range(3000):
            start = time.perf_counter()
            store.add_provider(keys[number % 1000], peers[number % 47], (ADDRESS,), NOW)
            adding.append(time.perf_counter() - start)
        for key in keys:
            start = time.perf_counter()
            assert len(store.providers(key, NOW)) == 3
            finding.append(time.perf_counter() - start)
    assert statistics.median(adding) < 0.001
    assert statistics.median(finding) < 0.001


def test_a_sweep_is_bounded_and_large_files_open_at_once() -> None:
    assert SWEEP_BATCH <= 50_000 and CHECKED <= 1 << 27
