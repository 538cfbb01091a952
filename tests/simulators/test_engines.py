"""Every engine counts the same, to the last bit; one that is not installed is passed over, and said so."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from metaverify.simulators.counting import count
from metaverify.simulators.engines import BATCH, with_batches
from metaverify.simulators.log import LogError
from metaverify.simulators.sketching import sketch
from tests.simulators.test_counting import OPTIONS, batch_by_hand, same, table

PLAIN = {name: of for name, of in OPTIONS.items() if not name.startswith("context")}
IDS = ("", "q1", "é", "日本-7", "a𝄞b", "x" * 64, "x" * 65 + "y", "q" * 200, "42")

Opener = Callable[[Path], Any]

SMALL_SPARK = {  # little is computed, so that compiling would take the time
    "spark.ui.enabled": "false",
    "spark.driver.host": "localhost",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


def duckdb(path: Path) -> Any:
    engine = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    return engine.connect().sql(f"select * from '{path}'")


def dask(path: Path) -> Any:
    frames = pytest.importorskip("dask.dataframe", reason="Dask is not installed")
    return frames.read_parquet(path)


def pyspark(path: Path) -> Any:
    sql = pytest.importorskip("pyspark.sql", reason="PySpark is not installed")
    builder = sql.SparkSession.builder.master("local[1]")
    for name, value in SMALL_SPARK.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:  # no Java, mostly
        pytest.skip(f"PySpark does not start: {error}")
    return session.read.parquet(str(path))


ENGINES = {
    "polars": lambda path: pl.scan_parquet(path),
    "duckdb": duckdb,
    "dask": dask,
    "pyspark": pyspark,
}


@pytest.fixture(params=list(ENGINES.values()), ids=list(ENGINES))
def opened(request: pytest.FixtureRequest) -> Any:
    """Opens a Parquet file as a lazy frame of the engine."""
    with warnings.catch_warnings():  # of what engines say to one another
        warnings.simplefilter("ignore")
        yield request.param


def test_every_engine_counts_alike(opened: Opener, tmp_path: Path) -> None:
    table(240).write_parquet(tmp_path / "log.parquet")
    drawn = sketch(tmp_path / "log.parquet", **OPTIONS)
    whole = count(tmp_path / "log.parquet", cuts=drawn, bins=5, **OPTIONS)  # type: ignore[arg-type]
    frame = opened(tmp_path / "log.parquet")
    assert sketch(frame, **OPTIONS).to_json() == drawn.to_json()
    assert same(count(frame, cuts=drawn, bins=5, **OPTIONS), whole)  # type: ignore[arg-type]


def test_every_engine_refuses_alike(opened: Opener, tmp_path: Path) -> None:
    wrong = table(60).with_columns(cost_large=pl.when(pl.int_range(60) == 7).then(-1.0).otherwise("cost_large"))
    wrong.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(LogError, match=r"E_RANGE: .*cost_large is -1\.0 in one row, not a price"):
        count(opened(tmp_path / "log.parquet"), **OPTIONS)  # type: ignore[arg-type]


def test_every_engine_puts_a_text_in_the_same_batch(opened: Opener, tmp_path: Path) -> None:
    frame = pl.DataFrame({"at": range(len(IDS)), "the id": IDS})
    frame.write_parquet(tmp_path / "ids.parquet")
    found = with_batches(opened(tmp_path / "ids.parquet"), "the id", 97)
    if isinstance(found, pl.LazyFrame):
        batches = dict(found.collect().select("at", BATCH).rows())
    elif hasattr(found, "fetchall"):
        batches = dict(found.project(f'"at", "{BATCH}"').fetchall())
    else:
        rows = found.toPandas() if hasattr(found, "toPandas") else found.compute()
        batches = dict(zip(rows["at"].tolist(), rows[BATCH].tolist(), strict=True))
    assert batches == {at: batch_by_hand(text, 97) for at, text in enumerate(IDS)}


def test_an_eager_table_is_counted_and_an_engine_without_a_hash_refused() -> None:
    frame = table(60)
    assert same(count(frame, **OPTIONS), count(frame.lazy(), **OPTIONS))  # type: ignore[arg-type]
    ids = {"query_id": np.arange(3)}
    with pytest.raises(LogError, match=r"E_OPTION.*no batches of its groups.*dask, duckdb, polars, pyspark"):
        with_batches(pytest.importorskip("pyarrow").table(ids), "query_id", 4)


AT = [datetime(2026, 5, 1 + at % 3, tzinfo=UTC) for at in range(60)]

TOLD_VARIOUSLY = {
    "moments": pl.Series(AT).dt.replace_time_zone(None),
    "moments with a zone": pl.Series(AT),
    "decimals": pl.Series(range(60)).cast(pl.Decimal(10, 2)),
    "truth": pl.Series([at % 2 == 0 for at in range(60)]),
    "fractions": pl.Series(range(60)).cast(pl.Float64),
}


@pytest.mark.parametrize("kind", TOLD_VARIOUSLY)
def test_every_engine_refuses_ids_that_it_would_tell_otherwise_than_others(
    kind: str, opened: Opener, tmp_path: Path
) -> None:
    for column, options in (("group_id", {}), ("user", {"group": "user"}), ("day", {"context": "day"})):
        table(60).with_columns(TOLD_VARIOUSLY[kind].alias(column)).write_parquet(tmp_path / "log.parquet")
        if (kind, column) == ("truth", "day"):
            continue
        with pytest.raises(
            LogError, match=rf"E_TYPE: .*{column} holds .*; give texts or whole numbers, which are names"
        ):
            count(opened(tmp_path / "log.parquet"), **PLAIN | options)  # type: ignore[arg-type]


def test_every_engine_tells_labels_alike_with_gaps_and_without(opened: Opener, tmp_path: Path) -> None:
    """Whole numbers, days and truth, of each some missing."""
    frame = table(60).with_columns(
        number=pl.Series(range(60)) % 3, day=pl.Series(AT).dt.date(), fast=pl.Series(AT) > AT[0]
    )
    known = pl.int_range(60) % 5 > 0
    frame = frame.with_columns(pl.when(known).then(c).alias(c) for c in ("number", "day", "fast"))
    frame.write_parquet(tmp_path / "log.parquet")
    for column in ("number", "day", "fast"):
        texts = frame[column].cast(pl.String).fill_null("").to_list()
        counts = count(opened(tmp_path / "log.parquet"), **PLAIN | {"context": column})  # type: ignore[arg-type]
        assert set(counts.label) == set(texts)
        found = {label: int(counts.rows[counts.label == label].sum()) for label in set(counts.label)}
        assert found == Counter(texts)
