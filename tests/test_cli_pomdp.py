"""POMDP files and pomdp-py's planners from the command line, and scorecards of several free readings."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaverify.cli import main
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.table import JointTable
from metaverify.policies.file import load_policy
from metaverify.simulators.log import FUSED, LoggedReading, LoggedTier, ReplayLog
from metaverify.simulators.outcome import replay
from metaverify.simulators.reader import write_log
from metaverify.simulators.replay import route
from tests.fitting.oracles import best_value
from tests.fitting.test_pomdp_file import optimum, read_pomdp, read_pomdpx

PRICE = 0.03
HORIZON = 4  # two calls, an end, and one step to spare

Ran = tuple[int, str, str]
Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command in this process: exit code, stdout, stderr."""

    def command(*argv: str | Path) -> Ran:
        capsys.readouterr()
        try:
            code = main([str(arg) for arg in argv])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capsys.readouterr())

    return command


def cascade() -> ReplayLog:
    """A cheap tier with two readings that come free, a dear one, and contexts of unlike difficulty."""
    rng = np.random.default_rng(0)
    n = 240
    hard = rng.random(n) < 0.4
    small = (rng.random(n) < np.where(hard, 0.35, 0.85)).astype(float)
    large = (rng.random(n) < np.where(hard, 0.75, 0.95)).astype(float)
    conf, votes = (np.round(share * small + (1 - share) * rng.random(n), 2) for share in (0.3, 0.4))
    votes = np.where(np.arange(n) % 10 == 0, np.nan, votes)
    readings = (LoggedReading("conf", conf, np.zeros(n)), LoggedReading("votes", votes, np.zeros(n)))
    ids = np.array([f"q{row:03d}" for row in range(n)], dtype=object)
    tiers = (
        LoggedTier("small", small, np.ones(n), readings),
        LoggedTier("large", large, np.full(n, 6.0), ()),
    )
    return ReplayLog(ids, tiers, np.ones(n), ids, np.where(hard, "hard", "easy").astype(object), ("context",))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "log.csv"
    write_log(cascade(), path)
    return path


# ------------------------------------------------------------------------------------------------------ POMDP files


def row_of(table: JointTable, row: int) -> JointTable:
    """The table of one context alone."""
    return replace(
        table,
        mass=table.mass[[row]],
        quality=tuple(None if q is None else q[[row]] for q in table.quality),
        price=tuple(tuple(p if isinstance(p, float) else p[[row]] for p in rungs) for rungs in table.price),
        contexts=(),
        share=(1.0,),
    )


@pytest.mark.parametrize("suffix", ["pomdp", "pomdpx"])
@pytest.mark.parametrize("label", [None, "easy", "hard"])
def test_the_best_value_of_a_written_file_is_that_of_every_decision_tree(
    suffix: str, label: str | None, run: Run, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"cascade.{suffix}"
    argv = ["pomdp", file, "--context", "context", "--price", PRICE, "--bins", 2, "-o", out, "--discount", 0.9]
    code, said, err = run(*map(str, argv), *([] if label is None else ["--label", label]))
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"wrote {re.escape(str(out))}: [\d,]+ hidden states, \d+ actions\n", said)
    found = (read_pomdp if suffix == "pomdp" else read_pomdpx)(out.read_text("ascii"))
    assert found.discount == 0.9
    assert found.start.sum() == pytest.approx(1.0, abs=1e-12)
    table = TableLearner(bins=2, first=True).study(cascade()).table
    row = 0 if label is None else 1 + table.contexts.index(label)
    assert optimum(found, HORIZON) == pytest.approx(best_value(row_of(table, row), PRICE), abs=1e-9)


