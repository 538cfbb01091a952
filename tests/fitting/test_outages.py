"""What is learnt for an outage is the best there is without the tiers that are down, at the price of each vertex."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from metaverify.fitting.chain import Thresholds
from metaverify.fitting.fit import fit
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.outages import outages_of, with_outages
from metaverify.policies.file import dump_policy, parse_policy
from metaverify.policies.graph import compact
from metaverify.policies.policy import Policy
from metaverify.policies.router import Failure, Look, Reply, Router
from metaverify.simulators.log import LogError, ReplayLog
from metaverify.simulators.outcome import replay
from metaverify.simulators.replay import route
from metaverify.simulators.worlds import shared_difficulty, token_prices
from tests.fitting.oracles import best_value
from tests.strategies import random_log

EXACT = TableLearner(Counts(), bins=3, slack=0.0, gap=1e-9)


@pytest.fixture(scope="module", params=["world", "signals"])
def log(request: pytest.FixtureRequest) -> ReplayLog:
    if request.param == "world":
        return shared_difficulty(3, 3, missing=0.1).draw(400, 1)
    return random_log(300, 4, readings=("free", "paid", ""), signals=True, varying=True)


@pytest.fixture(scope="module")
def learnt(log: ReplayLog) -> Policy:
    study = EXACT.study(log)
    outages = [*outages_of("each", log.tier_names), tuple(sorted(log.tier_names[::2]))]
    return with_outages(EXACT.policy(log, study=study), EXACT, log, outages, study=study)


def stripped(policy: Policy) -> Policy:
    """The policy as it was before its outages were learnt."""
    nodes, place = compact(policy.nodes, [r for v in policy.vertices for r in (v.root, *v.context_roots.values())])
    return replace(policy, nodes=nodes, vertices=tuple(replace(v, outages=()).moved(place) for v in policy.vertices))


def net(policy: Policy, vertex: int, log: ReplayLog) -> float:
    """Quality - price x cost of a vertex on a log."""
    routes = route(policy, log, vertex)
    return log.mean(routes.quality) - policy.vertices[vertex].price * log.mean(routes.cost)


@pytest.mark.parametrize("down", [(0,), (1,), (0, 2)])
def test_at_the_price_of_each_vertex_nothing_without_the_tiers_is_worth_more(
    log: ReplayLog, learnt: Policy, down: tuple[int, ...]
) -> None:
    """Counts are the log itself, so replaying it gives what all trees of decisions, tried one by one, can earn."""
    left = log.with_tiers([name for at, name in enumerate(log.tier_names) if at not in down])
    table = EXACT.study(left).table
    policy = learnt.without(*(log.tier_names[at] for at in down))
    for at, vertex in enumerate(policy.vertices):
        assert net(policy, at, log) == pytest.approx(best_value(table, vertex.price), abs=1e-9)


@pytest.mark.parametrize("at_tier", [0, 1, 2])
def test_the_outage_of_a_tier_is_worth_as_much_as_a_policy_of_a_log_that_never_had_it(
    log: ReplayLog, learnt: Policy, at_tier: int
) -> None:
    down = log.tier_names[at_tier]
    left = log.with_tiers([name for name in log.tier_names if name != down])
    never = EXACT.policy(left)
    policy = learnt.without(down)
    for at, vertex in enumerate(policy.vertices):
        chosen = never.at(price=vertex.price).point.low
        routes = route(never, left, chosen)
        worth = log.mean(routes.quality) - vertex.price * log.mean(routes.cost)
        assert net(policy, at, log) == pytest.approx(worth, abs=1e-8)


def test_an_outage_is_never_worth_more_than_all_tiers_and_a_larger_one_never_more_than_a_smaller(
    log: ReplayLog, learnt: Policy
) -> None:
    for at in range(len(learnt.vertices)):
        first, _, last = log.tier_names
        whole, one, two = (net(learnt.without(*down), at, log) for down in ((), (first,), (first, last)))
        assert whole >= one - 1e-9
        assert one >= two - 1e-9


def test_what_the_policy_does_while_nothing_is_down_stays_to_the_last_node(log: ReplayLog, learnt: Policy) -> None:
    assert stripped(learnt) == EXACT.policy(log)


def sold(log: ReplayLog, row: int, down: str) -> tuple[Any, Any]:
    """What a router buys of one query of the log, while a tier fails at no cost."""

    def call(tier: str, _: object) -> Reply:
        if tier == down:
            raise Failure("rate limit", 0.0)
        column = log.tier(tier)
        free = {r.name: told(float(r.confidence[row])) for r in column.readings if r.free}
        return Reply(float(column.correct[row]), free, float(column.cost[row]))

    def verify(tier: str, reading: str, _: object, answers: Mapping[str, Any]) -> Look:
        column = next(r for r in log.source(tier).readings if r.name == reading)
        return Look(told(float(column.confidence[row])), float(column.price[row]))

    return call, verify


def told(confidence: float) -> float | None:
    return None if np.isnan(confidence) else confidence


@pytest.mark.parametrize("make", [shared_difficulty, token_prices])
@pytest.mark.parametrize("known", [False, True], ids=["fails", "known beforehand"])
@pytest.mark.parametrize("down", ["tier1", "tier3"])
def test_a_router_whose_tier_always_fails_realises_what_replay_finds_of_the_outage(
    make: Any, down: str, known: bool
) -> None:
    """What was bought before a tier fails is kept and read, so it changes what is spent and not what is answered."""
    log = make(3, 4).draw(150, 3)
    policy = fit(log, price=0.02, learner=TableLearner(bins=3), compare=False, outages="each").policy
    wanted = replay(policy.without(down), log)
    found = []
    for row in range(len(log)):
        router = Router(policy, *sold(log, row, down))
        found.append(router.route("?", key=str(log.query_ids[row]), without=(down,) if known else ()))
    cost, quality = np.mean([r.cost for r in found]), np.mean([r.answer for r in found])
    assert quality == pytest.approx(wanted.quality.mean, abs=1e-12)
    if known or down == "tier1":  # before anything is bought
        assert cost == pytest.approx(wanted.cost.mean, abs=1e-12)
    assert cost >= wanted.cost.mean - 1e-12
    assert all(r.without == (down,) for r in found if known or any(s.reason for s in r.steps))


@pytest.mark.parametrize(
    "learner",
    [
        TableLearner(bins=4),
        TableLearner(policies="chain", bins=4),
        TableLearner(read=False),
        TableLearner(bins=3, abstain=0.3, fuse=0.5),
        Thresholds(),
    ],
    ids=["lattice", "chain", "context only", "fused", "thresholds"],
)
def test_every_learner_plans_outages_and_its_file_is_read_again(learner: Any) -> None:
    log = random_log(300, 5, readings=("free paid", "free free", "free"), contexts=2)
    found = fit(log, budget=4.0, learner=learner, compare=False, outages="each")
    alone = fit(log, budget=4.0, learner=learner, compare=False)
    assert stripped(found.policy) == alone.policy
    assert parse_policy(dump_policy(found.policy).encode()) == found.policy
    for name in log.tier_names:
        outage = found.policy.without(name)
        assert replay(outage, log).calls[name] == 0.0


def test_contexts_have_graphs_of_their_own_in_an_outage_too() -> None:
    log = random_log(400, 3, contexts=3)
    found = fit(log, price=0.05, learner=TableLearner(bins=3), compare=False, outages="each").policy
    for vertex in found.vertices:
        assert vertex.context_roots
        for outage in vertex.outages:
            assert outage.context_roots.keys() == vertex.context_roots.keys()


def test_of_many_tiers_the_outages_are_those_of_the_tiers_that_were_kept() -> None:
    log = shared_difficulty(5, 3).draw(300, 1)
    learner = TableLearner(bins=3, tiers=2)
    found = fit(log, budget=4.0, learner=learner, compare=False, outages="each").policy
    kept = [tier.name for tier in found.tiers]
    assert len(kept) == 2
    assert [outage.without for outage in found.vertices[0].outages] == [(name,) for name in sorted(kept)]
    both = fit(log, budget=4.0, learner=learner, compare=False, outages=[kept])
    assert not both.policy.vertices[0].outages
    assert any("the policy has no other tier" in note for note in both.notes)


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        ([["tier4"]], r"an outage of 'tier4', of the tiers tier1, tier2, tier3; did you mean"),
        ([[]], "an outage of nothing: name tiers"),
        ([["tier1", "tier2", "tier3"]], r"an outage of tier1\+tier2\+tier3: name tiers, and leave one"),
    ],
)
def test_an_outage_that_is_none_is_refused_before_anything_is_learnt(wanted: list[list[str]], match: str) -> None:
    with pytest.raises(LogError, match=match):
        fit(shared_difficulty(3, 3).draw(20, 1), budget=4.0, outages=wanted)


def test_outages_are_sorted_and_told_once() -> None:
    names = ("a", "b", "c")
    assert outages_of("each", names) == (("a",), ("b",), ("c",))
    assert outages_of([["c", "a"], {"a", "c"}, ["b", "b"]], names) == (("a", "c"), ("b",))
    assert outages_of("each", ("a",)) == outages_of((), names) == ()
