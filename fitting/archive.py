"""The archive of a study: finished trials in a file, one write each, so that a killed run can go on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

__all__ = ["open_storage"]

SQLITE = (".db", ".sqlite", ".sqlite3")


def open_storage(where: str) -> BaseStorage | str:
    """What Optuna stores studies in: a URL as it is, SQLite where a file's name ends so, otherwise a journal.

    A line that a journal lacks the end of, since power failed in the midst of it, is taken off.

    Raises:
        ValueError: the file is there, and is of another kind.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    if "://" in where:
        return where
    path = Path(where)
    if path.suffix in SQLITE:
        _check_kind(path, b"SQLite format 3\0", "SQLite database")
        return f"sqlite:///{where}"
    _check_kind(path, b'{"op_code"', "journal of Optuna")
    lock = JournalFileOpenLock(where)
    if path.exists() and path.read_bytes()[-1:] != b"\n":
        lock.acquire()
        try:
            whole = path.read_bytes()
            path.write_bytes(whole[: whole.rfind(b"\n") + 1])
        finally:
            lock.release()
    return JournalStorage(JournalFileBackend(where, lock))


def _check_kind(path: Path, magic: bytes, kind: str) -> None:
    if not path.exists():
        return
    with path.open("rb") as file:
        start = file.read(len(magic))
    if start and start != magic:
        raise ValueError(f"{path} is there and is no {kind}; name another file for the study")
