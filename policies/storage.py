"""A small file on disk: read in bounds, written in one step, vouched for by a signature beside it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from metaverify.policies.document import PolicyFileError
from metaverify.policies.signatures import is_signed, sign

__all__ = ["check_signature", "read_at_most", "signature_path", "write_atomically", "write_signature"]

SIGNATURES_LIMIT = 1 << 12
POSIX = os.name == "posix"
_OPENED = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def read_at_most(path: str | os.PathLike[str], limit: int, way_out: str) -> bytes:
    """What is in a file, up to one byte above the limit.

    Raises:
        PolicyFileError: E_NOTFILE, with the way out.
    """
    try:
        data = _read(path, limit + 1)
    except FileNotFoundError:
        raise PolicyFileError("E_NOTFILE", "", f"does not exist; {way_out}") from None
    except (OSError, ValueError) as error:  # a ValueError for a path with NUL
        reason = getattr(error, "strerror", None) or error
        raise PolicyFileError("E_NOTFILE", "", f"cannot be read: {reason}; {way_out}") from error
    if data is None:
        raise PolicyFileError("E_NOTFILE", "", f"is not a file; {way_out}")
    return data


def _read(path: str | os.PathLike[str], most: int) -> bytes | None:
    """What a file begins with; None where it is no plain file."""
    handle = os.open(path, os.O_RDONLY | _OPENED | getattr(os, "O_NONBLOCK", 0))  # a pipe is not waited for
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(handle)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Put ``data`` at ``path`` in one step: a synced temporary file beside it, renamed over it.

    What killed writers of the same file left is removed first.
    """
    target = Path(path)
    _remove_stale(target)
    handle, temporary = _make_temporary(target)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
            if not POSIX:
                file.close()  # Windows renames no open file
            temporary.replace(target)  # still locked, so that nobody takes it for stale
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _make_temporary(target: Path) -> tuple[int, Path]:
    """A new file beside the target, locked for as long as its writer lives."""
    while True:
        temporary = target.with_name(f".{target.name}.{os.urandom(8).hex()}.tmp")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPENED, 0o666)
        try:
            if not POSIX or _lock(handle, wait=True) is None or os.fstat(handle).st_nlink:
                return handle, temporary
        except BaseException:
            os.close(handle)
            temporary.unlink(missing_ok=True)
            raise
        os.close(handle)  # taken for stale before it was locked


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
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.tmp")
    for left in [entry.path for entry in os.scandir(target.parent) if name.fullmatch(entry.name)]:
        try:
            handle = os.open(left, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | _OPENED)
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


def write_signature(path: str | os.PathLike[str], data: bytes, key: bytes) -> None:
    """Sign ``data``, which is about to be put at ``path``.

    A signature of what stands there now is kept beside the new one, so that a reader finds one for what it has read
    at every moment of the exchange.
    """
    lines = [sign(data, key)]
    try:
        there = sign(Path(path).read_bytes(), key)
        if there in signature_path(path).read_text("ascii").split():
            lines.append(there)
    except (OSError, UnicodeDecodeError):
        pass  # nothing there, or nothing that was signed
    write_atomically(signature_path(path), "".join(f"{line}\n" for line in lines).encode())


def check_signature(path: str | os.PathLike[str], data: bytes, key: bytes) -> None:
    """Make sure that a signature beside ``path`` is that of ``data`` under this key.

    Raises:
        PolicyFileError: E_SIGNATURE, there is none.
        ValueError: the key is none.
    """
    beside = signature_path(path)
    try:
        lines = read_at_most(beside, SIGNATURES_LIMIT, "").split()
    except PolicyFileError:
        lines = []
    if not is_signed(data, lines, key):
        message = f"has no signature by this key in {beside.name}: it was changed, or signed with another key or none"
        raise PolicyFileError("E_SIGNATURE", "", f"{message}; export it again with the key")