def test_handing_over_is_in_the_file_where_it_is_worth_something(run: Run, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "cascade.pomdp"
    plain = ["pomdp", file, "--price", "0.5", "--bins", "2", "-o", out]
    assert run(*plain)[0] == 0
    without = read_pomdp(out.read_text("ascii"))
    assert run(*plain, "--abstain", "0.7")[0] == 0
    found = read_pomdp(out.read_text("ascii"))
    assert len(found.transition) == len(without.transition) + 1
    assert optimum(found, HORIZON) == pytest.approx(0.7, abs=1e-9)  # at that price nothing else pays


def test_json_says_what_was_written(run: Run, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "cascade.pomdp"
    code, said, err = run("pomdp", file, "--price", "0.03", "--bins", "2", "-o", out, "--json")
    assert (code, err) == (0, "")
    body = json.loads(said)
    assert body["out"] == str(out)
    tables = read_pomdp(out.read_text("ascii"))
    assert body["actions"] == len(tables.transition)
    assert (len(tables.start) - 1) % body["hidden_states"] == 0  # states: progress by hidden state, and the end


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("c.txt", [], r"c\.txt ends in \.txt; name a file that ends in \.pomdp or \.pomdpx"),
        ("c", [], r"c ends in nothing; name a file"),
        ("c.POMDP", [], r"ends in \.POMDP; name a file"),
        ("c.pomdp.gz", [], r"ends in \.gz; name a file"),
        ("c.pomdp", ["--label", "easy"], r"--label 'easy' is no context; the log has none"),
        (
            "c.pomdp",
            ["--label", "odd", "--context", "context"],
            r"--label 'odd' is no context; the log has easy, hard",
        ),
        ("c.pomdpx", ["--discount", "1"], r"discount is 1\.0; a \.pomdpx file needs one above 0 and below 1"),
        ("c.pomdp", ["--discount", "0"], r"discount is 0\.0; .*above 0 and at most 1"),
        ("none/c.pomdp", [], r"there is no folder .*; make it first"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_file_that_cannot_be_written_is_refused_in_one_line(
    name: str, options: list[str], says: str, run: Run, file: Path, tmp_path: Path
) -> None:
    code, said, err = run("pomdp", file, "--price", "0.03", "--bins", "2", "-o", tmp_path / name, *options)
    assert (code, said) == (1, "")
    assert re.fullmatch(rf"metaverify: .*{says}.*\n", err), err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [[], ["--price", "-1"], ["--price", "0.1", "--discount", "1.5"]], ids=" ".join)
def test_a_price_and_a_discount_that_are_none_are_wrong_use(
    options: list[str], run: Run, file: Path, tmp_path: Path
) -> None:
    code, said, err = run("pomdp", file, "-o", tmp_path / "c.pomdp", *options)
    assert (code, said) == (2, "")
    assert err.startswith("usage: metaverify pomdp")
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------------------- planners

SEARCH = ("--budget", "3", "--folds", "2", "--bins", "2", "--simulations", "30")


def test_a_planner_of_pomdp_py_is_fitted_recorded_and_replayed(run: Run, file: Path, tmp_path: Path) -> None:
    pytest.importorskip("pomdp_py", reason="pomdp-py has wheels for Linux on x86_64 and Python < 3.13 only")
    out = tmp_path / "policy.json"
    code, said, err = run("fit", file, *SEARCH, "--solver", "pomdp-py:pouct", "--seed", "3", "-o", out, "--json")
    assert (code, err) == (0, "")
    recorded = load_policy(out).provenance
    assert recorded["method"] == "pomdp-py pouct"
    options: dict[str, Any] = dict(recorded["options"])
    assert (options["simulations"], options["bins"], options["seed"]) == (30, 2, 3)
    assert json.loads(said)["outcome"]["cost"]["mean"] == pytest.approx(3.0, rel=0.02)
    assert run("replay", out, file)[0] == 0


@pytest.mark.parametrize("solver", ["pouct", "value-iteration"])
def test_without_pomdp_py_its_planners_are_refused_in_one_line_with_a_way_out(
    solver: str, run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pomdp_py", None)
    monkeypatch.delitem(sys.modules, "metaverify.fitting.pomdp_py_bridge", raising=False)
    code, said, err = run("fit", file, *SEARCH, "--solver", f"pomdp-py:{solver}", "-o", tmp_path / "policy.json")
    assert (code, said) == (1, "")
    assert err.startswith("metaverify: pomdp-py is not installed; its wheels are for Linux on x86_64")
    assert "`pip install pomdp-py`" in err
    assert "metaverify[fit]" not in err  # the extra is there: it has no pomdp-py on such a machine
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_solver_is_wrong_use(run: Run, file: Path) -> None:
    code, said, err = run("fit", file, *SEARCH, "--solver", "pomdp-py:sarsop")
    assert (code, said) == (2, "")
    assert "pomdp-py:value-iteration" in err


# ------------------------------------------------------------------------------------------------------- scorecards


def test_a_policy_over_scores_is_fitted_asked_explained_and_replayed_by_what_is_logged(
    run: Run, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "policy.json"
    assert run("fit", file, "--budget", "3", "--folds", "2", "--method", "auto", "-o", out)[0] == 0
    policy = load_policy(out)
    assert [reading.name for reading in policy.tiers[0].readings] == ["conf", "votes", FUSED]
    code, said, _ = run("replay", out, file, "--json")
    assert code == 0
    assert json.loads(said)["quality"]["mean"] == replay(policy, cascade()).quality.mean
    routes = [route(policy, cascade(), vertex) for vertex in range(len(policy.vertices))]
    asked = set()
    for row in range(0, 240, 12):
        taken = routes[policy.arm(f"q{row:03d}")].accepted[row]
        words, steps = by_command(run, out, row)
        assert words == f"accept the answer of {policy.tiers[taken].name}"
        asked |= set(steps)
    assert asked == {"call small", "read conf of small", "read votes of small", "call large"}


def by_command(run: Run, policy: Path, row: int) -> tuple[str, list[str]]:
    """One request of the log by `metaverify decide` alone: its end in words, and the steps before."""
    log = cascade()
    readings: dict[str, dict[str, float | None]] = {}
    steps = []
    while True:
        argv = ("decide", policy, json.dumps(readings), "--key", log.query_ids[row], "--context", log.contexts[row])
        code, said, err = run(*argv)
        assert (code, err) == (0, "")
        match said.split():
            case ["call", tier]:
                readings[tier] = {}
            case ["read", reading, "of", tier]:
                (column,) = (r for r in log.tier(tier).readings if r.name == reading)
                confidence = float(column.confidence[row])
                readings[tier][reading] = None if math.isnan(confidence) else confidence
            case _:
                assert run(*argv, "--explain")[1].startswith(said)
                return said.strip(), steps
        steps.append(said.strip())
