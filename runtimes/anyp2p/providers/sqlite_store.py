"""A store for ``Kad`` in one file that survives crashes: sqlite3 in WAL mode.

    with SqliteStore("records.sqlite") as store:
        async with Host(dht=Kad(KadConfig(server=True), store=store)) as host:
            ...

    put, set_own       on the disk before they return: others, or the application, count on it
    add_provider       with the system before it returns: nothing is lost when this process is
                       killed; when the power fails the last ones may be, which providers repeat
    find               reads; which keys are asked for is written down now and then, all at once

    file is new -> schema 1         ours -> opened       newer, foreign, damaged -> StoreError

The caps and the order in which things make room are those of ``MemoryStore``. Times are wall-clock
seconds since 1970. One process at a time has the file, and within it one thread at a time.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from hashlib import sha256
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from anyp2p_core import varint
from anyp2p_core.errors import LocalError
from anyp2p_core.kad.messages import MAX_VALUE
from anyp2p_core.kad.providers import (
    ADDRESS_VALIDITY,
    MAX_ADDRESSES,
    MAX_KEYS,
    MAX_PER_KEY,
    SHARE,
    VALIDITY,
    Provider,
)
from anyp2p_core.kad.store import MAX_RECORDS, StoredRecord
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

P = ParamSpec("P")
T = TypeVar("T")

APPLICATION_ID = 0x61703270
"""The bytes "ap2p" in the file's header say that it is a store of ours."""
VERSION = 1
"""Of the schema."""
MAX_USED = 4096
"""Keys that were asked for and whose use is not written down yet."""
SWEEP_BATCH = 20_000
"""Provider records that one sweep forgets at most: about a tenth of a second."""
CHECKED = 64 * 1024 * 1024
"""Files up to this size, in bytes, are checked as a whole when they are opened."""

_SCHEMA = """
CREATE TABLE records (
    key BLOB PRIMARY KEY, value BLOB NOT NULL, received REAL NOT NULL, expires REAL NOT NULL,
    sender BLOB NOT NULL, turn INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX records_of_sender ON records (sender, turn);
CREATE INDEX records_expire ON records (expires);
CREATE TABLE peers (
    id INTEGER PRIMARY KEY, peer BLOB NOT NULL UNIQUE, addresses BLOB NOT NULL DEFAULT x'',
    fresh_until REAL NOT NULL DEFAULT 0, keys INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE keys (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL);
CREATE INDEX keys_by_use ON keys (used);
CREATE TABLE providers (
    key INTEGER NOT NULL, peer INTEGER NOT NULL, turn INTEGER NOT NULL, renewed INTEGER NOT NULL,
    expires REAL NOT NULL, PRIMARY KEY (key, peer)
) WITHOUT ROWID;
CREATE INDEX providers_of_peer ON providers (peer, renewed);
CREATE INDEX providers_expire ON providers (expires);
CREATE TABLE own (key BLOB NOT NULL UNIQUE, said REAL NOT NULL, turn INTEGER PRIMARY KEY);
CREATE TABLE counts (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counts VALUES ('turn', 0), ('keys', 0), ('records', 0);

CREATE TRIGGER key_added AFTER INSERT ON keys BEGIN
    UPDATE counts SET n = n + 1 WHERE name = 'keys';
END;
CREATE TRIGGER key_removed AFTER DELETE ON keys BEGIN
    UPDATE counts SET n = n - 1 WHERE name = 'keys';
END;
CREATE TRIGGER record_added AFTER INSERT ON records BEGIN
    UPDATE counts SET n = n + 1 WHERE name = 'records';
END;
CREATE TRIGGER record_removed AFTER DELETE ON records BEGIN
    UPDATE counts SET n = n - 1 WHERE name = 'records';
END;
CREATE TRIGGER provider_added AFTER INSERT ON providers BEGIN
    UPDATE peers SET keys = keys + 1 WHERE id = new.peer;
END;
CREATE TRIGGER provider_removed AFTER DELETE ON providers BEGIN
    UPDATE peers SET keys = keys - 1 WHERE id = old.peer;
    DELETE FROM peers WHERE id = old.peer AND keys = 0;
    DELETE FROM keys WHERE id = old.key
        AND NOT EXISTS (SELECT 1 FROM providers WHERE key = old.key);
END;
"""


_KEY_ID = "SELECT id FROM keys WHERE key = ?"
_PEER = "SELECT id, keys FROM peers WHERE peer = ?"


class StoreError(LocalError):
    """The file cannot be opened, read or written; the message names it and says why."""


