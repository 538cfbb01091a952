"""Tables in files: Parquet, CSV and JSON Lines in, the same out, and every trouble told as a LogError."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import math
import os
import re
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl

from metaverify.policies.document import PolicyFileError
from metaverify.policies.storage import replacing, write_atomically
from metaverify.simulators.log import LogError

__all__ = [
    "check_suffix",
    "distinct_keys",
    "ends_amid_a_line",
    "metadata_of",
    "refuse_constant",
    "refuse_mixed_kinds",
    "scan_table",
    "told_as_log_errors",
    "told_where_full",
    "write_pieces",
    "write_table",
]

_SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF_32_MARKS = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
_ROW_GROUP = 131_072  # rows of a Parquet file that is written in pieces
_FIELD = re.compile(rb'("(?:[^"]|"")*+"|[^",\r\n]*+)(,|\r?\n|\r|\Z)')  # of CSV, and what ends it
_FORMULA = r"^('*[=+\-@\t\r])"
"""How a text begins that a spreadsheet would run, after the quotes that keep it from doing so."""


@contextmanager
def told_as_log_errors(file: Path) -> Iterator[None]:
    """Whatever polars or the system raises inside is raised as a LogError that names the file."""
    try:
        yield
    except OSError as error:
        raise LogError(
            "E_FILE", f"{file.name} cannot be opened: {error.strerror or error}; look at its permissions"
        ) from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        said = (str(error).splitlines() or ["no reason given"])[0][:200]
        raise LogError(
            "E_DAMAGED", f"{file.name} cannot be read as {_suffix(file)} ({said}); is it damaged or cut off?"
        ) from error


def scan_table(file: Path) -> pl.LazyFrame:
    """The table in a file, by its suffix; in CSV all columns are texts, so that the ids "007" and "NA" survive.

    Raises:
        LogError: an unknown suffix, no such file, a folder, nothing in it, or text that is cut off or malformed.
        PolarsError: what only shows on collecting; see `told_as_log_errors`.
    """
    if file.is_dir():
        raise LogError("E_FILE", f"{file.name or file} is a folder; name a file in it")
    suffix = _suffix(file)
    if not file.exists():
        raise LogError("E_FILE", f"{file.name}: there is no such file in {file.parent.resolve()}")
    if not file.is_file():
        raise LogError("E_FILE", f"{file.name} is no file but a pipe or a device; write the log to a file first")
    if not file.stat().st_size:
        raise LogError("E_EMPTY", f"{file.name} is empty; write the log again")
    if suffix == ".parquet":
        return pl.scan_parquet(file, glob=False)
    raw = _text_bytes(file, suffix)
    return (_csv if suffix.startswith(".csv") else _json_lines)(file.name, raw).lazy()


def ends_amid_a_line(file: Path) -> bool:
    """Whether a CSV file has no newline at its end, as one that was cut off within the last field."""
    suffix = _suffix(file)
    return suffix.startswith(".csv") and not _text_bytes(file, suffix).endswith((b"\n", b"\r"))


def write_table(frame: pl.DataFrame, file: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a table in the format of the suffix, whole or not at all; the same table gives the same bytes.

    In CSV a text that a spreadsheet would run as a formula has a single quote before it, which `scan_table` takes off.
    In Parquet the file says ``metadata`` of itself.

    Raises:
        LogError: an unknown suffix, a file that cannot be written, or a text that CSV cannot hold.
    """
    suffix = _suffix(file)
    raw = _encoded(file, frame, suffix, metadata)
    raw = gzip.compress(raw, mtime=0) if suffix.endswith(".gz") else raw
    with _told_of_writing(file):
        write_atomically(file, raw)


@contextmanager
def _told_of_writing(file: Path) -> Iterator[None]:
    try:
        yield
    except PolicyFileError as error:
        raise LogError("E_FILE", f"{file.name} {error.message}") from error
    except OSError as error:
        raise LogError(
            "E_FILE", f"{file.name} cannot be written in {file.parent.resolve()}: {error.strerror or error}"
        ) from error


