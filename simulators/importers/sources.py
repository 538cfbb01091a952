"""A file of somebody else's, record by record, in bounded memory."""

from __future__ import annotations

import codecs
import csv
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
_PACKED = 1 << 16  # bytes of a packed file that are unpacked at once
_ROWS = 8_192  # of a Parquet file that are read at once
_FORMULA = re.compile(r"^'('*[=+\-@\t\r])")  # as in `write_table`
_PICKLES = (".pkl", ".pickle", ".pkl.gz", ".pt", ".joblib")
_LATEST = 1e15  # seconds; later is no time
_NO_JSON = "is not JSON"
_CUT_OFF = "the file is cut off or damaged here, and not read further"
_TORN = (EOFError, zlib.error)
_GZIP = 31  # of zlib: with a header and a sum


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
        torn: Exception | None = None
        with self._bytes() as raw:
            pieces = _decoded(raw)
            while True:
                skipped = re.compile(r"[\s,\[\]]*").match(text, at)
                assert skipped
                line += text.count("\n", at, skipped.end())
                at = skipped.end()
                try:
                    if at == len(text) and not ended:
                        raise ValueError
                    if at == len(text):
                        if torn is not None:
                            yield Unused(line, _CUT_OFF, torn)
                        return
                    value, end = decoder.raw_decode(text, at)
                    if end == len(text) and not ended:
                        raise ValueError  # a number may go on
                except (ValueError, RecursionError) as error:
                    if ended:
                        why = f"{_NO_JSON}; the file is not read further" if torn is None else _CUT_OFF
                        yield Unused(line, why, torn or error)
                        return
                    more, wanted = [text[at:]], max(_PIECE, len(text) - at)  # twice as much each time
                    try:
                        while wanted > 0 and not ended:
                            more.append(next(pieces, ""))
                            wanted, ended = wanted - len(more[-1]), not more[-1]
                    except _TORN as cut:
                        torn, ended = cut, True
                    text, at = "".join(more), 0
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
                yield io.BufferedReader(_Unpacked(counted), _PIECE)
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


class _Unpacked(io.RawIOBase):
    """What gzip packed, all of it that stands before damage: that is raised only once the rest was read."""

    def __init__(self, packed: io.RawIOBase):
        self._packed, self._left, self._ready = packed, b"", b""
        self._inflate = zlib.decompressobj(_GZIP)
        self._begun = self._further = False
        self._fault: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and self._fault is None:
            if not self._unpack():
                return 0
        if not self._ready and self._fault is not None:
            raise self._fault
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def _unpack(self) -> bool:
        """Unpack some more, and say whether there was any."""
        if self._inflate.eof:  # another may follow, and zeros between them
            self._left, self._inflate = self._inflate.unused_data, zlib.decompressobj(_GZIP)
            self._begun, self._further = False, True
        given = self._left or self._packed.read(_PACKED) or b""
        if not self._begun:
            if not given:
                return False
            given = given.lstrip(b"\0") if self._further else given
            if not given:
                self._left = b""
                return True
        before, self._begun = self._inflate.copy(), True
        try:
            self._ready = self._inflate.decompress(given, _PIECE)
        except zlib.error as error:
            self._ready, self._fault = b"".join(_before_damage(before, given)), error
        if not given and not self._ready and not self._inflate.eof:
            self._fault = EOFError("its end is missing")
        self._left = self._inflate.unconsumed_tail
        return True


def _before_damage(inflate: Any, packed: bytes) -> Iterator[bytes]:
    """What stands before the byte that cannot be unpacked, which takes all that is given with it."""
    with suppress(zlib.error):
        for at in range(len(packed)):
            yield inflate.decompress(packed[at : at + 1])


def _decoded(raw: Any) -> Iterator[str]:
    """Its text, in pieces that are not empty; bytes that are no UTF-8 as surrogates."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    while piece := raw.read1(_PIECE):
        if text := decoder.decode(piece):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


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
