"""Rows that outgrow memory, in order: sorted runs on disk, read back in slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

__all__ = ["Runs"]

_MARKS = 64  # rows of a run whose keys are remembered


class Runs:
    """An external sort.

    Args:
        folder: where the runs are written.
        by: the columns by which rows are sorted; the first is a text, and rows that share it are never divided.
        rows: of a run, and about that many of a slice.
    """

    def __init__(self, folder: Path, by: Sequence[str], rows: int):
        folder.mkdir()
        self._folder, self._by, self._rows = folder, list(by), rows
        self._kept: list[pl.DataFrame] = []
        self._count = self.total = 0
        self._marks: list[str] = []
        self._files: list[Path] = []

    def put(self, frame: pl.DataFrame) -> None:
        """Add rows."""
        self._kept.append(frame)
        self._count += len(frame)
        self.total += len(frame)
        if self._count >= self._rows:
            self._write()

    def _write(self) -> None:
        run = pl.concat(self._kept).sort(self._by)
        self._kept, self._count = [], 0
        self._marks += run[self._by[0]].gather_every(max(self._rows // _MARKS, 1)).to_list()
        path = self._folder / f"{len(self._files):06}.parquet"
        run.write_parquet(path, compression="lz4", row_group_size=max(self._rows // _MARKS, 1_024))
        self._files.append(path)

    def slices(self) -> Iterator[pl.DataFrame]:
        """All rows in order, in slices; all that share the first key are in one."""
        if self._count:
            self._write()
        if not self._files:
            return
        key = pl.col(self._by[0])
        cuts = list(dict.fromkeys(sorted(self._marks)[_MARKS::_MARKS]))
        table = pl.concat([pl.scan_parquet(path, glob=False) for path in self._files])
        for low, high in zip([None, *cuts], [*cuts, None], strict=True):
            inside = pl.lit(True) if low is None else key >= low
            inside = inside if high is None else inside & (key < high)
            frame = table.filter(inside).collect().sort(self._by)
            if len(frame):
                yield frame
