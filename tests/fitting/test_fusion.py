"""Scorecards: what they are fitted on, what they are worth on fresh rows, and what must not change them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.fit import fit
from metaverify.fitting.fusion import cross_fused, fuse_log, with_inputs
from metaverify.fitting.learner import Policies, TableLearner
from metaverify.policies.actions import Accept, Call, Verify
from metaverify.policies.file import dump_policy, parse_policy
from metaverify.policies.policy import OperatingPoint
from metaverify.policies.tiers import Points, fused_score
from metaverify.simulators.log import FUSED, LoggedReading, LoggedTier, ReplayLog, fingerprint
from metaverify.simulators.replay import check_match, route
from tests.strategies import random_log


def log_of(tiers: dict[str, tuple[np.ndarray, float, dict[str, np.ndarray]]], **more: np.ndarray) -> ReplayLog:
    """A log of tiers, each with what was right, a price, and its free readings."""
    n = len(next(iter(tiers.values()))[0])
    ids = np.array([f"q{row:05d}" for row in range(n)], dtype=object)
    found = tuple(
        LoggedTier(
            name,
            right.astype(float),
            np.full(n, price),
            tuple(LoggedReading(reading, np.round(c, 3), np.zeros(n)) for reading, c in readings.items()),
        )
        for name, (right, price, readings) in tiers.items()
    )
    return ReplayLog(ids, found, more.get("weights", np.ones(n)), more.get("groups", ids), more.get("contexts"))


def squash(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def both_matter(n: int, seed: int, *, missing: float = 0.1) -> ReplayLog:
    """A small tier that is right where two independent things are well, each told by one of its readings."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    right = rng.random(n) < squash(1.5 * a + 1.5 * b)
    conf, votes = (np.where(rng.random(n) < missing, np.nan, squash(x + 0.3 * rng.normal(size=n))) for x in (a, b))
    return log_of({"small": (right, 1.0, {"conf": conf, "votes": votes}), "large": (rng.random(n) < 0.85, 5.0, {})})


def score_of(log: ReplayLog, tier: str = "small") -> np.ndarray:
    (score,) = (r for r in log.tier(tier).readings if r.name == FUSED)
    return score.confidence


def auroc(score: np.ndarray, good: np.ndarray) -> float:
    """The chance that a good row is above a bad one, by counting pairs; a missing score is in the middle."""
    score = np.where(np.isnan(score), np.nanmedian(score), score)
    high, low = score[good > 0.5], score[good < 0.5]
    return float(np.mean((high[:, None] > low) + 0.5 * (high[:, None] == low)))


# -------------------------------------------------------------------------------------------------- what comes out


def test_scores_stand_first_in_place_of_their_inputs_and_what_has_a_price_stays() -> None:
    log = both_matter(300, 0)
    small, large = log.tiers
    judge = LoggedReading("judge", np.full(300, 0.5), np.full(300, 0.2))
    log = replace(log, tiers=(replace(small, readings=(judge, *small.readings)), large))
    fused, cards = cross_fused(log)
    assert [[r.name for r in tier.readings] for tier in fused.tiers] == [[FUSED, "judge"], []]
    assert [part.reading for part in cards["small"]] == ["conf", "votes"]
    assert list(cards) == ["small"]
    assert fused.tier("small").readings[0].parts == cards["small"]
    assert [[r.name for r in tier.readings] for tier in fuse_log(log, cards).tiers] == [[FUSED, "judge"], []]


@pytest.mark.parametrize("policies", ["lattice", "chain"])
@pytest.mark.parametrize("weighted", [False, True])
def test_histograms_are_those_of_the_scores_that_a_router_reads(policies: Policies, weighted: bool) -> None:
    """Counted with the file's own cards, row by row; the scores that were learnt from are of other cards."""
    log = both_matter(400, 3)
    log = replace(log, weights=np.tile([1.0, 3.0], 200)) if weighted else log
    policy = TableLearner(fuse=0.0, policies=policies, bins=6).policy(log)
    score = next(r for r in policy.tiers[0].readings if r.name == FUSED)
    readings = {r.name: r.confidence.tolist() for r in log.tier("small").readings}
    counts = [0.0] * (len(score.cuts) + 2)
    for row, weight in enumerate(log.weights.tolist()):
        value = fused_score(score.parts, [readings[part.reading][row] for part in score.parts])
        counts[sum(cut <= value for cut in score.cuts)] += weight
    assert list(score.counts) == counts
    learnt = np.histogram(score_of(cross_fused(log)[0]), [-1.0, *score.cuts, 2.0], weights=log.weights)[0]
    assert np.abs(learnt - counts[:-1]).sum() > 0.02 * sum(counts), "there is something to see"
    assert [sum(r.counts) for r in policy.tiers[0].readings] == [log.weights.sum()] * 3


