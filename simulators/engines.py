"""Engines: what narwhals has no word for, said in the words of each engine.

That is one thing, the batch of a group: a keyed hash of the text of its id, the same in every engine.  With the code
points c of the text, prime P and fixed numbers W, V and A it is

    h = (sum of W[i mod 64] · c[i]  +  V · length) mod P,    batch = floor((h · (h + A) mod P) · batches / 2^31)

in whole numbers below 2^63 (a multilinear hash, Carter & Wegman 1979, whose square breaks up runs of ids).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl
from numpy.typing import NDArray

from metaverify.simulators.log import LogError

__all__ = ["BATCH", "collected", "reading_little_ahead", "text_batches", "with_batches"]

Ints = NDArray[np.int64]

BATCH = "metaverify batch"
"""The column that `with_batches` adds; no log's column is called so."""

PRIME = 2**31 - 1
PERIOD = 64
READ_AHEAD = {"POLARS_ROW_GROUP_PREFETCH_SIZE": "1", "POLARS_NUM_READERS_PRE_INIT": "2"}
PIECE = 32_768  # texts at once, which a processor can hold near


def _numbers(count: int, bits: int) -> list[int]:
    """Fixed numbers below 2^bits."""
    digests = (blake2b(f"metaverify batch {at}".encode(), digest_size=8).digest() for at in range(count))
    return [int.from_bytes(digest, "big") >> (64 - bits) for digest in digests]


*WEIGHTS, BY_LENGTH, BEND = _numbers(PERIOD + 2, 26)


def text_batches(text: str, lengths: Ints, batches: int) -> Ints:
    """The batch of each of [n] texts, told one after the other and by their lengths."""
    ascii_only = text.isascii()
    points = np.frombuffer(text.encode("ascii" if ascii_only else "utf-32-le"), np.uint8 if ascii_only else np.uint32)
    weights = np.array(WEIGHTS)
    longest = int(lengths.max(initial=0))
    if 0 < longest <= PERIOD and len(points) == longest * len(lengths):
        # every product and sum is a whole number below 2^53
        sums = (points.reshape(len(lengths), longest) @ weights[:longest].astype(np.float64)).astype(np.int64)
        sums += BY_LENGTH * longest
    else:
        ends = np.cumsum(lengths)
        place = np.arange(len(points)) - np.repeat(ends - lengths, lengths)
        total = np.concatenate([[0], np.cumsum(points * weights[place % PERIOD])])
        sums = total[ends] - total[ends - lengths] + BY_LENGTH * lengths
    h = _remainder(sums)
    bent = h + BEND
    bent *= h
    batch = _remainder(bent)
    batch *= batches
    batch >>= 31
    return batch


def _remainder(value: Ints) -> Ints:
    """``value`` mod P, in its own place; numpy divides by a number faster than it takes remainders."""
    times = value // PRIME
    times *= PRIME
    value -= times
    return value


def with_batches(frame: Any, column: str, batches: int, passed: Callable[[int], None] = lambda rows: None) -> Any:
    """A native frame with the batch of each row's id in the column `BATCH`; null where there is no id.

    ``passed`` is told of rows whose batch is known, while a query runs, where the engine calls back for it (polars).

    Raises:
        LogError: the frame is of an engine that is not known.
    """
    implementation = nw.from_native(frame).implementation
    if implementation not in (nw.Implementation.POLARS, *_WAYS):
        known = ", ".join(sorted(each.name.lower() for each in (nw.Implementation.POLARS, *_WAYS)))
        raise LogError(
            "E_OPTION",
            f"a frame of {implementation.name.lower()} has no batches of its groups yet; give one of {known}, or write "
            "it to Parquet files",
        )
    if implementation is nw.Implementation.POLARS:
        return _polars(frame, column, batches, passed)
    return _WAYS[implementation](frame, column, batches)


def collected(frame: nw.LazyFrame[Any]) -> pl.DataFrame:
    """The few rows of a query's result."""
    if frame.implementation is nw.Implementation.POLARS:
        with reading_little_ahead():
            return frame.collect(engine="streaming").to_polars()
    return frame.collect().to_polars()


@contextmanager
def reading_little_ahead() -> Iterator[None]:
    """Inside, polars holds one row group of Parquet and two files beyond those in work, unless the user has said how
    many; by itself it would hold hundreds of megabytes of them."""
    ours = {name: ahead for name, ahead in READ_AHEAD.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _polars(frame: pl.LazyFrame, column: str, batches: int, passed: Callable[[int], None]) -> pl.LazyFrame:
    def part(texts: pl.Series) -> pl.Series:
        known = texts.fill_null("") if texts.null_count() else texts
        text = known.str.join("").item()
        lengths = known.str.len_bytes() if text.isascii() else known.str.len_chars()
        found = pl.Series(text_batches(text, lengths.to_numpy().astype(np.int64), batches))
        return found.set(texts.is_null(), None) if texts.null_count() else found

    def of(texts: pl.Series) -> pl.Series:
        parts = [part(texts.slice(start, PIECE)) for start in range(0, max(len(texts), 1), PIECE)]
        passed(len(texts))
        return pl.concat(parts)

    batch = pl.col(column).cast(pl.String).map_batches(of, return_dtype=pl.Int64, is_elementwise=True)
    return frame.with_columns(batch.alias(BATCH))


def _duckdb(frame: Any, column: str, batches: int) -> Any:
    name = '"' + column.replace('"', '""') + '"'
    text = f"CAST({name} AS VARCHAR)"
    point = f"unicode(substr({text}, i, 1))::BIGINT * {WEIGHTS}[(i - 1) % {PERIOD} + 1]"
    total = f"coalesce(list_sum(list_transform(range(1, length({text}) + 1), lambda i: {point})), 0)::BIGINT"
    return frame.project(f'*, {_from_sum("//", f"({total} + {BY_LENGTH} * length({text}))", batches)} AS "{BATCH}"')


def _pyspark(frame: Any, column: str, batches: int) -> Any:
    text = f"CAST(`{column.replace('`', '``')}` AS STRING)"
    weights = f"array({', '.join(f'{weight}L' for weight in WEIGHTS)})"
    point = f"ascii(substring({text}, i, 1)) * element_at({weights}, (i - 1) % {PERIOD} + 1)"
    places = f"filter(sequence(1, length({text}) + 1), i -> i <= length({text}))"
    total = f"aggregate(transform({places}, i -> {point}), 0L, (a, b) -> a + b)"
    batch = _from_sum("div", f"({total} + {BY_LENGTH}L * length({text}))", batches)
    return frame.selectExpr("*", f"{batch} AS `{BATCH}`")


def _from_sum(divide: str, total: str, batches: int) -> str:
    """The batch in SQL from the sum that is hashed."""
    h = f"({total} % {PRIME})"
    return f"({h} * ({h} + {BEND}) % {PRIME} * {batches}) {divide} {2**31}"


def _dask(frame: Any, column: str, batches: int) -> Any:
    def of(part: Any) -> Any:
        known = part[column].notna()
        texts = part[column].where(known, "").astype(str).tolist()
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        found = text_batches("".join(texts), lengths, batches)
        return part.assign(**{BATCH: np.where(known, found, np.nan)})

    meta = frame._meta.assign(**{BATCH: np.zeros(0)})
    return frame.map_partitions(of, meta=meta)


_WAYS: Mapping[nw.Implementation, Callable[[Any, str, int], Any]] = MappingProxyType(
    {
        nw.Implementation.DUCKDB: _duckdb,
        nw.Implementation.PYSPARK: _pyspark,
        nw.Implementation.DASK: _dask,
    }
)
