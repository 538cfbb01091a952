"""Files of other formats made into one log, in bounded memory."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from time import monotonic
from typing import Any

import polars as pl

from metaverify.simulators.files import check_suffix, told_where_full, write_pieces
from metaverify.simulators.importers.importer import Importer, find_importer
from metaverify.simulators.importers.mapping import Columns, MisfitError, meets
from metaverify.simulators.importers.runs import Runs
from metaverify.simulators.importers.settling import AT, BY, FILE, LINE, TIME, Known, Settled, schema, settle
from metaverify.simulators.importers.sources import Record, Source, Unused
from metaverify.simulators.importers.tally import Fault, Tally
from metaverify.simulators.log import LogError
from metaverify.simulators.progress import Tell, silent

__all__ = ["Imported", "import_log"]

_CHUNK = 16_384  # rows that become a frame at once
_OF_JOINS = 8  # how much larger records are than rows
_JOINED = {
    "key": pl.String(),
    AT: pl.Int64(),
    FILE: pl.Int32(),
    LINE: pl.Int64(),
    TIME: pl.Float64(),
    "record": pl.String(),
}
_LOOKED_AT = 1_000  # records of a table, for what its columns hold
_HINTS = 3
_READING = 0.7  # of the whole, as progress has it


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of the files.

    ``form`` is that of the log, "wide" or "long".  ``answers`` counts those of each tier, and those of them that are
    labelled; ``signals`` are sources without answers, ``unpriced`` tiers without prices.  ``columns`` are those of the
    log, ``ignored`` those of tables from which nothing was taken, and ``texts`` those that should have numbers by their
    names and have none.  ``unmet`` are mappings, ``COLUMN=PATH``, of which no record has anything.  ``partial`` queries
    were not answered, or not with a label, by some labelled tier; they are in the log, or left out where ``whole``.
    ``faults`` are what could not be used, ``passed_over`` counts records that did not meet the conditions.
    """

    out: str
    form: str
    files: int
    records: int
    queries: int
    answers: Mapping[str, tuple[int, int]]
    signals: tuple[str, ...]
    unpriced: tuple[str, ...]
    columns: tuple[str, ...]
    ignored: tuple[str, ...]
    texts: tuple[str, ...]
    unmet: tuple[str, ...]
    partial: int
    whole: bool
    passed_over: int
    faults: tuple[Fault, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        answers = {tier: {"answers": count, "labelled": known} for tier, (count, known) in self.answers.items()}
        faults = [{"why": fault.why, "count": fault.count, "first": list(fault.first)} for fault in self.faults]
        plain = {name: getattr(self, name) for name in self.__slots__}
        listed = {name: list(plain[name]) for name in ("signals", "unpriced", "columns", "ignored", "texts", "unmet")}
        return {**plain, **listed, "answers": answers, "faults": faults}


def import_log(
    format: str,
    files: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    mapping: Mapping[str, str] | None = None,
    where: Mapping[str, str] | None = None,
    scale: float = 1.0,
    whole: bool | None = None,
    rows: int = 131_072,
    progress: Tell = silent,
) -> Imported:
    """Make a log of files of some format, in the format of the suffix of ``out``, whole or not at all.

    Queries stand in the order of their ids, and neither the order of the files nor ``rows`` matters; of an answer that
    comes twice the last stands as it is, by the records' own times or in the order of the files' names.  What cannot be
    used is counted and named.

    Args:
        format: one of `known_formats`.
        files: their paths; ``small=PATH`` says that what is in it are answers of tier ``small``.
        out: the log.
        mapping: column -> the path of keys, joined by dots, at which its value stands in a record; a number stands for
            itself.  What is not named stays as the format has it.  A name that is no column of a log is kept as text.
        where: path -> the value that it must have; other records are passed over.
        scale: what confidences are divided by (100 for percent).
        whole: whether queries that some tier did not answer are left out, instead of what is usual for the format.
        rows: about how many are in memory at once.
        progress: told what is done, and the share of the whole that is.

    Raises:
        LogError: an unknown format, a file that is not there or cannot be written, or nothing that can be used.
    """
    importer, target = find_importer(format), Path(out)
    check_suffix(target)
    sources = _sources(files, where or {})
    columns = Columns(importer.paths, mapping, own=importer.own, scale=_scale(scale))
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=_folder(target)))
    try:
        job = _Job(importer, sources, columns, work, rows, progress)
        with told_where_full(target):
            return job.run(target, importer.whole if whole is None else whole)
    finally:
        _remove(work)


