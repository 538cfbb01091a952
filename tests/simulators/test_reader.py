"""A log means the same in every format and form, and what cannot be read is said in words."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaverify.simulators.files import _refuse_stray_quote, told_as_log_errors
from metaverify.simulators.log import LogError, LoggedReading, LoggedTier, ReplayLog, fingerprint
from metaverify.simulators.reader import log_columns, read_log, write_log

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
WIDE = "query_id,conf_small,correct_small,cost_small\n"
LONG = "query_id,tier,reading,confidence,correct,cost\n"


def write(folder: Path, text: str | bytes, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def said(path: Path, **options: Any) -> str:
    with pytest.raises(LogError) as caught:
        read_log(path, **options)
    return caught.value.message


def assert_same(one: ReplayLog, other: ReplayLog) -> None:
    assert one.query_ids.tolist() == other.query_ids.tolist()
    assert one.group_ids.tolist() == other.group_ids.tolist()
    assert (None if one.contexts is None else one.contexts.tolist()) == (
        None if other.contexts is None else other.contexts.tolist()
    )
    np.testing.assert_array_equal(one.weights, other.weights)
    assert one.tier_names == other.tier_names
    for mine, theirs in zip(one.tiers, other.tiers, strict=True):
        np.testing.assert_array_equal(mine.correct, theirs.correct)
        np.testing.assert_array_equal(mine.cost, theirs.cost)
        assert [reading.name for reading in mine.readings] == [reading.name for reading in theirs.readings]
        for my, their in zip(mine.readings, theirs.readings, strict=True):
            np.testing.assert_array_equal(my.confidence, their.confidence)
            np.testing.assert_array_equal(my.price, their.price)
            assert (my.correct is None) == (their.correct is None)
            np.testing.assert_array_equal(my.correct, their.correct)


def shape(log: ReplayLog) -> dict[str, list[str]]:
    return {tier.name: [reading.name for reading in tier.readings] for tier in log.tiers}


# What a file means ---------------------------------------------------------------------------------------------------


def test_a_wide_csv_reads_as_it_stands(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "query_id,lang,group_id,weight,conf_small,correct_small,cost_small,conf2_small,verify_cost2_small,"
        "correct_large,cost_large,note\n"
        "a,en,g1,1,0.25,1,0.5,,,1,2.5,x\n"
        "b,de,g1,2,,0,0.75,0.5,0.1,0.5,3,y\n",
    )
    log = read_log(path, context="lang")
    assert shape(log) == {"small": ["conf", "conf2"], "large": []}
    assert log.query_ids.tolist() == ["a", "b"]
    assert log.group_ids.tolist() == ["g1", "g1"]
    assert log.contexts is not None
    assert log.contexts.tolist() == ["en", "de"]
    assert log.weights.tolist() == [1.0, 2.0]
    small, large = log.tiers
    assert small.correct.tolist() == [1.0, 0.0]
    assert small.cost.tolist() == [0.5, 0.75]
    assert large.correct.tolist() == [1.0, 0.5]
    np.testing.assert_array_equal(small.readings[0].confidence, [0.25, np.nan])
    assert small.readings[0].price.tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(small.readings[1].confidence, [np.nan, 0.5])
    assert small.readings[1].price.tolist() == [0.0, 0.1]


def test_without_ids_the_rows_are_numbered_and_every_query_is_its_own_group(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, "correct_small,cost_small\n1,1\n0,1\n"))
    assert log.query_ids.tolist() == ["row-000000001", "row-000000002"]
    assert log.ungrouped
    assert log.contexts is None


def test_ids_that_look_like_something_else_survive_in_csv(tmp_path: Path) -> None:
    ids = ["NA", "null", "007", "123456789012345678", "nan", "1e5", "True", " x "]
    log = read_log(write(tmp_path, "query_id,correct_a,cost_a\n" + "".join(f"{i},1,1\n" for i in ids)))
    assert log.query_ids.tolist() == ids


def test_numeric_ids_of_typed_formats_become_texts(tmp_path: Path) -> None:
    frame = pl.DataFrame({"query_id": [7, 123456789012345678], "correct_a": [1, 0], "cost_a": [1, 1]})
    frame.write_parquet(tmp_path / "log.parquet")
    frame.write_ndjson(tmp_path / "log.jsonl")
    for name in ("log.parquet", "log.jsonl"):
        assert read_log(tmp_path / name).query_ids.tolist() == ["7", "123456789012345678"]


def test_a_tier_takes_the_longest_name_that_fits(tmp_path: Path) -> None:
    tiers = ("mini", "4o_mini", "gpt_4o")
    header = [f"correct_{tier}" for tier in tiers] + [f"cost_{tier}" for tier in tiers]
    header += ["conf_4o_mini", "conf_logit_mini", "conf_x_4o_mini", "conf3_gpt_4o", "conf_gpt_4o", "conf_a_b_gpt_4o"]
    path = write(tmp_path, ",".join(header) + "\n" + 2 * (",".join(["1"] * len(header)) + "\n"))
    assert shape(read_log(path)) == {
        "mini": ["logit"],
        "4o_mini": ["conf", "x"],
        "gpt_4o": ["conf", "conf3", "a_b"],
    }


def test_readings_keep_the_file_s_order_after_conf(tmp_path: Path) -> None:
    path = write(tmp_path, "conf_z_a,conf2_a,conf_a,conf_b_a,correct_a,cost_a\n" + ".5,.5,.5,.5,1,1\n" * 2)
    assert shape(read_log(path)) == {"a": ["conf", "z", "conf2", "b"]}


def test_a_reading_that_is_never_there_is_dropped(tmp_path: Path) -> None:
    path = write(tmp_path, "conf_a,conf2_a,verify_cost_a,correct_a,cost_a\n,.5,,1,1\nnan,.5,,1,1\n")
    assert shape(read_log(path)) == {"a": ["conf2"]}


def test_a_missing_reading_s_own_price_is_kept_or_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, "conf_a,verify_cost_a,correct_a,cost_a\n,,1,1\n,.25,1,1\n.5,.5,1,1\n")
    (reading,) = read_log(path).tier("a").readings
    assert reading.price.tolist() == [0.0, 0.25, 0.5]


@pytest.mark.parametrize("cells", [("true", "false"), ("True", "FALSE"), (" 1", "0 "), ("1.0", "0e0")])
def test_correctness_may_be_written_as_a_truth_value(tmp_path: Path, cells: tuple[str, str]) -> None:
    path = write(tmp_path, "correct_a,cost_a\n" + "".join(f"{cell},1\n" for cell in cells))
    assert read_log(path).tier("a").correct.tolist() == [1.0, 0.0]


def test_correctness_may_be_boolean(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"correct_a": [True, False], "cost_a": [1, 1]}).write_parquet(path)
    assert read_log(path).tier("a").correct.tolist() == [1.0, 0.0]


def test_a_scale_divides_the_confidences_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path, WIDE + "a,50,1,7\nb,100,0.5,7\n")
    (tier,) = read_log(path, scale=100).tiers
    assert tier.readings[0].confidence.tolist() == [0.5, 1.0]
    assert tier.correct.tolist() == [1.0, 0.5]
    assert tier.cost.tolist() == [7.0, 7.0]


def test_tiers_stand_by_weighted_mean_cost_and_ties_by_quality_and_name(tmp_path: Path) -> None:
    header = "weight,correct_c,cost_c,correct_b,cost_b,correct_a,cost_a,correct_z,cost_z,correct_d,cost_d\n"
    path = write(tmp_path, header + "9,1,.1,1,.1,1,10,1,0,1,.1\n1,1,.1,1,.1,1,0,1,80,0,.1\n")
    assert read_log(path).tier_names == ("d", "b", "c", "z", "a")  # z: (9·0 + 80) / 10, a: 90 / 10


def test_prices_by_option_override_and_supply(tmp_path: Path) -> None:
    path = write(tmp_path, "correct_a,cost_a,correct_b\n1,,1\n1,5,1\n")
    log = read_log(path, costs={"a": 9.0, "b": 2})
    assert log.tier_names == ("b", "a")
    assert [tier.cost.tolist() for tier in log.tiers] == [[2.0, 2.0], [9.0, 9.0]]


def test_a_tier_left_out_is_not_looked_at(tmp_path: Path) -> None:
    path = write(tmp_path, "correct_a,cost_a,correct_b,conf_b\n1,1,,nonsense\n0,1,1,7\n")
    log = read_log(path, tiers=["a"])
    assert log.tier_names == ("a",)
    assert log.tier("a").correct.tolist() == [1.0, 0.0]


def test_contexts_of_several_columns_cannot_collide(tmp_path: Path) -> None:
    path = write(tmp_path, "query_id,x,y,correct_a,cost_a\nq1,a/b,c,1,1\nq2,a,b/c,0,1\n")
    log = read_log(path, context=("x", "y"))
    assert log.contexts is not None
    assert len(set(log.contexts)) == 2
    assert log.context_names == ("x", "y")


def test_groups_weights_and_contexts_may_have_other_names(tmp_path: Path) -> None:
    path = write(tmp_path, "user,times,lang,task,correct_a,cost_a\nu,2,en,qa,1,1\nv,3,,qa,1,1\n")
    log = read_log(path, group="user", weight="times", context=("lang", "task"))
    assert log.group_ids.tolist() == ["u", "v"]
    assert log.weights.tolist() == [2.0, 3.0]
    assert log.contexts is not None
    assert log.contexts.tolist() == ["en/qa", "/qa"]


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "query_id,lang,tokens_a,correct2_a,conf_a,correct_a,cost_a\nx,en,1,1,1,1,1\n")
    columns = log_columns(path)
    assert columns.form == "wide"
    assert columns.used == ("query_id", "conf_a", "correct_a", "cost_a")
    assert columns.ignored == ("lang", "tokens_a", "correct2_a")
    assert log_columns(path, context="lang").ignored == ("tokens_a", "correct2_a")
    long = write(tmp_path, "query_id,tier,correct,propensity\na,b,1,1\n")
    assert log_columns(long).form == "long"
    assert log_columns(long).ignored == ("propensity",)


def test_blank_lines_and_a_byte_order_mark_are_nothing(tmp_path: Path) -> None:
    plain = read_log(write(tmp_path, WIDE + "a,.5,1,1\nb,.6,1,1\n"))
    assert_same(plain, read_log(write(tmp_path, "\ufeff" + WIDE + "a,.5,1,1\r\n\r\nb,.6,1,1\n\n", "bom.csv")))
    lines = '\ufeff{"query_id":"a","conf_small":0.5,"correct_small":1,"cost_small":1}\n\n'
    lines += '{"query_id":"b","conf_small":0.6,"correct_small":true,"cost_small":1}'.replace("true", "1")
    assert_same(plain, read_log(write(tmp_path, lines, "bom.jsonl")))


def test_the_columns_of_a_long_json_line_keep_their_order(tmp_path: Path) -> None:
    names = [f"conf_r{i}_a" for i in range(60)]
    rows = [dict.fromkeys(names[:30], 0.5), dict.fromkeys(names, 0.25)]
    lines = [json.dumps({"correct_a": 1, "cost_a": 1} | row) for row in rows]
    log = read_log(write(tmp_path, "\n".join(lines), "log.jsonl"))
    assert [reading.name for reading in log.tier("a").readings] == [f"r{i}" for i in range(60)]


def test_a_folder_with_the_signs_of_a_pattern_is_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a[1]*"
    folder.mkdir()
    pl.DataFrame({"correct_a": [1, 0], "cost_a": [1, 1]}).write_parquet(folder / "l*g.parquet")
    assert len(read_log(folder / "l*g.parquet")) == 2


# Long form -----------------------------------------------------------------------------------------------------------


def test_the_long_form_reads_as_it_stands(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "query_id,tier,reading,confidence,correct,cost,verify_cost,lang\n"
        "q2,small,votes,0.5,1,1,0.25,en\n"
        "q2,small,,0.75,1,1,,en\n"
        "q1,large,,,1,9,,de\n"
        "q1,small,,,0,2,,de\n"
        "q2,large,,,0.5,9,,en\n",
    )
    path.write_text(path.read_text().replace("0.75,1,1,,en", "0.75,1,1,0,en"))
    log = read_log(path, context="lang")
    assert log.query_ids.tolist() == ["q2", "q1"]
    assert log.contexts is not None
    assert log.contexts.tolist() == ["en", "de"]
    assert shape(log) == {"small": ["conf", "votes"], "large": []}
    small, large = log.tiers
    assert small.correct.tolist() == [1.0, 0.0]
    assert small.cost.tolist() == [1.0, 2.0]
    assert large.correct.tolist() == [0.5, 1.0]
    np.testing.assert_array_equal(small.readings[0].confidence, [0.75, np.nan])
    np.testing.assert_array_equal(small.readings[1].confidence, [0.5, np.nan])
    assert small.readings[1].price.tolist() == [0.25, 0.0]


def test_what_an_answer_s_rows_share_may_stand_in_one_of_them(tmp_path: Path) -> None:
    path = write(tmp_path, LONG + "a,s,,.5,1,3\na,s,votes,.25,,\nb,s,,.5,,\nb,s,votes,.5,0,4\n")
    tier = read_log(path).tier("s")
    assert tier.correct.tolist() == [1.0, 0.0]
    assert tier.cost.tolist() == [3.0, 4.0]


def to_long(log: ReplayLog) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for i, query in enumerate(log.query_ids):
        for tier in log.tiers:
            row = {"query_id": query, "tier": tier.name, "correct": tier.correct[i], "cost": tier.cost[i]}
            row |= {"group_id": log.group_ids[i], "weight": log.weights[i], "reading": None, "confidence": None}
            row |= {"context": None if log.contexts is None else log.contexts[i], "verify_cost": None}
            readings = [
                {"reading": r.name, "confidence": None if np.isnan(c) else c, "verify_cost": p}
                for r in tier.readings
                for c, p in [(r.confidence[i], r.price[i])]
            ]
            rows += [row | reading for reading in readings or [{}]]
    return pl.DataFrame(rows, infer_schema_length=None)


def samples_of(log: ReplayLog) -> list[str]:
    return sorted({r.name for tier in log.tiers for r in tier.readings if r.correct is not None})


@st.composite
def logs(draw: st.DrawFn) -> ReplayLog:
    count = draw(st.integers(2, 6))
    words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)

    def column(cells: st.SearchStrategy[float]) -> np.ndarray:
        return np.array(draw(st.lists(cells, min_size=count, max_size=count)), dtype=np.float64)

    def reading(name: str) -> LoggedReading:
        confidence = column(st.floats(0, 1) | st.just(math.nan))
        confidence[draw(st.integers(0, count - 1))] = draw(st.floats(0, 1))  # read at least once
        changes = name != "conf" and draw(st.integers(0, 3)) == 0
        answer = np.where(np.isnan(confidence), np.nan, column(st.sampled_from([0.0, 1.0]) | st.floats(0, 1)))
        paid = column(st.just(0.0) | st.floats(1e-9, 10))
        return LoggedReading(name, confidence, paid, correct=answer if changes else None)

    def tier(name: str) -> LoggedTier:
        names = draw(st.lists(st.sampled_from(["conf2", "logit", "self_verify", "a b,c"]), unique=True))
        readings = tuple(reading(n) for n in (["conf"] if draw(st.booleans()) else []) + names)
        correct = column(st.sampled_from([0.0, 1.0]) | st.floats(0, 1))
        return LoggedTier(name, correct, column(st.just(0.0) | st.floats(1e-9, 1e6)), readings)

    ids = np.array(draw(st.lists(words, min_size=count, max_size=count, unique=True)), dtype=object)
    weights = np.ones(count) if draw(st.booleans()) else column(st.floats(1e-3, 1e3))
    names = draw(st.lists(st.sampled_from(["small", "gpt_4o", 'é "b"', "x,y z"]), min_size=1, unique=True))
    tiers = sorted(
        (tier(name) for name in names),
        key=lambda t: (math.fsum(weights * t.cost), math.fsum(weights * t.correct), t.name),
    )
    some = st.none() | st.lists(words | st.just(""), min_size=count, max_size=count)
    contexts = draw(some)
    groups = draw(st.lists(words, min_size=count, max_size=count)) if draw(st.booleans()) else None
    return ReplayLog(
        query_ids=ids,
        tiers=tuple(tiers),
        weights=weights,
        group_ids=ids if groups is None else np.array(groups, dtype=object),
        contexts=None if contexts is None else np.array(contexts, dtype=object),
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(log=logs())
@settings(max_examples=60, deadline=None)
def test_what_is_written_reads_back_the_same(suffix: str, log: ReplayLog) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"log{suffix}"
        write_log(log, path)
        context = () if log.contexts is None else "context"
        assert_same(log, read_log(path, context=context, samples=samples_of(log)))
        once = path.read_bytes()
        write_log(log, path)
        assert path.read_bytes() == once
        assert [entry.name for entry in Path(folder).iterdir()] == [path.name]


SIGNALS = (
    "query_id,correct_small,cost_small,correct_large,cost_large,conf_judge,cost_judge,conf_logit_judge,"
    "agree_small_large,conf_length\n"
    "a,1,1,1,4,.9,.25,.5,1,.3\n"
    "b,0,1,1,4,,0,.25,.5,.1\n"
)
DECLARED = {"judge": ("small",), "length": ()}


def test_sources_without_an_answer_stand_beside_the_tiers(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, SIGNALS), signals=DECLARED)
    assert log.tier_names == ("small", "large")
    judge, length, agree = log.signals
    assert [(s.name, s.needs) for s in log.signals] == [
        ("judge", ("small",)),
        ("length", ()),
        ("agree_small_large", ("small", "large")),
    ]
    assert [r.name for r in judge.readings] == ["conf", "logit"]
    np.testing.assert_array_equal(judge.readings[0].confidence, [0.9, math.nan])
    np.testing.assert_array_equal(judge.readings[0].price, [0.25, 0.0])
    assert not judge.readings[1].price.any()
    assert (agree.readings[0].name, agree.readings[0].confidence.tolist()) == ("agree", [1.0, 0.5])
    assert length.readings[0].confidence.tolist() == [0.3, 0.1]
    columns = log_columns(tmp_path / "log.csv", signals=DECLARED)
    assert (columns.tiers, columns.ignored) == (("small", "large"), ())
    assert columns.signals == ("judge", "length", "agree_small_large")


def test_a_signal_may_be_priced_chosen_and_left_out_like_a_tier(tmp_path: Path) -> None:
    path = write(tmp_path, SIGNALS)
    log = read_log(path, signals=DECLARED, tiers=["small", "judge"], costs={"judge": 0.5})
    assert (log.tier_names, [s.name for s in log.signals]) == (("small",), ["judge"])
    assert [r.price.tolist() for r in log.signals[0].readings] == [[0.5, 0.5], [0.0, 0.0]]
    assert read_log(path, signals=DECLARED, tiers=["large"]).signals == ()


def test_comparing_answers_may_have_a_price_and_a_scale_leaves_agreement_alone(tmp_path: Path) -> None:
    text = "correct_a,cost_a,conf_a,correct_b,cost_b,agree_a_b,cost_agree_a_b\n1,1,90,1,2,1,.1\n0,1,20,1,2,0,.1\n"
    (agree,) = read_log(write(tmp_path, text), scale=100).signals
    assert agree.readings[0].price.tolist() == [0.1, 0.1]
    assert agree.readings[0].confidence.tolist() == [1.0, 0.0]


def test_the_agreement_of_what_is_no_pair_of_tiers_is_a_column_like_any_other(tmp_path: Path) -> None:
    path = write(tmp_path, "correct_a,cost_a,agree_a_c,agree_a\n1,1,1,1\n0,1,0,1\n")
    assert read_log(path).signals == ()
    assert log_columns(path).ignored == ("agree_a_c", "agree_a")


def test_signals_survive_being_written(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, SIGNALS), signals=DECLARED)
    for suffix in SUFFIXES:
        write_log(log, tmp_path / f"again{suffix}")
        again = read_log(tmp_path / f"again{suffix}", signals=DECLARED)
        assert fingerprint(again) == fingerprint(log)


def test_a_signal_of_the_long_form_has_no_correct(tmp_path: Path) -> None:
    rows = "query_id,tier,correct,cost,confidence,verify_cost\n"
    rows += "a,small,1,1,.5,0\na,judge,,,.9,.25\nb,small,0,1,.25,0\nb,judge,,,.1,.25\n"
    (judge,) = read_log(write(tmp_path, rows), signals={"judge": ["small"]}).signals
    assert (judge.name, judge.needs, judge.readings[0].name) == ("judge", ("small",), "conf")
    assert (judge.readings[0].confidence.tolist(), judge.readings[0].price.tolist()) == ([0.9, 0.1], [0.25, 0.25])


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            SIGNALS,
            {"signals": {"length": ()}},
            "log.csv: cost_judge belongs to no tier, there is no correct_judge; nearest tier: 'large'; "
            "rename or drop the column, or declare a signal without answers (--signal NAME=TIER)",
        ),
        (
            SIGNALS,
            {"signals": {**DECLARED, "critic": ("small",)}},
            "log.csv has no column conf_critic for --signal critic; ",
        ),
        (
            SIGNALS,
            {"signals": {**DECLARED, "judge": ("smal",)}},
            "log.csv: --signal judge needs 'smal', which is no tier; did you mean 'small'?",
        ),
        (
            SIGNALS,
            {"signals": {**DECLARED, "judge": ("small", "small")}},
            "log.csv: --signal judge=small,small names a tier twice; name it once",
        ),
        (
            SIGNALS,
            {"signals": {**DECLARED, "small": ()}},
            "log.csv: --signal small has answers, in correct_small; it is a tier already",
        ),
        (
            SIGNALS,
            {"signals": DECLARED, "tiers": ["large", "judge"]},
            "log.csv: --tiers keeps 'judge', which needs the answer of 'small'; "
            "name that tier too, or leave 'judge' out",
        ),
        (
            SIGNALS,
            {"signals": DECLARED, "tiers": ["length"]},
            "log.csv: --tiers leaves no tier; there are small, large",
        ),
        (
            "correct_a,cost_a,conf_j,cost_j,verify_cost_j\n1,1,1,1,1\n1,1,1,1,1\n",
            {"signals": {"j": ("a",)}},
            "log.csv: cost_j and verify_cost_j are both the price of 'j'; drop one",
        ),
        (
            "correct_a,correct_b,correct_a_b,correct_b_a,agree_a_b_a\n1,1,1,1,1\n",
            {},
            "log.csv: agree_a_b_a is the agreement of 'a' and 'b_a', or of 'a_b' and 'a'; rename a tier",
        ),
        (
            "correct_a,cost_a,correct_b,cost_b,agree_a_b\n1,1,1,1,1\n1,1,1,1,1.5\n",
            {},
            "log.csv row 2: agree_a_b is 1.5, outside [0, 1]; ",
        ),
        (
            "query_id,tier,correct,cost,confidence\na,small,1,1,.5\na,judge,,1,.9\nb,small,0,1,.2\nb,judge,,1,.1\n",
            {},
            "log.csv: tier 'judge' has no correct in any row; declare a signal without answers "
            "(--signal judge=TIER), or leave judge out with --tiers",
        ),
        (
            "query_id,tier,correct,cost,confidence\na,small,1,1,.5\na,judge,1,1,.9\nb,small,0,1,.2\nb,judge,,1,.1\n",
            {"signals": {"judge": ("small",)}},
            "log.csv row 2: correct is 1, but --signal judge has no answers; is it a tier?",
        ),
        (
            "query_id,tier,correct,cost,confidence\na,small,1,1,.5\nb,small,0,1,.2\n",
            {"signals": {"judge": ("small",)}},
            "log.csv has no rows of tier 'judge' for --signal judge; there are small",
        ),
    ],
)
def test_a_bad_signal_is_named(tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LogError) as caught:
        read_log(write(tmp_path, text), **options)
    assert caught.value.message.startswith(message)


VOTED = "correct_a,cost_a,conf_a,verify_cost_a,conf_sv_a\n1,1,.6666667,3,.25\n0,1,,3,1\n1,1,0,3,.5\n"


def test_a_reading_may_be_the_share_of_votes(tmp_path: Path) -> None:
    path = write(tmp_path, VOTED)
    log = read_log(path, votes={"conf": 3, "sv": 4})
    conf, sv = log.tiers[0].readings
    assert (conf.votes, sv.votes) == (3, 4)
    np.testing.assert_array_equal(conf.confidence, [2 / 3, math.nan, 0.0])
    np.testing.assert_array_equal(conf.paid, [3.0, 1.0, 3.0])  # where the first vote failed no other was asked for
    assert [r.votes for r in read_log(path).tiers[0].readings] == [0, 0]
    assert fingerprint(log) != fingerprint(read_log(path))
    for suffix in SUFFIXES:
        write_log(log, tmp_path / f"again{suffix}")
        assert fingerprint(read_log(tmp_path / f"again{suffix}", votes={"conf": 3, "sv": 4})) == fingerprint(log)


def test_votes_may_be_in_percent_and_in_the_long_form_and_a_signal_s(tmp_path: Path) -> None:
    percent = "correct_a,cost_a,conf_a,conf_j\n1,1,66.6667,50\n0,1,100,0\n"
    log = read_log(write(tmp_path, percent), votes={"conf": 6}, scale=100, signals={"j": ("a",)})
    assert log.tiers[0].readings[0].confidence.tolist() == [4 / 6, 1.0]
    assert (log.signals[0].readings[0].votes, log.signals[0].readings[0].confidence.tolist()) == (6, [0.5, 0.0])
    rows = "query_id,tier,correct,cost,reading,confidence\na,s,1,1,sv,.75\nb,s,0,1,sv,.25\n"
    (sv,) = read_log(write(tmp_path, rows), votes={"sv": 4}).tiers[0].readings
    assert (sv.name, sv.votes, sv.confidence.tolist()) == ("sv", 4, [0.75, 0.25])


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        ({"conf": 4}, "log.csv row 1: conf_a is .6666667, no share of 4 votes; give a multiple of 1/4, or correct"),
        ({"conf": 0}, "log.csv: --votes conf=0 is no number of votes; give at least 1"),
        ({"conf": 2.5}, "log.csv: --votes conf=2.5 is no number of votes; give at least 1"),
        ({"cnf": 4}, "log.csv has no reading 'cnf' for --votes; did you mean 'conf'?"),
    ],
)
def test_bad_votes_are_named(tmp_path: Path, votes: dict[str, Any], message: str) -> None:
    with pytest.raises(LogError) as caught:
        read_log(write(tmp_path, VOTED), votes=votes)
    assert caught.value.message.startswith(message)


SAMPLED = (
    "correct_a,cost_a,conf_a,conf2_a,correct2_a,verify_cost2_a,conf_again_a,correct_again_a,correct_b,cost_b,conf2_b\n"
    "0,1,.5,.75,1,.5,.25,.5,1,4,.5\n"
    "1,1,.5,,,.5,,0,0,4,\n"
)


def test_a_reading_may_change_the_answer_where_that_is_declared(tmp_path: Path) -> None:
    path = write(tmp_path, SAMPLED)
    log = read_log(path, samples=["conf2", "again"])
    assert shape(log) == {"a": ["conf", "conf2", "again"], "b": ["conf2"]}
    conf, conf2, again = log.tier("a").readings
    assert conf.correct is None
    np.testing.assert_array_equal(conf2.correct, [1.0, np.nan])
    np.testing.assert_array_equal(conf2.price, [0.5, 0.5])
    np.testing.assert_array_equal(again.correct, [0.5, 0.0])  # an answer may be there though its confidence is not
    assert log.tier("b").readings[0].correct is None  # there is no correct2_b: the answer stays
    assert log_columns(path, samples=["conf2", "again"]).ignored == ()
    assert log_columns(path, samples=["conf2", "again"]).tiers == ("a", "b")


def test_undeclared_nothing_changes_an_answer(tmp_path: Path) -> None:
    plain = "\n".join(",".join(line.split(",")[:4] + line.split(",")[5:6]) for line in SAMPLED.splitlines())
    path = write(tmp_path, "\n".join(",".join(line.split(",")[:6]) for line in SAMPLED.splitlines()))
    assert log_columns(path).ignored == ("correct2_a",)
    log = read_log(path)
    assert_same(log, read_log(write(tmp_path, plain, "plain.csv")))
    assert [reading.correct for reading in log.tier("a").readings] == [None, None]


def test_one_name_of_a_sample_may_be_given_as_a_word_and_without_a_price_it_is_free(tmp_path: Path) -> None:
    path = write(tmp_path, "correct_a,cost_a,conf2_a,correct2_a\n0,1,75,true\n1,1,50,false\n")
    (sample,) = read_log(path, samples="conf2", scale=100).tier("a").readings
    assert (sample.confidence.tolist(), sample.price.tolist()) == ([0.75, 0.5], [0.0, 0.0])
    np.testing.assert_array_equal(sample.correct, [1.0, 0.0])


def test_in_the_long_form_a_sample_is_right_or_wrong_in_its_own_rows(tmp_path: Path) -> None:
    rows = "p,s,,.5,1,3,0\np,s,conf2,.25,0,,1\nq,s,,.5,0,3,0\nq,s,conf2,.75,1,,2\nr,s,,.5,1,3,0\n"
    path = write(tmp_path, "query_id,tier,reading,confidence,correct,cost,verify_cost\n" + rows)
    (tier,) = read_log(path, samples=["conf2"]).tiers
    assert tier.correct.tolist() == [1.0, 0.0, 1.0]
    np.testing.assert_array_equal(tier.readings[1].correct, [0.0, 1.0, np.nan])
    np.testing.assert_array_equal(tier.readings[1].price, [1.0, 2.0, 0.0])
    with pytest.raises(LogError, match="row 2: correct is 0, but an earlier row of the query and s differs"):
        read_log(path)


@pytest.mark.parametrize(
    ("old", "new", "options", "message"),
    [
        ("", "", {"samples": ["conf"]}, "--samples conf is the first answer's own reading; name a later one"),
        ("", "", {"samples": ["conf3", "again"]}, "log.csv has no answers of reading 'conf3' for --samples conf3;"),
        ("", "", {"samples": ["conf2"], "tiers": ["b"]}, "no answers of reading 'conf2' for --samples conf2"),
        ("", "", {"samples": ["conf2"], "votes": {"conf2": 4}}, "'conf2' is in --votes and in --samples; leave it"),
        (".75,1,", ".75,,", {"samples": ["conf2"]}, "row 1: correct2_a is missing, though conf2 is there; fill it"),
        (".75,1,", ".75,2,", {"samples": ["conf2"]}, "row 1: correct2_a is 2, outside [0, 1]; rescale it; or leave"),
        ("conf_again_a", "note", {"samples": ["again"]}, "correct_again_a has no reading beside it, there is no conf"),
    ],
)
def test_bad_samples_are_named(tmp_path: Path, old: str, new: str, options: dict[str, Any], message: str) -> None:
    assert message in said(write(tmp_path, SAMPLED.replace(old, new, 1) if old else SAMPLED), **options)


@given(log=logs(), data=st.data())
@settings(max_examples=100, deadline=None)
def test_the_long_form_means_what_the_wide_form_means(log: ReplayLog, data: st.DataObject) -> None:
    rows = to_long(log)
    order = data.draw(st.permutations(range(len(rows))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.parquet"
        rows[list(order)].write_parquet(path)
        read = read_log(path, context=() if log.contexts is None else "context")
    rank = {query: i for i, query in enumerate(read.query_ids)}
    again = read.take(np.array([rank[query] for query in log.query_ids]))
    assert {tier.name: set(names) for tier, names in zip(log.tiers, shape(log).values(), strict=True)} == {
        name: set(names) for name, names in shape(again).items()
    }
    for tier in log.tiers:
        other = again.tier(tier.name)
        np.testing.assert_array_equal(tier.correct, other.correct)
        np.testing.assert_array_equal(tier.cost, other.cost)
        theirs = {reading.name: reading for reading in other.readings}
        for reading in tier.readings:
            np.testing.assert_array_equal(reading.confidence, theirs[reading.name].confidence)
            np.testing.assert_array_equal(reading.price, theirs[reading.name].price)
    np.testing.assert_array_equal(log.weights, again.weights)
    assert log.group_ids.tolist() == again.group_ids.tolist()
    if log.contexts is not None and again.contexts is not None:
        assert log.contexts.tolist() == again.contexts.tolist()


def test_the_standard_library_reads_the_same_numbers_from_csv(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    cells = np.round(rng.random((50, 3)), 6)
    text = "correct_a,cost_a,conf_a\n" + "".join(f"{a},{b},{c if c > 0.2 else ''}\n" for a, b, c in cells)
    path = write(tmp_path, text)
    (tier,) = read_log(path).tiers
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert tier.correct.tolist() == [float(row["correct_a"]) for row in rows]
    assert tier.cost.tolist() == [float(row["cost_a"]) for row in rows]
    wanted = [float(row["conf_a"] or "nan") for row in rows]
    np.testing.assert_array_equal(tier.readings[0].confidence, wanted)


# What cannot be read: the cells --------------------------------------------------------------------------------------

ROWS = [
    (
        "a,.5,1,1\nb,1.3,1,1\n",
        {},
        "log.csv row 2: conf_small is 1.3, outside [0, 1]; percent scale? use --scale 100",
    ),
    (
        "a,50,1,1\nb,130,1,1\n",
        {"scale": 100},
        "log.csv row 2: conf_small is 130, outside [0, 100] (--scale 100); "
        "correct it, or leave it empty if it is missing",
    ),
    (
        "a,.5,1,1\nb,130,1,1\n",
        {},
        "log.csv row 2: conf_small is 130, outside [0, 1]; correct it, or leave it empty if it is missing",
    ),
    (
        "a,-.5,1,1\nb,-2,1,1\n",
        {},
        "log.csv row 1: conf_small is -.5, outside [0, 1]; log-probabilities? write exp(x)",
    ),
    (
        "a,inf,1,1\nb,.2,1,1\n",
        {},
        "log.csv row 1: conf_small is 'inf', outside [0, 1]; correct it, or leave it empty if it is missing",
    ),
    (
        "a,high,1,1\nb,.2,1,1\n",
        {},
        "log.csv row 1: conf_small is 'high', not a number; give a number in [0, 1], nothing where it is missing",
    ),
    (
        "a,.2,1,1\nb,True,1,1\n",
        {},
        "log.csv row 2: conf_small is 'True', not a number; give a number in [0, 1], nothing where it is missing",
    ),
    (
        "a,.2,yes,1\nb,.2,1,1\n",
        {},
        "log.csv row 1: correct_small is 'yes', not a number; give 0, 1, true, false or a score in [0, 1]; "
        "or leave small out with --tiers",
    ),
    (
        "a,.2,1,1\nb,.2,2,1\n",
        {},
        "log.csv row 2: correct_small is 2, outside [0, 1]; rescale it; or leave small out with --tiers",
    ),
    (
        "a,.2,1,1\nb,.2,,1\nc,.2,,1\n",
        {},
        "log.csv row 2: correct_small is missing, as in 2 of 3 rows; a log in which tiers were called for "
        "some queries only is read with --partial; or drop those rows, or leave small out with --tiers",
    ),
    (
        "a,.2,1,1\nb,.2,1,\n",
        {},
        "log.csv row 2: cost_small is missing, but every answer has a price; fill it in or give --cost small=PRICE",
    ),
    (
        "a,.2,1,-1\nb,.2,1,1\n",
        {},
        "log.csv row 1: cost_small is -1, not a price; fill it in or give --cost small=PRICE",
    ),
    (
        "a,.2,1,1\nb,.2,1,inf\n",
        {},
        "log.csv row 2: cost_small is 'inf', not a price; fill it in or give --cost small=PRICE",
    ),
    (
        "a,.2,1,1\nb,.2,1,1\nc,.2,1,1\nb,.2,1,1\n",
        {},
        "log.csv row 4: query_id 'b' is already in row 2, with the same values; drop one, or give each row its own id "
        "(repeats of one prompt share a group_id)",
    ),
    (
        "a,.2,1,1\n,.2,1,1\n",
        {},
        "log.csv row 2: query_id is missing, but every row needs its query's id; fill it in",
    ),
]


@pytest.mark.parametrize(("rows", "options", "message"), ROWS)
def test_a_bad_cell_is_named(tmp_path: Path, rows: str, options: dict[str, Any], message: str) -> None:
    assert said(write(tmp_path, WIDE + rows), **options) == message


def test_a_bad_cell_of_a_narrow_float_is_shown_as_it_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    frame = pl.DataFrame({"correct_a": [1, 0], "cost_a": [1, 1], "conf_a": [0.5, 1.3]})
    frame.with_columns(pl.col("conf_a").cast(pl.Float32)).write_parquet(path)
    assert said(path).startswith("log.parquet row 2: conf_a is 1.3, outside [0, 1]")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([True, False], "log.parquet: conf_a holds Boolean, not numbers; give a number in [0, 1], nothing where it is"),
        ([[1.0], [0.5]], "log.parquet: conf_a holds List(Float64), not numbers; give a number in [0, 1], nothing"),
    ],
)
def test_a_column_of_the_wrong_kind_is_named(tmp_path: Path, column: list[Any], message: str) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"correct_a": [1, 0], "cost_a": [1, 1], "conf_a": column}).write_parquet(path)
    assert said(path).startswith(message)


def test_ids_that_are_lists_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"query_id": [[1], [2]], "correct_a": [1, 0], "cost_a": [1, 1]}).write_parquet(path)
    assert said(path) == "log.parquet: query_id holds List(Int64); give one plain value a row"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "conf_a,verify_cost_a,correct_a,cost_a\n.5,.1,1,1\n.5,,1,1\n",
            "log.csv row 2: verify_cost_a is missing, though conf_a is there; fill it in (0 where it was free)",
        ),
        (
            "conf_a,verify_cost_a,correct_a,cost_a\n.5,.1,1,1\n.5,-1,1,1\n",
            "log.csv row 2: verify_cost_a is -1, not a price; fill it in (0 where it was free)",
        ),
        (
            "group_id,correct_a,cost_a\ng,1,1\n,1,1\n",
            "log.csv row 2: group_id is missing, but every row needs one; fill it in or leave the column out",
        ),
        (
            "weight,correct_a,cost_a\n1,1,1\n0,1,1\n",
            "log.csv row 2: weight is 0, not a weight; give a finite number above 0",
        ),
        (
            "weight,correct_a,cost_a\n1,1,1\n,1,1\n",
            "log.csv row 2: weight is missing, not a weight; give a finite number above 0",
        ),
        (
            "weight,correct_a,cost_a\nx,1,1\n1,1,1\n",
            "log.csv row 1: weight is 'x', not a number; give how many queries the row stands for",
        ),
    ],
)
def test_a_bad_price_group_or_weight_is_named(tmp_path: Path, text: str, message: str) -> None:
    assert said(write(tmp_path, text)) == message


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "a,s,,.5,1,1\na,l,,.5,1,2\nb,s,,.5,1,1\n",
            "log.csv row 3: query 'b' has no correct for tier 'l', as in 1 of 2 queries; a log in which tiers were "
            "called for some queries only is read with --partial; or drop those queries, or leave l out with --tiers",
        ),
        (
            "a,s,,.5,1,1\nb,s,,.5,,1\n",
            "log.csv row 2: query 'b' has no correct for tier 's', as in 1 of 2 queries; a log in which tiers were "
            "called for some queries only is read with --partial; or drop those queries, or leave s out with --tiers",
        ),
        (
            "a,s,,.5,1,1\na,s,x,.5,0,1\nb,s,,.5,1,1\n",
            "log.csv row 2: correct is 0, but an earlier row of the query and s differs; make them agree",
        ),
        (
            "a,s,,.5,1,1\nb,s,,.5,1,\n",
            "log.csv row 2: query 'b' has no cost for tier 's', but every answer has a price; "
            "fill it in or give --cost s=PRICE",
        ),
        (
            "a,s,,.5,1,1\nb,s,conf,.5,1,1\na,s,conf,.25,1,1\n",
            "log.csv row 3: query_id is 'a', again with tier 's' and reading 'conf'; name each reading once",
        ),
        (
            "a,,,.5,1,1\nb,s,,.5,1,1\n",
            "log.csv row 1: tier is missing, but every row needs one; name the tier that answered",
        ),
        (
            "a,l,,,1,1\na,s,,.5,1,1\na,s,x,3,1,1\nb,l,,7,1,1\nb,s,,.5,1,1\n",
            "log.csv row 3: confidence is 3, outside [0, 1]; percent scale? use --scale 100",
        ),
    ],
)
def test_a_bad_row_of_the_long_form_is_named(tmp_path: Path, rows: str, message: str) -> None:
    tiers = ["s"] if "b,l" in rows else None  # then l is not looked at
    assert said(write(tmp_path, LONG + rows), tiers=tiers) == message


def test_the_rows_of_one_query_must_agree_on_what_it_is(tmp_path: Path) -> None:
    text = "query_id,tier,correct,cost,lang,weight\na,s,1,1,en,1\nb,s,1,1,en,1\na,l,1,1,de,2\nb,l,1,1,en,1\n"
    path = write(tmp_path, text)
    says = "but an earlier row of the query says otherwise; make them agree"
    assert said(path) == f"log.csv row 3: weight is 2, {says}"
    path.write_text(text.replace("weight", "times"))
    assert said(path, context="lang") == f"log.csv row 3: lang is 'de', {says}"


# What cannot be read: columns and options ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "query_id,is_correct_a,cost_a",
            "log.csv has no column correct_<tier>; nearest: 'is_correct_a'; give one row a query "
            "(correct_<tier>, …) or one row a reading (query_id, tier, correct, …); where they are called otherwise "
            "`metaverify import wide FILE --map correct_<tier>=COLUMN … -o LOG` says so",
        ),
        (
            "query_id,corect_a,cost_a",
            "log.csv has no column correct_<tier>; nearest: 'corect_a'; give one row a query "
            "(correct_<tier>, …) or one row a reading (query_id, tier, correct, …); where they are called otherwise "
            "`metaverify import wide FILE --map correct_<tier>=COLUMN … -o LOG` says so",
        ),
        (
            "x,y",
            "log.csv has no column correct_<tier>; it has 'x', 'y'; give one row a query "
            "(correct_<tier>, …) or one row a reading (query_id, tier, correct, …); where they are called otherwise "
            "`metaverify import wide FILE --map correct_<tier>=COLUMN … -o LOG` says so",
        ),
        (
            "id,tier,correct",
            "log.csv has a row for each tier but no column 'query_id'; there are id, tier, correct",
        ),
        (
            "correct_small,conf_smal",
            "log.csv: conf_smal belongs to no tier, there is no correct_smal; nearest tier: 'small'; "
            "rename or drop the column, or declare a signal without answers (--signal NAME=TIER)",
        ),
        (
            "correct_small,cost_large",
            "log.csv: cost_large belongs to no tier, there is no correct_large; nearest tier: 'small'; "
            "rename or drop the column, or declare a signal without answers (--signal NAME=TIER)",
        ),
        (
            "correct_small,conf2_big",
            "log.csv: conf2_big belongs to no tier, there is no correct_big; nearest tier: 'small'; "
            "rename or drop the column, or declare a signal without answers (--signal NAME=TIER)",
        ),
        (
            "correct_a,cost_input_a",
            "log.csv: cost_input_a is no tier's price; rename it, cost_a or verify_cost_input_a",
        ),
        (
            "correct_a,conf_a,verify_cost2_a",
            "log.csv: verify_cost2_a is the price of no reading, there is no conf2_a; rename or drop it",
        ),
        (
            "correct_a,conf_a,conf_conf_a",
            "log.csv: conf_a and conf_conf_a are both reading 'conf' of 'a'; rename one",
        ),
        ("correct_a,conf_a,correct_a", "log.csv has two columns 'correct_a'; rename one"),
        (
            "query_id;correct_a",
            "log.csv has the one column 'query_id;correct_a'; separated by ';'? save it with commas",
        ),
    ],
)
def test_a_bad_column_is_named(tmp_path: Path, header: str, message: str) -> None:
    row = ",".join("1" * (header.count(",") + 1)) + "\n"
    assert said(write(tmp_path, f"{header}\n{row}{row.replace('1', '0')}")) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiers": ["smal"]}, "log.csv has no tier 'smal' for --tiers; did you mean 'small'?"),
        ({"tiers": ["gpt"]}, "log.csv has no tier 'gpt' for --tiers; there are small"),
        ({"tiers": []}, "log.csv: --tiers leaves no tier; there are small"),
        ({"costs": {"smal": 1}}, "log.csv has no tier 'smal' for --cost; did you mean 'small'?"),
        (
            {"costs": {"small": -1}},
            "log.csv: --cost small=-1 is not a price; give a finite number from 0 up",
        ),
        ({"context": "query"}, "log.csv has no column 'query' for --context; did you mean 'query_id'?"),
        (
            {"group": "prompt"},
            "log.csv has no column 'prompt' for --group; there are query_id, conf_small, correct_small, cost_small",
        ),
        ({"weight": "cost"}, "log.csv has no column 'cost' for --weight; did you mean 'cost_small'?"),
        ({"scale": 0}, "log.csv: scale is 0; give a number above 0, such as 100 for percent"),
        ({"scale": math.nan}, "log.csv: scale is nan; give a number above 0, such as 100 for percent"),
    ],
)
def test_a_bad_option_is_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    assert said(write(tmp_path, WIDE + "a,.5,1,1\nb,.5,1,1\n"), **options) == message


def test_a_tier_without_a_price_is_named_in_both_forms(tmp_path: Path) -> None:
    message = "log.csv: tier 'small' has no price; add a cost column or give --cost small=PRICE"
    assert said(write(tmp_path, "correct_small\n1\n0\n")) == message
    assert said(write(tmp_path, "query_id,tier,correct\na,small,1\nb,small,1\n")) == message


# What cannot be read: files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "log.csv", "log.csv is empty; write the log again"),
        ("\n \n", "log.jsonl", "log.jsonl is empty; write the log again"),
        (gzip.compress(b"", mtime=0), "log.csv.gz", "log.csv.gz is empty; write the log again"),
        (WIDE, "log.csv", "log.csv has a header but no rows; write the log again"),
        (WIDE + "a,1,1,1\n", "log.csv", "log.csv has only 1 query; log at least 2"),
        (
            WIDE + "a,1,1,1\nb,1,1\n",
            "log.csv",
            "log.csv row 2 has 3 fields where the header has 4; is a comma or a quote amiss, or the file cut off?",
        ),
        (
            WIDE + "a,1,1,1\n\nb,1,1,1,1\n",
            "log.csv",
            "log.csv row 2 has 5 fields where the header has 4; is a comma or a quote amiss, or the file cut off?",
        ),
        (
            WIDE + 'a,1,1,1\n"b,1,1,1\nc,1,1,1\n',
            "log.csv",
            "log.csv row 2 has 1 fields where the header has 4; is a comma or a quote amiss, or the file cut off?",
        ),
        (
            WIDE.encode() + b"\xe9,1,1,1\n",
            "log.csv",
            f"log.csv is not UTF-8 text (byte {len(WIDE) + 1} is 0xe9); save it as UTF-8",
        ),
        (
            '{"correct_a":1}\n\n{"correct_a":\n',
            "log.jsonl",
            "log.jsonl line 3 is not JSON (Expecting value: line 1 column 14 (char 13)); write one object a line",
        ),
        (
            '{"correct_a":1}\n{"correct_a":NaN}\n',
            "log.ndjson",
            "log.ndjson line 2 is not JSON (NaN is no JSON number, a missing one is null); write one object a line",
        ),
        (
            '{"correct_a":1}\n[1]\n',
            "log.jsonl",
            "log.jsonl line 2 is list, not an object; write one object a line",
        ),
        ("x", "log.txt", f"log.txt has no known suffix; a log is one of {', '.join(SUFFIXES)}"),
        ("x", "log", f"log has no known suffix; a log is one of {', '.join(SUFFIXES)}"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str | bytes, name: str, message: str) -> None:
    assert said(write(tmp_path, text, name)) == message


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert said(tmp_path / "log.csv") == f"log.csv: there is no such file in {tmp_path.resolve()}"
    assert said(tmp_path) == f"{tmp_path.name} is a folder; name a file in it"


def test_mixed_kinds_in_json_are_told(tmp_path: Path) -> None:
    path = write(tmp_path, '{"correct_a":1}\n{"correct_a":true}\n', "log.jsonl")
    fault = "correct_a is true, true or false, but a number in line 1; write one kind of value"
    assert said(path) == f"log.jsonl line 2: {fault}"


def test_mixed_kinds_in_a_json_column_that_is_not_used_are_no_matter(tmp_path: Path) -> None:
    rows = [
        {"query_id": f'"query_id": {at}', "correct_a": 1, "cost_a": 1, "note": [at, "x"][at % 2]} for at in range(4)
    ]
    text = "\n".join(map(json.dumps, rows)) + '\n{"query_id" : "\\u00fc", "correct_a": 0, "cost_a": 1}'
    assert read_log(write(tmp_path, text, "log.jsonl")).query_ids.tolist() == [r["query_id"] for r in rows] + ["\u00fc"]


def test_a_price_of_zero_may_be_written_in_any_way(tmp_path: Path) -> None:
    for zero in ("0", "0.0", "-0", "0e5", ".0", " 0.00E-400"):
        log = read_log(write(tmp_path, f"correct_a,cost_a\n1,{zero}\n0,1\n"))
        assert log.tiers[0].cost.tolist() == [0.0, 1.0]


def test_a_gzip_file_cut_off_is_named(tmp_path: Path) -> None:
    whole = gzip.compress((WIDE + "a,1,1,1\nb,1,1,1\n").encode())
    assert len(read_log(write(tmp_path, whole, "log.csv.gz"))) == 2
    for part in (whole[:-9], b"no gzip at all"):
        message = said(write(tmp_path, part, "log.csv.gz"))
        assert message.startswith("log.csv.gz is not a whole gzip file (")
        assert message.endswith("); pack it again")


def test_no_damage_to_a_parquet_file_shows_a_traceback_of_its_reader(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"correct_a": [1, 0] * 50, "cost_a": [1] * 100, "query_id": range(100)}).write_parquet(path)
    whole = path.read_bytes()
    for length in (3, 20, len(whole) // 2, len(whole) - 1):
        message = said(write(tmp_path, whole[:length], "cut.parquet"))
        assert message.startswith("cut.parquet cannot be read as .parquet (")
        assert message.endswith("); is it damaged or cut off?")
    for at in range(0, len(whole), 29):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        with suppress(LogError):  # a number may be another number, which no one can see
            read_log(write(tmp_path, bytes(damaged), "damaged.parquet"))


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
@given(
    text=st.text(st.sampled_from('\n\r\t,;"01.-e{}[]: \\\ufeffé\x00xab')) | st.text() | st.binary(),
    start=st.sampled_from(["", WIDE, "correct_a,cost_a\n", LONG, '{"correct_a":1,"cost_a":1}\n', '{"correct_a":']),
)
@settings(deadline=None)
def test_no_text_at_all_shows_a_traceback_of_its_reader(name: str, start: str, text: str | bytes) -> None:
    raw = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    with tempfile.TemporaryDirectory() as folder, suppress(LogError):
        read_log(write(Path(folder), start.encode() + raw, name))


@pytest.mark.parametrize(
    "error",
    [pl.exceptions.PanicException("boom\nmore"), pl.exceptions.ComputeError("boom"), PermissionError(13, "boom")],
)
def test_whatever_goes_wrong_underneath_is_told_as_a_log_error(error: BaseException) -> None:
    with (
        pytest.raises(
            LogError, match=r"^E_(DAMAGED|FILE): x\.csv cannot be (read as \.csv \(boom\); is it|opened: boom; look)"
        ),
        told_as_log_errors(Path("x.csv")),
    ):
        raise error


# Writing -------------------------------------------------------------------------------------------------------------


def small_log(*tiers: tuple[str, tuple[str, ...]]) -> ReplayLog:
    ids = np.array(["a", "b"], dtype=object)
    half = np.array([0.5, 0.5])
    return ReplayLog(
        query_ids=ids,
        tiers=tuple(
            LoggedTier(name, half, half, tuple(LoggedReading(r, half, np.zeros(2)) for r in readings))
            for name, readings in tiers
        ),
        weights=np.ones(2),
        group_ids=ids,
    )


def test_json_lines_hold_one_plain_object_a_row(tmp_path: Path) -> None:
    write_log(small_log(("s", ("conf",))), tmp_path / "log.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows == [{"query_id": i, "correct_s": 0.5, "cost_s": 0.5, "conf_s": 0.5} for i in "ab"]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (
            small_log(("a", ("x",)), ("x_a", ("conf",))),
            "log.csv: two columns would be called conf_x_a; rename a tier or a reading",
        ),
        (
            small_log(("a", ("logit", "conf"))),
            "log.csv: tier 'a' with the readings ['logit', 'conf'] would read back with ['conf', 'logit']; "
            "put 'conf' first, or rename a reading or a tier",
        ),
        (
            small_log(("a", ("x",)), ("x_a", ())),
            "log.csv: tier 'a' with the readings ['x'] would read back with []; "
            "put 'conf' first, or rename a reading or a tier",
        ),
    ],
)
def test_names_that_would_not_read_back_are_refused(tmp_path: Path, log: ReplayLog, message: str) -> None:
    with pytest.raises(LogError) as caught:
        write_log(log, tmp_path / "log.csv")
    assert caught.value.message == message
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "before")

    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(LogError, match=r"^E_FILE: log\.csv cannot be written in .*: No space left on device$"):
        write_log(small_log(("a", ())), path)
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("log.csv", "before")]


def test_a_write_to_nowhere_is_told(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"^E_FILE: log\.csv cannot be written in .*nowhere: No such file or directory$"):
        write_log(small_log(("a", ())), tmp_path / "nowhere" / "log.csv")
    with pytest.raises(LogError, match=r"^E_FILE: log\.xls has no known suffix"):
        write_log(small_log(("a", ())), tmp_path / "log.xls")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_hundred_thousand_rows_are_read_in_a_second(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    ids = np.array([f"q{i}" for i in range(126_770)], dtype=object)

    def tier(name: str) -> LoggedTier:
        reading = LoggedReading("conf", rng.random(len(ids)), np.zeros(len(ids)))
        return LoggedTier(name, np.round(rng.random(len(ids))), rng.random(len(ids)), (reading,))

    log = ReplayLog(ids, tuple(tier(name) for name in "abcd"), np.ones(len(ids)), ids)
    path = tmp_path / f"log{suffix}"
    write_log(log, path)
    start = time.perf_counter()
    assert len(read_log(path)) == len(log)
    assert time.perf_counter() - start < 1.0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have names on POSIX only")
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet", ".jsonl"])
def test_a_pipe_and_a_device_are_no_logs_and_not_waited_for(tmp_path: Path, suffix: str) -> None:
    pipe, device = tmp_path / f"pipe{suffix}", tmp_path / f"zero{suffix}"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path in (pipe, device):
        with pytest.raises(LogError, match=rf"^E_FILE: {path.name} is no file but a pipe or a device; write"):
            read_log(path)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('h\na"b\n', 1),
        ('h,i\n"a""b",c\n\n"d\ne",f\n"g" h,i\n', 3),
        ('h,i\r\n1,2\r\n3,a"\r\n', 2),
        ('h,i\n1,"2"\n3,"4', 2),
        ('h"i,j\n1,2\n', 0),
    ],
)
def test_the_first_stray_quote_is_found_in_its_row(text: str, row: int) -> None:
    with pytest.raises(LogError, match=rf"^E_SYNTAX: log.csv row {row} has a quote amid a field, at "):
        _refuse_stray_quote("log.csv", text.encode())


@given(st.lists(st.lists(st.text('a",\n\r é', max_size=4), min_size=2, max_size=2).filter(any), min_size=1, max_size=4))
def test_what_a_csv_writer_wrote_has_no_stray_quote(rows: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    _refuse_stray_quote("log.csv", out.getvalue().encode())
