"""A table's columns as numbers and texts, each refused cell named by its row in the file."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metaverify.simulators.log import Floats, Ints, LogError

__all__ = ["Sheet", "reckonable"]

_PERCENT = 100.0
_MOST_STARS = 10  # of a rating that is written as a whole number
_WHOLE = 2.0**53  # above it a float does not tell whole numbers apart
_DEAREST = 1e100  # beyond it, and below its inverse, squares and ratios of prices overflow
_HEAVIEST = 1e15  # of weights, likewise
_NOT_0 = r"^\s*[+-]?[0-9.]*[1-9]"  # the beginning of a number that is not 0, whatever its exponent
_ROUNDING = 1e-6  # that a confidence may be above 1 by
_ANOTHER_UNIT = "too large or too small to reckon with; choose another unit"


@dataclass(frozen=True, slots=True)
class Sheet:
    """Some rows of a file's table; ``rows`` says where they stand in it, counted from 1.

    Every method that takes a column raises LogError for the first cell that it cannot use.
    """

    file: str
    frame: pl.DataFrame
    rows: Ints  # [rows of the frame]

    def __len__(self) -> int:
        return len(self.frame)

    def __contains__(self, column: str) -> bool:
        return column in self.frame.columns

    def where(self, mask: NDArray[np.bool_]) -> Sheet:
        """The rows under a mask, [rows]."""
        return Sheet(self.file, self.frame.filter(pl.Series(mask)), self.rows[mask])

    def error(self, code: str, at: int, text: str) -> LogError:
        """The complaint about the row at a position."""
        return LogError(code, f"{self.file} row {self.rows[at]}: {text}")

    def refuse(self, code: str, bad: NDArray[np.bool_], column: str, why: str) -> None:
        """Raise for the first bad row, [rows], if there is one, showing the cell as it stands in the file."""
        if bad.any():
            at = int(bad.argmax())
            raise self.error(code, at, f"{column} is {_shown(self.frame[column], at)}, {why}")

    def texts(self, column: str) -> pl.Series:
        """A column as texts, [rows], null where empty."""
        series = self.frame[column]
        if series.dtype.is_float():
            lost = (series.abs() >= _WHOLE).fill_null(False).to_numpy()
            self.refuse("E_TYPE", lost, column, "a decimal number too large to tell its neighbours apart; write texts")
        try:
            texts = series.cast(pl.String)
        except pl.exceptions.PolarsError as error:
            raise LogError(
                "E_TYPE", f"{self.file}: {column} holds {series.dtype}; give one plain value a row"
            ) from error
        return texts.set((texts == "").fill_null(False), None)

    def numbers(self, column: str, way_out: str) -> Floats:
        """A column as numbers, [rows], NaN where missing."""
        return self._numbers(self.frame[column], column, way_out)

    def confidences(self, column: str, scale: float) -> Floats:
        """A column divided by ``scale``, in [0, 1], [rows], NaN where missing."""
        raw = self.numbers(column, f"give a number in [0, {scale:g}], nothing where it is missing")
        values = raw / scale
        outside = ~np.isnan(raw) & ~((values >= 0) & (values <= 1))
        if outside.any():
            bounds = "[0, 1]" if scale == 1 else f"[0, {scale:g}] (--scale {scale:g})"
            self.refuse("E_RANGE", outside, column, f"outside {bounds}; {_scale_hint(raw, scale)}")
        return values

    def correctness(self, column: str, way_out: str) -> Floats:
        """A column in [0, 1], [rows], NaN where missing; true and false count 1 and 0."""
        series = self.frame[column]
        if series.dtype == pl.Boolean:
            series = series.cast(pl.Float64)
        elif series.dtype == pl.String:
            word = series.str.strip_chars().str.to_lowercase()
            series = series.set((word == "true").fill_null(False), "1").set((word == "false").fill_null(False), "0")
        values = self._numbers(series, column, f"give 0, 1, true, false or a score in [0, 1]; {way_out}")
        self.refuse(
            "E_RANGE",
            ~np.isnan(values) & ~((values >= 0) & (values <= 1)),
            column,
            f"outside [0, 1]; rescale it; {way_out}",
        )
        return values

    def amounts(self, column: str, way_out: str) -> Floats:
        """A column of prices, 0 or from 1e-100 to 1e100, [rows], NaN where missing."""
        values = self.numbers(column, way_out)
        if self.frame[column].dtype == pl.String:  # as in CSV: a number too small for any is read as 0
            some = self.frame[column].str.contains(_NOT_0).fill_null(False).to_numpy()
            self.refuse("E_RANGE", some & (values == 0), column, _ANOTHER_UNIT)
        self.refuse(
            "E_RANGE", ~np.isnan(values) & ~((values >= 0) & np.isfinite(values)), column, f"not a price; {way_out}"
        )
        self.refuse("E_RANGE", ~np.isnan(values) & ~reckonable(values), column, _ANOTHER_UNIT)
        return values

    def weights(self, column: str) -> Floats:
        """A column that counts queries, from 1e-15 to 1e15, [rows]."""
        values = self.numbers(column, "give how many queries the row stands for")
        none = ~(np.isfinite(values) & (values > 0))
        self.refuse("E_RANGE", none, column, "not a weight; give a finite number above 0")
        self.refuse("E_RANGE", (values > _HEAVIEST) | (values < 1 / _HEAVIEST), column, _ANOTHER_UNIT)
        return values

    def _numbers(self, series: pl.Series, column: str, way_out: str) -> Floats:
        if series.dtype == pl.String:
            words = series.str.strip_chars()
            words = words.set(words.str.to_lowercase().is_in(["", "null"]).fill_null(False), None)
            values = words.cast(pl.Float64, strict=False)
            wrong = (values.is_null() & words.is_not_null()).to_numpy()
            self.refuse("E_TYPE", wrong, column, f"not a number; {_word_hint(words, wrong)}{way_out}")
        elif series.dtype.is_numeric() or series.dtype == pl.Null:
            values = series.cast(pl.Float64)
        else:
            raise LogError("E_TYPE", f"{self.file}: {column} holds {series.dtype}, not numbers; {way_out}")
        return np.asarray(values.fill_null(np.nan).to_numpy(writable=True), dtype=np.float64)


def reckonable(prices: float | Floats) -> NDArray[np.bool_]:
    """Which prices are 0, or neither too large nor too small to be squared and divided by."""
    amounts = np.asarray(prices)
    return np.asarray((amounts == 0) | ((amounts >= 1 / _DEAREST) & (amounts <= _DEAREST)))


def _shown(series: pl.Series, at: int) -> str:
    cell = series[at]
    if cell is None or cell == "":
        return "missing"
    if series.dtype == pl.Float32:
        return str(np.float32(cell))
    try:
        return str(cell).strip() if math.isfinite(float(cell)) else repr(cell)
    except (TypeError, ValueError):
        return repr(cell)


def _word_hint(words: pl.Series, wrong: NDArray[np.bool_]) -> str:
    word = str(words[int(wrong.argmax())]) if wrong.any() else ""
    if re.fullmatch(r"[+-]?\d*,\d+", word):
        return "write a decimal point, not a comma; "
    if bare := re.fullmatch(r"[$€£¥]?\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:[$€£¥%]|USD|EUR)?", word):
        return f"write the number alone, {bare[1]}, in all rows; "
    return ""


def _scale_hint(raw: Floats, scale: float) -> str:
    known = raw[~np.isnan(raw)]
    if scale == 1 and known.max() <= 1 + _ROUNDING and known.min() >= 0:
        return "rounding? correct it to 1"
    if scale == 1 and 1 < known.max() <= _MOST_STARS and (known == np.rint(known)).all() and known.min() >= 0:
        return f"a rating? use --scale {known.max():g}"
    if scale == 1 and known.min() >= 0 and known.max() <= _PERCENT and np.quantile(known, 0.99) > 1:
        return "percent scale? use --scale 100"
    if np.isfinite(known).all() and known.max() <= 0:
        return "log-probabilities? write exp(x)"
    return "correct it, or leave it empty if it is missing"
