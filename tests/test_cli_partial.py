"""The loop from the command line: fit, plan, deploy, join labels to what was decided, replay, refit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from metaverify.cli import main
from metaverify.policies.certificate import certificate_text
from metaverify.policies.decision_log import DecisionLog
from metaverify.policies.exploration import Exploration, load_exploration
from metaverify.policies.file import load_policy
from metaverify.policies.router import Reply, Router
from metaverify.simulators.exploration_plan import plan_exploration
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.offpolicy import appraise
from metaverify.simulators.partial_reader import read_partial_log
from metaverify.simulators.reader import read_log
from metaverify.simulators.trace import observed_by


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert (self.code, self.err) == (0, "")
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two policies of a log, and another log of the same world."""
    folder = tmp_path_factory.mktemp("shop")
    log = str(folder / "log.parquet")
    assert main(["simulate", "hopeless", "-n", "600", "-o", log]) == 0
    for name, budget in (("old", "5"), ("new", "7")):
        fit = ["fit", log, "--budget", budget, "--method", "chain", "--folds", "2", "-o", str(folder / f"{name}.json")]
        assert main(fit) == 0
    assert main(["simulate", "hopeless", "-n", "3000", "--seed", "1", "-o", str(folder / "traffic.parquet")]) == 0
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], shop: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(shop)

    def command(*argv: str) -> Ran:
        capsys.readouterr()
        try:
            code = main([*argv])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Ran(code, *capsys.readouterr())

    return command


PLAN = ("explore", "new.json", "old.json", "log.parquet", "--traffic", "3000", "--precision", "0.015")


def deploy(log: ReplayLog, exploration: Exploration, out: str) -> None:
    """What a router decides of these queries."""
    place = {query: row for row, query in enumerate(log.query_ids)}

    def call(tier: str, query: str) -> Reply:
        of, row = log.tier(tier), place[query]
        return Reply(tier, {"conf": float(of.readings[0].confidence[row])}, float(of.cost[row]))

    with DecisionLog(out) as decisions:
        router = Router(load_policy("old.json"), call, log=decisions, exploration=exploration)
        for query in log.query_ids:
            router.route(query, key=query)


def labels_of(log: ReplayLog) -> pl.DataFrame:
    return pl.concat(
        [pl.DataFrame({"query_id": log.query_ids.tolist(), "tier": t.name, "correct": t.correct}) for t in log.tiers]
    )


def test_explore_says_and_writes_what_the_library_plans(run: Run) -> None:
    new, old, log = load_policy("new.json"), load_policy("old.json"), read_log("log.parquet")
    plan = plan_exploration(new, old, log, traffic=3000, precision=0.015)
    told = run(*PLAN, "--json", "--salt", "s", "-o", "exploration.json").json()
    assert told["cost"] == plan.cost
    assert [of["rate"] for of in told["bins"]] == [of.rate for of in plan.bins]
    assert load_exploration("exploration.json") == plan.exploration("s")
    ran = run(*PLAN)
    assert ran.code == 0
    for of in plan.bins:
        assert f"{of.where} " in ran.out
    assert f"{plan.alike:.4g} a query" in ran.out
    assert "no file was written" in ran.out
    assert "of which all answers are labelled" in ran.out
    fewer = plan_exploration(new, old, log, traffic=3000, precision=0.015, labelled=0.9)
    assert run(*PLAN, "--labelled", "0.9", "--json").json()["cost"] == fewer.cost > plan.cost
    assert "of which 0.9 of the answers are labelled" in run(*PLAN, "--labelled", "0.9").out


def test_explore_refuses_a_precision_that_cannot_be_had_and_writes_nothing(run: Run) -> None:
    ran = run(*PLAN[:-1], "0.0001", "-o", "never.json")
    assert ran.code == 1
    assert "that takes" in ran.err
    assert not Path("never.json").exists()


def test_simulate_explores_as_the_file_says(run: Run) -> None:
    assert run(*PLAN, "-o", "exploration.json").code == 0
    common = ("simulate", "hopeless", "-n", "800", "--seed", "5")
    ran = run(*common, "--seen-by", "old.json", "--exploration", "exploration.json", "-o", "drawn.parquet")
    assert ran.code == 0
    assert run(*common, "-o", "whole.parquet").code == 0
    expected = observed_by(load_policy("old.json"), read_log("whole.parquet"), load_exploration("exploration.json"))
    found = read_partial_log("drawn.parquet")
    for name, sighting in expected.answers.items():
        assert found.answers[name].chance.tolist() == sighting.chance.tolist()


def test_a_turn_of_the_loop(run: Run) -> None:
    assert run(*PLAN, "-o", "exploration.json").code == 0
    exploration, log = load_exploration("exploration.json"), read_log("traffic.parquet")
    Path("decisions.jsonl").unlink(missing_ok=True)
    deploy(log, exploration, "decisions.jsonl")
    labels_of(log).write_csv("labels.csv")
    joined = run("join", "decisions.jsonl", "labels.csv", "-o", "seen.parquet")
    assert joined.code == 0
    seen = observed_by(load_policy("old.json"), log, exploration)
    answers = sum(int(sighting.seen.sum()) for sighting in seen.answers.values())
    assert joined.out.startswith(f"3,000 queries, {answers:,} answers, {answers:,} of them labelled\n")
    told = run("join", "decisions.jsonl", "labels.csv", "-o", "seen.parquet", "--json").json()
    assert told == {
        "out": "seen.parquet",
        "queries": 3000,
        "answers": answers,
        "labelled": answers,
        "requests_left_out": 0,
        "labels_left_out": 0,
        "labels_not_called": 9000 - answers,
        "lines_skipped": 0,
    }
    new = load_policy("new.json")
    replayed = run("replay", "new.json", "seen.parquet", "--partial", "--json").json()
    expected = appraise(new, seen).estimators["dr"]
    assert replayed["estimators"]["dr"]["quality"]["mean"] == pytest.approx(expected.quality.mean, rel=1e-12)
    refitted = run("fit", "seen.parquet", "--partial", "--budget", "5", "-o", "refitted.json")
    assert refitted.code == 0
    assert load_policy("refitted.json").provenance["method"] == "partial"


