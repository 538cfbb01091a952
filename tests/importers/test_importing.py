"""What all importers share: mapping, tables, documents, what comes twice, what is lacking, order, errors."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaverify.policies.actions import Accept
from metaverify.policies.decision_log import DecisionLog
from metaverify.policies.graph import Ask, Read, Stop
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.router import Reply, Router
from metaverify.policies.tiers import Reading, Tier
from metaverify.simulators.decisions import join_labels, read_decisions
from metaverify.simulators.importers import importer as formats
from metaverify.simulators.importers.importer import Importer, find_importer, known_formats
from metaverify.simulators.importers.importing import import_log
from metaverify.simulators.importers.mapping import dotted
from metaverify.simulators.importers.runs import Runs
from metaverify.simulators.importers.sources import Record, Source, Unused
from metaverify.simulators.log import LogError, fingerprint
from metaverify.simulators.partial_reader import read_partial_log
from metaverify.simulators.reader import read_log, write_log
from tests.strategies import random_log


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def answers(count: int, tiers: str = "ab", **more: object) -> Iterator[dict[str, Any]]:
    for at in range(count):
        for tier in tiers:
            yield {"query_id": f"q{at}", "tier": tier, "correct": at % 2, "confidence": at / count, "cost": 1, **more}


def table(path: Path) -> list[dict[str, Any]]:
    return pl.read_parquet(path).to_dicts()


# Tables --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz", ".jsonl"])
def test_a_log_of_ours_comes_out_as_it_went_in(suffix: str, tmp_path: Path) -> None:
    log = random_log(60, 3, readings=("free paid", "paid", ""), contexts=2, varying=True, groups=True, weighted=True)
    write_log(log, tmp_path / f"log{suffix}")
    import_log("wide", [tmp_path / f"log{suffix}"], tmp_path / "out.parquet", mapping={"context": "context"})
    assert fingerprint(read_log(tmp_path / "out.parquet", context="context")) == fingerprint(log)


def test_signals_come_out_as_they_went_in(tmp_path: Path) -> None:
    log = random_log(60, 3, signals=True)
    write_log(log, tmp_path / "log.csv")
    import_log("wide", [tmp_path / "log.csv"], tmp_path / "out.parquet")
    declared = {signal.name: signal.needs for signal in log.signals}
    assert fingerprint(read_log(tmp_path / "out.parquet", signals=declared)) == fingerprint(log)


def test_a_partial_log_comes_out_as_it_went_in(tmp_path: Path) -> None:
    draw = random.Random(2)
    rows: list[dict[str, Any]] = []
    for at in range(40):
        called = draw.random() < 0.5
        row = {"query_id": f"q{at:02}", "correct_a": at % 2, "cost_a": 1.0, "conf_a": draw.random()}
        row |= {"propensity_a": 1.0, "propensity_b": 0.5}
        row |= {"correct_b": 1, "cost_b": 5.0} if called else {"correct_b": None, "cost_b": None}
        rows.append(row)
    pl.DataFrame(rows).write_csv(tmp_path / "log.csv")
    report = import_log("wide", [tmp_path / "log.csv"], tmp_path / "out.parquet")
    assert report.partial == sum(row["correct_b"] is None for row in rows)
    was, found = (read_partial_log(tmp_path / name) for name in ("log.csv", "out.parquet"))
    for tier in ("a", "b"):
        np.testing.assert_array_equal(was.answers[tier].seen, found.answers[tier].seen)
        np.testing.assert_array_equal(was.answers[tier].chance, found.answers[tier].chance)
    import_log("wide", [tmp_path / "log.csv"], tmp_path / "whole.parquet", whole=True)
    assert [row["query_id"] for row in table(tmp_path / "whole.parquet")] == [
        row["query_id"] for row in rows if row["correct_b"] is not None
    ]


def test_foreign_names_are_mapped_in_the_long_form_and_in_the_wide_one(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text(
        "id,model,ok,p,judge,usd,lang\n1,a,true,50,10,0.1,de\n1,b,false,,20,2,de\n2,a,0,100,30,0.1,en\n2,b,1,0,,2,en\n"
    )
    mapping = {"query_id": "id", "tier": "model", "correct": "ok", "confidence": "p", "cost": "usd", "lang": "lang"}
    mapping |= {"confidence.judge": "judge", "verify_cost.judge": "0.5"}
    mapping.pop("lang")
    report = import_log("long", [tmp_path / "long.csv"], tmp_path / "out.parquet", mapping=mapping, scale=100.0)
    assert report.ignored == ("lang",)
    mapping["lang"] = "lang"
    report = import_log("long", [tmp_path / "long.csv"], tmp_path / "out.parquet", mapping=mapping, scale=100.0)
    assert report.ignored == ()
    wanted = [
        {"query_id": "1", "lang": "de"}
        | {"correct_a": 1.0, "cost_a": 0.1, "conf_a": 0.5, "conf_judge_a": 0.1, "verify_cost_judge_a": 0.5}
        | {"correct_b": 0.0, "cost_b": 2.0, "conf_b": None, "conf_judge_b": 0.2, "verify_cost_judge_b": 0.5},
        {"query_id": "2", "lang": "en"}
        | {"correct_a": 0.0, "cost_a": 0.1, "conf_a": 1.0, "conf_judge_a": 0.3, "verify_cost_judge_a": 0.5}
        | {"correct_b": 1.0, "cost_b": 2.0, "conf_b": 0.0, "conf_judge_b": None, "verify_cost_judge_b": None},
    ]
    assert table(tmp_path / "out.parquet") == wanted
    (tmp_path / "wide.json").write_text(
        '{"key": 1, "small": {"ok": true, "p": 0.5}}\n{"key": 2, "small": {"ok": false, "p": 1}}'
    )
    mapping = {"query_id": "key", "correct_a": "small.ok", "conf_a": "small.p", "cost_a": "2e-3"}
    import_log("wide", [tmp_path / "wide.json"], tmp_path / "out.parquet", mapping=mapping)
    assert table(tmp_path / "out.parquet") == [
        {"query_id": "1", "correct_a": 1.0, "cost_a": 0.002, "conf_a": 0.5},
        {"query_id": "2", "correct_a": 0.0, "cost_a": 0.002, "conf_a": 1.0},
    ]


def test_a_mapping_that_no_record_meets_is_told(tmp_path: Path) -> None:
    records = [{**row, "deep": {"p": None if at < 3 else 0.5}} for at, row in enumerate(answers(3))]
    path = lines(tmp_path / "in.jsonl", *records)
    mapping = {"confidence": "deep.p", "confidence.judge": "deep.q", "verify_cost": "0.5", "lang": "metadata.lang"}
    report = import_log("long", [path], tmp_path / "out.parquet", mapping=mapping)
    assert report.unmet == ("confidence.judge=deep.q", "lang=metadata.lang")
    with pytest.raises(LogError, match=r"no record says what was correct.*; no record has anything at grade$"):
        import_log("long", [path], tmp_path / "out.parquet", mapping={"correct": "grade"})


def wide(path: Path, *names: str, count: int = 20, **texts: str) -> Path:
    """A table of two tiers, of which `names` are the columns; texts fill further ones."""
    draw = random.Random(4)
    every = [
        {"query_id": f"q{at:02}", "conf_a": draw.random(), "cost_a": 0.5, "cost_b": 4.0, "cost_usd": 4.5}
        | {"correct_a": at % 2, "correct_b": 1, "conf_judge": draw.random(), "cost_judge": 0.125, **texts}
        for at in range(count)
    ]
    pl.DataFrame(every).select("query_id", *names, *texts).write_csv(path)
    return path


TIERS = ("conf_a", "correct_a", "cost_a", "correct_b", "cost_b")


def test_a_column_of_texts_is_left_out_and_told_whatever_it_is_called(tmp_path: Path) -> None:
    texts = {"correct_answer": "Paris", "conf_note": "see below", "cost_center": "CC12"}
    spoilt = wide(tmp_path / "in.csv", *TIERS, **texts)
    report = import_log("wide", [spoilt], tmp_path / "out.parquet")
    assert (report.texts, report.ignored, report.faults) == (tuple(sorted(texts)), (), ())
    import_log("wide", [wide(tmp_path / "clean.csv", *TIERS)], tmp_path / "wanted.parquet")
    assert table(tmp_path / "out.parquet") == table(tmp_path / "wanted.parquet")
    mapping = {"note": "conf_note", "correct_a": "correct_answer"}
    with pytest.raises(LogError, match=r"correct_answer has no numbers, such as 'paris'|correct_a is no number"):
        import_log("wide", [spoilt], tmp_path / "out.parquet", mapping=mapping)
    report = import_log("wide", [spoilt], tmp_path / "out.parquet", mapping={"note": "conf_note"})
    assert report.texts == ("correct_answer", "cost_center")
    assert {row["note"] for row in table(tmp_path / "out.parquet")} == {"see below"}


def test_one_number_among_texts_makes_a_column_of_numbers(tmp_path: Path) -> None:
    rows = [{"query_id": f"q{at}", "correct_a": "n/a" if at < 3 else 1, "correct_b": 1} for at in range(4)]
    report = import_log("wide", [lines(tmp_path / "in.jsonl", *rows)], tmp_path / "out.parquet")
    (fault,) = report.faults
    assert (fault.why, fault.count, report.texts) == ("correct_a is no number", 3, ())
    only = [{**row, "correct_b": "n/a", "correct_a": "n/a"} for row in rows]
    with pytest.raises(LogError, match=r"correct_a has no numbers, such as 'n/a'; correct_b has no numbers"):
        import_log("wide", [lines(tmp_path / "in.jsonl", *only)], tmp_path / "out.parquet")


def test_a_price_of_nothing_is_left_out_and_prices_may_come_from_another_file(tmp_path: Path) -> None:
    signal = "conf_judge", "cost_judge"
    whole = wide(tmp_path / "whole.csv", *TIERS, *signal, "cost_usd")
    report = import_log("wide", [whole], tmp_path / "whole.parquet")
    assert (report.signals, report.ignored) == (("judge",), ("cost_usd",))
    wanted = read_log(wide(tmp_path / "clean.csv", *TIERS, *signal), signals={"judge": ()})
    assert fingerprint(read_log(tmp_path / "whole.parquet", signals={"judge": ()})) == fingerprint(wanted)
    parts = [
        wide(tmp_path / "verdicts.csv", "conf_a", "correct_a", "correct_b", "conf_judge"),
        wide(tmp_path / "prices.csv", "cost_a", "cost_b", "cost_judge", "cost_usd"),
    ]
    for files in (parts, parts[::-1]):
        report = import_log("wide", files, tmp_path / "parts.parquet")
        assert (report.signals, report.ignored, report.faults) == (("judge",), ("cost_usd",), ())
        assert fingerprint(read_log(tmp_path / "parts.parquet", signals={"judge": ()})) == fingerprint(wanted)


def test_answers_of_samples_are_not_taken_and_told(tmp_path: Path) -> None:
    rows = [{"query_id": f"q{at}", "correct_a": 1, "conf_a": 0.5, "conf2_a": 0.25, "correct2_a": 0} for at in range(2)]
    report = import_log("wide", [lines(tmp_path / "in.jsonl", *rows)], tmp_path / "out.parquet")
    assert report.ignored == ("correct2_a",)
    assert table(tmp_path / "out.parquet")[0] == {"query_id": "q0", "correct_a": 1.0, "conf_a": 0.5, "conf2_a": 0.25}


def test_where_the_wide_names_would_be_misread_the_long_form_is_written(tmp_path: Path) -> None:
    # b's reading logit and logit_b's own would both be conf_logit_b
    records = [
        {**row, "reading": reading}
        for row in answers(3, "b")
        for reading in (None, "logit")
    ] + [{**row, "tier": "logit_b"} for row in answers(3, "b")]  # fmt: skip
    report = import_log("long", [lines(tmp_path / "in.jsonl", *records)], tmp_path / "out.parquet")
    assert report.form == "long"
    log = read_log(tmp_path / "out.parquet")
    assert {t.name: [r.name for r in t.readings] for t in log.tiers} == {"b": ["conf", "logit"], "logit_b": ["conf"]}


# What comes twice, what disagrees, what is lacking -------------------------------------------------------------------


AGAIN = "has an answer that comes again, and the last one counts"


def test_rows_of_a_table_complete_an_answer_and_correct_its_label(tmp_path: Path) -> None:
    asked = [{name: row[name] for name in ("query_id", "tier", "confidence")} for row in answers(3, "a")]
    graded = [{name: row[name] for name in ("query_id", "tier", "correct", "cost")} for row in answers(3, "a")]
    first = lines(tmp_path / "1.jsonl", *graded, {"query_id": "q0", "tier": "a", "correct": 1})
    second = lines(tmp_path / "2.jsonl", *asked)
    for files in ([first, second], [second, first]):
        report = import_log("long", files, tmp_path / "out.parquet")
        assert table(tmp_path / "out.parquet") == [
            {"query_id": "q0", "correct_a": 1.0, "cost_a": 1.0, "conf_a": 0.0},
            {"query_id": "q1", "correct_a": 1.0, "cost_a": 1.0, "conf_a": 1 / 3},
            {"query_id": "q2", "correct_a": 0.0, "cost_a": 1.0, "conf_a": 2 / 3},
        ]
        assert [(fault.why, fault.first) for fault in report.faults] == [(AGAIN, ("1.jsonl line 1",))]


@pytest.mark.parametrize("rows", [1, 1000])
@pytest.mark.parametrize("kind", ["long", "wide", "of others"])
def test_of_an_answer_that_comes_twice_the_last_stands_whole(
    kind: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Importer(Source.records, {name: (name,) for name in ("query_id", "tier", "correct", "confidence", "cost")})
    theirs = Importer(theirs.read, {**theirs.paths, "confidence.judge": ("judge",)})
    monkeypatch.setattr(formats, "entry_points", lambda group: (Point("of others", theirs),))
    records = [
        {"query_id": query, "tier": "a", "confidence": confidence, "judge": judge, "cost": cost, "correct": correct}
        for query, confidence, judge, cost, correct in (
            ("q", 0.95, 0.9, 0.5, 1),
            ("r", 0.5, 0.5, 0.5, 0),
            ("q", 0.05, None, 0.7, None),
            ("s", 0.25, 0.75, 0.5, 1),
        )
    ]
    if kind == "wide":
        names = {"confidence": "conf_a", "judge": "conf_judge_a", "cost": "cost_a", "correct": "correct_a"}
        records = [{names.get(name, name): value for name, value in row.items() if name != "tier"} for row in records]
    path = lines(tmp_path / "in.jsonl", *records)
    report = import_log(
        kind,
        [path],
        tmp_path / "out.parquet",
        mapping={"confidence.judge": "judge"} if kind == "long" else {},
        rows=rows,
    )
    assert table(tmp_path / "out.parquet") == [
        {"query_id": "q", "correct_a": None, "cost_a": 0.7, "conf_a": 0.05, "conf_judge_a": None},
        {"query_id": "r", "correct_a": 0.0, "cost_a": 0.5, "conf_a": 0.5, "conf_judge_a": 0.5},
        {"query_id": "s", "correct_a": 1.0, "cost_a": 0.5, "conf_a": 0.25, "conf_judge_a": 0.75},
    ]
    assert [(fault.why, fault.count, fault.first) for fault in report.faults] == [(AGAIN, 1, ("in.jsonl line 1",))]


def test_records_of_one_reading_each_are_parts_of_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Importer(
        Source.records, {n: (n,) for n in ("query_id", "tier", "reading", "correct", "confidence", "cost")}
    )
    monkeypatch.setattr(formats, "entry_points", lambda group: (Point("theirs", theirs),))
    rows = [
        {"query_id": "q", "tier": "a", "reading": reading, "correct": right, "confidence": confidence, "cost": 1}
        for reading, right, confidence in ((None, 1, 0.5), ("judge", 1, 0.25), (None, 1, 0.75))
    ]
    report = import_log("theirs", [lines(tmp_path / "in.jsonl", *rows)], tmp_path / "out.parquet")
    assert table(tmp_path / "out.parquet") == [
        {"query_id": "q", "correct_a": 1.0, "cost_a": 1.0, "conf_a": 0.75, "conf_judge_a": 0.25}
    ]
    assert [(fault.why, fault.first) for fault in report.faults] == [(AGAIN, ("in.jsonl line 1",))]


def test_the_last_answer_is_that_which_began_last(tmp_path: Path) -> None:
    calls = [
        {"trace_id": query, "model": "a", "startTime": start, "p": p, "response_cost": 1.0, "ok": ok}
        for query, start, p, ok in (
            ("q", 3.0, 0.25, None),
            ("q", 1.0, 0.5, 1),
            ("r", None, 0.75, 1),
            ("r", None, 1.0, 0),
        )
    ]
    paths = [lines(tmp_path / f"{at}.jsonl", call) for at, call in enumerate(calls)]
    report = import_log("litellm", paths[::-1], tmp_path / "out.parquet", mapping={"confidence": "p", "correct": "ok"})
    assert table(tmp_path / "out.parquet") == [
        {"query_id": "q", "correct_a": None, "cost_a": 1.0, "conf_a": 0.25},
        {"query_id": "r", "correct_a": 0.0, "cost_a": 1.0, "conf_a": 1.0},
    ]
    (fault,) = report.faults
    assert (fault.why, fault.first) == (AGAIN, ("1.jsonl line 1", "2.jsonl line 1"))


@given(
    calls=st.lists(
        st.tuples(st.sampled_from("qr"), st.sampled_from("ab"), st.integers(0, 2), st.sampled_from([None, 0, 1])),
        min_size=1,
        max_size=12,
    ),
    rows=st.sampled_from([1, 3, 1000]),
)
@settings(max_examples=25, deadline=None)
def test_the_last_of_each_answer_is_what_a_table_of_them_would_keep(calls: list[Any], rows: int) -> None:
    import tempfile

    records = [
        {"trace_id": query, "model": tier, "startTime": time, "ok": right, "p": None if at % 3 else at / 12}
        | {"response_cost": 1 + at}
        for at, (query, tier, time, right) in enumerate([*calls, ("z", "a", 0, 1)])
    ]
    kept: dict[tuple[str, str], dict[str, Any]] = {}
    for record in sorted(records, key=lambda record: record["startTime"]):  # stable
        kept[record["trace_id"], record["model"]] = record
    with tempfile.TemporaryDirectory() as folder:
        path, out = lines(Path(folder) / "in.jsonl", *records), Path(folder) / "out.jsonl"
        report = import_log("litellm", [path], out, mapping={"correct": "ok", "confidence": "p"}, rows=rows)
        found = {row["query_id"]: row for row in map(json.loads, out.read_text().splitlines())}
    assert sum(fault.count for fault in report.faults) == len(records) - len(kept)
    for (query, tier), record in kept.items():
        told = [found[query].get(f"{column}_{tier}") for column in ("correct", "conf", "cost")]
        assert told == [record["ok"], record["p"], record["response_cost"]]


def test_a_price_that_litellm_does_not_know_is_missing_and_null_is_no_cache_hit(tmp_path: Path) -> None:
    cases = [(0.0, {"error_str": "not mapped"}, None), (0.5, None, None), (0.0, None, True), (0.5, None, False)]
    cases += [(0.25, {"error_str": "found elsewhere"}, "False"), (None, {"error_str": "not mapped"}, False)]
    calls = [
        {"trace_id": f"q{at}", "model": "a", "ok": 1, "response_cost": cost, "cache_hit": hit}
        | {"response_cost_failure_debug_info": info}
        for at, (cost, info, hit) in enumerate(cases)
    ]
    path = lines(tmp_path / "in.jsonl", *calls)
    report = import_log("litellm", [path], tmp_path / "out.parquet", mapping={"correct": "ok"})
    (fault,) = report.faults
    assert (fault.why, fault.count) == ("has no cost, which other answers of the tier have", 2)
    priced = [(row["query_id"], row["cost_a"]) for row in table(tmp_path / "out.parquet")]
    assert priced == [("q1", 0.5), ("q2", 0.0), ("q3", 0.5), ("q4", 0.25)]
    report = import_log(
        "litellm", [path], tmp_path / "out.parquet", mapping={"correct": "ok"}, where={"cache_hit": "false"}
    )
    assert (report.passed_over, report.queries) == (1, 3)
    report = import_log(
        "litellm", [lines(tmp_path / "in.jsonl", calls[0])], tmp_path / "out.parquet", mapping={"correct": "ok"}
    )
    assert (report.unpriced, report.faults) == (("a",), ())


def test_rows_of_a_query_that_disagree_are_told(tmp_path: Path) -> None:
    records = list(answers(3, task="x"))
    records[0]["task"] = "y"
    report = import_log(
        "long", [lines(tmp_path / "in.jsonl", *records)], tmp_path / "out.parquet", mapping={"task": "task"}
    )
    (fault,) = report.faults
    assert (fault.why, fault.first) == (
        "has another task than other rows of the query, and is overruled",
        ("in.jsonl line 1 (y)",),
    )
    assert [row["task"] for row in table(tmp_path / "out.parquet")] == ["x"] * 3
    assert len(read_log(tmp_path / "out.parquet", context="task")) == 3


def test_answers_without_a_price_and_queries_without_a_group_are_left_out_where_others_have_them(
    tmp_path: Path,
) -> None:
    records = [{**row, "group_id": "g"} for row in answers(4)]
    del records[1]["cost"], records[4]["group_id"], records[5]["group_id"]
    report = import_log("long", [lines(tmp_path / "in.jsonl", *records)], tmp_path / "out.parquet")
    assert {fault.why: fault.first for fault in report.faults} == {
        "has no cost, which other answers of the tier have": ("in.jsonl line 2",),
        "has no group_id, which other queries have": ("in.jsonl line 5", "in.jsonl line 6"),
    }
    assert report.partial == 1
    assert len(read_partial_log(tmp_path / "out.parquet").log) == 3


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"confidence": 1.5}, "confidence is outside [0, 1]"),
        ({"confidence": float("inf")}, "confidence is outside [0, 1]"),
        ({"correct": "perhaps"}, "correct is no number"),
        ({"correct": [1]}, "correct is no number"),
        ({"cost": -1}, "cost is no price"),
        ({"cost": 1e300}, "cost is too large or too small to reckon with"),
        ({"cost": 10**400}, "cost is no number"),
        ({"weight": 0}, "weight is no weight"),
        ({"query_id": None}, "has no query_id"),
        ({"query_id": {"a": 1}}, "query_id is no plain value"),
        ({"query_id": 1e17}, "query_id is a decimal number too large to tell its neighbours apart"),
        ({"query_id": "\ud800"}, "query_id is not UTF-8 text"),
        ({"tier": ""}, "has no tier"),
        ({"tier": "a\u202eb"}, "has a hidden character in the name of its tier"),
    ],
)
def test_a_value_that_a_column_cannot_hold_costs_its_record_and_no_other(
    row: dict[str, Any], why: str, tmp_path: Path
) -> None:
    records = [{**record, "weight": 1} for record in answers(3)]
    bad = {**records[0], "query_id": "bad", **row}
    path = lines(tmp_path / "in.jsonl", *records[:3], bad, *records[3:])
    report = import_log("long", [path], tmp_path / "out.parquet", whole=True)
    (fault,) = report.faults
    assert (fault.why, fault.count) == (why, 1)
    assert fault.first[0].startswith("in.jsonl line 4")
    assert len(read_log(tmp_path / "out.parquet")) == 3


def test_only_the_first_places_of_a_fault_are_named_whichever_comes_first(tmp_path: Path) -> None:
    bad = [{"query_id": f"b{at}", "tier": "a", "correct": 7} for at in range(30)]
    paths = [lines(tmp_path / f"{at}.jsonl", *answers(3), *bad) for at in range(2)]
    report = import_log("long", paths[::-1], tmp_path / "out.parquet", rows=2)
    fault = next(fault for fault in report.faults if fault.count == 60)
    assert fault.first == ("0.jsonl line 7 (7)", "0.jsonl line 8 (7)", "0.jsonl line 9 (7)")


def test_a_place_is_named_once(tmp_path: Path) -> None:
    prices = [{f"cost_{tier}": 1 + at for tier in "abc"} for at in range(4)]
    rows = [{"query_id": f"q{at % 3}", "correct_a": 1, "correct_b": 1, "correct_c": 1, **prices[at]} for at in range(4)]
    report = import_log("wide", [lines(tmp_path / "in.jsonl", *rows)], tmp_path / "out.parquet")
    (fault,) = report.faults
    assert (fault.count, fault.first) == (3, ("in.jsonl line 1",))


# Files ---------------------------------------------------------------------------------------------------------------


CUT_OFF = "the file is cut off or damaged here, and not read further"


def read(path: Path) -> tuple[list[Any], list[tuple[int, str]]]:
    found = list(Source(path).records())
    return [r.values for r in found if isinstance(r, Record)], [(u.line, u.why) for u in found if isinstance(u, Unused)]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("wrap", [list, None])
def test_json_documents_are_read_as_lines_are(indent: int | None, wrap: Any, tmp_path: Path) -> None:
    records = [{"at": at, "text": "x" * 1000 + "]},\n{[", "deep": [{"a": [1.5, None]}]} for at in range(3000)]
    text = (
        json.dumps(records, indent=indent)
        if wrap
        else "\n".join(json.dumps(record, indent=indent) for record in records)
    )
    (tmp_path / "a.json").write_text("\ufeff" + text)
    assert read(tmp_path / "a.json") == (records, [])
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(text.encode()))
    assert read(tmp_path / "a.json.gz") == (records, [])


def test_what_is_broken_is_told_by_its_line_and_the_rest_read_as_far_as_can_be(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": \n\n{"a": "\xff"}\n[]\n{"a": 2}')
    assert read(tmp_path / "a.jsonl") == (
        [{"a": 1}, {"a": 2}],
        [(2, "is not JSON"), (4, "is not UTF-8 text"), (5, "is no JSON object")],
    )
    (tmp_path / "a.json").write_text('[{"a": 1},\n7,\n{"a": 2},\n{"a": }]')
    assert read(tmp_path / "a.json") == (
        [{"a": 1}, {"a": 2}],
        [(2, "is no JSON object"), (4, "is not JSON; the file is not read further")],
    )
    whole = gzip.compress("".join(json.dumps({"a": at**3}) + "\n" for at in range(9999)).encode())
    (tmp_path / "b.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    values, unused = read(tmp_path / "b.jsonl.gz")
    assert values == [{"a": at**3} for at in range(len(values))]
    assert unused[-1] == (len(values) + 1, "the file is cut off or damaged here, and not read further")
    (tmp_path / "a.csv").write_bytes(b'a,b\n1,"x\ny"\n\n2\n3,"y" z\n4,\'=1\n5,"end')
    assert read(tmp_path / "a.csv") == (
        [{"a": "1", "b": "x\ny"}, {"a": "4", "b": "=1"}],
        [(5, "has more or fewer fields than the header"), (6, "is not CSV"), (8, "is not CSV")],
    )
    (tmp_path / "big.csv").write_text("a,b\n1," + "x" * 1_000_000 + "\n")
    assert len(read(tmp_path / "big.csv")[0][0]["b"]) == 1_000_000


RECORDS = [{"at": at, "text": random.Random(at).randbytes(40).hex()} for at in range(12_000)]  # above a MiB


@pytest.mark.parametrize("count", [200, 12_000])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
@pytest.mark.parametrize("damage", ["cut", "turned", "garbage", "sum", "second"])
def test_every_record_before_the_damage_of_a_packed_file_is_read(
    damage: str, kind: str, count: int, tmp_path: Path
) -> None:
    records = RECORDS[:count]
    if kind == "csv":
        records = [{name: str(value) for name, value in record.items()} for record in records]
        plain = "at,text\n" + "".join(f"{row['at']},{row['text']}\n" for row in records)
    else:
        plain = "[\n" * (kind == "json") + "".join(json.dumps(row) + ",\n"[kind != "json" :] for row in records)
    packed = bytearray(gzip.compress(plain.encode()))
    half = len(packed) // 2
    whole: int | None = len(plain.encode())  # bytes that can be unpacked
    if damage == "cut":
        packed = packed[:half]
        whole = len(zlib.decompressobj(31).decompress(bytes(packed)))
    elif damage == "turned":
        packed[half : half + 400] = b"\xff" * 400
        whole = None
    elif damage == "sum":
        packed[-6] ^= 1
    elif damage == "second":
        packed += b"\0" * 9 + packed[:5]
    else:
        packed += b"garbage"
    (tmp_path / f"in.{kind}.gz").write_bytes(packed)
    values, unused = read(tmp_path / f"in.{kind}.gz")
    wanted = plain.encode()[:whole].decode().count("\n") - (kind != "jsonl")
    head = kind != "jsonl"
    if whole is None:  # where it is found out is zlib's business: after half, for a part of a block may be garbage
        assert values[: 4 * count // 10] == records[: 4 * count // 10]
        assert unused[-1][1] == CUT_OFF
    else:
        assert values == records[:wanted]
        assert unused == [(wanted + head + 1, CUT_OFF)]


def test_packed_files_one_after_the_other_are_one(tmp_path: Path) -> None:
    members = [gzip.compress(b'{"a": %d}\n' % at) for at in range(3)]
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(members) + b"\0" * 100_000)
    assert read(tmp_path / "a.jsonl.gz") == ([{"a": 0}, {"a": 1}, {"a": 2}], [])
    (tmp_path / "a.jsonl.gz").write_bytes(b"")
    assert read(tmp_path / "a.jsonl.gz") == ([], [])
    (tmp_path / "a.jsonl.gz").write_bytes(b'{"a": 1}\n')
    assert read(tmp_path / "a.jsonl.gz") == ([], [(1, CUT_OFF)])
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a": "%s"}\n' % (b"x" * 5_000_000)))
    assert [len(values["a"]) for values in read(tmp_path / "a.jsonl.gz")[0]] == [5_000_000]


def test_parquet_is_read_in_pieces(tmp_path: Path) -> None:
    pl.DataFrame({"a": range(20_000), "b": [[1, 2]] * 20_000}).write_parquet(tmp_path / "a.parquet")
    found = list(Source(tmp_path / "a.parquet").records())
    assert [r.line for r in found] == list(range(1, 20_001))
    assert found[12_345] == Record(12_346, {"a": 12_345, "b": [1, 2]})


@given(
    rows=st.lists(st.tuples(st.text("abü\0", max_size=3), st.integers(0, 5), st.integers(0, 99)), max_size=60),
    size=st.integers(1, 20),
    cuts=st.integers(1, 9),
)
@settings(max_examples=30, deadline=None)
def test_runs_sort_as_sorting_does_and_divide_no_key(rows: list[Any], size: int, cuts: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder) / "runs", ("key", "b", "c"), size)
        for at in range(0, len(rows), cuts):
            runs.put(
                pl.DataFrame(
                    rows[at : at + cuts], schema={"key": pl.String, "b": pl.Int64, "c": pl.Int64}, orient="row"
                )
            )
        slices = [frame.rows() for frame in runs.slices()]
    assert [row for frame in slices for row in frame] == sorted(rows, key=lambda row: (row[0].encode(), *row[1:]))
    keys = [{row[0] for row in frame} for frame in slices]
    assert sum(map(len, keys)) == len({row[0] for row in rows})


def test_paths_go_through_keys_that_hold_dots_and_through_lists() -> None:
    record = {"a": {"b": {"c": 1}, "b.c": 2}, "a.b": {"d": 3}, "l": [{"x": 4}], "n": None}
    assert [dotted(record, path) for path in ("a.b.c", "a.b.d", "l.0.x", "l.1.x", "n.x", "z")] == [
        1,
        3,
        4,
        None,
        None,
        None,
    ]


# Decisions -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def routed(tmp_path: Path) -> Path:
    """Sixty requests of a cascade that calls the second tier below 0.5."""
    tiers = Tier("a", 1.0, (Reading("conf", 0.0, (0.5,), (1, 1, 0)),)), Tier("b", 4.0)
    nodes = (Ask("a", 1), Read("a", "conf", (0.5,), (2, 3), 2), Ask("b", 4), Stop(Accept("a")), Stop(Accept("b")))
    policy = Policy(tiers, nodes, (Vertex(0.0, 3.0, 0.5, 0),), OperatingPoint(0, 0, 0.0))
    draw = random.Random(3)
    with DecisionLog(tmp_path / "decisions.jsonl") as log:
        router = Router(policy, lambda tier, _: Reply(tier, {"conf": draw.random()} if tier == "a" else {}), log=log)
        for at in range(60):
            router.route("?", key=f"r{at}", context=f"c{at % 2}")
    return tmp_path / "decisions.jsonl"


def test_decisions_and_labels_become_the_partial_log_that_joining_them_gives(routed: Path, tmp_path: Path) -> None:
    steps, _ = read_decisions(routed)
    labels = steps.select("query_id", "tier").unique(maintain_order=True).with_columns(correct=pl.lit(1.0))
    labels = labels.with_columns(correct=(pl.int_range(pl.len()) % 3 > 0).cast(pl.Float64)).filter(
        pl.int_range(pl.len()) % 7 > 0
    )
    labels.write_csv(tmp_path / "labels.csv")
    join_labels(steps, labels).write_parquet(tmp_path / "wanted.parquet")
    for files in ([routed, tmp_path / "labels.csv"], [tmp_path / "labels.csv", routed]):
        for rows in (3, 1000):
            report = import_log("decisions", files, tmp_path / "out.parquet", rows=rows)
            assert (report.queries, report.form, report.faults) == (60, "long", ())
            was, found = (
                read_partial_log(tmp_path / name, context="context") for name in ("wanted.parquet", "out.parquet")
            )
            assert fingerprint(found.log) == fingerprint(was.log)
            for tier in ("a", "b"):
                order = {query: at for at, query in enumerate(was.log.query_ids)}
                take = [order[query] for query in found.log.query_ids]
                np.testing.assert_array_equal(found.answers[tier].chance, was.answers[tier].chance[take])
                np.testing.assert_array_equal(found.labels[tier].chance, was.labels[tier].chance[take])


def test_labels_of_what_was_not_decided_and_labels_that_come_again_are_told(routed: Path, tmp_path: Path) -> None:
    told = [{"query_id": "r0", "tier": "a", "correct": right} for right in (0, 1, 1)]
    strange = [{"query_id": "nobody asked", "tier": tier, "correct": 1} for tier in "ab"]
    report = import_log(
        "decisions", [routed, lines(tmp_path / "labels.jsonl", *strange, *told)], tmp_path / "out.parquet"
    )
    assert report.queries == 60
    assert {fault.why: fault.first for fault in report.faults} == {
        "is a label of an answer that was not bought": ("labels.jsonl line 1 (a)", "labels.jsonl line 2 (b)"),
        "is a label that comes again, and the last one counts": ("labels.jsonl line 3 (a)", "labels.jsonl line 4 (a)"),
    }
    found = pl.read_parquet(tmp_path / "out.parquet").filter(pl.col("correct").is_not_null())
    assert found.select("query_id", "tier", "correct").rows() == [("r0", "a", 1.0)]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_request_that_lacks_a_step_is_not_used_and_the_whole_one_before_it_is(
    routed: Path, tmp_path: Path, lost: int
) -> None:
    text = routed.read_text().splitlines()
    steps = [json.loads(line) for line in text]
    long = next(step["key"] for step in steps if step["step"] == 2)  # calls both tiers
    again = [{**step, "time": step["time"] + 60, "context": "late"} for step in steps if step["key"] == long]
    del again[lost]
    routed.write_text("\n".join([*text, *map(json.dumps, again)]))
    (tmp_path / "labels.jsonl").write_text(json.dumps({"query_id": long, "tier": "a", "correct": 1}))
    report = import_log("decisions", [routed, tmp_path / "labels.jsonl"], tmp_path / "out.parquet")
    assert report.queries == 60
    assert {fault.why: fault.count for fault in report.faults}["is of a request cut short"] == 2
    assert "late" not in pl.read_parquet(tmp_path / "out.parquet")["context"]
    rows, skipped = read_decisions(routed)
    assert (rows["query_id"].n_unique(), skipped) == (60, 2)
    assert "late" not in rows["context"]


def test_what_of_decisions_is_no_whole_request_is_told(routed: Path, tmp_path: Path) -> None:
    text = routed.read_text().splitlines()
    again = [json.loads(line) for line in text if '"r0"' in line]
    moved = [{**json.loads(line), "propensity": None} for line in text if '"r2"' in line]
    late = [{**step, "time": step["time"] + 60} for step in again]
    rest = [line for line in text if '"r2"' not in line and '"r1"' not in line]
    cut = [line for line in text if '"r1"' in line][1:]
    keyless = json.dumps({**again[0], "key": None})
    body = [*rest, *cut, *map(json.dumps, [*moved, *late, {"x": 1}]), keyless, '{"key": 1, "st']
    (tmp_path / "other.jsonl").write_text("\n".join(body))
    (tmp_path / "labels.jsonl").write_text(
        "".join(
            json.dumps({"query_id": f"r{at}", "tier": tier, "correct": 1}) + "\n" for at in range(60) for tier in "ab"
        )
    )
    report = import_log("decisions", [tmp_path / "other.jsonl", tmp_path / "labels.jsonl"], tmp_path / "out.parquet")
    assert report.queries == 58
    faults = {fault.why: fault.count for fault in report.faults}
    assert faults.pop("is a label of an answer that was not bought") > 0
    assert faults == {
        "is of a request whose key came again": len(again),
        "is of a request cut short": len(cut),
        "is a request that a guard moved to a cheaper graph, with no propensity": 1,
        "is neither a step of a decision log nor a label": 1,
        "is of a request without a key": 1,
        "is not JSON": 1,
    }


# Errors and plugins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "files", "options", "message"),
    [
        ("lite-llm", ["in.jsonl"], {}, r"^E_OPTION: no format is called 'lite-llm'; did you mean 'litellm'"),
        ("long", ["gone.jsonl"], {}, r"^E_FILE: gone\.jsonl: there is no such file"),
        ("long", ["."], {}, r"^E_FILE: \. is a folder|^E_FILE: .* is a folder"),
        ("routerbench", ["routerbench_0shot.pkl"], {}, r"^E_FILE: routerbench_0shot\.pkl is a pickle.*\.parquet"),
        ("long", [], {}, r"^E_OPTION: no files"),
        ("long", ["in.jsonl"], {"out": "log.xlsx"}, r"^E_FILE: log\.xlsx has no known suffix"),
        ("long", ["in.jsonl"], {"out": "gone/log.csv"}, r"^E_FILE: log\.csv cannot be written"),
        ("long", ["in.jsonl"], {"scale": 0.0}, r"^E_OPTION: scale is 0"),
        ("long", ["in.jsonl"], {"mapping": {"confidense": "p"}}, r"^E_OPTION: --map confidense: did you mean 'confi"),
        ("litellm", ["in.jsonl"], {"mapping": {"correct_a": "p"}}, r"^E_OPTION: --map correct_a: did you mean "),
        ("long", ["in.jsonl"], {"mapping": {"a\u202e": "p"}}, r"^E_NAME: --map"),
        ("long", ["in.jsonl"], {"where": {"tier": "c"}}, r"^E_UNUSABLE: nothing in in\.jsonl .* all 4 records"),
        ("long", ["in.jsonl"], {"mapping": {"correct": "x"}}, r"^E_UNUSABLE: .* what was correct.*--map correct=PATH"),
        ("long", ["apart.jsonl"], {"whole": True}, r"^E_UNUSABLE: .* labelled answers of all of a, b"),
        ("wide", ["empty.jsonl"], {}, r"^E_UNUSABLE: nothing in empty\.jsonl .* no records"),
        ("wide", ["broken.parquet"], {}, r"^E_DAMAGED: broken\.parquet"),
        ("wide", ["twice.csv"], {}, r"^E_DUPCOL: twice\.csv has two columns 'a'"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_refused_and_leaves_nothing_behind(
    format: str, files: list[str], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    lines(tmp_path / "in.jsonl", *answers(2))
    lines(
        tmp_path / "apart.jsonl",
        *(row for row in answers(2) if (row["query_id"], row["tier"]) in (("q0", "a"), ("q1", "b"))),
    )
    for name in ("empty.jsonl", "broken.parquet", "routerbench_0shot.pkl"):
        (tmp_path / name).write_bytes(b"PAR1" if name == "broken.parquet" else b"")
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    out = options.pop("out", "log.parquet")
    with pytest.raises(LogError, match=message):
        import_log(format, [tmp_path / name for name in files], tmp_path / out, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_break_leaves_the_old_log_and_nothing_else(tmp_path: Path) -> None:
    lines(tmp_path / "in.jsonl", *answers(50))
    (tmp_path / "log.csv").write_text("old")

    def break_off(what: str, share: float | None) -> None:
        if what == "writing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_log("long", [tmp_path / "in.jsonl"], tmp_path / "log.csv", rows=10, progress=break_off)
    assert (tmp_path / "log.csv").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "log.csv"]


def test_progress_rises_from_nothing_to_all(tmp_path: Path) -> None:
    paths = [lines(tmp_path / f"{at}.jsonl", *answers(2000)) for at in range(3)]
    shares: list[float] = []
    import_log("long", paths, tmp_path / "log.csv", rows=500, progress=lambda what, share: shares.append(share or 0.0))
    assert shares == sorted(shares)
    assert 0.0 <= shares[0] < 0.3
    assert shares[-1] == 1.0


@dataclass(frozen=True)
class Point:
    """An entry point of another package."""

    name: str
    found: Any
    value: str = "other.package:thing"
    dist: Distribution | None = None

    def load(self) -> Any:
        return self.found


def test_other_packages_bring_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pairs(source: Source) -> Iterator[Record | Unused]:
        for number, line in enumerate(source.path.read_text().splitlines(), start=1):
            query, _, right = line.partition(":")
            yield Record(number, {"q": query, "right": right}) if right else Unused(number, "has no colon", line)

    theirs = Importer(pairs, {"query_id": ("q",), "correct_a": ("right",), "cost_a": (1.0,)})
    points = (Point("pairs", theirs), Point("odd", print), Point("litellm", theirs))
    monkeypatch.setattr(formats, "entry_points", lambda group: points if group == "metaverify.importers" else ())
    assert known_formats()[-2:] == ["odd", "pairs"]
    assert find_importer("litellm") is not theirs
    with pytest.raises(LogError, match=r"other.package:thing\) is no Importer"):
        find_importer("odd")
    (tmp_path / "in.txt").write_text("x:1\ny\nz:0\n")
    report = import_log("pairs", [tmp_path / "in.txt"], tmp_path / "out.parquet")
    assert [(fault.why, fault.first) for fault in report.faults] == [("has no colon", ("in.txt line 2 (y)",))]
    assert table(tmp_path / "out.parquet") == [
        {"query_id": "x", "correct_a": 1.0, "cost_a": 1.0},
        {"query_id": "z", "correct_a": 0.0, "cost_a": 1.0},
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", r"cannot be loaded: AttributeError: .*NOPE"),
        ("lacking", r"cannot be loaded: ModuleNotFoundError: No module named 'nomodule_of_theirs'"),
        ("odd", r"is no Importer"),
        ("breaks", r"failed: RuntimeError: boom"),
        ("gives", r"failed: TypeError: \{'x': 1\} is neither a Record nor an Unused"),
        ("pairs", r"failed: TypeError: Record\(line=1, values=\['a'\].* is neither"),
        ("joins", r"failed: KeyError: 'b'"),
    ],
)
def test_a_format_of_others_that_does_not_work_is_named_with_its_package(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "theirs"
    (folder / "foo-1.5.dist-info").mkdir(parents=True)
    (folder / "foo-1.5.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: foo\nVersion: 1.5\n")
    (folder / "formats_of_theirs.py").write_text(
        """
