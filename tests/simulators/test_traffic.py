"""Traffic without labels is read as the log that it was, and rows that were seen before are recognised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metaverify.fitting.chain import Thresholds
from metaverify.fitting.fit import fit
from metaverify.policies.policy import Policy
from metaverify.simulators.log import LogError, ReplayLog
from metaverify.simulators.overlap import overlapping, sample_of_rows
from metaverify.simulators.reader import read_log, write_log
from metaverify.simulators.replay import route
from metaverify.simulators.trace import hide_tier
from metaverify.simulators.traffic import read_traffic, varying
from metaverify.simulators.worlds import WORLDS


def fitted(world: str, *, reading_prices: tuple[float, ...] = (0.0,)) -> tuple[Policy, ReplayLog]:
    """A policy, and other queries of its world."""
    made = WORLDS[world](2, reading_prices=reading_prices)
    policy = fit(made.draw(200, 1), budget=2.5, learner=Thresholds(), compare=False).policy
    return policy, made.draw(150, 2)


def without(path: Path, *starts: str) -> None:
    """Take out the columns that start so."""
    frame = pl.read_parquet(path)
    frame.drop([name for name in frame.columns if name.startswith(starts)]).write_parquet(path)


def costs(policy: Policy, log: ReplayLog) -> list[np.ndarray]:
    return [route(policy, log, vertex).cost for vertex in range(len(policy.vertices))]


@pytest.mark.parametrize(
    ("world", "prices", "lacking"),
    [
        ("token_prices", (0.0,), ("correct_",)),
        ("shared_difficulty", (0.0,), ("correct_", "cost_")),
        ("shared_difficulty", (0.2,), ("correct_", "cost_", "verify_cost_")),
    ],
)
def test_traffic_costs_what_the_whole_log_does(
    tmp_path: Path, world: str, prices: tuple[float, ...], lacking: tuple[str, ...]
) -> None:
    policy, log = fitted(world, reading_prices=prices)
    path = tmp_path / "traffic.parquet"
    write_log(log, path)
    without(path, *lacking)
    traffic = read_traffic(path, policy)
    assert all(np.isnan(tier.correct).all() for tier in traffic.tiers)
    for found, wanted in zip(costs(policy, traffic), costs(policy, log), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-8)


def test_traffic_may_have_labels_and_the_long_form(tmp_path: Path) -> None:
    policy, log = fitted("shared_difficulty")
    path = tmp_path / "traffic.csv"
    rows = [
        {"query_id": query, "tier": tier.name, "confidence": float(tier.readings[0].confidence[at])}
        for at, query in enumerate(log.query_ids)
        for tier in log.tiers
    ]
    pl.DataFrame(rows).write_csv(path)
    for found, wanted in zip(costs(policy, read_traffic(path, policy)), costs(policy, log), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-8)
    write_log(log, path)
    assert not np.isnan(read_traffic(path, policy).tiers[0].correct).any()


def test_a_price_that_varies_must_be_told(tmp_path: Path) -> None:
    policy, log = fitted("token_prices")
    assert varying(policy)
    path = tmp_path / "traffic.parquet"
    write_log(log, path)
    without(path, "correct_", "cost_tier2")
    with pytest.raises(LogError, match="E_PRICE: tier 'tier2' has no price in the traffic, and it varies"):
        read_traffic(path, policy)
    assert (read_traffic(path, policy, costs={"tier2": 5.0}).tier("tier2").cost == 5.0).all()


def test_an_ordinary_log_still_needs_labels(tmp_path: Path) -> None:
    _, log = fitted("shared_difficulty")
    path = tmp_path / "log.parquet"
    write_log(log, path)
    without(path, "correct_tier2")
    with pytest.raises(LogError, match="E_COLUMN"):
        read_log(path)
    with pytest.raises(LogError, match="E_COLUMN"):
        read_log(path, unlabelled=["tier1"])
    assert np.isnan(read_log(path, unlabelled=["tier2"]).tier("tier2").correct).all()


def test_rows_are_recognised_by_id_and_readings() -> None:
    policy, _ = fitted("token_prices")
    world = WORLDS["token_prices"](2)
    log, other = world.draw(200, 1), world.draw(200, 5)
    assert overlapping(policy, log)
    assert overlapping(policy, log.take(np.arange(0, 200, 9)))
    assert not overlapping(policy, other)  # the same ids, other readings
    renamed = np.array([f"new {query}" for query in log.query_ids], dtype=object)
    assert not overlapping(policy, replace(log, query_ids=renamed))
    assert not overlapping(replace(policy, provenance={}), log)


def test_the_sample_of_rows_does_not_depend_on_their_order() -> None:
    policy, log = fitted("token_prices")
    again = log.take(np.random.default_rng(0).permutation(len(log)))
    assert sample_of_rows(again, policy.tiers) == sample_of_rows(log, policy.tiers)
    assert len(sample_of_rows(log, policy.tiers)) == 64


def test_rows_that_were_seen_in_part_are_recognised_whole_and_in_part() -> None:
    policy, _ = fitted("shared_difficulty")
    world = WORLDS["shared_difficulty"](2)
    log, other = world.draw(200, 1), world.draw(200, 5)
    doubted = log.tiers[0].readings[0].confidence < 0.5
    seen = replace(log, tiers=(log.tiers[0], hide_tier(log.tiers[1], doubted)))
    rows = sample_of_rows(seen, policy.tiers)
    assert {len(row.split(":")) for row in rows} == {2, 3}  # some called both tiers, some one
    knowing = replace(policy, provenance={"rows": list(rows)})
    assert overlapping(knowing, log)
    assert overlapping(knowing, seen)
    assert not overlapping(knowing, other)
    nothing = replace(log, tiers=tuple(hide_tier(tier, np.zeros(200, dtype=bool)) for tier in log.tiers))
    blind = replace(policy, provenance={"rows": list(sample_of_rows(nothing, policy.tiers))})
    assert not overlapping(blind, log)  # ids alone may be those of other queries