def test_join_takes_audits_and_says_what_it_leaves_out(run: Run) -> None:
    log = read_log("log.parquet")
    Path("few.jsonl").unlink(missing_ok=True)
    deploy(log, Exploration(0.2), "few.jsonl")
    with Path("few.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"key": "cut')
    labels = labels_of(log)
    audited = pl.int_range(pl.len()) % 2 == 0  # 600 queries, so the same ones of each tier
    labels = labels.with_columns(correct=pl.when(audited).then("correct"), label_propensity=0.5)
    labels.write_parquet("audited.parquet")
    ran = run("join", "few.jsonl", "audited.parquet", "-o", "audited.csv")
    assert ran.code == 0
    called = {name: s.seen for name, s in observed_by(load_policy("old.json"), log, Exploration(0.2)).answers.items()}
    assert "note: 1 lines skipped" in ran.out
    assert f"note: {sum((~seen[::2]).sum() for seen in called.values())} labels not needed: their tiers were" in ran.out
    assert "left out" not in ran.out
    others = labels.with_columns(query_id=pl.lit("x") + pl.col("query_id"))
    pl.concat([labels, others]).write_parquet("more.parquet")
    ran = run("join", "few.jsonl", "more.parquet", "-o", "audited.csv")
    assert "note: 900 labels left out: their requests or tiers" in ran.out
    for name, sighting in read_partial_log("audited.csv").labels.items():
        assert sighting.seen.tolist() == (called[name] & (np.arange(600) % 2 == 0)).tolist()
        assert set(sighting.chance[sighting.seen].tolist()) == {0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("query_id,tier,correct\nother,tier1,1\n", "no label belongs to an answer"),
        ("query_id,tier\nq,tier1\n", "labels.csv: the labels have no column 'correct'"),
        ("query_id,tier,correct\nq000001,tier1,good\n", "labels.csv row 1: correct is 'good'"),
        ("query_id,tier,correct\nq000001,,1\n", "row 1: tier is"),
        (
            "query_id,tier,correct\nq000001,tier1,1\nq000001,tier1,0\n",
            "'tier1' of query 'q000001' twice, and they differ",
        ),
    ],
)
def test_labels_that_are_none_are_refused_and_nothing_is_written(text: str, message: str, run: Run) -> None:
    Path("two.jsonl").unlink(missing_ok=True)
    deploy(read_log("log.parquet").take(np.arange(5)), Exploration(0.2), "two.jsonl")
    Path("labels.csv").write_text(text, "utf-8")
    ran = run("join", "two.jsonl", "labels.csv", "-o", "never.parquet")
    assert ran.code == 1
    assert message in ran.err
    assert not Path("never.parquet").exists()


def test_options_that_would_say_nothing_are_refused(run: Run) -> None:
    for argv in (["fit", "log.parquet", "--budget", "5"], ["replay", "old.json", "log.parquet"]):
        for option in (["--epsilon", "0.1"], ["--logged-by", "old.json"]):
            ran = run(*argv, *option)
            assert (ran.code, ran.out) == (1, "")
            assert f"{option[0]} is of a partial log: give --partial too" in ran.err
        ran = run(*argv, "--partial", "--epsilon", "0.1")
        assert ran.code == 1
        assert "name it with --logged-by" in ran.err
    ran = run("fit", "log.parquet", "--budget", "5", "--within-support")
    assert ran.code == 1
    assert "--within-support is of a partial log" in ran.err


def test_a_replay_on_a_partial_log_says_what_is_promised_and_whether_it_was_fitted_on_it(run: Run) -> None:
    command = ["simulate", "hopeless", "-n", "2000", "--seed", "6", "--seen-by", "old.json", "--epsilon", "0.2"]
    for name, seed in (("first", "6"), ("other", "7")):
        command[5] = seed
        assert run(*command, "-o", f"{name}.parquet").code == 0
    fitted = run("fit", "first.parquet", "--partial", "--budget", "5", "--folds", "2", "-o", "partial.json", "--json")
    assert fitted.code == 0
    assert run("certify", "partial.json", "--traffic", "traffic.parquet", "--budget", "6").code == 0
    for name, seen in (("first", True), ("other", False)):
        told = run("replay", "partial.json", f"{name}.parquet", "--partial", "--json").json()
        assert told["in_sample"] is seen
        assert told["certificate"]["limit"] == 6.0
        assert any(note.startswith("the policy was fitted on this log") for note in told["notes"]) is seen
    text = run("replay", "partial.json", "first.parquet", "--partial").out
    assert certificate_text(load_policy("partial.json").certificate) in text
    assert "note: the policy was fitted on this log" in text
    assert "certificate: none" in run("replay", "old.json", "first.parquet", "--partial").out
