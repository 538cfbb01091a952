"""A policy that is fitted on counts is one of the rows: replayed on both it earns the same, and about as much as one
that was fitted on the rows themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.fitting.automix.zoo import LEARNERS as AUTOMIX
from metaverify.fitting.certify import Terms, certify
from metaverify.fitting.chain import Thresholds
from metaverify.fitting.compare import compare
from metaverify.fitting.fit import fit
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.rivals import FrugalGPT, IsotonicPairs
from metaverify.fitting.tuned import TunedChains
from metaverify.policies.file import dump_policy, load_policy, save_policy
from metaverify.policies.policy import Policy
from metaverify.simulators.counting import count
from metaverify.simulators.inspection import inspect_log
from metaverify.simulators.log import LogError, LoggedReading, ReplayLog
from metaverify.simulators.outcome import replay
from metaverify.simulators.reader import read_log, write_log
from metaverify.simulators.sketching import sketch
from metaverify.simulators.worlds import shared_difficulty, token_prices
from tests.strategies import repeatable

Learn = Callable[[ReplayLog], Policy]


def drawn(rows: int, seed: int = 1) -> ReplayLog:
    """A log of confidences that hardly repeat, some missing, two free readings of each answer, and contexts."""
    log = token_prices(3, 64, reading_prices=(0.0, 0.0), missing=0.03).draw(rows, seed)
    rng = np.random.default_rng(seed)

    def spread(reading: LoggedReading) -> LoggedReading:
        near = reading.confidence + (rng.random(rows) - 0.5) / 64
        return replace(reading, confidence=np.clip(near, 0.0, 1.0))

    tiers = tuple(replace(tier, readings=tuple(map(spread, tier.readings))) for tier in log.tiers)
    contexts = np.array(["easy", "hard"], dtype=object)[(tiers[-1].correct + rng.random(rows) < 0.7).astype(int)]
    return replace(log, tiers=tiers, contexts=contexts, context_names=("task",))


WAYS: dict[str, Learn] = {
    "lattice": lambda log: TableLearner(bins=4, gap=0.02).policy(log),
    "fused": lambda log: TableLearner(bins=4, gap=0.02, fuse=0.5).policy(log),
    "thresholds": lambda log: Thresholds().policy(log),
    "every chain": lambda log: TunedChains(exact=10**9).policy(log.without_contexts()),
    "searched chains": lambda log: TunedChains(exact=0, trials=20).policy(log.without_contexts()),
    "frugalgpt": lambda log: FrugalGPT().policy(log),
    "isotonic": lambda log: IsotonicPairs().policy(log),
    **{name: (lambda log, make=make: make().policy(log)) for name, make in AUTOMIX.items() if "fixed" not in name},
}


@pytest.mark.parametrize("name", WAYS)
def test_replay_on_counts_is_replay_on_the_rows(name: str) -> None:
    rows = drawn(1200)
    counts = count(rows, bins=12).log()
    policy = WAYS[name](counts)
    for vertex in (0, len(policy.vertices) // 2, len(policy.vertices) - 1):
        turned = replace(policy, point=replace(policy.point, low=vertex, high=vertex, share=0.0))
        one, other = replay(turned, counts), replay(turned, rows)
        assert one.n == other.n == 1200
        assert one.quality.mean == pytest.approx(other.quality.mean, abs=1e-12)
        assert one.cost.mean == pytest.approx(other.cost.mean, rel=1e-9)
        assert one.gain.mean == pytest.approx(other.gain.mean, abs=1e-9)
        for tier, share in other.calls.items():
            assert one.calls[tier] == pytest.approx(share, abs=1e-12)


def test_a_policy_of_the_rows_is_replayed_exactly_where_its_cuts_are_the_edges(tmp_path: Path) -> None:
    rows = drawn(1000)
    policy = TableLearner(bins=5, gap=0.02, fuse=0.5).policy(rows)
    save_policy(policy, tmp_path / "policy.json")
    log = count(rows, cuts=load_policy(tmp_path / "policy.json"), cells=10**9).log()
    one, other = replay(policy, log), replay(policy, rows)
    assert one.quality.mean == pytest.approx(other.quality.mean, abs=1e-12)
    assert one.cost.mean == pytest.approx(other.cost.mean, rel=1e-9)


def test_parts_of_a_log_give_the_policy_of_the_whole_to_the_last_byte() -> None:
    rows = token_prices(2, 32, missing=0.05).draw(700, 1)
    cuts = sketch(rows)
    place = np.random.default_rng(7).integers(0, 5, len(rows))
    parts = [count(rows.take(np.flatnonzero(place == at)), cuts=cuts) for at in (3, 1, 4, 0, 2)]
    total = parts[0] + parts[1] + parts[2] + parts[3] + parts[4]
    once, added = (fit(counts.log(), budget=3.0).policy for counts in (count(rows, cuts=cuts), total))
    assert dump_policy(once) == dump_policy(added)


@repeatable(15)
@given(st.lists(st.integers(0, 4), min_size=150, max_size=150), st.permutations(range(5)))
def test_any_parts_of_a_log_give_the_thresholds_of_the_whole(place: list[int], order: list[int]) -> None:
    rows = token_prices(2, 16, missing=0.05).draw(150, 1)
    cuts = sketch(rows)
    whole = dump_policy(Thresholds().policy(count(rows, cuts=cuts).log()))
    parts = [np.flatnonzero(np.array(place) == at) for at in order]
    total = reduce(add, [count(rows.take(part), cuts=cuts) for part in parts if len(part)])
    assert dump_policy(Thresholds().policy(total.log())) == whole


@pytest.mark.slow
def test_figures_from_counts_are_those_from_rows() -> None:
    rows, unseen = drawn(20_000, 2), drawn(20_000, 3)
    counts = count(rows).log()
    from_rows, from_counts = fit(rows, budget=6.0), fit(counts, budget=6.0)
    assert from_counts.outcome.gain.mean == pytest.approx(from_rows.outcome.gain.mean, abs=0.003)
    widths = [f.outcome.gain.high - f.outcome.gain.low for f in (from_rows, from_counts)]
    assert 0.6 < widths[1] / widths[0] < 1.6
    held_out = [replay(f.policy, unseen).gain.mean for f in (from_rows, from_counts)]
    assert held_out[1] == pytest.approx(held_out[0], abs=0.003)
    for name in ("lattice", "thresholds"):
        gains = [compare(log, [name], budgets=[6.0]).methods[0].gain.mean for log in (rows, counts)]
        assert gains[1] == pytest.approx(gains[0], abs=0.004)


def test_intervals_of_random_groups_cover_as_they_should() -> None:
    """The mean cost of a tier over 150 logs, whose expectation is known: 90 % intervals from 32 batches."""
    world = token_prices(2, 4)
    truth = float(world.prior @ world.price[:, 1])
    held = 0
    for seed in range(150):
        log = count(world.draw(300, seed), bins=2).log()
        always = log.tier("tier2")
        residual = log.weights * (always.cost - log.mean(always.cost)) / log.weights.sum()
        spread = np.sqrt(32 / 31 * (np.bincount(log.groups[1], residual) ** 2).sum())
        held += abs(log.mean(always.cost) - truth) <= 1.6955 * spread  # Student's, 31 degrees of freedom
    assert 0.826 <= held / 150 <= 0.974  # three standard errors about 0.9


def test_what_can_be_counted_can_be_fitted(tmp_path: Path) -> None:
    log = shared_difficulty(2, 16).draw(600, 1)
    for at in range(2):
        write_log(log.take(np.arange(300 * at, 300 * at + 300)), tmp_path / f"log{at}.parquet")
    count(log).save(tmp_path / "counts.parquet")
    whole = fit(count(log), budget=2.0).policy
    for source in (str(tmp_path / "log*.parquet"), tmp_path / "counts.parquet"):
        assert dump_policy(fit(source, budget=2.0).policy) == dump_policy(whole)
    assert fit(tmp_path / "log0.parquet", budget=2.0).outcome.groups == 300, "one file is read row by row"


def test_a_counted_log_is_inspected_as_what_it_stands_for() -> None:
    report = inspect_log(count(drawn(900), cells=900).log())
    slugs = [warning.slug for warning in report.warnings]
    assert report.rows == 900
    assert "counted-log" in slugs
    assert not {"few-rows", "duplicate-rows", "made-ids"} & set(slugs)


def test_a_budget_is_certified_approximately_on_counts_unless_batches_are_empty(tmp_path: Path) -> None:
    log = shared_difficulty(2, 16).draw(6000, 1)
    certified = fit(count(log), budget=2.5, certify=Terms(level="approximate")).policy
    assert certified.certificate is not None
    assert certified.certificate.bound <= 2.5
    assert certified.certificate.rows == 6000
    with pytest.raises(LogError, match="E_OPTION: a counted log does not hold what single queries cost"):
        fit(count(log), budget=2.5, certify=Terms())
    few = replace(log, group_ids=np.array([f"g{at % 25}" for at in range(6000)], dtype=object))
    with pytest.raises(LogError, match=r"E_FEW: the log has \d+ groups"):
        fit(count(few), budget=2.5, certify=Terms(level="approximate"))


def test_counts_of_another_month_are_not_taken_for_the_rows_of_this_one(tmp_path: Path) -> None:
    march, april = (shared_difficulty(2, 8).draw(4000, seed) for seed in (1, 2))
    cuts = sketch(march)
    policy = fit(count(march, cuts=cuts), budget=2.5).policy
    count(april, cuts=cuts).save(tmp_path / "april.parquet")
    later = read_log(tmp_path / "april.parquet")
    assert certify(policy, later, budget=3.0, terms=Terms(level="approximate")).certificate is not None
    with pytest.raises(LogError, match="E_INSAMPLE"):
        certify(policy, count(march, cuts=cuts).log(), budget=3.0, terms=Terms(level="approximate"))
