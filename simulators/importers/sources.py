"""A file of somebody else's, record by record, in bounded memory."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from metaverify.simulators.files import told_as_log_errors
from metaverify.simulators.log import LogError

__all__ = ["Record", "Source", "Unused", "moment"]

_PIECE = 1 << 20  # characters of a JSON document that are read at once
_ROWS = 8_192  # of a Parquet file that are read at once
_FORMULA = re.compile(r"^'('*[=+\-@\t\r])")  # as in `write_table`
_PICKLES = (".pkl", ".pickle", ".pkl.gz", ".pt", ".joblib")
_LATEST = 1e15  # seconds; later is no time
_NO_JSON = "is not JSON"
_CUT_OFF = "the file is cut off or damaged here, and not read further"
_TORN = (EOFError, gzip.BadGzipFile, zlib.error)


class Record(NamedTuple):
    """One record of a file: the line or row on which it stands, counted from 1, and what it says.

    ``key`` names what is to be joined, in formats that scatter what is known of an answer over several records.
    ``time``, in seconds, says which of two is the last; where it is the same, or not known, that which is read last.
    """

    line: int
    values: Mapping[str, Any]
    key: str | None = None
    time: float = 0.0


class Unused(NamedTuple):
    """What of a file cannot be used: where it stands, why, in few words that many may share, and what stands there."""

    line: int
    why: str
    value: object = None


def moment(value: object) -> float:
    """A record's time in seconds: a number, ISO text or a time of Parquet; 0 where it is none of these.

    >>> moment("1970-01-01T00:01:00Z"), moment(60.5), moment("yesterday"), moment(None)
    (60.0, 60.5, 0.0, 0.0)
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return 0.0
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return float(value) if isinstance(value, int | float) and abs(value) < _LATEST else 0.0


@dataclass(frozen=True, slots=True)
class Source:
    """One file that is imported.

    ``tier`` is what it was said to be the answers of (``small=FILE``), or None; ``where`` are the conditions that
    records must meet, by path.  ``tell`` is given the share of the file that was read.
    """

    path: Path
    tier: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    tell: Callable[[float], None] = lambda share: None

    @property
    def suffix(self) -> str:
        """The suffix in small letters, without that of packing."""
        return Path(self.path.name.lower().removesuffix(".gz")).suffix

    def check(self) -> None:
        """Make sure that there is a file which may be read.

        Raises:
            LogError: there is none, or it is a pickle.
        """
        name = self.path.name or str(self.path)
        if self.path.is_dir():
            raise LogError("E_FILE", f"{name} is a folder; name the files in it")
        if not self.path.exists():
            raise LogError("E_FILE", f"{name}: there is no such file in {self.path.parent.resolve()}")
        if name.lower().endswith(_PICKLES):
            raise LogError(
                "E_FILE", f"{name} is a pickle, which may run anything when it is opened; give the same as .parquet"
            )

    def records(self) -> Iterator[Record | Unused]:
        """The records of a JSON, JSON Lines, CSV or Parquet file, by its suffix; JSON Lines where it has another.

        Raises:
            LogError: the file cannot be read at all.
        """
        with told_as_log_errors(self.path):
            if self.suffix == ".parquet":
                yield from self._parquet()
            elif self.suffix == ".csv":
                yield from self._csv()
            elif self.suffix == ".json" and not self._has_lines():
                yield from self._document()
            else:
                yield from self._lines()

    def _lines(self) -> Iterator[Record | Unused]:
        with self._bytes() as lines:
            number = 0
            try:
                for number, line in enumerate(lines, start=1):
                    if number == 1:
                        line = line.removeprefix(b"\xef\xbb\xbf")
                    if line.isspace():
                        continue
                    yield _parsed(number, line)
            except _TORN as error:
                yield Unused(number + 1, _CUT_OFF, error)

    def _has_lines(self) -> bool:
        """Whether the first line of a JSON file is an object by itself."""
        with self._bytes() as lines, suppress(*_TORN):
            first = next((line for line in _pieces(lines) if not line.isspace()), b"")
            return isinstance(_parsed(1, first.removeprefix(b"\xef\xbb\xbf")), Record)
        return False

    def _document(self) -> Iterator[Record | Unused]:
        """The objects of a JSON document: itself, those of an array, or one after the other."""
        decoder = json.JSONDecoder()
        text, at, line, ended = "", 0, 1, False
        with self._bytes() as raw, io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape") as file:
            while True:
                skipped = re.compile(r"[\s,\[\]]*").match(text, at)
                assert skipped
                line += text.count("\n", at, skipped.end())
                at = skipped.end()
                try:
                    if at == len(text) and not ended:
                        raise ValueError
                    if at == len(text):
                        return
                    value, end = decoder.raw_decode(text, at)
                    if end == len(text) and not ended:
                        raise ValueError  # a number may go on
                except (ValueError, RecursionError) as error:
                    if ended:
                        yield Unused(line, f"{_NO_JSON}; the file is not read further", error)
                        return
                    try:
                        piece = file.read(max(_PIECE, len(text) - at))  # twice as much each time
                    except _TORN as cut:
                        yield Unused(line, _CUT_OFF, cut)
                        return
                    text, at, ended = text[at:] + piece, 0, not piece
                    continue
                yield Record(line, value) if isinstance(value, dict) else Unused(line, "is no JSON object", value)
                line += text.count("\n", at, end)
                at = end

    def _csv(self) -> Iterator[Record | Unused]:
        before = csv.field_size_limit(sys.maxsize if sys.maxsize < 2**31 else 2**31 - 1)
        try:
            with (
                self._bytes() as raw,
                io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="") as file,
            ):
                yield from _csv_records(self.path.name, csv.reader(file, strict=True))
        finally:
            csv.field_size_limit(before)

    def _parquet(self) -> Iterator[Record | Unused]:
        table = pl.scan_parquet(self.path, glob=False)
        count = int(table.select(pl.len()).collect().item())
        for start in range(0, count, _ROWS):
            self.tell(start / count)
            for at, row in enumerate(table.slice(start, _ROWS).collect().iter_rows(named=True), start=start + 1):
                yield Record(at, row)

    @contextmanager
    def _bytes(self) -> Iterator[Any]:
        """The file's bytes, unpacked, by lines; reading them tells how far it has come."""
        size = max(self.path.stat().st_size, 1)
        with self.path.open("rb", buffering=_PIECE) as raw:
            counted = _Counted(raw, lambda at: self.tell(at / size))
            if self.path.name.lower().endswith(".gz"):
                with gzip.GzipFile(fileobj=counted) as unpacked:
                    yield io.BufferedReader(unpacked, _PIECE)
            else:
                yield io.BufferedReader(counted, _PIECE)