def _remove(folder: Path) -> None:
    """Remove a folder, to the end also where that is interrupted."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _folder(target: Path) -> Path:
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise LogError(
            "E_FILE", f"{target.name} cannot be written in {target.parent.resolve()}; is there such a folder?"
        )
    return target.parent


def _scale(scale: float) -> float:
    if not 0.0 < scale < float("inf"):
        raise LogError("E_OPTION", f"scale is {scale}; give a number above 0, such as 100 for percent")
    return float(scale)


def _sources(files: Iterable[str | os.PathLike[str]], where: Mapping[str, str]) -> list[Source]:
    """The files in the order of their names, each once."""
    found: dict[tuple[str, str], Source] = {}
    for file in files:
        name = os.fspath(file)
        tier, equals, path = name.partition("=")
        source = (
            Source(Path(path), tier, where) if equals and not Path(name).exists() else Source(Path(name), None, where)
        )
        source.check()
        found[str(source.path), source.tier or ""] = source
    if not found:
        raise LogError("E_OPTION", "no files are named; name at least one")
    return [found[key] for key in sorted(found)]


class _Job:
    """One import under way."""

    def __init__(
        self, importer: Importer, sources: Sequence[Source], columns: Columns, work: Path, rows: int, tell: Tell
    ):
        self._importer, self._sources, self._columns = importer, sources, columns
        self._work, self._rows, self._tell = work, rows, tell
        self._chunk = min(rows, _CHUNK)
        self._records = self._passed_over = 0
        self._tally = Tally(_names([source.path for source in sources]))
        self._known = Known(columns.contexts)
        self._runs = Runs(work / "answers", BY, rows)

    def run(self, target: Path, whole: bool) -> Imported:
        join = self._importer.join
        found = self._read() if join is None else self._joined(join)
        for chunk in _chunks(self._answers(found), self._chunk):
            frame = pl.DataFrame(chunk, schema=schema(self._known.contexts), orient="row")
            self._known.add(frame)
            self._runs.put(frame)
        self._columns.ignored |= {f"cost_{source}" for source in self._known.decide(self._columns.detached)}
        if not self._known.labelled:
            raise self._nothing()
        form = self._importer.form if self._known.reads_back() else "long"
        count = _Count(dict.fromkeys(self._known.sources, (0, 0)))
        write_pieces(self._pieces(form, whole, count), target, self._work / "parts")
        return self._report(target, form, whole, count)

    # Reading

    def _read(self) -> Iterator[tuple[int, int, Record]]:
        """The records of all files that can be used, with their number and that of their file."""
        size = [max(source.path.stat().st_size, 1) for source in self._sources]
        for at, source in enumerate(self._sources):
            told = replace(source, tell=self._teller(source, sum(size[:at]), size[at], sum(size)))
            for found in self._importer.read(told):
                self._records += 1
                if isinstance(found, Unused):
                    self._tally.add(at, *found)
                else:
                    yield self._records, at, found

    def _teller(self, source: Source, before: int, own: int, total: int) -> Callable[[float], None]:
        """What is told of a file as it is read: how fast, and the share of all bytes."""
        start = monotonic()

        def tell(share: float) -> None:
            speed = own * share / 1e6 / max(monotonic() - start, 1e-3)
            self._tell(f"{source.path.name}, {speed:.0f} MB/s", _READING * (before + own * share) / total)

        return tell

    def _joined(
        self, join: Callable[[Sequence[Record]], Iterator[Record | Unused]]
    ) -> Iterator[tuple[int, int, Record]]:
        """The records that are joined of those that share a key, until none has another."""
        times = 0
        runs = self._to_join(times)
        keyed = (row for found in self._read() for row in self._keyed(*found))
        for chunk in _chunks(keyed, max(self._chunk // _OF_JOINS, 1)):
            runs.put(pl.DataFrame(chunk, schema=_JOINED, orient="row"))
        while runs.total:
            times += 1
            again = self._to_join(times)
            for frame in runs.slices():
                moved: list[tuple[Any, ...]] = []
                for key, group in groupby(frame.iter_rows(), key=lambda row: row[0]):
                    rows = list(group)
                    records = [Record(i, json.loads(row[5]), key, row[4]) for i, row in enumerate(rows)]
                    for found in join(records):
                        _, at, file, line, *_ = rows[found.line]
                        if isinstance(found, Unused):
                            self._tally.add(file, line, found.why, found.value)
                        elif found.key in (None, key):
                            yield at, file, found._replace(line=line)
                        else:
                            moved += self._keyed(at, file, found._replace(line=line))
                again.put(pl.DataFrame(moved, schema=_JOINED, orient="row"))
            runs = again

    def _to_join(self, times: int) -> Runs:
        return Runs(self._work / f"records{times}", ("key", AT, "record"), max(self._rows // _OF_JOINS, 1))

    def _keyed(self, at: int, file: int, record: Record) -> Iterator[tuple[Any, ...]]:
        """A record as a row that can be sorted by its key, or none where it cannot be."""
        try:
            text = json.dumps(record.values, default=str)
            (record.key or "").encode()
        except ValueError as error:
            self._tally.add(file, record.line, "has a key that is not UTF-8 text", error)
        else:
            yield record.key or "", at, file, record.line, record.time, text

    def _answers(self, found: Iterator[tuple[int, int, Record]]) -> Iterator[tuple[Any, ...]]:
        for at, file, (line, values, _, time) in self._looked_at(found):
            source = self._sources[file]
            if source.where and not meets(values, source.where):
                self._passed_over += 1
                continue
            try:
                answers = list(self._columns.answers(values, source.tier))
            except MisfitError as misfit:
                self._tally.add(file, line, misfit.why, misfit.value)
                continue
            if not answers:
                self._tally.add(file, line, "says nothing of any tier")
            for answer in answers:
                yield (file, line, time, at, *answer[:-1], *answer[-1])

    def _looked_at(self, found: Iterator[tuple[int, int, Record]]) -> Iterator[tuple[int, int, Record]]:
        """The same, of which the first of every file are looked at beforehand."""
        for _, of_file in groupby(found, key=itemgetter(1)) if self._importer.own else ((0, found),):
            first = list(islice(of_file, _LOOKED_AT if self._importer.own else 0))
            self._columns.look(record.values for _, _, record in first)
            yield from chain(first, of_file)

    # Writing

    def _pieces(self, form: str, whole: bool, count: _Count) -> Iterator[pl.DataFrame]:
        done, total = 0, max(self._runs.total, 1)
        for frame in self._runs.slices():
            settled = settle(frame, self._known, self._tally, partly=self._columns.partly)
            count.partial += len(settled.partial)
            kept = settled.without(settled.partial) if whole else settled
            count.add(kept)
            done += len(frame)
            self._tell("writing", _READING + (1.0 - _READING) * done / total)
            yield kept.frame(self._known, form)
        if not count.queries:
            raise self._nothing()

    def _report(self, target: Path, form: str, whole: bool, count: _Count) -> Imported:
        known = self._known
        return Imported(
            out=str(target),
            form=form,
            files=len(self._sources),
            records=self._records,
            queries=count.queries,
            answers={source: of for source, of in sorted(count.answers.items()) if source not in known.signals},
            signals=tuple(known.signals),
            unpriced=tuple(s for s in sorted(known.sources) if s not in known.signals and "cost" not in known.of(s)),
            columns=tuple(known.columns(form)),
            ignored=tuple(sorted(self._columns.ignored - self._columns.texts.keys())),
            texts=tuple(sorted(self._columns.texts)),
            unmet=tuple(f"{name}={path}" for name, path in sorted(self._columns.unmet.items())),
            partial=count.partial,
            whole=whole,
            passed_over=self._passed_over,
            faults=self._tally.faults(),
        )

    def _nothing(self) -> LogError:
        """What to say where there is no query left."""
        names = ", ".join(dict.fromkeys(source.path.name for source in self._sources[:3]))
        faults = self._tally.faults()
        if self._known.sources and not self._known.labelled:
            why = "no record says what was correct; say where it stands, --map correct=PATH"
        elif faults:
            first = faults[0]
            why = f"{first.first[0]} {first.why}, as {first.count:,} of {self._records:,}; is it that format?"
        elif self._passed_over:
            why = f"all {self._passed_over:,} records are passed over by --where"
        elif not self._records:
            why = "there are no records"
        else:
            tiers = ", ".join(self._known.labelled)
            why = f"no query has labelled answers of all of {tiers}, and others are kept with --partial only"
        hints = [f"no record has anything at {path}" for path in self._columns.unmet.values()]
        hints += [f"{name} has no numbers, such as {value!r}" for name, value in self._columns.texts.items()]
        return LogError("E_UNUSABLE", "; ".join([f"nothing in {names} can be used: {why}", *hints[:_HINTS]]))


@dataclass(slots=True)
class _Count:
    """What was written."""

    answers: dict[str, tuple[int, int]]
    queries: int = 0
    partial: int = 0

    def add(self, settled: Settled) -> None:
        self.queries += len(settled.queries)
        there = pl.any_horizontal(pl.col("correct", "cost").is_not_null())
        known = pl.col("correct").is_not_null().sum().alias("known")
        sums = settled.answers.group_by("tier").agg(there.sum().alias("count"), known)
        for tier, count, labelled in sums.iter_rows():
            before = self.answers[tier]
            self.answers[tier] = before[0] + count, before[1] + labelled


def _chunks(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(rows, size)):
        yield chunk


def _names(paths: Sequence[Path]) -> list[str]:
    """What files are called: their names, with as many folders as tell them apart."""
    parts = 1
    while True:
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(set(paths)) or parts > max(len(path.parts) for path in paths):
            return names
        parts += 1
