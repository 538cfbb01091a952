"""Counts are what one would count by hand, add up whatever the parts, and are a log like the rows that were counted."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.simulators.cells import Amount, Cells
from metaverify.simulators.counting import count, cuts_of
from metaverify.simulators.counts import Counts, is_counted, load_counts, load_sketch, save_sketch
from metaverify.simulators.engines import BEND, BY_LENGTH, PERIOD, PRIME, WEIGHTS, text_batches
from metaverify.simulators.log import LogError, ReplayLog
from metaverify.simulators.reader import read_log, write_log
from metaverify.simulators.sketching import sketch
from metaverify.simulators.worlds import shared_difficulty, token_prices
from tests.strategies import repeatable

OPTIONS = {
    "context": ("task", "tokens"),
    "context_cuts": {"tokens": (10.0, 40.0)},
    "votes": {"votes": 4},
    "samples": ("conf2",),
    "signals": {"judge": ("small",)},
}


def table(rows: int = 300, seed: int = 0) -> pl.DataFrame:
    """A log of everything there is: groups, weights, contexts, votes, a sample, a signal, prices, missing readings."""
    rng = np.random.default_rng(seed)

    def some(values: np.ndarray, missing: float = 0.1) -> list[float | None]:
        return [None if rng.random() < missing else float(v) for v in values]

    sample = some(rng.random(rows).round(2), 0.3)
    return pl.DataFrame(
        {
            "query_id": [f"q{at}" for at in range(rows)],
            "group_id": [f"g{at // 2}é" for at in range(rows)],
            "weight": rng.integers(1, 4, rows) / 2,
            "task": [None if at % 17 == 0 else "ab/"[at % 3] for at in range(rows)],
            "tokens": some(rng.integers(0, 60, rows)),
            "correct_small": rng.random(rows).round(1),
            "cost_small": [1.0] * rows,
            "conf_small": some(rng.random(rows)),
            "conf2_small": sample,
            "correct2_small": [None if value is None else float(at % 2) for at, value in enumerate(sample)],
            "verify_cost2_small": [None if value is None else 0.3 + 0.001 * at for at, value in enumerate(sample)],
            "correct_large": rng.random(rows) < 0.8,
            "cost_large": rng.gamma(2.0, 5.0, rows),
            "conf_votes_large": some(rng.integers(0, 5, rows) / 4),
            "verify_cost_votes_large": [0.4] * rows,
            "conf_judge": some(rng.random(rows) ** 3),
        }
    )


def batch_by_hand(text: str, batches: int) -> int:
    """The hash that the engines' module states, in Python's whole numbers."""
    h = (sum(WEIGHTS[i % PERIOD] * ord(c) for i, c in enumerate(text)) + BY_LENGTH * len(text)) % PRIME
    return h * (h + BEND) % PRIME * batches // 2**31


def hand_counted(frame: pl.DataFrame, cells: Cells) -> dict[tuple[object, ...], list[float]]:
    """(context, batch, bins and rights) -> rows, weight, and what the large tier cost in all, row by row."""
    edges = {(s.name, r.name): r.edges for s in cells.sources for r in s.readings}
    found: dict[tuple[object, ...], list[float]] = {}

    def place(of: tuple[str, str], value: float | None) -> int:
        return len(edges[of]) + 1 if value is None else bisect_right(edges[of], value)

    for row in frame.iter_rows(named=True):
        tokens = row["tokens"]
        interval = 3 if tokens is None else bisect_right((10.0, 40.0), tokens)
        key = (
            row["task"] or "",
            ("tokens<10", "10<=tokens<40", "tokens>=40", "tokens missing")[interval],
            batch_by_hand(row["group_id"], cells.batches),
            int(row["correct_large"]),
            place(("large", "votes"), row["conf_votes_large"]),
            int(row["correct_small"] >= 0.5),
            place(("small", "conf"), row["conf_small"]),
            place(("small", "conf2"), row["conf2_small"]),
            2 if row["correct2_small"] is None else int(row["correct2_small"]),
            place(("judge", "conf"), row["conf_judge"]),
        )
        cell = found.setdefault(key, [0.0, 0.0, 0.0])
        for at, more in enumerate((1.0, row["weight"], row["weight"] * row["cost_large"])):
            cell[at] += more
    return found


def test_counts_are_what_one_counts_by_hand() -> None:
    frame = table()
    counts = count(frame.lazy(), bins=3, batches=3, **OPTIONS)  # type: ignore[arg-type]
    digits, log = counts.digits(), counts.log()
    large = log.tier("large")
    found = {}
    for at in range(len(counts)):
        task, tokens = counts.label[at].replace("\\/", "\0").split("/")
        key = (
            task.replace("\0", "/"),
            tokens,
            digits["batch"][at],
            digits["correct_large"][at],
            digits["conf_votes_large"][at],
            digits["correct_small"][at],
            digits["conf_small"][at],
            digits["conf2_small"][at],
            digits["correct2_small"][at],
            digits["conf_judge"][at],
        )
        found[key] = [float(counts.rows[at]), log.weights[at], log.weights[at] * large.cost[at]]
    expected = hand_counted(frame, counts.cells)
    assert set(found) == set(expected)
    for key, cell in expected.items():
        assert found[key] == pytest.approx(cell, rel=1e-9), key


def test_means_of_the_counts_are_means_of_the_rows(tmp_path: Path) -> None:
    frame = table()
    frame.write_parquet(tmp_path / "log.parquet")
    rows = read_log(tmp_path / "log.parquet", **OPTIONS)  # type: ignore[arg-type]
    log = count(tmp_path / "log.parquet", bins=4, **OPTIONS).log()  # type: ignore[arg-type]
    assert (log.tier_names, log.queries, log.context_names) == (rows.tier_names, len(rows), rows.context_names)
    assert log.weights.sum() == pytest.approx(rows.weights.sum(), rel=1e-12)
    assert set(log.contexts) == set(rows.contexts)  # type: ignore[arg-type]
    for tier in rows.tiers:
        own = log.tier(tier.name)
        assert log.mean(own.correct) == pytest.approx(rows.mean(tier.correct), rel=1e-10)
        assert log.mean(own.cost) == pytest.approx(rows.mean(tier.cost), rel=1e-10)
        for one, other in zip(own.readings, tier.readings, strict=True):
            assert (one.name, one.votes) == (other.name, other.votes)
            assert log.mean(one.price) == pytest.approx(rows.mean(other.price), rel=1e-10)
            missing = log.mean(np.isnan(one.confidence).astype(float))
            assert missing == pytest.approx(rows.mean(np.isnan(other.confidence).astype(float)), rel=1e-12)
    sampled = log.tier("small").readings[1].correct
    expected = rows.tier("small").readings[1].correct
    assert sampled is not None
    assert expected is not None
    assert log.mean(np.nan_to_num(sampled)) == pytest.approx(rows.mean(np.nan_to_num(expected)), rel=1e-10)
    assert set(log.tier("large").readings[0].confidence[~np.isnan(log.tier("large").readings[0].confidence)]) <= {
        0.0,
        0.25,
        0.5,
        0.75,
        1.0,
    }


def test_a_price_that_never_varies_comes_back_to_the_last_bit() -> None:
    frame = table().with_columns(cost_small=pl.lit(0.1))
    log = count(frame.lazy(), **OPTIONS).log()  # type: ignore[arg-type]
    assert (log.tier("small").cost == 0.1).all()
    assert log.counted is not None
    assert set(log.counted.dearest) == {("small", "conf2"), ("large", None)}
    assert log.counted.dearest["large", None] == table()["cost_large"].max()


def same(one: Counts, other: Counts) -> bool:
    """Whether two counts are the same to the last bit."""
    arrays = ((one.key, other.key), (one.rows, other.rows), (one.sums, other.sums), (one.label, other.label))
    return one.cells == other.cells and all(np.array_equal(*pair) for pair in arrays)


@repeatable(12)
@given(st.lists(st.integers(0, 3), min_size=120, max_size=120), st.permutations(range(4)))
def test_any_parts_in_any_order_add_up_to_the_whole(part: list[int], order: list[int]) -> None:
    frame = table(120)
    whole = count(frame.lazy(), bins=3, **OPTIONS)  # type: ignore[arg-type]
    parts = [frame.filter(pl.Series(np.array(part) == at)) for at in order]
    counted = [count(own.lazy(), cuts=whole, **OPTIONS) for own in parts if len(own)]  # type: ignore[arg-type]
    total = counted[0]
    for other in counted[1:]:
        total = total + other
    assert same(total, whole)


@repeatable(10)
@given(st.integers(1, 299))
def test_sketches_of_parts_add_up_to_the_sketch_of_the_whole(at: int) -> None:
    frame = table()
    whole = sketch(frame.lazy(), **OPTIONS)
    both = sketch(frame[at:].lazy(), **OPTIONS) + sketch(frame[:at].lazy(), **OPTIONS)
    assert both.to_json() == whole.to_json()
    assert both.cells(bins=7) == whole.cells(bins=7)


def test_a_sketch_and_counts_come_back_from_their_files(tmp_path: Path) -> None:
    drawn = sketch(table().lazy(), **OPTIONS)
    save_sketch(drawn, tmp_path / "sketch.parquet")
    assert load_sketch(tmp_path / "sketch.parquet").cells(bins=9) == drawn.cells(bins=9)
    counts = count(table().lazy(), cuts=drawn, bins=9, cells=10_000_000, **OPTIONS)  # type: ignore[arg-type]
    assert counts.cells == drawn.cells(bins=9, most=10_000_000)
    counts.save(tmp_path / "a.parquet")
    load_counts(tmp_path / "a.parquet").save(tmp_path / "b.parquet")
    assert same(load_counts(tmp_path / "b.parquet"), counts)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    kinds = [is_counted(tmp_path / name) for name in ("a.parquet", "sketch.parquet", "none.parquet")]
    assert kinds == ["counts", "sketch", None]


def test_a_log_in_memory_and_files_of_any_form_are_counted_alike(tmp_path: Path) -> None:
    log = token_prices(2, 12, missing=0.05).draw(400, 3)
    whole = count(log)
    halves = [log.take(np.arange(200)), log.take(np.arange(200, 400))]
    for at, half in enumerate(halves):
        write_log(half, tmp_path / f"log{at}.csv")
        write_log(half, tmp_path / f"log{at}.parquet")
    for form in ("csv", "parquet"):
        assert same(count(str(tmp_path / f"log*.{form}"), cuts=whole), whole)
    assert same(count([tmp_path / "log0.csv", tmp_path / "log1.parquet"], cuts=whole), whole)
    long = pl.concat(
        [
            pl.DataFrame(
                {
                    "query_id": log.query_ids.tolist(),
                    "tier": tier.name,
                    "correct": tier.correct,
                    "cost": tier.cost,
                    "confidence": tier.readings[0].confidence,
                }
            )
            for tier in log.tiers
        ]
    )
    long.write_parquet(tmp_path / "long.parquet")
    assert same(count(tmp_path / "long.parquet", cuts=whole), whole)
    with pytest.raises(LogError, match=r"E_COLUMN.*row a reading.*from files only"):
        count(long.lazy())


def test_few_values_are_bins_of_their_own_and_counting_loses_nothing() -> None:
    log = shared_difficulty(2, 6).draw(500, 1)
    counted = count(log).log()
    for tier in log.tiers:
        own = counted.tier(tier.name).readings[0]
        assert sorted(set(own.confidence)) == sorted(set(tier.readings[0].confidence))
        for value in set(own.confidence):
            weight = counted.weights[own.confidence == value].sum()
            assert weight == (tier.readings[0].confidence == value).sum()


# Batches ----------------------------------------------------------------------------------------------


@repeatable(60)
@given(st.lists(st.text(max_size=90), max_size=12), st.integers(1, 100))
def test_a_batch_is_the_stated_hash_of_a_text(texts: list[str], batches: int) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    found = text_batches("".join(texts), lengths, batches).tolist()
    assert found == [batch_by_hand(text, batches) for text in texts]


@pytest.mark.parametrize("form", ["q{:06d}", "q{}", "{}", "user-{}/session", "{:032x}"])
def test_batches_are_even_and_neighbours_part(form: str) -> None:
    texts = [form.format(at) for at in range(20_000)]
    found = text_batches("".join(texts), np.array([len(t) for t in texts]), 32)
    expected = len(texts) / 32
    chi_square = float(((np.bincount(found, minlength=32) - expected) ** 2 / expected).sum())
    assert 9.0 < chi_square < 68.0  # but for 1 in 10,000 either way, of 31 degrees of freedom
    together = int((found[1:] == found[:-1]).sum())
    assert abs(together - expected) < 5.0 * math.sqrt(expected)


def test_a_group_is_in_one_batch_and_rows_without_ids_are_dealt_out() -> None:
    frame = table()
    log = count(frame.lazy(), **OPTIONS).log()  # type: ignore[arg-type]
    assert log.group_count <= 32
    plain = frame.drop("query_id", "group_id", "weight")
    counts = count(plain.lazy(), batches=10, **OPTIONS)  # type: ignore[arg-type]
    dealt = Counter[int]()
    for batch, rows in zip(counts.digits()["batch"].tolist(), counts.rows.tolist(), strict=True):
        dealt[batch] += rows
    assert set(dealt.values()) == {30}


# The size of it ----------------------------------------------------------------------------------------------


def test_bins_are_coarser_where_there_would_be_too_many_cells() -> None:
    log = shared_difficulty(3, 40).draw(5000, 1)
    fine, coarse = count(log), count(log, cells=3500)
    assert [len(r.values) for s in fine.cells.sources for r in s.readings] == [32, 32, 32]
    bins = {s.name: len(s.readings[0].values) for s in coarse.cells.sources}
    assert len(coarse) <= 3500
    assert max(bins.values()) < 32
    assert "tier3" in coarse.notes[0]
    assert coarse.cells.batches == 16
    assert 8 * 16 * math.prod(bins.values()) <= 3500  # rights and wrongs, batches, bins
    assert coarse.queries == fine.queries == 5000
    assert fine.notes == ()


def test_rows_that_cannot_be_told_apart_any_coarser_are_refused() -> None:
    frame = table(2000).with_columns(task=pl.int_range(2000).cast(pl.String))
    with pytest.raises(LogError, match=r"E_SIZE.*contexts"):
        count(frame.lazy(), cells=500, **OPTIONS)  # type: ignore[arg-type]


# What is refused ----------------------------------------------------------------------------------------------


FAULTS = {
    "a confidence beyond 1": ({"conf_small": 1.2}, "E_RANGE", "conf_small is 1.2 in one row"),
    "a confidence that is infinite": ({"conf_judge": math.inf}, "E_RANGE", "conf_judge is inf"),
    "no quality": ({"correct_small": None}, "E_MISSING", "correct_small is missing in one row"),
    "a quality of NaN": ({"correct_small": math.nan}, "E_MISSING", "correct_small is missing"),
    "a quality beyond 1": ({"correct_small": -0.5}, "E_RANGE", "correct_small is -0.5"),
    "no price": ({"cost_large": None}, "E_MISSING", "cost_large is missing"),
    "a price of NaN": ({"cost_large": math.nan}, "E_MISSING", "cost_large is missing"),
    "a price below 0": ({"cost_large": -1.0}, "E_RANGE", "cost_large is -1.0.*not a price"),
    "an endless price": ({"cost_large": math.inf}, "E_RANGE", "cost_large is inf.*not a price"),
    "no share of votes": ({"conf_votes_large": 0.3}, "E_RANGE", "no share of 4 votes"),
    "no weight": ({"weight": 0.0}, "E_RANGE", "weight is 0.0.*not a weight"),
    "no group": ({"group_id": None}, "E_MISSING", "group_id is missing in one row"),
    "a sample without its quality": (
        {"conf2_small": 0.5, "correct2_small": None},
        "E_MISSING",
        "correct2_small is missing.*though conf2_small is there",
    ),
    "a reading without its price": (
        {"conf2_small": 0.5, "correct2_small": 1.0, "verify_cost2_small": None},
        "E_MISSING",
        "verify_cost2_small is missing",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_value_that_cannot_be_counted_is_refused(name: str) -> None:
    cells, code, told = FAULTS[name]
    frame = table()
    here = pl.int_range(len(frame)) == 7
    wrong = [pl.when(here).then(pl.lit(v, dtype=frame.schema[c])).otherwise(c).alias(c) for c, v in cells.items()]
    with pytest.raises(LogError, match=told) as refused:
        count(frame.with_columns(wrong).lazy(), **OPTIONS)  # type: ignore[arg-type]
    assert refused.value.code == code


def test_texts_where_numbers_belong_and_decimal_labels_are_refused() -> None:
    with pytest.raises(LogError, match=r"E_TYPE.*cost_small holds String"):
        count(table().with_columns(pl.col("cost_small").cast(pl.String)).lazy(), **OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(LogError, match=r"E_TYPE.*tokens holds Float64"):
        count(table().lazy(), **{**OPTIONS, "context_cuts": {}})  # type: ignore[arg-type]
    with pytest.raises(LogError, match=r"E_OPTION.*where tokens is cut"):
        count(table().lazy(), **{**OPTIONS, "context": "tokens:3", "context_cuts": {}})  # type: ignore[arg-type]
    with pytest.raises(LogError, match=r"E_OPTION: int is no log"):
        count(7)
    with pytest.raises(LogError, match=r"E_FILE.*no file is called so"):
        count("nowhere-*.parquet")


def test_what_a_sample_of_the_rows_could_not_show_makes_a_sketch_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metaverify.simulators.frames.SAMPLED", 64)
    frame = table(2000).with_columns(correct_small=(pl.int_range(2000) % 2).cast(pl.Float64), cost_large=2.0)
    frame.write_parquet(tmp_path / "log.parquet")
    plain = count(tmp_path / "log.parquet", **OPTIONS)  # type: ignore[arg-type]
    assert "50 of 2,000 rows" in plain.notes[-1]
    odd = frame.with_columns(
        correct_small=pl.when(pl.int_range(2000) == 5).then(0.25).otherwise("correct_small"),
        cost_large=pl.when(pl.int_range(2000) == 6).then(1e6).otherwise("cost_large"),
    )
    odd.write_parquet(tmp_path / "odd.parquet")
    whole = count(tmp_path / "odd.parquet", **OPTIONS)  # type: ignore[arg-type]
    assert not any("of 2,000 rows" in note for note in whole.notes)
    log = whole.log()
    assert log.mean(log.tier("small").correct) == pytest.approx(
        np.average(odd["correct_small"].to_numpy(), weights=odd["weight"].to_numpy()), rel=1e-9
    )
    assert log.mean(log.tier("large").cost) == pytest.approx(
        np.average(odd["cost_large"].to_numpy(), weights=odd["weight"].to_numpy()), rel=1e-9
    )
    with pytest.raises(LogError, match=r"E_RANGE.*correct_small is 0.25.*sketch the log anew"):
        count(tmp_path / "odd.parquet", cuts=plain, **OPTIONS)  # type: ignore[arg-type]


def test_counts_over_other_cells_do_not_add_up() -> None:
    log = shared_difficulty(2, 30).draw(600, 1)
    counts = count(log)
    others = {
        "other edges": count(log, bins=5),
        "32 and 20 batches": count(log, batches=20),
        "tiers and signals tier1, tier2, and tier1": count(log.with_tiers(["tier1"])),
        "different units": count(replace(log, tiers=tuple(replace(t, cost=t.cost * 3) for t in log.tiers))),
    }
    for told, other in others.items():
        with pytest.raises(LogError, match=f"E_OPTION.*{told}"):
            _ = counts + other


def test_a_log_that_lacks_what_is_counted_is_refused() -> None:
    frame = table()
    whole = count(frame.lazy(), **OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(LogError, match=r"E_OPTION.*has no reading 'conf' of 'small'"):
        count(frame.drop("conf_small").lazy(), cuts=whole, **OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(LogError, match=r"E_OPTION.*some of the logs have weights"):
        count(frame.drop("weight").lazy(), cuts=whole, **OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(LogError, match=r"E_OPTION.*context task is not what was counted"):
        count(frame.lazy(), cuts=whole, **{**OPTIONS, "context": "task", "context_cuts": {}})  # type: ignore[arg-type]


def test_a_tier_that_the_cells_have_not_is_refused_with_the_way_out() -> None:
    frame = table()
    monday = count(frame.lazy(), **OPTIONS)  # type: ignore[arg-type]
    tuesday = frame.with_columns(correct_xl=1.0, cost_xl=9.0, conf_xl=0.5).lazy()
    with pytest.raises(
        LogError, match=r"E_OPTION.*has 'xl', which the cells have not: --tiers large,small,judge counts the rest"
    ):
        count(tuesday, cuts=monday, **OPTIONS)  # type: ignore[arg-type]
    known = count(tuesday, cuts=monday, tiers=("large", "small", "judge"), **OPTIONS)  # type: ignore[arg-type]
    assert same(known, monday)


def test_a_reading_that_the_cells_have_not_is_left_out_and_said(tmp_path: Path) -> None:
    frame = table()
    tuesday = frame.with_columns(
        conf_new_small=pl.lit(0.3), verify_cost_new_small=pl.lit(0.1), conf3_small=0.25, correct3_small=0.5
    )
    options = {**OPTIONS, "samples": ("conf2", "conf3")}
    for cuts in (count(frame.lazy(), **OPTIONS), sketch(frame.lazy(), **OPTIONS)):  # type: ignore[arg-type]
        plain = count(frame.lazy(), cuts=cuts, **OPTIONS)  # type: ignore[arg-type]
        found = count(tuesday.lazy(), cuts=cuts, **options)  # type: ignore[arg-type]
        assert same(found, plain)
        assert [note.split(" is in ")[0] for note in found.notes[:2]] == ["new of small", "conf3 of small"]
        assert (plain + found).queries == 600
        found.save(tmp_path / "tuesday.parquet")
        assert "new of small" in " ".join(note.text for note in read_log(tmp_path / "tuesday.parquet").notes)


def test_files_that_are_no_counts_or_damaged_are_refused(tmp_path: Path) -> None:
    log = shared_difficulty(2, 5).draw(100, 1)
    write_log(log, tmp_path / "log.parquet")
    with pytest.raises(LogError, match=r"E_FILE.*is a log, no counts file"):
        load_counts(tmp_path / "log.parquet")
    counts = count(log)
    with pytest.raises(LogError, match=r"E_FILE.*does not end in \.parquet"):
        counts.save(tmp_path / "counts.csv")
    counts.save(tmp_path / "counts.parquet")
    raw = (tmp_path / "counts.parquet").read_bytes()
    (tmp_path / "half.parquet").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(LogError, match=r"E_DAMAGED"):
        load_counts(tmp_path / "half.parquet")
    frame, told = pl.read_parquet(tmp_path / "counts.parquet"), pl.read_parquet_metadata(tmp_path / "counts.parquet")
    kept = {"metaverify": told["metaverify"]}
    frame.drop("queries").write_parquet(tmp_path / "lacking.parquet", metadata=kept)
    with pytest.raises(LogError, match=r"E_DAMAGED.*no column 'queries'"):
        load_counts(tmp_path / "lacking.parquet")
    frame.with_columns(pl.col("batch") + 100).write_parquet(tmp_path / "outside.parquet", metadata=kept)
    with pytest.raises(LogError, match=r"E_DAMAGED.*outside its bins"):
        load_counts(tmp_path / "outside.parquet")
    later = {"metaverify": told["metaverify"].replace('"version": 1', '"version": 2')}
    frame.write_parquet(tmp_path / "later.parquet", metadata=later)
    with pytest.raises(LogError, match=r"E_FILE.*of version 2, newer"):
        load_counts(tmp_path / "later.parquet")


def test_what_is_said_of_counts_must_be_what_they_were_counted_with(tmp_path: Path) -> None:
    count(table().lazy(), **OPTIONS).save(tmp_path / "counts.parquet")  # type: ignore[arg-type]
    file = tmp_path / "counts.parquet"
    log = read_log(file, **OPTIONS)  # type: ignore[arg-type]
    assert log.context_names == ("task", "tokens")
    assert read_log(file).contexts is None
    assert read_log(file, tiers=["large"]).tier_names == ("large",)
    wrong: dict[str, dict[str, object]] = {
        "--context": {"context": "task"},
        "--votes": {"votes": {"votes": 5}},
        "--samples": {"samples": "votes"},
        "--signal": {"signals": {"judge": ()}},
        "--context_cuts": {"context_cuts": {"tokens": (1.0,)}},
        "--scale comes too late": {"scale": 100.0},
        "--group comes too late": {"group": "task"},
        "--costs comes too late": {"costs": {"small": 2.0}},
        "has no tier 'other'": {"tiers": ["other"]},
    }
    for told, options in wrong.items():
        with pytest.raises(LogError, match=f"E_OPTION.*{told}"):
            read_log(file, **options)  # type: ignore[arg-type]


# Amounts ----------------------------------------------------------------------------------------------


@repeatable(60)
@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6))
def test_an_amount_is_told_to_ten_digits_of_the_largest(one: float, other: float) -> None:
    low, high = sorted((one, other))
    amount = Amount.between(low, high)
    for value in (low, high, (low + high) / 2):
        told = amount.origin + amount.unit * math.floor((value - amount.origin) / amount.unit + 0.5)
        assert abs(told - value) <= 2.0**-36 * high
    assert amount.most >= 16 * high * (1 - 1e-9) or high == 0.0


def test_the_cuts_of_a_policy_are_the_edges() -> None:
    from metaverify.fitting.learner import TableLearner

    log: ReplayLog = shared_difficulty(2, 64).draw(1000, 1)
    policy = TableLearner(bins=4, gap=0.05).policy(log)
    edges = cuts_of(policy)
    counts = count(log, cuts=policy)
    for source in counts.cells.sources:
        for reading in source.readings:
            if (source.name, reading.name) in edges:
                assert reading.edges == edges[source.name, reading.name]


@pytest.mark.parametrize(
    ("place", "edges", "words"),
    [
        (("tier1", "votes"), (0.5,), "cuts of votes of tier1, which the log has not; it has conf of tier1"),
        (("tier3", "conf"), (0.5,), "cuts of conf of tier3, which the log has not"),
        (("tier1", "conf"), (0.2, math.nan), "cuts of conf of tier1 are (0.2, nan); give finite numbers"),
    ],
    ids=["reading", "source", "nan"],
)
def test_cuts_of_what_is_not_there_and_of_no_numbers_are_refused(
    place: tuple[str, str], edges: tuple[float, ...], words: str
) -> None:
    with pytest.raises(LogError, match=re.escape(words)):
        count(shared_difficulty(2, 64).draw(100, 1), cuts={place: edges})


def test_given_edges_may_come_in_any_order_and_twice() -> None:
    log = shared_difficulty(2, 64).draw(500, 1)
    first = count(log, cuts={("tier1", "conf"): (0.75, 0.25, 0.5, 0.25)})
    assert first.cells == count(log, cuts={("tier1", "conf"): (0.25, 0.5, 0.75)}).cells
    below = float((log.tiers[0].readings[0].confidence < 0.25).sum())
    assert first.rows[first.digits()["conf_tier1"] == 0].sum() == below