@pytest.mark.parametrize("kinds", [("free", "free paid", "paid"), ("", ""), ("paid", "free")])
def test_a_log_without_several_free_readings_of_an_answer_is_left_as_it_is(kinds: tuple[str, ...]) -> None:
    log = random_log(60, 0, readings=kinds)
    assert cross_fused(log) == (log, {})
    assert fuse_log(log, {}) is log
    policy = TableLearner(bins=3).policy(log)
    assert with_inputs(policy, log, {}) is policy
    assert dump_policy(TableLearner(bins=3, fuse=0.5).policy(log)) == dump_policy(policy)


def test_a_reading_that_never_came_is_no_input() -> None:
    log = both_matter(200, 1)
    small, large = log.tiers
    conf, votes = small.readings
    never = replace(votes, confidence=np.full(200, np.nan))
    assert cross_fused(replace(log, tiers=(replace(small, readings=(conf, never)), large)))[1] == {}


@pytest.mark.parametrize("seed", range(6))
def test_points_lie_between_0_and_1_and_so_do_their_sums(seed: int) -> None:
    log = both_matter(300, seed)
    rng = np.random.default_rng(seed)
    small, large = log.tiers
    more = tuple(
        LoggedReading(f"more{k}", np.round(squash(2 * small.correct - 1 + rng.normal(size=300)), 2), np.zeros(300))
        for k in range(seed)
    )
    (card,) = cross_fused(replace(log, tiers=(replace(small, readings=(*small.readings, *more)), large)))[1].values()
    assert len(card) == 2 + seed
    points = [(*part.points, part.missing) for part in card]
    assert all(0.0 <= p <= 1.0 and round(p, 4) == p for row in points for p in row)
    assert sum(min(row) for row in points) == 0.0
    assert sum(max(row) for row in points) == pytest.approx(1.0, abs=1e-4 * len(card))
    best = [part.cuts[at - 1] if (at := int(np.argmax(part.points))) else 0.0 for part in card]
    if all(max(part.points) >= part.missing for part in card):
        assert 1.0 - 1e-4 * len(card) <= fused_score(card, best) <= 1.0


# ------------------------------------------------------------------------------------------------- out of the fold


@pytest.mark.parametrize("aim", [0.0, 0.7])
def test_a_row_s_score_does_not_depend_on_how_the_rows_of_its_fold_came_out(aim: float) -> None:
    log = both_matter(300, 2)
    fold = log.folds(5, seed=0)
    before, cards = cross_fused(log, aim=aim)
    for here in (fold == 3, np.arange(300) == 17):
        own = np.isin(fold, fold[here])
        small, large = log.tiers
        changed = replace(small, correct=np.where(here, 1.0 - small.correct, small.correct))
        after, new = cross_fused(replace(log, tiers=(changed, large)), aim=aim)
        np.testing.assert_array_equal(score_of(after)[own], score_of(before)[own])
        assert not np.array_equal(score_of(after)[~own], score_of(before)[~own])
        assert new != cards


def test_a_group_is_scored_by_a_card_that_has_seen_none_of_it() -> None:
    log = both_matter(300, 3)
    log = replace(log, group_ids=np.array([f"g{row % 40}" for row in range(300)], dtype=object))
    before, _ = cross_fused(log)
    here = np.array([group == "g7" for group in log.group_ids])
    small, large = log.tiers
    changed = replace(small, correct=np.where(here, 1.0 - small.correct, small.correct))
    after, _ = cross_fused(replace(log, tiers=(changed, large)))
    np.testing.assert_array_equal(score_of(after)[here], score_of(before)[here])


