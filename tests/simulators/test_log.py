"""A log can be narrowed, reordered and divided, and its groups and ids decide, never its order."""

from __future__ import annotations

import hashlib
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.simulators.log import LogError, LoggedReading, LoggedSignal, LoggedTier, ReplayLog, fingerprint

COUNT = 400


def make_log(groups: list[str] | None = None, *, count: int = COUNT) -> ReplayLog:
    """Every number says which row and column it came from."""
    row = np.arange(count) / count
    ids = np.array([f"q{i:04d}" for i in range(count)], dtype=object)

    def tier(name: str, base: float) -> LoggedTier:
        readings = (LoggedReading("conf", row, 0 * row), LoggedReading("votes", 1 - row, base + row))
        return LoggedTier(name, row**2, base + row, readings)

    return ReplayLog(
        query_ids=ids,
        tiers=(tier("small", 1.0), tier("medium", 5.0), LoggedTier("large", row, row + 9.0)),
        weights=1 + row,
        group_ids=ids if groups is None else np.array(groups, dtype=object),
        contexts=np.array([f"c{i % 3}" for i in range(count)], dtype=object),
    )


def test_tiers_are_found_by_name() -> None:
    log = make_log()
    assert len(log) == COUNT
    assert log.tier_names == ("small", "medium", "large")
    assert log.tier("medium").cost[0] == 5.0
    with pytest.raises(LogError, match=r"^E_OPTION: the log has no tier 'tiny'; it has small, medium, large$"):
        log.tier("tiny")


def with_signals(log: ReplayLog) -> ReplayLog:
    row = np.arange(len(log)) / len(log)
    free, paid = LoggedReading("conf", row, 0 * row), LoggedReading("votes", row, row + 1, votes=len(log))
    judge = LoggedSignal("judge", (free, LoggedReading("again", row, 0 * row), paid), ("small",))
    return replace(
        log, signals=(judge, LoggedSignal("pair", (free,), ("small", "large")), LoggedSignal("early", (free,)))
    )


def test_signals_follow_the_tiers_and_are_found_by_name() -> None:
    log = with_signals(make_log())
    assert [source.name for source in log.sources] == ["small", "medium", "large", "judge", "pair", "early"]
    assert log.source("judge") is log.signals[0]
    assert log.source("small") is log.tiers[0]
    with pytest.raises(
        LogError, match=r"^E_OPTION: the log has no tier or signal 'jury'; it has small, .*, judge, pair, early$"
    ):
        log.source("jury")


def test_a_signal_goes_with_the_last_of_the_tiers_that_it_needs_and_with_the_last_of_its_readings() -> None:
    log = with_signals(make_log())
    assert [s.name for s in log.with_tiers(["small", "medium"]).signals] == ["judge", "early"]
    assert [s.name for s in log.with_tiers(["medium", "large"]).signals] == ["early"]
    assert [[r.name for r in s.readings] for s in log.with_readings(["votes"]).signals] == [["votes"]]
    assert log.with_readings(()).signals == ()
    usual = [[r.name for r in s.readings] for s in log.with_usual_readings().signals]
    assert usual == [["conf", "votes"], ["conf"], ["conf"]]


def test_rows_are_taken_from_signals_too_and_votes_stay_votes() -> None:
    log = with_signals(make_log())
    judge = log.take(np.array([7, 3])).signals[0]
    assert (judge.needs, judge.readings[2].votes) == (("small",), COUNT)
    assert judge.readings[2].confidence.tolist() == [7 / COUNT, 3 / COUNT]
    assert judge.readings[2].price.tolist() == [1 + 7 / COUNT, 1 + 3 / COUNT]


def test_a_fingerprint_tells_signals_what_they_need_and_votes_apart() -> None:
    log = make_log()
    full = with_signals(log)
    judge, *others = full.signals
    elsewhere = replace(full, signals=(replace(judge, needs=("medium",)), *others))
    readings = tuple(replace(r, votes=0) for r in judge.readings)
    uncounted = replace(full, signals=(replace(judge, readings=readings), *others))
    assert len({fingerprint(each) for each in (log, full, elsewhere, uncounted)}) == 4
    assert fingerprint(full.take(np.arange(COUNT)[::-1])) == fingerprint(full)


def test_a_log_cannot_be_changed() -> None:
    log = make_log()
    with pytest.raises(FrozenInstanceError):
        log.weights = np.ones(COUNT)  # type: ignore[misc]


def test_chosen_tiers_stay_in_order_of_cost() -> None:
    log = make_log().with_tiers(["large", "small"])
    assert log.tier_names == ("small", "large")
    with pytest.raises(LogError, match="no tier 'tiny'"):
        log.with_tiers(["small", "tiny"])