def _typed(
    method: "Callable[Concatenate[SqliteStore, P], T]",
) -> "Callable[Concatenate[SqliteStore, P], T]":
    """Make what sqlite raises a StoreError."""

    @wraps(method)
    def call(self: "SqliteStore", /, *args: P.args, **options: P.kwargs) -> T:
        try:
            return method(self, *args, **options)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {_reason(error)}") from error

    return call


class SqliteStore:
    """A ``Store`` in a file. ``close`` it, or use it with ``with``; a crash does no harm."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_records: int = MAX_RECORDS,
        max_value: int = MAX_VALUE,
        max_provider_keys: int = MAX_KEYS,
        max_providers_per_key: int = MAX_PER_KEY,
        share: float = SHARE,
    ) -> None:
        """``path`` is made if it does not exist. StoreError if it cannot be used.

        ``share``: the part of all records, and of all provided keys, that one peer may have.
        """
        self.path = os.fspath(path)
        self._max_records = max_records
        self._max_value = max_value
        self._record_share = max(int(max_records * share), 1)
        self._max_keys = max_provider_keys
        self._per_key = max_providers_per_key
        self._key_share = max(int(max_provider_keys * share), 1)
        self._used: dict[int, int] = {}
        """Ids of keys that were asked for, and when."""
        self._turn = 0
        self._db = _open(self.path)
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            raise StoreError(f"{self.path}: {_reason(error)}") from error
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Write down what is left and give the file back. Harmless when repeated."""
        with suppress(sqlite3.Error):  # closed already, or a full disk: it is not worth more
            self._note_uses()
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Values.

    @_typed
    def put(self, record: StoredRecord, wall: float) -> bool:
        """Store a record; False if it is too long, has expired, or everything here is our own."""
        if len(record.value) > self._max_value or record.expires <= wall:
            return False
        with self._lasting():
            self._execute("DELETE FROM records WHERE key = ?", record.key)
            share = self._record_share
            if record.sender and self._count_of_sender(record.sender, share) >= share:
                self._drop_oldest_of(record.sender)
            elif self._count("records") >= self._max_records:
                self._execute("DELETE FROM records WHERE expires <= ?", wall)
                if self._count("records") >= self._max_records:
                    busiest = self._row(
                        "SELECT sender FROM records WHERE sender > x'' GROUP BY sender"
                        " ORDER BY count(*) DESC, min(turn) LIMIT 1"
                    )
                    if busiest is None:
                        return False
                    self._drop_oldest_of(busiest[0])
            self._execute(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)",
                record.key, record.value, record.received, record.expires, record.sender,
                self._next_turn(),
            )  # fmt: skip
        return True

    @_typed
    def get(self, key: bytes, wall: float) -> StoredRecord | None:
        """The record of a key, unless it has expired."""
        query = "SELECT key, value, received, expires, sender FROM records WHERE key = ?"
        found = self._row(query, key)
        if found is None:
            return None
        record = StoredRecord(*found)
        if record.expires <= wall:
            with self._transaction():
                self._execute("DELETE FROM records WHERE key = ?", key)
            return None
        return record

    @_typed
    def remove(self, key: bytes) -> None:
        """Forget a record."""
        with self._lasting():
            self._execute("DELETE FROM records WHERE key = ?", key)

    # Providers.

    @_typed
    def add_provider(
        self, key: bytes, peer: PeerId, addresses: tuple[Multiaddr, ...], wall: float
    ) -> bool:
        """Note that a peer provides a key; False if closer ones fill its place."""
        binary = bytes(peer)
        with self._transaction():
            key_id = self._id(_KEY_ID, key)
            if key_id and not self._is_known(key_id, binary):
                if not self._has_room(key_id, key, binary, wall):
                    return False
                key_id = self._id(_KEY_ID, key)  # its last record may have made room
            turn = self._next_turn()
            if key_id:
                self._execute("UPDATE keys SET used = ? WHERE id = ?", turn, key_id)
            else:
                key_id = self._insert("INSERT INTO keys (key, used) VALUES (?, ?)", key, turn)
            peer_id, count = self._row(_PEER, binary) or (0, 0)
            if not peer_id:
                peer_id = self._insert("INSERT INTO peers (peer) VALUES (?)", binary)
            if addresses:
                self._execute(
                    "UPDATE peers SET addresses = ?, fresh_until = ? WHERE id = ?",
                    _pack(addresses[:MAX_ADDRESSES]), wall + ADDRESS_VALIDITY, peer_id,
                )  # fmt: skip
            self._execute(
                "INSERT INTO providers VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
                " SET renewed = excluded.renewed, expires = excluded.expires",
                key_id, peer_id, turn, turn, wall + VALIDITY,
            )  # fmt: skip
            # What is too much goes afterwards, so that who has only one key stays known.
            if count >= self._key_share and self._row(_PEER, binary)[1] > self._key_share:
                self._drop_oldest_key_of(peer_id)
            if self._count("keys") > self._max_keys:
                self._drop_oldest_key()
        return True

    @_typed
    def providers(self, key: bytes, wall: float) -> list[Provider]:
        """Who provides a key, in the order in which they first said so."""
        key_id = self._id(_KEY_ID, key)
        if not key_id:
            return []
        self._turn += 1
        self._used[key_id] = self._turn
        if len(self._used) >= MAX_USED:
            self._note_uses()
        found: list[Provider] = []
        expired = False
        for peer, addresses, fresh_until, expires in self._db.execute(
            "SELECT peers.peer, addresses, fresh_until, expires FROM providers"
            " JOIN peers ON peers.id = providers.peer WHERE key = ? ORDER BY turn",
            (key_id,),
        ):
            if expires <= wall:
                expired = True
            else:
                fresh = tuple(_unpack(addresses)) if fresh_until > wall else ()
                found.append(Provider(PeerId(peer), fresh))
        if expired:
            with self._transaction():
                self._expire(key_id, wall)
        return found

    @_typed
    def remove_provider(self, key: bytes, peer: PeerId) -> None:
        """Forget that a peer provides a key."""
        with self._transaction():
            self._execute(
                "DELETE FROM providers WHERE key = (SELECT id FROM keys WHERE key = ?)"
                " AND peer = (SELECT id FROM peers WHERE peer = ?)",
                key, bytes(peer),
            )  # fmt: skip

    # What we provide ourselves.

    @_typed
    def set_own(self, key: bytes, wall: float) -> None:
        """Note that we provide a key and said so at ``wall``."""
        with self._lasting():
            self._execute("DELETE FROM own WHERE key = ?", key)
            self._execute("INSERT INTO own VALUES (?, ?, ?)", key, wall, self._next_turn())

    @_typed
    def remove_own(self, key: bytes) -> None:
        """We do not provide a key any more."""
        with self._lasting():
            self._execute("DELETE FROM own WHERE key = ?", key)

    @_typed
    def own_keys(self) -> dict[bytes, float]:
        """The keys that we provide and when we last said so, oldest first."""
        return dict(self._db.execute("SELECT key, said FROM own ORDER BY turn").fetchall())

    @_typed
    def sweep(self, wall: float) -> int:
        """Forget what has expired, ``SWEEP_BATCH`` provider records at most; returns how many."""
        with self._transaction():
            count = self._execute("DELETE FROM records WHERE expires <= ?", wall)
            count += self._execute(
                "DELETE FROM providers WHERE (key, peer) IN (SELECT key, peer FROM providers"
                " INDEXED BY providers_expire WHERE expires <= ? LIMIT ?)",
                wall, SWEEP_BATCH,
            )  # fmt: skip
        self._note_uses()
        return count

    # Inside: making room.

    def _is_known(self, key_id: int, peer: bytes) -> bool:
        """Whether a peer provides a key already."""
        query = "SELECT 1 FROM providers JOIN peers ON peers.id = providers.peer"
        query += " WHERE key = ? AND peers.peer = ?"
        return bool(key_id and self._id(query, key_id, peer))

    def _has_room(self, key_id: int, key: bytes, peer: bytes, wall: float) -> bool:
        """Whether a key can have one more provider; the farthest goes if the new one is closer."""
        query = "SELECT peers.id, peers.peer FROM providers JOIN peers"
        query += " ON peers.id = providers.peer WHERE key = ?"
        known = self._db.execute(query, (key_id,)).fetchall()
        if len(known) >= self._per_key:
            self._expire(key_id, wall)
            known = self._db.execute(query, (key_id,)).fetchall()
        if len(known) < self._per_key:
            return True
        target = _place(key)
        farthest = max(known, key=lambda one: _place(one[1]) ^ target)
        if _place(peer) ^ target > _place(farthest[1]) ^ target:
            return False
        self._execute("DELETE FROM providers WHERE key = ? AND peer = ?", key_id, farthest[0])
        return True

    def _expire(self, key_id: int, wall: float) -> None:
        self._execute("DELETE FROM providers WHERE key = ? AND expires <= ?", key_id, wall)

    def _drop_oldest_key_of(self, peer_id: int) -> None:
        self._execute(
            "DELETE FROM providers WHERE (key, peer) IN"
            " (SELECT key, peer FROM providers WHERE peer = ? ORDER BY renewed LIMIT 1)",
            peer_id,
        )

    def _drop_oldest_key(self) -> None:
        """Of all keys the one that nobody asked for or provided for longest."""
        self._write_uses()
        oldest = self._id("SELECT id FROM keys ORDER BY used LIMIT 1")
        self._execute("DELETE FROM providers WHERE key = ?", oldest)

    def _drop_oldest_of(self, sender: bytes) -> None:
        self._execute(
            "DELETE FROM records WHERE key ="
            " (SELECT key FROM records WHERE sender = ? ORDER BY turn LIMIT 1)",
            sender,
        )

    def _count_of_sender(self, sender: bytes, limit: int) -> int:
        query = "SELECT count(*) FROM (SELECT 1 FROM records WHERE sender = ? LIMIT ?)"
        return self._id(query, sender, limit)

    # Inside: the database.

    def _prepare(self) -> None:
        db = self._db
        # Before anything else: it says so if another process has the file.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        application, version = self._id("PRAGMA application_id"), self._id("PRAGMA user_version")
        if not application and not version and not self._id("SELECT count(*) FROM sqlite_master"):
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
                f" PRAGMA user_version = {VERSION}; COMMIT;"
            )
        elif application != APPLICATION_ID:
            raise StoreError(f"{self.path} is a database of another program: name another file")
        elif version != VERSION:
            raise StoreError(
                f"{self.path} has schema {version}, this version of anyp2p reads {VERSION}: "
                "update anyp2p, or name another file"
            )
        else:
            db.execute("PRAGMA journal_mode = WAL")
            if os.path.getsize(self.path) <= CHECKED:
                [(verdict,), *_] = db.execute("PRAGMA quick_check(1)").fetchall()
                if verdict != "ok":
                    raise StoreError(f"{self.path} is damaged ({verdict}): remove it")
        db.execute("BEGIN IMMEDIATE")  # takes the lock, for good
        db.execute("COMMIT")
        db.execute("PRAGMA synchronous = NORMAL")
        self._turn = self._count("turn")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or nothing, safe from the end of this process."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    @contextmanager
    def _lasting(self) -> Iterator[None]:
        """The same, safe from the end of the machine's power too."""
        self._db.execute("PRAGMA synchronous = FULL")
        try:
            with self._transaction():
                yield
        finally:
            self._db.execute("PRAGMA synchronous = NORMAL")

    def _note_uses(self) -> None:
        if self._used:
            with self._transaction():
                self._write_uses()

    def _write_uses(self) -> None:
        """Write down which keys were asked for, so that they do not make room soon."""
        used, self._used = self._used, {}
        # An id may stand for another key by now, that came later.
        query = "UPDATE keys SET used = max(used, ?) WHERE id = ?"
        self._db.executemany(query, [(turn, key_id) for key_id, turn in used.items()])
        self._next_turn()

    def _next_turn(self) -> int:
        """A number that orders what happened; read again when the file is opened."""
        self._turn += 1
        self._execute("UPDATE counts SET n = ? WHERE name = 'turn'", self._turn)
        return self._turn

    def _count(self, name: str) -> int:
        return self._id("SELECT n FROM counts WHERE name = ?", name)

    def _id(self, query: str, *args: Any) -> int:
        """The number that a query gives, 0 if it gives none."""
        found = self._row(query, *args)
        return found[0] if found is not None else 0

    def _row(self, query: str, *args: Any) -> Any:
        return self._db.execute(query, args).fetchone()

    def _execute(self, query: str, *args: Any) -> int:
        return self._db.execute(query, args).rowcount

    def _insert(self, query: str, *args: Any) -> int:
        return self._db.execute(query, args).lastrowid or 0


def _open(path: str) -> sqlite3.Connection:
    try:
        # The host may be made in one thread and run in another one.
        return sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {_reason(error)}") from error


def _reason(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorname", "")
    if code.startswith("SQLITE_BUSY") or code.startswith("SQLITE_LOCKED"):
        return "another process uses this file"
    if code == "SQLITE_NOTADB":
        return "this is no database: name another file"
    if code.startswith("SQLITE_CORRUPT"):
        return f"the file is damaged ({error}): remove it"
    return str(error)


def _place(data: bytes) -> int:
    return int.from_bytes(sha256(data).digest())


def _pack(addresses: tuple[Multiaddr, ...]) -> bytes:
    return b"".join(varint.delimited(bytes(one)) for one in addresses)


def _unpack(data: bytes) -> Iterator[Multiaddr]:
    position = 0
    while position < len(data):
        size, position = varint.decode(data, position)
        yield Multiaddr.from_bytes(data[position : position + size])
        position += size