@contextmanager
def told_where_full(file: Path) -> Iterator[None]:
    """What polars raises inside because there is no room for ``file``, or for what it is put together from beside it,
    is raised as a LogError that names it."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        full = next((words for words in map(os.strerror, FULL) if words in str(error)), None)
        if full is None:
            raise
        raise LogError("E_FILE", f"{file.name} cannot be written in {file.parent.resolve()}: {full}") from error


def write_pieces(pieces: Iterable[pl.DataFrame], file: Path, folder: Path) -> None:
    """Write a table that comes in pieces of the same columns, as `write_table` does; one piece is in memory at a time.

    The same rows give the same bytes, however they are divided.  ``folder`` is for what is put together at the end.

    Raises:
        LogError: as `write_table`.
    """
    suffix = _suffix(file)
    folder.mkdir()
    with _told_of_writing(file), replacing(file) as (raw, spare):
        if suffix == ".parquet":
            parts: list[Path] = []
            for piece in _of_rows(pieces, _ROW_GROUP):
                parts.append(folder / f"{len(parts):06}.parquet")
                piece.write_parquet(parts[-1], compression="lz4")
            table = pl.concat([pl.scan_parquet(part, glob=False) for part in parts])
            table.sink_parquet(spare, row_group_size=_ROW_GROUP, maintain_order=True)
        else:
            with _packed(raw, suffix) as out:
                for at, piece in enumerate(pieces):
                    out.write(_text(file, piece, suffix, header=at == 0))


def _of_rows(pieces: Iterable[pl.DataFrame], count: int) -> Iterator[pl.DataFrame]:
    """The same rows in pieces of so many, but for the last."""
    kept: pl.DataFrame | None = None
    for piece in pieces:
        kept = piece if kept is None else pl.concat([kept, piece])
        while len(kept) > count:
            yield kept.head(count).rechunk()
            kept = kept.slice(count)
    if kept is not None:
        yield kept.rechunk()


@contextmanager
def _packed(raw: Any, suffix: str) -> Iterator[Any]:
    if not suffix.endswith(".gz"):
        yield raw
        return
    with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
        yield packed


def check_suffix(file: Path) -> None:
    """Make sure that a log can be written there.

    Raises:
        LogError: the suffix is unknown.
    """
    _suffix(file)


def _suffix(file: Path) -> str:
    for suffix in _SUFFIXES:
        if file.name.lower().endswith(suffix):
            return suffix
    raise LogError("E_FILE", f"{file.name} has no known suffix; a log is one of {', '.join(_SUFFIXES)}")


def _text_bytes(file: Path, suffix: str) -> bytes:
    """The file's bytes, unpacked, checked to be UTF-8, without a byte order mark."""
    raw = _unpacked(file, suffix)
    at = raw.find(b"\0")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        at = error.start
    if at >= 0:
        place = f"byte {at + 1} is 0x{raw[at]:02x}"
        raise LogError("E_ENCODING", f"{file.name} is {_coding(raw)} text ({place}); save it as UTF-8")
    raw = raw.removeprefix(_BYTE_ORDER_MARK)
    if not raw.strip():
        raise LogError("E_EMPTY", f"{file.name} is empty; write the log again")
    return raw


def _unpacked(file: Path, suffix: str) -> bytes:
    raw = file.read_bytes()
    if suffix.endswith(".gz"):
        try:
            raw = gzip.decompress(raw)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise LogError("E_DAMAGED", f"{file.name} is not a whole gzip file ({error}); pack it again") from error
    return raw


def _coding(raw: bytes) -> str:
    """What text that is not UTF-8 seems to be, by its first two letters."""
    if raw[:4] in _UTF_32_MARKS or b"\0\0\0" in (raw[:3], raw[1:4]):
        return "UTF-32"
    return "UTF-16" if raw[:2] in _UTF_16_MARKS or b"\0\0" in (raw[1:4:2], raw[:3:2]) else "not UTF-8"


