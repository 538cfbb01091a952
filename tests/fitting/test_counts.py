"""Count tables: what the solver promises on a log is what the exported policy earns on it, row by row."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given

from metaverify.fitting.coding import CodedLog, code_log, ladders_of
from metaverify.fitting.context import contextual_table
from metaverify.fitting.export import policy_of
from metaverify.fitting.frontier import Frontier, trace_frontier
from metaverify.fitting.lattice import Lattice
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.survey import survey
from metaverify.fitting.table import back_off
from metaverify.policies.graph import Stop
from metaverify.policies.policy import Policy
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.replay import route
from tests.fitting.oracles import walk_row
from tests.strategies import logs, random_log, repeatable

EXACT = 1e-12
KINDS: dict[str, dict] = {
    "plain": {},
    "nothing missing": {"missing": 0.0},
    "weights": {"weighted": True},
    "varying prices": {"varying": True},
    "scores": {"scored": True},
    "contexts": {"contexts": 3},
    "everything": {"contexts": 2, "weighted": True, "varying": True, "scored": True, "groups": True},
    "two readings of a tier": {"readings": ("free paid", "paid", ""), "varying": True},
    "two tiers": {"readings": ("paid", ""), "contexts": 2},
    "samples": {"readings": ("free sample", "paid", "gift"), "varying": True},
    "two samples of a tier": {"readings": ("sample resample", "free"), "scored": True, "contexts": 2},
}


def solved(log: ReplayLog, bins: int = 3) -> tuple[Lattice, Frontier]:
    coded = coded_log(log, bins)
    lattice = Lattice(contextual_table(Counts(), coded, kappa=0.0))
    return lattice, trace_frontier(lattice, gap=1e-6)


def coded_log(log: ReplayLog, bins: int = 3) -> CodedLog:
    contexts = () if log.contexts is None else tuple(sorted(set(log.contexts)))
    return code_log(log, ladders_of(log, bins), contexts)


def roots_of(policy: Policy, lattice: Lattice, vertex: int) -> list[int]:
    chosen = policy.vertices[vertex]
    return [chosen.root, *(chosen.context_roots[context] for context in lattice.table.contexts)]


def assert_promises_are_kept(log: ReplayLog) -> None:
    lattice, frontier = solved(log)
    policy = policy_of(lattice, frontier, log)
    assert len(policy.vertices) == len(frontier.plans)
    for at, plan in enumerate(frontier.plans):
        routes = route(policy, log, at)
        assert plan.cost == pytest.approx(log.mean(routes.cost), abs=EXACT, rel=EXACT)
        assert plan.quality == pytest.approx(log.mean(routes.quality), abs=EXACT)
        found = survey(lattice, policy.nodes, roots_of(policy, lattice, at))
        assert found.cost == pytest.approx(plan.cost, abs=EXACT, rel=EXACT)
        assert found.quality == pytest.approx(plan.quality, abs=EXACT)
        vertex = policy.vertices[at]
        assert (vertex.price, vertex.cost, vertex.quality) == (plan.price, found.cost, found.quality)


@pytest.mark.parametrize("kind", KINDS)
def test_the_solvers_value_is_what_replay_earns_on_the_log_itself(kind: str) -> None:
    for seed in range(2):
        assert_promises_are_kept(random_log(150, seed, **KINDS[kind]))


@repeatable(25)
@given(log=logs(samples=True))
def test_the_solvers_value_is_what_replay_earns_on_any_log(log: ReplayLog) -> None:
    assert_promises_are_kept(log)


@pytest.mark.parametrize("kind", ["plain", "everything"])
def test_backing_off_leaves_what_was_seen_alone(kind: str) -> None:
    log = random_log(150, 5, **KINDS[kind])
    lattice, frontier = solved(log)
    softened = Lattice(back_off(lattice.table))
    for plan in frontier.plans:
        again = softened.solve(plan.price)
        value = plan.quality - plan.price * plan.cost
        assert again.quality - plan.price * again.cost == pytest.approx(value, abs=EXACT * (1 + plan.price))


def test_a_count_table_is_the_logs_shares_and_means() -> None:
    log = random_log(80, 3, varying=True, scored=True, weighted=True)
    coded = coded_log(log)
    table = Counts().table(coded)
    share = log.weights / log.weights.sum()
    cells = list(zip(*(code.tolist() for code in coded.codes), strict=True))
    for leaf in np.ndindex(*table.mass.shape[1:]):
        inside = np.array([cell == leaf for cell in cells])
        assert table.mass[(0, *leaf)] == pytest.approx(share[inside].sum(), abs=EXACT)
        for s, tier in enumerate(log.tiers):
            assert table.quality[s][(0, *leaf)] == pytest.approx((share * tier.correct)[inside].sum(), abs=EXACT)
            assert table.price[s][0][(0, *leaf)] == pytest.approx((share * tier.cost)[inside].sum(), abs=EXACT)


def test_a_price_that_never_varies_stays_a_number() -> None:
    table = Counts().table(coded_log(random_log(60, 4)))
    assert table.price == ((1.0,), (4.0, 1.0), (16.0,))


@pytest.mark.parametrize("kind", ["plain", "two readings of a tier", "contexts"])
def test_beliefs_are_shares_and_means_of_the_rows_that_come_to_a_branch(kind: str) -> None:
    log = random_log(200, 6, **KINDS[kind])
    lattice, frontier = solved(log)
    everything = policy_of(lattice, frontier, log, believe=range(len(frontier.plans)))
    for at, plan in enumerate(frontier.plans):
        policy = policy_of(lattice, frontier, log)
        vertex = policy.vertices[at]
        found = survey(lattice, policy.nodes, roots_of(policy, lattice, at), price=plan.price, believe=True)
        arrived: Counter[tuple[int, int]] = Counter()
        right = [Counter() for _ in log.tiers]
        for row in range(len(log)):
            root = vertex.root if log.contexts is None else vertex.context_roots[log.contexts[row]]
            for branch in walk_row(log, policy.nodes, root, row)[2]:
                arrived[branch] += 1
                for s, tier in enumerate(log.tiers):
                    right[s][branch] += tier.correct[row]
        assert {node for node, _ in arrived} <= found.beliefs.keys() == everything.vertices[at].beliefs.keys()
        for (node, branch), count in arrived.items():
            belief = found.beliefs[node][branch]
            assert belief.share == pytest.approx(count / len(log), abs=6e-4)
            for s in range(len(log.tiers)):
                assert belief.quality[s] == pytest.approx(right[s][node, branch] / count, abs=6e-4)


def test_what_going_on_is_worth_is_weighed_against_what_is_in_hand() -> None:
    """After a reading, the best of the worths and qualities is what the policy does there."""
    log = random_log(400, 7, readings=("free", ""))
    lattice, frontier = solved(log)
    for at, plan in enumerate(frontier.plans):
        policy = policy_of(lattice, frontier, log)
        found = survey(lattice, policy.nodes, roots_of(policy, lattice, at), price=plan.price, believe=True)
        for node, beliefs in found.beliefs.items():
            for branch, belief in zip((*policy.nodes[node].then, policy.nodes[node].missing), beliefs, strict=True):
                call = belief.worth[1]
                keeps = isinstance(policy.nodes[branch], Stop)
                assert belief.worth[0] is None
                assert keeps == (belief.quality[0] >= call) or abs(belief.quality[0] - call) <= 1.1e-3
