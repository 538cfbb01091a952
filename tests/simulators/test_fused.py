"""Fused scores in bulk are those of one row at a time, and a raw log is all that replaying them takes."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Node, Read, Stop
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Points, Reading, Tier, fused_score
from metaverify.simulators.log import FUSED, LogError, LoggedReading, LoggedTier, ReplayLog, fuse
from metaverify.simulators.replay import check_match, route
from tests.simulators.test_replay import Grower, drawn_log, loop, same
from tests.strategies import random_log

EDGES = [math.nan, math.inf, -math.inf, -5e-324, -0.0, 0.0, 1.0, math.nextafter(1.0, 2.0), 2.0]


def random_card(rng: np.random.Generator, names: tuple[str, ...]) -> tuple[Points, ...]:
    """A scorecard whose points have no short sum; sometimes more than 1."""

    def points(name: str) -> Points:
        cuts = tuple(sorted({round(float(x), 2) for x in rng.random(rng.integers(0, 6))}))
        scale = rng.choice([0.2, 0.5, 0.8])
        return Points(name, cuts, tuple((scale * rng.random(len(cuts) + 1)).tolist()), float(scale * rng.random()))

    return tuple(points(name) for name in names)


@pytest.mark.parametrize("seed", range(20))
def test_scores_in_bulk_are_those_of_one_row_at_a_time_to_the_last_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = ("a", "b", "c", "d")[: rng.integers(1, 5)]
    card = random_card(rng, names)
    values = [*EDGES, *(x for part in card for cut in part.cuts for x in (cut, math.nextafter(cut, 0.0)))]
    columns = [rng.choice([*values, *rng.random(20)], size=200) for _ in names]
    readings = [LoggedReading(name, column, np.zeros(200)) for name, column in zip(names, columns, strict=True)]
    others = LoggedReading("other", rng.random(200), np.ones(200))
    tier = LoggedTier("small", np.ones(200), np.ones(200), (others, *rng.permutation(np.array(readings, dtype=object))))
    one_by_one = [fused_score(card, [float(column[row]) for column in columns]) for row in range(200)]
    assert fuse(card, tier).tolist() == one_by_one


def test_a_fused_log_has_one_reading_more_at_the_tiers_that_have_a_card() -> None:
    log = random_log(50, 0, readings=("free paid", "free", ""))
    card = random_card(np.random.default_rng(0), ("free", "paid"))
    fused = log.fused({"tier0": card})
    assert [[r.name for r in tier.readings] for tier in fused.tiers] == [["free", "paid", FUSED], ["free"], []]
    score = fused.tier("tier0").readings[-1]
    assert (score.parts, score.price.any()) == (card, False)
    assert fused.tiers[1:] == log.tiers[1:]
    assert fused.take(np.array([3, 1])).tier("tier0").readings[-1].parts == card
    np.testing.assert_array_equal(score.confidence, fuse(card, log.tier("tier0")))


# ---------------------------------------------------------------------------------------------------------- replay


def two_readings(n: int, seed: int, *, contexts: bool = False) -> ReplayLog:
    """Tiers with readings conf and conf2, which come with the answer and go missing."""
    return drawn_log("shared_difficulty", n, seed, contexts=contexts, reading_prices=(0.0, 0.0), missing=0.2)


def fused_policy(log: ReplayLog, seed: int) -> tuple[Policy, ReplayLog]:
    """A random policy that may read scores, inputs or both; and the log with the scores."""
    rng = np.random.default_rng(seed)
    cards = {tier.name: random_card(rng, ("conf", "conf2")) for tier in log.tiers}
    scored = log.fused(cards)
    grower = Grower(rng, scored, abstain=seed % 2 == 0)
    roots = [grower.grow() for _ in range(3)]
    nodes, place = grower.table()
    vertices = tuple(Vertex(0.1, float(at), 0.5, place[root]) for at, root in enumerate(roots))
    tiers = tuple(
        Tier(t.name, log.mean(t.cost), tuple(Reading(r.name, 0.0, (), (0, 0), r.parts) for r in t.readings))
        for t in scored.tiers
    )
    abstain = 0.3 if seed % 2 == 0 else None
    return Policy(tiers, nodes, vertices, OperatingPoint(0, 0, 0.0), abstain=abstain), scored


@pytest.mark.parametrize("seed", range(15))
def test_a_raw_log_is_replayed_as_it_is_decided_row_by_row(seed: int) -> None:
    """The loop is asked for inputs, replay counts scores as read: all else is the same."""
    log = two_readings(60, seed)
    policy, scored = fused_policy(log, seed)
    check_match(policy, log)
    for vertex in range(3):
        alone = replace(policy, point=OperatingPoint(vertex, vertex, 0.0))
        bulk, rows = route(policy, log, vertex), loop(alone, log)
        same(replace(bulk, reads=()), replace(rows, reads=()))
        same(route(policy, scored, vertex), bulk)  # a log that has the scores needs no inputs


def small_policy(reads: str = FUSED) -> Policy:
    """Calls the first tier, reads one thing of it, and may go on to the last one, of which nothing is read."""
    card = random_card(np.random.default_rng(1), ("conf", "conf2"))
    readings = (
        Reading("conf", 0.0, (), (0, 0)),
        Reading("conf2", 0.0, (), (0, 0)),
        Reading(FUSED, 0.0, (), (0, 0), card),
    )
    nodes: tuple[Node, ...] = (
        Ask("tier1", 1),
        Read("tier1", reads, (0.4,), (2, 4), 2),
        Ask("tier3", 3),
        Stop(Accept("tier3")),
        Stop(Accept("tier1")),
    )
    tiers = (Tier("tier1", 1.0, readings), Tier("tier3", 16.0, readings))
    return Policy(tiers, nodes, (Vertex(0.1, 1.0, 0.5, 0),), OperatingPoint(0, 0, 0.0))


def test_a_log_without_an_input_is_refused_by_its_name() -> None:
    log, policy = two_readings(30, 0), small_policy()
    check_match(policy, log)
    for kept, missing in itertools.permutations(["conf", "conf2"]):
        with pytest.raises(LogError, match=rf"the policy reads '{missing}' of 'tier1', of which the log has {kept}$"):
            check_match(policy, log.with_readings([kept]))
    with pytest.raises(LogError, match=r"'conf' of 'tier1', of which the log has no reading$"):
        check_match(policy, log.with_readings([]))


def test_a_log_that_has_the_score_itself_needs_no_inputs() -> None:
    log, policy = two_readings(40, 1), small_policy()
    scored = log.fused({"tier1": policy.tiers[0].readings[-1].parts}).with_readings([FUSED])
    check_match(policy, scored)
    same(route(policy, scored, 0), route(policy, log, 0))


def test_inputs_of_a_score_that_is_never_read_are_not_needed() -> None:
    """The dearest tier's score is listed, and no node reads it."""
    log, policy = two_readings(40, 2), small_policy()
    first, *_, last = log.tiers
    bare = replace(log, tiers=(first, replace(last, readings=())))
    check_match(policy, bare)
    same(route(policy, bare, 0), route(policy, log, 0))
    only = log.with_readings(["conf"])
    check_match(small_policy("conf"), only)
    same(route(small_policy("conf"), only, 0), route(small_policy("conf"), log, 0))
