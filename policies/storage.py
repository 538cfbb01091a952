"""A small file on disk: written in one step, vouched for by a signature beside it."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from metaverify.policies.document import SIZE_LIMIT, PolicyFileError, read_at_most
from metaverify.policies.signatures import is_signed, sign

__all__ = ["read_signed", "replacing", "signature_path", "write_atomically"]

SIGNATURES_LIMIT = 1 << 12
LONG_NAME = 255 - len(f"..{'0' * 16}.tmp")  # bytes of a name, of which file systems take 255
READS = 3  # of a file and its signatures, while they change
POSIX = os.name == "posix"
_TO_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def write_atomically(path: str | os.PathLike[str], data: bytes, *, key: bytes | None = None) -> None:
    """Put ``data`` at ``path`` in one step: a synced temporary file beside it, renamed over it.

    A link is followed.  What is replaced keeps its mode and, as far as that is allowed, its owner.  What killed writers
    of the same file left is removed first.

    With a key the signature is put beside it before, and one of what stands there now is kept there too, so that a
    reader finds one for what it has read at every moment of the exchange; other exports into the folder wait for that.

    Raises:
        OSError: it cannot be written.
        PolicyFileError: E_NOTFILE, there is a pipe, a device or a folder.
    """
    target = _target(path)
    if key is None:
        _exchange(target, data)
        return
    line, beside = sign(data, key), _target(signature_path(path))
    with _alone(target.parent):
        lines = [line, *_signed_before(path, key)]
        _exchange(beside, "".join(f"{line}\n" for line in lines).encode())
        _exchange(target, data)


def _target(path: str | os.PathLike[str]) -> Path:
    """The file that is to be written: where a link leads to."""
    target = Path(path)
    if target.is_symlink():
        target = Path(os.path.realpath(target))
    found = _found(target)
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise PolicyFileError("E_NOTFILE", str(path), "is there already, and is no file; name a file")
    return target


def _found(target: Path) -> os.stat_result | None:
    try:
        return target.stat()
    except FileNotFoundError:
        return None


def _exchange(target: Path, data: bytes) -> None:
    with _replacing(target) as (file, _):
        file.write(data)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, Path]]:
    """A temporary file and its name, to be filled, which then takes the place of ``path``; see `write_atomically`."""
    with _replacing(_target(path)) as opened:
        yield opened


@contextmanager
def _replacing(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    _remove_stale(target)
    handle, temporary = _make_temporary(target)
    try:
        with os.fdopen(handle, "wb") as file:
            if POSIX and (found := _found(target)):
                _keep_owner_and_mode(handle, found)
            yield file, temporary
            file.flush()
            os.fsync(handle)
            if not POSIX:
                file.close()  # Windows renames no open file
            temporary.replace(target)  # still locked, so that nobody takes it for stale
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = os.fspath(target)  # a full disk names nothing by itself
        raise
    _sync_folder(target.parent)


def _keep_owner_and_mode(handle: int, found: os.stat_result) -> None:
    for owner, group in ((-1, found.st_gid), (found.st_uid, -1)):
        with suppress(PermissionError):  # only root gives files away
            os.fchown(handle, owner, group)
    with suppress(PermissionError):  # some file systems have one mode for all
        os.fchmod(handle, stat.S_IMODE(found.st_mode) & 0o777)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Other signed exports into this folder wait, where there are locks."""
    if not POSIX:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, wait=True)
        yield
    finally:
        os.close(handle)


def _make_temporary(target: Path) -> tuple[int, Path]:
    """A new file beside the target, locked for as long as its writer lives."""
    while True:
        temporary = target.with_name(f".{_stem(target)}.{os.urandom(8).hex()}.tmp")
        handle = os.open(temporary, _TO_MAKE, 0o666)
        try:
            if not POSIX or _lock(handle, wait=True) is None or os.fstat(handle).st_nlink:
                return handle, temporary
        except BaseException:
            os.close(handle)
            temporary.unlink(missing_ok=True)
            raise
        os.close(handle)  # taken for stale before it was locked


def _stem(target: Path) -> str:
    """What temporary files are named after: the target, or a hash where its name is nearly as long as one may be."""
    name = os.fsencode(target.name)
    return target.name if len(name) <= LONG_NAME else hashlib.sha256(name).hexdigest()


def _lock(handle: int, *, wait: bool) -> bool | None:
    """Whether an open file is now locked; None on a file system without locks."""
    import fcntl  # not there on Windows

    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_stale(target: Path) -> None:
    """Remove the temporary files of the target whose writers are dead: nobody holds their locks."""
    if not POSIX or not target.parent.is_dir():
        return
    name = re.compile(rf"\.{re.escape(_stem(target))}\.[0-9a-f]{{16}}\.tmp")
    for left in [entry.path for entry in os.scandir(target.parent) if name.fullmatch(entry.name)]:
        try:
            handle = os.open(left, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # gone, or not ours
            continue
        try:
            if _lock(handle, wait=False):
                Path(left).unlink(missing_ok=True)
        finally:
            os.close(handle)


def _sync_folder(folder: Path) -> None:
    if not POSIX:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def signature_path(path: str | os.PathLike[str]) -> Path:
    """Where the signatures of a file stand: beside it, with ``.sig`` after its name."""
    return Path(f"{os.fspath(path)}.sig")


def _signed_before(path: str | os.PathLike[str], key: bytes) -> list[str]:
    """The signature of what stands at ``path`` now, if it has one."""
    try:
        there = sign(read_at_most(path, SIZE_LIMIT, ""), key)
    except PolicyFileError:
        return []
    return [there] if there.encode() in _signatures(path) else []


def read_signed(path: str | os.PathLike[str], limit: int, way_out: str, key: bytes) -> bytes:
    """What is in a file, up to one byte above the limit, if a signature beside it is its own under this key.

    Both are read again where they changed meanwhile: an export may be under way.

    Raises:
        PolicyFileError: E_NOTFILE, with the way out, or E_SIGNATURE, there is no such signature.
        ValueError: the key is none.
    """
    data, lines = read_at_most(path, limit, way_out), _signatures(path)
    for _ in range(READS):
        if is_signed(data, lines, key):
            return data
        before = data, lines
        data, lines = read_at_most(path, limit, way_out), _signatures(path)
        if (data, lines) == before:
            break
    name = signature_path(path).name
    message = f"has no signature by this key in {name}: it was changed, or signed with another key or none"
    raise PolicyFileError("E_SIGNATURE", "", f"{message}; export it again with the key")


def _signatures(path: str | os.PathLike[str]) -> list[bytes]:
    """The lines of the file of signatures, none where it cannot be read."""
    try:
        return read_at_most(signature_path(path), SIGNATURES_LIMIT, "").split()
    except PolicyFileError:
        return []