from metaverify.simulators.importers.importer import Importer
from metaverify.simulators.importers.sources import Record

PATHS = {"query_id": ("q",), "tier": ("tier",), "correct": ("right",)}

def breaks(source):
    yield Record(1, {"q": 1})
    raise RuntimeError("boom")

def gives(source):
    yield Record(1, {"q": 1})
    yield {"x": 1}

def pairs(source):
    yield Record(1, ["a"])

def one(source):
    yield Record(1, {"q": 1}, "a")

def joins(records):
    yield Record(0, {"q": records[0].values["b"]})

BREAKS = Importer(breaks, PATHS)
GIVES = Importer(gives, PATHS)
PAIRS = Importer(pairs, PATHS)
JOINS = Importer(one, PATHS, joins)
"""
    )
    monkeypatch.syspath_prepend(folder)
    theirs = Distribution.at(folder / "foo-1.5.dist-info")
    values = {"gone": "formats_of_theirs:NOPE", "lacking": "nomodule_of_theirs:X", "odd": "formats_of_theirs:one"}
    point = EntryPoint(name, values.get(name, f"formats_of_theirs:{name.upper()}"), "metaverify.importers")
    monkeypatch.setattr(formats, "entry_points", lambda group: (point._for(theirs),))  # type: ignore[attr-defined]
    lines(tmp_path / "in.jsonl", {"a": 1})
    wanted = rf"^E_OPTION: the format '{name}' of foo 1\.5 \(entry point \w+:\w+\) {message}"
    with pytest.raises(LogError, match=wanted):
        import_log(name, [tmp_path / "in.jsonl"], tmp_path / "out.parquet")