def test_another_log_is_scored_by_the_card_of_all_rows() -> None:
    log, fresh = both_matter(300, 4), both_matter(50, 5)
    fused, cards = cross_fused(log)
    readings = fresh.tier("small").readings
    rows = [[float(r.confidence[row]) for r in readings] for row in range(50)]
    assert score_of(fuse_log(fresh, cards)).tolist() == [fused_score(cards["small"], row) for row in rows]
    assert not np.array_equal(score_of(fuse_log(log, cards)), score_of(fused))


def test_scores_of_the_log_itself_rank_no_better_than_those_of_fresh_rows() -> None:
    """Where readings say nothing, a card fitted on the rows themselves would seem to rank them."""
    rows, own, out = 150, [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        noise = {name: rng.random(rows) for name in "abcdefgh"}
        log = log_of({"small": (rng.random(rows) < 0.5, 1.0, noise), "large": (np.ones(rows), 5.0, {})})
        fused, cards = cross_fused(log)
        right = log.tier("small").correct
        own.append(auroc(score_of(fuse_log(log, cards)), right))
        out.append(auroc(score_of(fused), right))
    assert np.mean(own) > 0.6
    assert np.mean(out) < 0.52


# -------------------------------------------------------------------------------------- what must not matter at all


def test_the_order_of_rows_does_not_matter() -> None:
    log = both_matter(200, 6)
    log = replace(log, weights=np.random.default_rng(6).choice([0.5, 1.0, 2.0], size=200))
    order = np.random.default_rng(7).permutation(200)
    (one, cards), (other, same) = cross_fused(log), cross_fused(log.take(order))
    assert same == cards
    np.testing.assert_array_equal(score_of(other), score_of(one)[order])


@pytest.mark.parametrize("aim", [0.0, 1.0])
def test_a_row_of_weight_two_is_the_row_twice(aim: float) -> None:
    log = both_matter(200, 8)
    groups = np.array([f"g{row}" for row in range(200)], dtype=object)
    weights = np.where(np.arange(200) % 3 == 0, 2.0, 1.0)
    weighted = replace(log, weights=weights, group_ids=groups)
    rows = np.repeat(np.arange(200), weights.astype(int))
    ids = np.array([f"r{at}" for at in range(len(rows))], dtype=object)
    repeated = replace(replace(log, group_ids=groups).take(rows), query_ids=ids)
    (one, cards), (other, same) = cross_fused(weighted, aim=aim), cross_fused(repeated, aim=aim)
    assert same == cards
    np.testing.assert_array_equal(score_of(other), score_of(one)[rows])


def test_a_row_of_no_weight_does_not_count() -> None:
    log = both_matter(200, 9)
    kept = np.arange(200) % 5 != 0
    small, large = log.tiers
    wrong = replace(small, correct=np.where(kept, small.correct, 1.0 - small.correct))
    none = replace(log, weights=kept.astype(float))
    assert cross_fused(replace(none, tiers=(wrong, large)))[1] == cross_fused(none)[1]


def test_a_reading_told_on_a_stretched_scale_gets_the_same_points() -> None:
    """Bins are quantiles, so that only the order of confidences matters."""
    log = both_matter(300, 10)
    small, large = log.tiers
    conf, votes = small.readings
    squared = replace(conf, confidence=np.round(conf.confidence**2, 6))
    (card,) = cross_fused(log)[1].values()
    (other,) = cross_fused(replace(log, tiers=(replace(small, readings=(squared, votes)), large)))[1].values()
    assert [(part.points, part.missing) for part in other] == [(part.points, part.missing) for part in card]
    assert other[1].cuts == card[1].cuts


# -------------------------------------------------------------------------------------------------- what it is worth


@pytest.mark.parametrize("seed", range(3))
def test_where_both_readings_matter_the_score_ranks_fresh_answers_better_than_either(seed: int) -> None:
    log, fresh = both_matter(400, 20 + seed), both_matter(3000, 30 + seed)
    right = fresh.tier("small").correct
    score = auroc(score_of(fuse_log(fresh, cross_fused(log)[1])), right)
    assert all(score > auroc(reading.confidence, right) + 0.05 for reading in fresh.tier("small").readings)


def test_a_reading_that_is_best_in_the_middle_is_understood() -> None:
    def log(n: int, seed: int) -> ReplayLog:
        rng = np.random.default_rng(seed)
        x, noise = rng.random((2, n))
        right = rng.random(n) < np.where(np.abs(x - 0.5) < 0.25, 0.9, 0.2)
        return log_of({"small": (right, 1.0, {"x": x, "noise": noise}), "large": (np.ones(n), 5.0, {})})

    fresh = log(3000, 1)
    right = fresh.tier("small").correct
    assert auroc(fresh.tier("small").readings[0].confidence, right) < 0.55
    assert auroc(score_of(fuse_log(fresh, cross_fused(log(600, 0))[1])), right) > 0.75


def gains_differ(n: int, seed: int) -> ReplayLog:
    """Easy queries, hopeless ones that nobody can answer, and hard ones that only the large tier can: ``own`` tells
    the easy ones from the others, ``hard`` the hard ones from the others."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, size=n, p=[0.4, 0.3, 0.3])
    small = rng.random(n) < np.array([0.95, 0.05, 0.05])[kind]
    large = rng.random(n) < np.array([0.95, 0.05, 0.95])[kind]
    own = squash(np.array([1.0, -1.0, -1.0])[kind] + rng.normal(size=n))
    hard = squash(np.array([1.0, 1.0, -1.0])[kind] + rng.normal(size=n))
    return log_of({"small": (small, 1.0, {"own": own, "hard": hard}), "large": (large, 5.0, {})})


@pytest.mark.parametrize("seed", range(3))
def test_the_aim_says_whether_a_score_ranks_by_own_quality_or_by_what_a_better_tier_would_gain(seed: int) -> None:
    log, fresh = gains_differ(600, 40 + seed), gains_differ(3000, 50 + seed)
    small, large = fresh.tier("small").correct, fresh.tier("large").correct
    lost = large <= small  # a better tier gains nothing
    ranks = {}
    for aim in (0.0, 0.5, 1.0):
        score = score_of(fuse_log(fresh, cross_fused(log, aim=aim)[1]))
        ranks[aim] = (auroc(score, small), auroc(score, lost.astype(float)))
    (own, _), (_, gain) = ranks[0.0], ranks[1.0]
    assert own > ranks[0.5][0] > ranks[1.0][0]
    assert gain > ranks[0.5][1] > ranks[0.0][1]
    assert min(own - ranks[1.0][0], gain - ranks[0.0][1]) > 0.05


def test_the_best_tier_s_own_score_is_of_its_quality_whatever_the_aim() -> None:
    log = both_matter(300, 11)
    small, large = log.tiers
    best = replace(large, readings=small.readings, correct=small.correct)
    log = replace(log, tiers=(replace(small, readings=(), correct=np.zeros(300)), best))
    assert cross_fused(log, aim=1.0)[1] == cross_fused(log, aim=0.0)[1]


@pytest.mark.parametrize("missing", [False, True])
def test_a_constant_reading_gets_no_points(missing: bool) -> None:
    """But for where it is missing, if that says something."""
    log = both_matter(300, 12)
    small, large = log.tiers
    gone = missing & (small.correct == 0.0) & (np.arange(300) % 2 == 0)
    flat = LoggedReading("flat", np.where(gone, np.nan, 0.7), np.zeros(300))
    flattened = replace(log, tiers=(replace(small, readings=(flat, *small.readings)), large))
    (card,) = cross_fused(flattened)[1].values()
    (points,) = card[0].points
    assert card[0].cuts == ()
    assert (points > 0.1) if missing else (points == 0.0)
    assert card[0].missing == 0.0
    if not missing:
        (plain,) = cross_fused(log)[1].values()
        assert card[1:] == plain


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_where_every_answer_came_out_the_same_nothing_is_told_apart(right: float) -> None:
    log = both_matter(150, 13)
    small, large = log.tiers
    fused, cards = cross_fused(replace(log, tiers=(replace(small, correct=np.full(150, right)), large)))
    assert {p for part in cards["small"] for p in (*part.points, part.missing)} == {0.0}
    assert not score_of(fused).any()


def test_what_contexts_explain_is_not_the_score_s_to_explain() -> None:
    """Queries of one context are easy and come with a high ``style``, which says nothing within a context."""
    rng = np.random.default_rng(14)
    n = 1000
    easy = rng.random(n) < 0.5
    right = rng.random(n) < np.where(easy, 0.9, 0.3)
    style = squash(np.where(easy, 1.5, -1.5) + 0.5 * rng.normal(size=n))
    told = squash(1.5 * right - 0.75 + rng.normal(size=n))
    tiers = {"small": (right, 1.0, {"style": style, "told": told}), "large": (np.ones(n), 5.0, {})}
    reach = {}
    for contexts in (None, np.where(easy, "easy", "hard").astype(object)):
        (card,) = cross_fused(log_of(tiers, contexts=contexts))[1].values()
        reach[contexts is None] = max(card[0].points)
    assert reach[True] > 0.4
    assert reach[False] < 0.25


# --------------------------------------------------------------------------------------------------- in a policy


def test_a_log_that_has_a_reading_of_that_name_is_fused_anew() -> None:
    """A router that logs its own scores brings them back."""
    log = both_matter(300, 15)
    again = log.fused(cross_fused(log)[1])
    assert [r.name for r in again.tier("small").readings] == ["conf", "votes", FUSED]
    (one, cards), (other, same) = cross_fused(log), cross_fused(again)
    assert same == cards
    assert [r.name for r in other.tier("small").readings] == [FUSED]
    np.testing.assert_array_equal(score_of(other), score_of(one))
    conf_only = again.with_readings(["conf", FUSED])
    assert cross_fused(conf_only) == (conf_only, {})


@pytest.mark.parametrize("policies", ["chain", "lattice"])
def test_a_policy_over_scores_lists_their_inputs_with_the_histograms_of_the_log(policies: str) -> None:
    log = both_matter(300, 16)
    learner = TableLearner(policies=policies, bins=4, fuse=0.5)  # type: ignore[arg-type]
    policy = learner.policy(log, near=3.0)
    *inputs, score = policy.tiers[0].readings
    assert ([r.name for r in inputs], score.name) == (["conf", "votes"], FUSED)
    card = score.parts
    for reading, part, column in zip(inputs, card, log.tier("small").readings, strict=True):
        assert reading.cuts == part.cuts
        seen = column.confidence[~np.isnan(column.confidence)]
        inner = np.histogram(seen, bins=[-1.0, *part.cuts, 2.0])[0].tolist()
        assert reading.counts == (*inner, int(np.isnan(column.confidence).sum()))
    assert sum(score.counts) == 300
    assert any(vertex.beliefs for vertex in policy.vertices)
    assert parse_policy(dump_policy(policy).encode()) == policy


def test_a_fit_routes_a_raw_log_as_it_decides_each_of_its_rows() -> None:
    log = both_matter(260, 17)
    fitted = fit(log, budget=3.0, folds=3)
    policy = parse_policy(dump_policy(fitted.policy).encode())
    assert [r.name for r in policy.tiers[0].readings] == ["conf", "votes", FUSED]
    check_match(policy, log)
    for vertex in range(len(policy.vertices)):
        routes = route(policy, log, vertex)
        alone = replace(policy, point=OperatingPoint(vertex, vertex, 0.0))
        for row in range(0, 260, 5):
            assert accepted(alone, log, row) == policy.tiers[routes.accepted[row]].name
    assert policy.provenance["log"] == fingerprint(log)


def accepted(policy, log: ReplayLog, row: int) -> str:
    """The tier whose answer is taken, every reading told when it is asked for."""
    readings: dict[str, dict[str, float]] = {}
    while True:
        match policy.decide(readings):
            case Call(tier):
                readings[tier] = {}
            case Verify(tier, reading):
                (column,) = (r for r in log.tier(tier).readings if r.name == reading)
                readings[tier][reading] = float(column.confidence[row])
            case Accept(tier):
                return tier


def test_scorecards_are_plain_values() -> None:
    for part in cross_fused(both_matter(300, 18))[1]["small"]:
        assert isinstance(part, Points)
        assert {type(x) for x in (*part.cuts, *part.points, part.missing)} == {float}
        assert len(part.points) == len(part.cuts) + 1
        assert list(part.cuts) == sorted(set(part.cuts))
