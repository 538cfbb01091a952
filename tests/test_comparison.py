"""A comparison on the command line: what it prints fits the terminal and says who wins, and it writes what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaverify.cli import main
from metaverify.comparison import POMDPS, _narrow, comparison_text, terms, verdict
from metaverify.fitting import compare as engine
from metaverify.fitting.chain import Thresholds
from metaverify.fitting.compare import compare
from metaverify.fitting.comparison import Adherence, Comparison, Differences
from metaverify.fitting.methods import LEARNERS, USUAL, known_methods
from metaverify.simulators.log import fingerprint_queries
from metaverify.simulators.outcome import Estimate
from metaverify.simulators.reader import read_log
from metaverify.simulators.references import no_information_hull, oracle
from metaverify.simulators.worlds import shared_difficulty


@pytest.fixture(scope="module")
def found() -> Comparison:
    ways = {"thresholds": Thresholds(), "wide cuts": Thresholds(bins=3)}
    return compare(shared_difficulty(2).draw(200, 1), ways, budgets=(2.0, 3.0, 4.0), folds=2, resamples=50)


def ranked(found: Comparison, gains: dict[str, float], half: float, holm: float) -> Comparison:
    """The comparison as if these methods had these gains, any two told apart with ``holm``."""
    names = tuple(gains)
    methods = tuple(
        replace(found.methods[0], name=name, gain=Estimate(gain, gain - half, gain + half))
        for name, gain in gains.items()
    )
    mean = np.subtract.outer(list(gains.values()), list(gains.values()))
    tables = (tuple(map(tuple, table.tolist())) for table in (mean, mean - half, mean + half))
    p = tuple(tuple(1.0 if a == b else holm for b in names) for a in names)
    return replace(found, methods=methods, differences=Differences(names, *tables, p, p))


@pytest.mark.parametrize("count", [1, 2, 5, 9, 30])
def test_no_line_is_wider_than_a_terminal(found: Comparison, count: int) -> None:
    gains = {f"automix-self-consistency-{at:03d}": 0.1234 - at / 100 for at in range(count)}
    wide = ranked(found, gains, 0.0123, 0.001)
    text = comparison_text(replace(wide, failed={"odd": "RuntimeError: " + "no such luck " * 12}))
    assert max(map(len, text.splitlines())) <= 100
    assert all(name in text for name in gains)


def test_columns_line_up(found: Comparison) -> None:
    lines = comparison_text(found).splitlines()
    rulers = [at for at, line in enumerate(lines) if set(line) == {"-", " "}]
    assert len(rulers) >= 4
    for at in rulers:
        ends = [place for place, mark in enumerate(lines[at] + " ") if mark == " " and lines[at][place - 1] == "-"]
        for line in (lines[at - 1], lines[at + 1]):
            assert all(len(line) <= end or line[end] == " " for end in ends)


def test_the_first_figure_is_the_headline_with_its_interval(found: Comparison) -> None:
    best = found.ranking[0]
    row = next(line for line in comparison_text(found).splitlines() if line.startswith(best.name))
    half = 100 * (best.gain.high - best.gain.mean)
    assert row.removeprefix(best.name).split()[:2] == [f"{100 * best.gain.mean:+.2f}", f"±{half:.2f}"]


def test_undefined_scores_are_called_so(found: Comparison) -> None:
    blank = replace(found, methods=tuple(replace(m, ibc_lift=None, apgr=None) for m in found.methods))
    assert comparison_text(blank).count("undefined") == len(found.methods) + 1  # and the note


def test_a_share_that_rounds_to_nothing_has_no_minus(found: Comparison) -> None:
    tiny = Estimate(-1e-6, -1e-6, -1e-6)
    method = replace(found.methods[0], ibc_lift=tiny, adherence=Adherence(-1e-6, 0.0))
    alone = ranked(found, {method.name: 0.0}, 0.0, 1.0).differences
    text = comparison_text(replace(found, methods=(method,), differences=alone))
    assert "+0.0 ±0.0" in text
    assert " -0.0 " not in text


def said(found: Comparison) -> str:
    return " ".join(verdict(found.to_json()))


def test_a_clear_winner_is_told(found: Comparison) -> None:
    assert said(ranked(found, {"chain": 0.03, "lattice": 0.01}, 0.005, 0.001)) == (
        "chain gains most: +3.00 ±0.50 points over mixing fixed tiers at random. "
        "It is clearly ahead of every other method (Holm's p <= 0.1). "
        "Clear gains, each by its own interval: every method. "
        "Solving the POMDP does not win here: lattice, which always solves the POMDP, is +2.00 ±0.50 points behind, "
        "clearly so."
    )


@pytest.mark.parametrize(
    ("best", "holm", "told"),
    [
        ("default", 0.01, "points behind, clearly so; default solves it where that earns clearly more."),
        ("default", 0.5, "points behind, not clearly so."),
        ("chain", 0.5, "points behind, not clearly so."),
    ],
)
def test_the_pomdp_is_said_to_lose_where_it_clearly_does_and_another_kind_wins(
    found: Comparison, best: str, holm: float, told: str
) -> None:
    sentences = said(ranked(found, {best: 0.03, "lattice": 0.01}, 0.005, holm))
    assert sentences.endswith(told)
    assert "does not win" not in sentences


def test_methods_that_do_not_keep_budgets_are_named(found: Comparison) -> None:
    lavish = ranked(found, {"chain": 0.03, "default": 0.01}, 0.005, 0.001)
    spent = replace(lavish.methods[0], adherence=Adherence(0.732, 0.1))
    told = said(replace(lavish, methods=(spent, lavish.methods[1])))
    assert "Beyond budgets spend chain (+73 %): their gain is what mixing them with the cheapest tier" in told


def test_who_decides_by_the_context_is_told_where_not_all_do(found: Comparison) -> None:
    both = ranked(found, {"chain": 0.03, "default": 0.01}, 0.005, 0.001)
    by = replace(both, methods=tuple(replace(m, by_context=m.name == "chain") for m in both.methods))
    assert "By context decide chain; the others do not know it." in said(by)
    every = replace(both, methods=tuple(replace(m, by_context=True) for m in both.methods))
    assert "context" not in said(every) + said(both)


def test_one_tier_that_is_cheapest_and_best_leaves_little_to_gain(found: Comparison) -> None:
    assert "tier1 is as good as any tier and no dearer" in said(replace(found, hull=found.hull[:1]))


def test_where_the_winner_earns_what_the_exact_solution_does_nothing_is_said_against_that(found: Comparison) -> None:
    told = said(ranked(found, {"default": 0.03, "lattice": 0.03, "chain": 0.01}, 0.0, 1.0))
    assert "does not win" not in told
    assert told.endswith("lattice, which solves the POMDP, earns as much.")


def test_a_tie_is_told(found: Comparison) -> None:
    assert said(ranked(found, {"default": 0.012, "lattice": 0.03, "chain": 0.029}, 0.005, 0.4)) == (
        "lattice gains most: +3.00 ±0.50 points over mixing fixed tiers at random. "
        "It is not clearly ahead of chain, default (Holm's p > 0.1; all 3 pairs are tested at once). "
        "Clear gains, each by its own interval: every method."
    )


def test_who_clearly_gains_and_who_clearly_loses_is_told(found: Comparison) -> None:
    gains = {"union": -0.02, "chain": 0.03, "random": 0.001, "frugalgpt": 0.02, "triple": -0.006}
    told = said(ranked(found, gains, 0.005, 0.001))
    assert "Clear gains, each by its own interval: chain, frugalgpt. " in told
    assert told.endswith("Clear losses against mixing at random: triple, union.")


def test_tables_that_do_not_fit_are_about_equally_wide() -> None:
    head, row = ["a" * 40, *("b" * 18 for _ in range(4))], ["", *("x" for _ in range(4))]
    rulers = [line for line in _narrow(head, [row]) if set(line) == {"-", " "}]
    assert [len(ruler.split()) - 1 for ruler in rulers] == [2, 2]  # not 3 and 1


def test_that_nobody_gains_is_told(found: Comparison) -> None:
    assert said(ranked(found, {"chain": 0.001}, 0.005, 1.0)) == (
        "No method clearly gains over mixing fixed tiers at random: the best, chain, gains +0.10 ±0.50 points."
    )


@pytest.mark.parametrize(("times", "gain", "few"), [(0.99, 0.0, False), (1.01, 0.0, True), (1.01, 0.9, False)])
def test_an_interval_that_hides_a_tenth_of_what_there_is_to_gain_tells_nothing(
    found: Comparison, times: float, gain: float, few: bool
) -> None:
    log = shared_difficulty(2).draw(200, 1)
    most = oracle(log).quality - np.mean([no_information_hull(log).quality(budget) for budget in found.budgets])
    told = said(ranked(found, {"chain": gain}, times * most / 10, 1.0))
    assert told.startswith(f"Too few queries to tell: a gain of {10 * most:+.2f} points, a tenth of what") == few


def test_the_terminal_says_the_verdict_and_what_each_column_means(found: Comparison) -> None:
    text = comparison_text(replace(found, failed={"odd": "RuntimeError: " + "no such luck " * 12}))
    told = replace(found, failed={"odd": "RuntimeError: " + "no such luck " * 12}).to_json()
    assert " ".join(text.split()).endswith(" ".join(" ".join(verdict(told)).split()))
    head = " ".join(line for line in text.splitlines() if "90 % intervals" in line or "AIQ" in line)
    for term in terms(told):
        assert term in head
        assert f"\n{term}: " in text


def test_methods_that_solve_a_pomdp_are_methods() -> None:
    assert set(POMDPS) <= set(LEARNERS)


# ---------------------------------------------------------------------------------------------- the command line

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    log = tmp_path / "log.csv"
    assert main(["simulate", "shared_difficulty", "-n", "150", "--tiers", "2", "-o", str(log)]) == 0

    def command(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        options = ["--methods", "thresholds,chain", "--folds", "2", "--jobs", "1"]
        code = main(["compare", str(log), *options, *argv])
        return (code, *capsys.readouterr())

    return command


def test_methods_are_listed_with_what_each_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["compare", "--list-methods"])
    lines = [line.split() for line in capsys.readouterr().out.split("\n\n")[0].splitlines()]
    assert [line[0] for line in lines] == list(known_methods())
    assert {line[0] for line in lines if line[1] == "*"} == set(USUAL)
    assert all(len(line) > 2 for line in lines)


def test_it_prints_the_table_and_writes_json_and_figures(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("-o", str(tmp_path / "found.json"), "--plots", str(tmp_path / "plots"))
    assert code == 0
    assert "150 queries; 10 budgets from 1.15 to 4; 2 folds" in out
    assert out.endswith(f"wrote {tmp_path / 'found.json'} and {tmp_path / 'plots'}\n")
    told = json.loads((tmp_path / "found.json").read_text())
    log = read_log(tmp_path / "log.csv")
    same = json.loads(json.dumps(compare(log, ["thresholds", "chain"], folds=2).to_json()))
    for each in (*told["methods"], *same["methods"]):
        assert each.pop("seconds") >= 0
    assert told["log"]["queries"] == fingerprint_queries(log)
    assert told == same
    assert len(list((tmp_path / "plots").iterdir())) == 8


def test_json_goes_to_stdout_the_same_each_time_without_seconds(run: Run, tmp_path: Path) -> None:
    options = ("--json", "--no-seconds", "--budgets", "2,3", "--resume", str(tmp_path / "kept"))
    first, second = run(*options), run(*options)
    assert first == second
    told = json.loads(first[1])
    assert told["budgets"] == [2.0, 3.0]
    assert [method["seconds"] for method in told["methods"]] == [None, None]
    assert len(list((tmp_path / "kept").iterdir())) == 4


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--methods", "latice"], "no method is called 'latice'; did you mean 'lattice'?"),
        (["--budgets", "2,x"], "--budgets 2,x: write them as numbers, for example --budgets 1,2.5,4"),
        (["--budgets", "0.2"], "budget 0.2 is no finite number of at least 1, the mean cost of tier1"),
        (["-o", "nowhere/found.json"], "there is no folder 'nowhere'"),
    ],
)
def test_wrong_use_is_told_and_nothing_is_written(run: Run, argv: list[str], message: str) -> None:
    code, out, err = run(*argv)
    assert (code, out) == (1, "")
    assert message in err


@pytest.mark.parametrize("kept", [False, True])
def test_an_interruption_says_what_is_left(
    run: Run, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "run_trial", interrupt)
    code, _, err = run(*(["--resume", str(tmp_path / "kept")] if kept else []))
    assert code == 1
    assert ("goes on where it was" if kept else "every file is as it was") in err
