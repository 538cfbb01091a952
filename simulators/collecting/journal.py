"""Every finished call, on disk before the next one begins, so that none is paid for twice."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaverify.simulators.log import LogError

__all__ = ["Journal", "Kept", "journal_path", "read_journal"]

_HEADER = b'{"journal":"metaverify collect","version":1}\n'
_POSIX = os.name == "posix"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)


def journal_path(out: str | os.PathLike[str]) -> Path:
    """Where the journal of a log stands: beside it."""
    return Path(f"{os.fspath(out)}.journal")


@dataclass(slots=True)
class Kept:
    """What is known of earlier calls.

    ``done`` has what came of each finished call, by its key.  ``lost`` has what those may cost, in dollars, that began
    and did not end: they were under way when their process died, or nobody knows what became of them.
    """

    done: dict[str, Any] = field(default_factory=dict)
    lost: dict[str, list[float]] = field(default_factory=dict)


class Journal(Kept):
    """A file of JSON lines, one when a call begins and one when it ends; only its owner may read it.

    It holds the answers, for they are graded and verified.  A last line that was cut short is taken off.

    Raises:
        LogError: the file is no journal, is damaged, or another process writes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = os.open(path, _FLAGS, 0o600)
        except OSError as error:
            raise LogError("E_FILE", f"{path.name} cannot be written: {error.strerror}; name another -o") from error
        try:
            self._own()
            found, whole = _read(path)
            super().__init__(found.done, found.lost)
            os.ftruncate(self._handle, whole)
            if not whole:
                self._write(_HEADER)
        except BaseException:
            os.close(self._handle)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def begin(self, key: str, dearest: float) -> None:
        """A call begins, which may cost so much."""
        self.lost.setdefault(key, []).append(dearest)
        self._write(_line({"begun": key, "dearest": dearest}))

    def refuse(self, key: str) -> None:
        """It was refused, and cost nothing."""
        self.lost[key].pop()
        self._write(_line({"refused": key}))

    def end(self, key: str, value: Mapping[str, Any]) -> None:
        """It ended, and this came of it; once this returns it is on the disk."""
        line = _line({"done": key, "value": value})
        self._write(line)
        os.fsync(self._handle)
        self.done[key] = json.loads(line)["value"]
        if self.lost.get(key):
            self.lost[key].pop()

    def _write(self, line: bytes) -> None:
        while line:
            line = line[os.write(self._handle, line) :]

    def _own(self) -> None:
        """Nobody else reads it, and nobody else writes it."""
        if not _POSIX:
            return
        import fcntl  # not there on Windows

        os.fchmod(self._handle, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LogError(
                "E_FILE", f"{self.path.name} is written by another process; wait for it, or name another -o"
            ) from None
        except OSError:
            return  # a file system without locks


def read_journal(path: Path) -> Kept:
    """What is in a journal, which stays as it is; nothing where there is none.

    Raises:
        LogError: it is none, or damaged.
    """
    return _read(path)[0] if path.exists() else Kept()


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":"), default=str).encode() + b"\n"


def _read(path: Path) -> tuple[Kept, int]:
    """What is in it, and how many bytes of it are whole."""
    kept = Kept()
    with path.open("rb") as file:
        first = file.readline()
        if first != _HEADER:
            if _HEADER.startswith(first):
                return kept, 0
            raise LogError(
                "E_FILE", f"{path.name} is there and no journal of collect; move it away, or name another -o"
            )
        whole = len(first)
        for number, line in enumerate(file, start=2):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("cut short")
                _take(json.loads(line), kept)
            except (ValueError, KeyError, IndexError, TypeError) as error:
                if next(file, None):
                    fault = f"{path.name} line {number} is damaged ({error})"
                    raise LogError("E_DAMAGED", f"{fault}; take it out to pay for that again") from error
                break
            whole += len(line)
    return kept, whole


def _take(record: Any, kept: Kept) -> None:
    match record:
        case {"begun": str(key), "dearest": float(dearest) | int(dearest)}:
            kept.lost.setdefault(key, []).append(dearest)
        case {"refused": str(key)}:
            kept.lost[key].pop()
        case {"done": str(key), "value": dict(value)}:
            kept.done[key] = value
            if kept.lost.get(key):
                kept.lost[key].pop()
        case _:
            raise ValueError("no line of a journal")
