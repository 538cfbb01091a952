"""What the report says of a log is what a slower or another way of counting says."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from metaverify.simulators.inspection import LogReport, inspect_log, render
from metaverify.simulators.log import LoggedReading, LoggedSignal, LoggedTier, ReplayLog
from metaverify.simulators.signals import calibration_error, concordance

NAN = math.nan
Cells = Sequence[float]


def make_tier(name: str, correct: Cells, cost: Cells | float, **readings: Cells) -> LoggedTier:
    right = np.array(correct, dtype=np.float64)
    return LoggedTier(
        name,
        right,
        np.broadcast_to(np.array(cost, dtype=np.float64), right.shape),
        tuple(LoggedReading(r, np.array(c, dtype=np.float64), np.zeros(len(c))) for r, c in readings.items()),
    )


def make_log(*tiers: LoggedTier, weights: Cells | None = None, contexts: Sequence[str] | None = None) -> ReplayLog:
    count = len(tiers[0].correct)
    ids = np.array([f"q{i}" for i in range(count)], dtype=object)
    return ReplayLog(
        query_ids=ids,
        tiers=tiers,
        weights=np.ones(count) if weights is None else np.array(weights, dtype=np.float64),
        group_ids=ids,
        contexts=None if contexts is None else np.array(contexts, dtype=object),
    )


def slugs(report: LogReport) -> list[str]:
    return [warning.slug for warning in report.warnings]


def cases(report: LogReport, slug: str) -> tuple[str, ...]:
    (warning,) = (warning for warning in report.warnings if warning.slug == slug)
    return warning.cases


# How well a confidence tells right from wrong ------------------------------------------------------------------------


def by_pairs(confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray) -> float:
    right = total = 0.0
    for i, j in itertools.permutations(np.flatnonzero(~np.isnan(confidence)), 2):
        if correct[i] < correct[j]:
            total += weights[i] * weights[j]
            below, level = confidence[i] < confidence[j], confidence[i] == confidence[j]
            right += weights[i] * weights[j] * (1.0 if below else 0.5 if level else 0.0)
    return right / total if total else NAN


@pytest.mark.parametrize("levels", [3, 40, 10**6])
def test_concordance_with_right_and_wrong_is_scikit_learn_s_auroc(levels: int) -> None:
    rng = np.random.default_rng(levels)
    confidence = np.floor(rng.random(3000) * levels) / levels
    correct = (rng.random(3000) < 0.3 + 0.5 * confidence).astype(np.float64)
    weights = rng.random(3000) + 0.1
    assert concordance(confidence, correct, np.ones(3000)) == pytest.approx(roc_auc_score(correct, confidence))
    wanted = roc_auc_score(correct, confidence, sample_weight=weights)
    assert concordance(confidence, correct, weights) == pytest.approx(wanted)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, NAN]),
            st.sampled_from([0.0, 0.2, 1 / 3, 0.5, 0.9, 1.0]),
            st.sampled_from([0.5, 1.0, 3.0]),
        ),
        min_size=1,
        max_size=14,
    )
)
def test_concordance_with_scores_counts_every_pair(rows: list[tuple[float, float, float]]) -> None:
    confidence, correct, weights = (np.array(column) for column in zip(*rows, strict=True))
    wanted = by_pairs(confidence, correct, weights)
    assert concordance(confidence, correct, weights) == pytest.approx(wanted, nan_ok=True)


def test_concordance_of_many_scores_turns_with_the_confidence_and_keeps_under_stretching() -> None:
    rng = np.random.default_rng(0)
    confidence, weights = rng.random(20_000), rng.random(20_000)
    correct = np.clip(confidence + rng.normal(size=20_000), 0, 1)
    found = concordance(confidence, correct, weights)
    assert 0.5 < found < 1.0
    assert concordance(1 - confidence, correct, weights) == pytest.approx(1 - found)
    assert concordance(confidence**3, correct, weights) == pytest.approx(found)
    assert concordance(confidence, confidence, weights) == pytest.approx(1.0)


def test_concordance_is_undefined_without_two_different_answers() -> None:
    assert math.isnan(concordance(np.array([0.1, 0.9]), np.ones(2), np.ones(2)))
    assert math.isnan(concordance(np.array([NAN, NAN]), np.array([0.0, 1.0]), np.ones(2)))


def test_calibration_error_by_hand() -> None:
    # two bins: {.2, .2} with correctness {0, 1}, and {.6, 1} with {1, 1}
    confidence, correct = np.array([0.6, 0.2, 1.0, 0.2, NAN]), np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    assert calibration_error(confidence, correct, np.ones(5), bins=2) == pytest.approx((0.6 + 0.4) / 4)
    # ties share a bin, so one bin holds all: |.2 − .5| over four rows
    assert calibration_error(np.full(4, 0.2), np.array([0.0, 1.0, 0.0, 1.0]), np.ones(4)) == pytest.approx(0.3)
    assert math.isnan(calibration_error(np.full(2, NAN), np.ones(2), np.ones(2)))


def test_calibration_error_without_ties_is_that_of_equal_slices() -> None:
    rng = np.random.default_rng(3)
    confidence, correct = rng.random(500), rng.random(500)
    order = np.argsort(confidence)
    slices = np.array_split(confidence[order] - correct[order], 10)
    wanted = sum(abs(part.mean()) for part in slices) / 10
    assert calibration_error(confidence, correct, np.ones(500)) == pytest.approx(wanted)


# The report ----------------------------------------------------------------------------------------------------------


def hand_log() -> ReplayLog:
    return make_log(
        make_tier("small", [1, 0, 0, 1], 1.0, conf=[0.8, 0.6, 0.2, NAN]),
        make_tier("large", [1, 1, 0, 0], [2.0, 3.0, 4.0, 11.0]),
        contexts=["b", "a", "a", "a"],
    )


def test_the_report_of_four_rows_by_hand() -> None:
    report = inspect_log(hand_log())
    assert (report.rows, report.weight, report.groups) == (4, 4.0, None)
    small, large = report.tiers
    assert (small.name, small.price, small.price_p95, small.quality) == ("small", 1.0, None, 0.5)
    assert (large.price, large.price_p95, large.quality, large.readings) == (5.0, 11.0, 0.5, ())
    (reading,) = small.readings
    assert (reading.name, reading.price, reading.missing, reading.values) == ("conf", 0.0, 0.25, 3)
    assert reading.auroc == 1.0
    assert reading.bias == pytest.approx((0.8 + 0.6 + 0.2 - 1) / 3)
    assert reading.calibration_error == pytest.approx((0.2 + 0.6 + 0.2) / 3)
    assert report.contexts is not None
    assert [(c.name, c.rows) for c in report.contexts] == [("a", 3), ("b", 1)]
    assert report.contexts[0].qualities == pytest.approx((1 / 3, 1 / 3))
    assert report.error_correlation == ((1.0, 0.0), (0.0, 1.0))
    assert [point.tier for point in report.hull] == ["small"]
    assert (report.oracle.quality, report.oracle.cost) == (0.75, pytest.approx((1 + 3 + 1 + 1) / 4))


def test_a_weight_counts_as_so_many_rows() -> None:
    rng = np.random.default_rng(4)
    times = rng.integers(1, 4, 50)
    log = make_log(
        make_tier("a", rng.random(50), rng.random(50), conf=np.round(rng.random(50), 1)),
        make_tier("b", rng.random(50).round(), rng.random(50) + 2, conf=rng.random(50)),
        weights=times,
        contexts=[f"c{i % 2}" for i in range(50)],
    )
    repeated = log.take(np.repeat(np.arange(50), times))
    repeated = replace(repeated, weights=np.ones(len(repeated)))
    one, other = inspect_log(log), inspect_log(repeated)
    assert one.weight == other.weight == other.rows
    for mine, theirs in zip(one.tiers, other.tiers, strict=True):
        assert (mine.price, mine.price_p95, mine.quality) == pytest.approx(
            (theirs.price, theirs.price_p95, theirs.quality)
        )
        for my, their in zip(mine.readings, theirs.readings, strict=True):
            assert (my.auroc, my.bias, my.calibration_error) == pytest.approx(
                (their.auroc, their.bias, their.calibration_error)
            )
    np.testing.assert_allclose(one.error_correlation, other.error_correlation)
    assert one.contexts is not None
    assert other.contexts is not None
    for context, again in zip(sorted(one.contexts, key=str), sorted(other.contexts, key=str), strict=True):
        assert context.qualities == pytest.approx(again.qualities)


def test_correlations_are_numpy_s() -> None:
    rng = np.random.default_rng(6)
    correct = (rng.random((3, 300)) < 0.2 + 0.6 * rng.random(300)).astype(np.float64)
    report = inspect_log(make_log(*(make_tier(f"t{i}", row, i + 1.0) for i, row in enumerate(correct))))
    np.testing.assert_allclose(report.error_correlation, np.corrcoef(correct))


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(8)
    log = make_log(make_tier("a", rng.random(300), rng.random(300), conf=rng.random(300)), weights=rng.random(300))
    assert inspect_log(log.take(rng.permutation(300))) == inspect_log(log)


def test_the_report_is_plain_json() -> None:
    log = make_log(make_tier("a", [1, 1], 1.0, conf=[0.5, 0.5]), make_tier("b", [0, 1], 2.0, conf=[NAN, NAN]))
    found = inspect_log(log).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["error_correlation"] == [[None, None], [None, 1.0]]
    assert found["tiers"][0]["readings"][0]["auroc"] is None
    assert found["tiers"][1]["readings"][0] == {
        "name": "conf",
        "price": 0.0,
        "missing": 1.0,
        "values": 0,
        "auroc": None,
        "calibration_error": None,
        "bias": None,
    }
    assert found["warnings"][0]["slug"] == "few-rows"


# Warnings ------------------------------------------------------------------------------------------------------------


def sound_log(count: int = 1000, seed: int = 0) -> ReplayLog:
    rng = np.random.default_rng(seed)
    tiers = []
    for name, quality, cost in (("small", 0.5, 1.0), ("large", 0.8, 10.0)):
        confidence = rng.random(count)
        correct = rng.random(count) < np.clip(quality + 0.8 * (confidence - 0.5), 0, 1)
        tiers.append(make_tier(name, correct, cost, conf=confidence))
    return make_log(*tiers, contexts=[f"c{i % 4}" for i in range(count)])


def test_a_sound_log_has_no_warnings() -> None:
    report = inspect_log(sound_log())
    assert report.warnings == ()
    assert render(report).endswith("\nNO WARNINGS\n")


def test_a_signal_is_measured_against_the_cheapest_answer_that_it_needs() -> None:
    log = sound_log()
    rng = np.random.default_rng(1)
    last, first = log.tiers[-1], log.tiers[0]

    def signal(name: str, correct: np.ndarray, *needs: str) -> LoggedSignal:
        seen = np.round(0.4 * correct + 0.6 * rng.random(len(log)), 3)
        return LoggedSignal(name, (LoggedReading("conf", seen, np.full(len(log), 0.5)),), needs)

    signals = (signal("judge", last.correct, last.name), signal("early", first.correct))
    noise = LoggedSignal("noise", (LoggedReading("conf", rng.random(len(log)), np.zeros(len(log))),), (last.name,))
    report = inspect_log(replace(log, signals=(*signals, noise)))
    for found, of, about in zip(report.signals, signals, (last, first), strict=False):
        (reading,) = found.readings
        assert (found.about, found.needs, reading.price) == (about.name, of.needs, 0.5)
        assert reading.auroc == pytest.approx(roc_auc_score(about.correct, of.readings[0].confidence))
    assert cases(report, "useless-reading")[0].startswith("conf of noise: AUROC 0.")
    text = render(report)
    assert f"{len(log.tiers)} tiers, 3 signals, " in text
    assert re.search(rf"judge \(of {last.name}\) +conf +0\.5 ", text)
    assert report.hull == inspect_log(log).hull
    json.dumps(report.to_json(), allow_nan=False)


def test_few_rows_or_groups_are_warned_of() -> None:
    assert slugs(inspect_log(sound_log(199).take(np.arange(199)))) == ["few-rows", "small-contexts"]
    log = replace(sound_log(), group_ids=np.array([f"g{i % 150}" for i in range(1000)], dtype=object))
    report = inspect_log(log)
    assert report.groups == 150
    assert slugs(report) == ["few-rows"]
    assert report.warnings[0].text == "150 groups are few; below 200 expect wide intervals"


def test_row_numbers_for_ids_are_warned_of() -> None:
    ids = np.array([f"row-{i:09d}" for i in range(1, 1001)], dtype=object)
    assert slugs(inspect_log(replace(sound_log(), query_ids=ids, group_ids=ids))) == ["made-ids"]


def test_twins_are_warned_of_unless_they_are_grouped_or_by_chance() -> None:
    log = sound_log()
    rows = np.concatenate([np.arange(800), np.arange(200)])
    ids = log.query_ids
    twins = replace(log.take(rows), query_ids=ids, group_ids=ids)
    assert slugs(inspect_log(twins)) == ["duplicate-rows"]
    assert inspect_log(twins).warnings[0].text.startswith("40% of the rows have an exact twin; ")
    assert slugs(inspect_log(replace(twins, group_ids=ids[rows]))) == []
    coarse = make_log(
        *(make_tier(t.name, t.correct, t.cost, conf=np.round(t.readings[0].confidence, 1)) for t in log.tiers)
    )
    assert slugs(inspect_log(coarse)) == []


def test_small_contexts_are_warned_of() -> None:
    labels = np.array(["big"] * 960 + [f"c{i % 2}" for i in range(40)], dtype=object)
    report = inspect_log(replace(sound_log(), contexts=labels))
    assert slugs(report) == ["small-contexts"]
    assert report.warnings[0].text.startswith("2 of 3 contexts have fewer than 50 rows, ")


def test_a_dearer_tier_that_is_worse_is_warned_of_according_to_the_evidence() -> None:
    log = sound_log()
    count = np.arange(1000)
    clearly, hardly = (np.where(count < few, 0.0, log.tiers[1].correct) for few in (100, 2))
    report = inspect_log(replace(log, tiers=(*log.tiers, make_tier("worse", clearly, 20.0))))
    assert slugs(report) == ["dominated-tier"]
    (case,) = cases(report, "dominated-tier")
    gap = (log.tiers[1].correct - clearly).mean()
    error = (log.tiers[1].correct - clearly).std() / math.sqrt(1000)
    assert case == f"worse: {100 * gap:.1f} ± {100 * error:.1f} points below large"
    report = inspect_log(replace(log, tiers=(*log.tiers, make_tier("alike", hardly, 20.0))))
    assert slugs(report) == ["price-order"]
    twice = replace(log, tiers=(*log.tiers, make_tier("same", log.tiers[1].correct, 20.0)))
    assert cases(inspect_log(twice), "price-order") == ("same: 0.0 ± 0.0 points below large",)
    free = replace(log, tiers=(*log.tiers, make_tier("same", log.tiers[1].correct, 10.0)))
    assert slugs(inspect_log(free)) == []  # nothing tells them apart


@pytest.mark.parametrize(
    ("slug", "change", "case"),
    [
        ("constant-confidence", lambda c: 0 * c + 0.7, "conf of small: one value"),
        ("few-values", lambda c: np.round(c * 2) / 2, "conf of small: 3 values"),
        ("missing-readings", lambda c: np.where(c < np.quantile(c, 0.3), NAN, c), "conf of small: 30%"),
        ("useless-reading", lambda c: np.random.default_rng(9).random(len(c)), "conf of small: AUROC 0.491"),
        ("inverted-reading", lambda c: 1 - c, "conf of small: AUROC 0.2"),
    ],
)
def test_a_reading_s_fault_is_warned_of(slug: str, change: Callable[[np.ndarray], np.ndarray], case: str) -> None:
    log = sound_log()
    reading = log.tiers[0].readings[0]
    changed = replace(log.tiers[0], readings=(replace(reading, confidence=change(reading.confidence)),))
    report = inspect_log(replace(log, tiers=(changed, log.tiers[1])))
    assert slugs(report) == [slug]
    assert len(cases(report, slug)) == 1
    assert cases(report, slug)[0].startswith(case)


def test_tiers_that_need_no_reading_are_warned_of() -> None:
    log = sound_log()
    always = replace(log, tiers=(log.tiers[0], make_tier("sure", np.ones(1000), 10.0)))
    assert slugs(inspect_log(always)) == ["all-right"]
    assert cases(inspect_log(always), "all-right") == ("sure",)
    never = replace(log, tiers=(make_tier("lost", np.zeros(1000), 0.5), *log.tiers))
    assert slugs(inspect_log(never)) == ["all-wrong"]
    assert slugs(inspect_log(log.with_tiers(["small"]))) == ["one-tier"]
    assert slugs(inspect_log(log.with_readings([]))) == ["no-readings"]


# The text ------------------------------------------------------------------------------------------------------------

TEXT = """\
4 queries, 2 contexts, 2 tiers, 1 readings