def test_chosen_readings_are_kept_at_every_tier() -> None:
    log = make_log().with_readings(["votes"])
    assert [[reading.name for reading in tier.readings] for tier in log.tiers] == [["votes"], ["votes"], []]
    assert all(not tier.readings for tier in make_log().with_readings([]).tiers)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("rows", [np.array([7, 3, 3, 0]), np.arange(COUNT) % 5 == 2])
def test_taking_rows_takes_them_from_every_column(rows: np.ndarray, grouped: bool) -> None:
    log = make_log([f"g{i // 4}" for i in range(COUNT)] if grouped else None)
    taken = log.take(rows)
    wanted = np.arange(COUNT)[rows]
    assert taken.query_ids.tolist() == [f"q{i:04d}" for i in wanted]
    assert taken.group_ids.tolist() == [f"g{i // 4}" if grouped else f"q{i:04d}" for i in wanted]
    assert taken.ungrouped is not grouped
    assert taken.contexts is not None
    assert taken.contexts.tolist() == [f"c{i % 3}" for i in wanted]
    np.testing.assert_array_equal(taken.weights, 1 + wanted / COUNT)
    for tier, base in zip(taken.tiers, (1.0, 5.0, 9.0), strict=True):
        np.testing.assert_array_equal(tier.cost, base + wanted / COUNT)
    votes = taken.tier("medium").readings[1]
    np.testing.assert_array_equal(votes.confidence, 1 - wanted / COUNT)
    np.testing.assert_array_equal(votes.price, 5.0 + wanted / COUNT)


def test_a_log_without_contexts_has_none_after_taking() -> None:
    log = make_log()
    bare = ReplayLog(log.query_ids, log.tiers, log.weights, log.group_ids)
    assert bare.take(np.array([1])).contexts is None


def test_rows_stand_by_id_whatever_their_order() -> None:
    log = make_log()
    assert log.by_id() is log
    shuffled = log.take(np.random.default_rng(1).permutation(COUNT))
    assert shuffled.by_id().query_ids.tolist() == log.query_ids.tolist()
    np.testing.assert_array_equal(shuffled.by_id().tier("small").cost, log.tier("small").cost)


def test_the_draw_of_a_group_is_the_keyed_hash_of_its_name() -> None:
    groups = [f"g{i // 4}" for i in range(COUNT)]
    draws = make_log(groups).group_draws("split", 3)
    key = hashlib.blake2b(b"metaverify split 3").digest()
    for i in (0, 1, 17, COUNT - 1):
        digest = hashlib.blake2b(groups[i].encode(), digest_size=8, key=key).digest()
        assert draws[i] == (int.from_bytes(digest, "big") >> 11) / 2**53
    assert (draws != make_log(groups).group_draws("split", 4)).all()


def test_draws_are_spread_evenly() -> None:
    draws = np.sort(make_log(count=4000).group_draws("split", 0))
    assert np.abs(draws - (np.arange(4000) + 0.5) / 4000).max() < 1.63 / math.sqrt(4000)  # Kolmogorov, 1 %


@given(share=st.floats(0, 1), seed=st.integers(0, 2**31), size=st.integers(1, 7))
def test_a_split_divides_the_rows_and_no_group(share: float, seed: int, size: int) -> None:
    log = make_log([f"g{i // size}" for i in range(60)], count=60)
    first, second = log.split(share, seed=seed)
    assert sorted([*first.query_ids, *second.query_ids]) == sorted(log.query_ids)
    assert not set(first.group_ids) & set(second.group_ids)
    if share in (0.0, 1.0):
        assert len(first) == 60 * share


def test_a_split_has_about_its_share() -> None:
    first, _ = make_log(count=4000).split(0.3)
    assert abs(len(first) / 4000 - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 4000)


@given(count=st.integers(1, 12), seed=st.integers(0, 2**31))
def test_folds_cover_the_rows_and_divide_no_group(count: int, seed: int) -> None:
    log = make_log([f"g{i // 3}" for i in range(60)], count=60)
    folds = log.folds(count, seed=seed)
    assert folds.min() >= 0
    assert folds.max() < count
    assert all(len(set(folds[log.group_ids == group])) == 1 for group in set(log.group_ids))


def test_neither_row_order_nor_other_rows_move_a_group() -> None:
    log = make_log([f"g{i // 4}" for i in range(COUNT)])
    where = dict(zip(log.query_ids, log.folds(5, seed=2), strict=True))
    rows = np.random.default_rng(0).permutation(COUNT)[: COUNT // 3]
    fewer = log.take(rows)
    assert [where[query] for query in fewer.query_ids] == fewer.folds(5, seed=2).tolist()
