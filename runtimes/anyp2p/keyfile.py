"""Identity keys in files that only their owner can touch.

    save    new file, mode 600 --> PrivateKey message, raw
    load    owner and mode checked --> raw, or base64 text

The format is the libp2p PrivateKey message as it is, unencrypted: other implementations read it.
``load`` also takes its base64 text, which is what the configuration of other programs holds.
The two cannot be confused: a message starts with a control character, base64 has none. PEM and
other formats are not guessed at. POSIX only, because elsewhere these permissions mean nothing.
"""

import os
import stat
from base64 import b64decode
from contextlib import suppress
from pathlib import Path

from anyp2p_core.crypto import Crypto
from anyp2p_core.errors import DecodeError, LocalError
from anyp2p_core.keys import PrivateKey

MAX_SIZE = 64 * 1024
"""The largest file that ``load`` reads, in bytes."""


class KeyFileError(LocalError, OSError):
    """The key file cannot be used; the message says what to do about it."""


class KeyFileMissing(KeyFileError, FileNotFoundError):
    """There is no such file."""


class KeyFileExists(KeyFileError, FileExistsError):
    """There is one already, and a key is never overwritten."""


def save(path: str | os.PathLike[str], key: PrivateKey) -> None:
    """Write the key to a new file with mode 600, and return when it is on the disk.

    Raises KeyFileError; a file that could not be written in full is removed.
    """
    _need_posix()
    path = Path(path)
    if key.simulated:
        raise KeyFileError(
            f"{path}: this key was made from seeded entropy, so anybody can make it again; "
            "generate one with anyp2p.providers.entropy.OsEntropy"
        )
    data = key.encode()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except FileExistsError:
        raise KeyFileExists(
            f"{path} exists and is never overwritten: move it away, or load it"
        ) from None
    except OSError as error:
        raise KeyFileError(f"{path} cannot be created: {error.strerror}") from None
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise KeyFileError(f"{path} could not be written: {error.strerror}") from None
    _sync_directory(path.parent)


def load(path: str | os.PathLike[str], crypto: Crypto) -> PrivateKey:
    """Read the key from a file that nobody but its owner, who must be us, can read or write.

    Raises KeyFileError.
    """
    _need_posix()
    path = Path(path)
    try:
        # Not blocking, or a named pipe could hold us up.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _check(path, os.fstat(fd))
            with open(fd, "rb", closefd=False) as file:
                data = file.read(MAX_SIZE)
        finally:
            os.close(fd)
    except KeyFileError:
        raise
    except FileNotFoundError:
        raise KeyFileMissing(f"{path} does not exist: make a key and save it first") from None
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return PrivateKey.decode(_binary(data), crypto)
    except DecodeError as error:
        reason = str(error)
    raise KeyFileError(f"{path} holds no libp2p private key: {reason}")


def _need_posix() -> None:
    if os.name != "posix":
        raise LocalError("key files need POSIX permissions: store key.encode() in another way")


def _check(path: Path, status: os.stat_result) -> None:
    """The open file and not its name is judged: the name may mean another file by now."""
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"{path} is not a regular file")
    if status.st_uid != os.geteuid():
        raise KeyFileError(
            f"{path} belongs to user {status.st_uid} and we run as {os.geteuid()}: "
            f"chown {os.geteuid()} {path}"
        )
    if status.st_mode & 0o077:
        raise KeyFileError(
            f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):o}): chmod 600 {path}"
        )
    if status.st_size > MAX_SIZE:
        raise KeyFileError(f"{path} has {status.st_size} bytes; a key file has at most {MAX_SIZE}")


def _binary(data: bytes) -> bytes:
    """The PrivateKey message in the file's content."""
    text = b"".join(data.split())
    if not text or text[0] < 0x20:
        return data
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise DecodeError("it is neither the raw message nor base64") from None


def _sync_directory(path: Path) -> None:
    """Make a new name survive a power failure, where the system can do that for directories."""
    with suppress(OSError):  # some network file systems refuse; the file itself is on the disk
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