TIERS
     tier   price  p95  quality  hull
  1  small      1    -   0.5000     *
  2  large      5   11   0.5000
  best tier alone: 0.5000 at 1.0 (small)
  best tier of each query, were it known: 0.7500 at 1.5
  hull: the tiers to mix by lot if nothing could be read

READINGS
  tier   reading  price  missing  values  AUROC    ECE    bias
  small  conf      free    25.0%       3  1.000  0.333  +0.200
  AUROC: how often the surer of two answers is the better one
  ECE: calibration error over 10 quantile bins; bias: mean confidence minus mean correctness

CONTEXTS, and the tiers' quality there
  context  rows      1      2
  a           3  0.333  0.333
  b           1  1.000  1.000

CORRELATION OF ERRORS, 1 where two tiers fail on the same queries
     tier      1     2
  1  small  1.00
  2  large  0.00  1.00

WARNINGS
  few-rows          4 rows are few; below 200 expect wide intervals
  small-contexts    2 of 2 contexts have fewer than 50 rows, too few to be learnt apart; use a coarser one
  price-order       1 of 2 tiers: no cheaper than one that is as good, as far as the log can tell
                      large: 0.0 ± 35.4 points below small
  few-values        1 of 1 readings: few values, so few places to cut
                      conf of small: 3 values
  missing-readings  1 of 1 readings: missing in more than 20% of the rows
                      conf of small: 25%