def _csv(name: str, raw: bytes) -> pl.DataFrame:
    if b"\n" not in raw and b"\r" in raw:
        raise LogError("E_SYNTAX", f"{name} ends its lines with carriage returns alone; save it with line feeds")
    header = _csv_header(name, raw)
    try:
        frame = pl.read_csv(raw, infer_schema=False)
    except pl.exceptions.PolarsError:
        _refuse_ragged(name, raw, len(header))
        _refuse_stray_quote(name, raw)
        raise
    frame.columns = header  # polars leaves a doubled quote in a name as it is
    if frame.width > 1:  # a blank line is no row
        frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))
    if frame.to_series(-1).has_nulls():  # a short row reads as one with missing values
        _refuse_ragged(name, raw, len(header))
    if b"'" in raw:
        frame = frame.with_columns(pl.all().str.replace(_FORMULA.replace("(", "'(", 1), "$1"))
    return frame


def _unformed(frame: pl.DataFrame) -> pl.DataFrame:
    """The table with a quote before each text that a spreadsheet would run as a formula; reading takes it off."""
    return frame.with_columns(pl.col(pl.String).str.replace(_FORMULA, "'$1"))


def _csv_rows(raw: bytes) -> Iterator[list[str]]:
    return (row for row in csv.reader(io.StringIO(raw.decode(), newline="")) if row)


def _csv_header(name: str, raw: bytes) -> list[str]:
    try:
        header = next(_csv_rows(raw))
    except csv.Error as error:
        raise LogError("E_SYNTAX", f"{name} has no readable header ({error}); is it CSV?") from error
    if twice := [column for i, column in enumerate(header) if column in header[:i]]:
        raise LogError("E_DUPCOL", f"{name} has two columns {twice[0]!r}; rename one")
    if len(header) == 1 and (mark := next((m for m in ";\t|" if m in header[0]), None)):
        raise LogError(
            "E_SYNTAX", f"{name} has the one column {header[0]!r}; separated by {mark!r}? save it with commas"
        )
    return header


def _refuse_ragged(name: str, raw: bytes, width: int) -> None:
    """Raise for the first row with more or fewer fields than the header, if there is one."""
    with suppress(csv.Error):  # a field too long for the module: then polars has the word
        for number, row in enumerate(_csv_rows(raw)):
            if len(row) != width:
                fault = f"has {len(row)} fields where the header has {width}"
                raise LogError(
                    "E_SYNTAX", f"{name} row {number} {fault}; is a comma or a quote amiss, or the file cut off?"
                )


def _refuse_stray_quote(name: str, raw: bytes) -> None:
    """Raise for the first field that has a quote although it is not written in quotes, or text after them."""
    row, at, blank = 0, 0, True
    while at < len(raw):
        field = _FIELD.match(raw, at)
        if field is None:
            shown = raw[at : at + 30].decode(errors="replace").splitlines()[0]
            fault = f"has a quote amid a field, at {shown!r}"
            raise LogError("E_SYNTAX", f"{name} row {row} {fault}; write it in quotes, and each quote in it twice")
        blank = blank and not field[1] and field[2] != b","
        if field[2] != b",":
            row, blank = row + (not blank), True
        at = field.end()


def _json_lines(name: str, raw: bytes) -> pl.DataFrame:
    try:
        frame = pl.read_ndjson(raw, infer_schema_length=None)
        if any(raw.count(json.dumps(key).encode()) > len(frame) for key in frame.columns):
            _refuse_bad_line(name, raw)  # a key twice in one object
        return frame.select(_keys_by_appearance(raw, frame.width))  # polars shuffles the keys of large objects
    except LogError:
        raise
    except (pl.exceptions.PolarsError, ValueError, RecursionError) as error:
        _refuse_bad_line(name, raw)
        raise LogError(
            "E_SYNTAX", f"{name} cannot be read as JSON Lines ({error}); does a column mix kinds of values?"
        ) from error


def _keys_by_appearance(raw: bytes, count: int) -> list[str]:
    keys: dict[str, None] = {}
    for line in io.BytesIO(raw):
        if len(keys) == count:
            break
        keys |= dict.fromkeys(json.loads(line) if line.strip() else ())
    return list(keys)