class _Counted(io.RawIOBase):
    """Bytes, which tell where they are as they are read."""

    def __init__(self, raw: Any, tell: Callable[[int], None]):
        self._raw, self._tell = raw, tell

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self._raw.readinto(buffer))
        self._tell(self._raw.tell())
        return count


def _pieces(lines: Any) -> Iterator[bytes]:
    while piece := lines.readline(64 * _PIECE):
        yield piece


def _parsed(number: int, line: bytes) -> Record | Unused:
    try:
        value = json.loads(line.rstrip(b"\r\n").decode())
    except UnicodeDecodeError as error:
        return Unused(number, "is not UTF-8 text", f"byte 0x{line[error.start]:02x}")
    except json.JSONDecodeError as error:
        return Unused(number, _NO_JSON, f"{error.msg} at letter {error.colno}")
    except (ValueError, RecursionError) as error:
        return Unused(number, _NO_JSON, error)
    return Record(number, value) if isinstance(value, dict) else Unused(number, "is no JSON object", value)


def _csv_records(name: str, rows: Any) -> Iterator[Record | Unused]:
    header: list[str] = []
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Unused(line, "is not CSV", error)
            continue
        except _TORN as error:
            yield Unused(line, _CUT_OFF, error)
            return
        if not row:
            continue
        if not header:
            header = row
            if len(set(header)) < len(header):
                twice = next(column for at, column in enumerate(header) if column in header[:at])
                raise LogError("E_DUPCOL", f"{name} has two columns {twice!r}; rename one")
        elif len(row) != len(header):
            yield Unused(line, "has more or fewer fields than the header", f"{len(row)}, not {len(header)}")
        else:
            cells = (_FORMULA.sub(r"\1", cell) if cell.startswith("'") else cell for cell in row)
            yield Record(line, dict(zip(header, cells, strict=True)))