"""


def test_the_text_of_four_rows() -> None:
    assert render(inspect_log(hand_log())) == TEXT


def test_the_columns_of_a_table_line_up() -> None:
    rng = np.random.default_rng(2)
    names = ["a", "a_much_longer_name", *"bcdefghijk"]
    prices = (10.0 ** (i - 4) * rng.random(300) for i in range(len(names)))
    tiers = (make_tier(n, rng.random(300), p, conf=rng.random(300)) for n, p in zip(names, prices, strict=True))
    text = render(inspect_log(make_log(*tiers, contexts=[f"c{i % 30}" for i in range(300)])))
    sections = {section.split("\n")[0].split(",")[0]: section.splitlines()[1:] for section in text.split("\n\n")}
    for title, rows in (("TIERS", 12), ("READINGS", 12), ("CONTEXTS", 20), ("CORRELATION OF ERRORS", 12)):
        header, *body = sections[title][: 1 + rows]
        ends = {match.end() for match in re.finditer(r"\S+", header)}
        starts = {match.start() for match in re.finditer(r"\S+", header)}
        for line in body:
            for cell in re.finditer(r"\S+", line.replace("*", " ")):
                assert cell.end() in ends or cell.start() in starts | {2, 3}, line
    assert sections["CONTEXTS"][21:] == ["  and 10 smaller, 100 rows"]
    assert all(line == line.rstrip() for line in text.splitlines())
    assert max(map(len, text.splitlines())) <= 110


def test_weights_and_groups_are_said_in_the_first_line() -> None:
    log = replace(sound_log(), weights=np.full(1000, 12.5), contexts=None)
    log = replace(log, group_ids=np.array([f"g{i // 2}" for i in range(1000)], dtype=object))
    assert (
        render(inspect_log(log)).splitlines()[0] == "1,000 queries standing for 12,500, 500 groups, 2 tiers, 2 readings"
    )


@pytest.mark.parametrize(
    ("prices", "shown"),
    [((1.0, 25.0), ["1", "25"]), ((0.0001, 0.35), ["0.0001", "0.3500"]), ((0.07936, 1234.5), ["0.0794", "1,234.5000"])],
)
def test_prices_have_the_decimals_that_the_least_needs(prices: tuple[float, float], shown: list[str]) -> None:
    log = make_log(make_tier("a", [0, 1], prices[0]), make_tier("b", [1, 1], prices[1]))
    lines = render(inspect_log(log)).splitlines()
    assert [line.split()[2] for line in lines if line.startswith(("  1  a", "  2  b"))][:2] == shown