def refuse_mixed_kinds(file: Path, frame: pl.DataFrame) -> None:
    """Raise for JSON Lines that have something else among the texts of one of these columns, of which polars makes
    texts.

    Raises:
        LogError: naming the line.
    """
    suffix = _suffix(file)
    texts = [column for column, kind in frame.schema.items() if kind == pl.String]
    if suffix.startswith((".csv", ".parquet")) or not texts:
        return
    raw = _unpacked(file, suffix).removeprefix(_BYTE_ORDER_MARK)
    for column in texts:
        key = json.dumps(column, ensure_ascii=False).encode()
        if raw.count(key + b':"') + raw.count(key + b': "') < frame[column].count():  # or it is written in another way
            _refuse_bad_line(file.name, raw, texts)


def _refuse_bad_line(name: str, raw: bytes, columns: Container[str] | None = None) -> None:
    """Raise for the first line that is not a JSON object, or whose values, in these columns or all, are of another kind
    than those above."""
    kinds: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(raw.split(b"\n"), start=1):
        try:
            value = (
                json.loads(line, parse_constant=refuse_constant, object_pairs_hook=distinct_keys)
                if line.strip()
                else {}
            )
        except (ValueError, RecursionError) as error:
            raise LogError(
                "E_SYNTAX", f"{name} line {number} is not JSON ({error}); write one object a line"
            ) from error
        if not isinstance(value, dict):
            raise LogError(
                "E_SYNTAX", f"{name} line {number} is {type(value).__name__}, not an object; write one object a line"
            )
        for key, cell in value.items():
            if columns is not None and key not in columns:
                continue
            if cell in (math.inf, -math.inf):
                raise LogError("E_RANGE", f"{name} line {number}: {key} is more than a number can hold; correct it")
            kind, first = kinds.setdefault(key, (_kind(cell), number)) if cell is not None else ("", 0)
            if kind != _kind(cell) and cell is not None:
                fault = f"{key} is {json.dumps(cell)[:40]}, {_kind(cell)}, but {kind} in line {first}"
                raise LogError("E_TYPE", f"{name} line {number}: {fault}; write one kind of value")


def _kind(cell: object) -> str:
    return {bool: "true or false", str: "text", list: "an array", dict: "an object"}.get(type(cell), "a number")


def refuse_constant(constant: str) -> float:
    """What JSON has no word for, for `json.loads`."""
    raise ValueError(f"{constant} is no JSON number, a missing one is null")


def distinct_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose keys differ, for `json.loads`."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for at, (key, _) in enumerate(pairs) if key in dict(pairs[:at]))
        raise ValueError(f"{twice!r} stands twice in one object; keep one")
    return found


def metadata_of(file: Path) -> dict[str, str]:
    """What a Parquet file says of itself, beside its columns.

    Raises:
        LogError: it cannot be read.
    """
    with told_as_log_errors(file):
        return pl.read_parquet_metadata(file)


def _encoded(file: Path, frame: pl.DataFrame, suffix: str, metadata: Mapping[str, str] | None) -> bytes:
    if suffix != ".parquet":
        return _text(file, frame, suffix)
    buffer = io.BytesIO()
    frame.write_parquet(buffer, metadata=None if metadata is None else dict(metadata), row_group_size=_ROW_GROUP)
    return buffer.getvalue()


def _text(file: Path, frame: pl.DataFrame, suffix: str, *, header: bool = True) -> bytes:
    buffer = io.BytesIO()
    if suffix.startswith(".csv"):
        _unformed(frame).write_csv(
            buffer, quote_style="non_numeric", include_header=header
        )  # a bare carriage return would end a row for some readers
    else:
        frame.write_ndjson(buffer)
    raw = buffer.getvalue()
    if suffix.startswith(".csv") and b"\0" in raw:
        raise LogError("E_ENCODING", f"{file.name}: a text has a NUL, which CSV cannot hold; write .parquet or .jsonl")
    return raw
