"""anyp2p.keyfile"""

import base64
import os
import stat
from pathlib import Path

import pytest
import vectors

from anyp2p import keyfile
from anyp2p.keyfile import KeyFileError, KeyFileExists, KeyFileMissing, load, save
from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsEntropy
from anyp2p_core.crypto import KeyType
from anyp2p_core.errors import LocalError
from anyp2p_core.keys import PrivateKey

CRYPTO = Cryptography()
MESSAGES = [bytes.fromhex(key["private"]) for key in vectors.load("peer_ids")["keys"]]
ID = vectors.load("peer_ids")["keys"][0]["base58"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "identity.key"


@pytest.fixture
def key() -> PrivateKey:
    return PrivateKey.decode(MESSAGES[0], CRYPTO)


def put(path: Path, data: bytes, mode: int = 0o600) -> None:
    path.write_bytes(data)
    path.chmod(mode)


@pytest.mark.parametrize("kind", list(KeyType))
def test_a_key_comes_back(kind: KeyType, path: Path) -> None:
    made = PrivateKey.generate(CRYPTO, OsEntropy(), kind)
    save(path, made)
    assert load(path, CRYPTO).peer_id == made.peer_id
    assert load(str(path), CRYPTO).encode() == made.encode()


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_the_file_is_the_message_and_only_its_owner_can_touch_it(
    mask: int, path: Path, key: PrivateKey
) -> None:
    before = os.umask(mask)
    try:
        save(path, key)
    finally:
        os.umask(before)
    assert path.read_bytes() == MESSAGES[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_on_the_disk_when_save_returns(
    path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        assert path.stat().st_size == len(MESSAGES[0])
        real(fd)

    monkeypatch.setattr(keyfile.os, "fsync", fsync)
    save(path, key)
    assert synced == ["file", "directory"]


def test_a_directory_that_cannot_be_synced_is_no_failure(
    path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError("not supported")

    monkeypatch.setattr(keyfile.os, "fsync", fsync)
    save(path, key)
    assert load(path, CRYPTO).peer_id == key.peer_id


def test_nothing_is_overwritten(path: Path, key: PrivateKey) -> None:
    put(path, b"precious")
    with pytest.raises(KeyFileExists, match="never overwritten") as caught:
        save(path, key)
    assert isinstance(caught.value, LocalError)
    assert isinstance(caught.value, FileExistsError)
    assert path.read_bytes() == b"precious"


def test_a_link_is_not_followed_when_a_file_is_made(
    path: Path, tmp_path: Path, key: PrivateKey
) -> None:
    target = tmp_path / "target"
    path.symlink_to(target)
    with pytest.raises(KeyFileError):
        save(path, key)
    assert not target.exists()


def test_a_file_that_cannot_be_made(tmp_path: Path, key: PrivateKey) -> None:
    with pytest.raises(KeyFileError, match="cannot be created: No such file"):
        save(tmp_path / "missing" / "identity.key", key)


def test_a_file_that_cannot_be_written_is_removed(
    path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keyfile.os, "fsync", fsync)
    with pytest.raises(KeyFileError, match="No space left"):
        save(path, key)
    assert not path.exists()


def test_simulated_keys_are_not_saved(path: Path) -> None:
    with pytest.raises(KeyFileError, match="seeded entropy"):
        save(path, PrivateKey.generate(CRYPTO, lambda n: b"\1" * n))
    assert not path.exists()


@pytest.mark.parametrize("message", MESSAGES)
def test_base64_is_read_as_well(message: bytes, path: Path) -> None:
    text = base64.b64encode(message)
    wrapped = base64.encodebytes(message)
    for content in (text, text + b"\n", b"\r\n  " + text, wrapped):
        put(path, content)
        assert load(path, CRYPTO).encode() == message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        MESSAGES[0][:-1],
        MESSAGES[0] + b"\n",
        b" " + MESSAGES[0],
        base64.b64encode(MESSAGES[0])[:-2],
        base64.b64encode(MESSAGES[0])[:-4],
        base64.urlsafe_b64encode(b"\x08\x01\x12\x40" + b"\xff" * 64),
        b"!" + base64.b64encode(MESSAGES[0]),
        MESSAGES[0].hex().encode(),
        b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n",
        b'{"Identity": {}}',
        b"\xff" * 100,
        bytes(64 * 1024),
    ],
)
def test_other_content_is_refused(content: bytes, path: Path) -> None:
    put(path, content)
    with pytest.raises(KeyFileError, match="holds no libp2p private key") as caught:
        load(path, CRYPTO)
    assert str(path) in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None  # no frame that holds data


def test_a_missing_file(path: Path) -> None:
    with pytest.raises(KeyFileMissing, match="does not exist") as caught:
        load(path, CRYPTO)
    assert isinstance(caught.value, LocalError)
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o660, 0o666, 0o610, 0o777])
def test_files_that_others_can_touch_are_refused(mode: int, path: Path) -> None:
    put(path, MESSAGES[0], mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:o}.*chmod 600 {path}"):
        load(path, CRYPTO)
    path.chmod(0o600)
    assert str(load(path, CRYPTO).peer_id) == ID


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_files_of_their_owner_alone_are_read(mode: int, path: Path) -> None:
    put(path, MESSAGES[0], mode)
    load(path, CRYPTO)


def test_files_of_another_user_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(path, MESSAGES[0])
    other = os.geteuid() + 1
    monkeypatch.setattr(keyfile.os, "geteuid", lambda: other)
    with pytest.raises(KeyFileError, match=f"chown {other} {path}"):
        load(path, CRYPTO)


def test_a_large_file_is_not_read(path: Path) -> None:
    put(path, bytes(64 * 1024 + 1))
    with pytest.raises(KeyFileError, match="at most 65536"):
        load(path, CRYPTO)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for path in (fifo, tmp_path, Path("/dev/null")):
        with pytest.raises(KeyFileError, match="not a regular file"):
            load(path, CRYPTO)


def test_a_link_to_a_good_file_is_read(path: Path, tmp_path: Path, key: PrivateKey) -> None:
    save(path, key)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert load(link, CRYPTO).peer_id == key.peer_id
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(KeyFileError, match="cannot be read"):
        load(link, CRYPTO)


def test_without_posix_there_is_one_clear_sentence(
    path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyfile.os, "name", "nt")
    for call in (lambda: save(path, key), lambda: load(path, CRYPTO)):
        with pytest.raises(LocalError, match="POSIX"):
            call()
