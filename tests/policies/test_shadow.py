"""A shadow says what a router with the candidate would have done, as far as anybody bought what that needs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.actions import Action
from metaverify.policies.decision_log import DecisionLog, decision_lines
from metaverify.policies.exploration import Exploration
from metaverify.policies.file import load_policy, save_policy
from metaverify.policies.policy import Policy
from metaverify.policies.routed import Routed
from metaverify.policies.router import Failure, Look, Reply, Router
from metaverify.policies.shadow import Shadow, follow
from metaverify.policies.store import PolicyStore

from .strategies import cascades, examples, policies

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def world(policy: Policy, seed: int) -> tuple[Callable[..., Reply], Callable[..., Look]]:
    """What every purchase brings, the same whoever makes it: costs by name, votes in their order."""
    rng = random.Random(seed)
    told: dict[Any, Any] = {}
    for tier in policy.tiers:
        told[tier.name] = rng.randint(1, 9) / 4
        for reading in tier.readings:
            votes = [rng.random() < 0.5 for _ in range(reading.votes)]
            told[tier.name, reading.name] = votes or rng.choice([None, 0.0, 0.25, 0.5, 0.75, 1.0, rng.random()])

    def call(tier: str, _: Any) -> Reply:
        return Reply(tier, {}, cost=told[tier])

    def verify(tier: str, reading: str, request: dict[Any, int], _: Mapping[str, Any]) -> Look:
        found = told[tier, reading]
        if isinstance(found, list):
            at = request[tier, reading] = request.get((tier, reading), -1) + 1
            return Look(found[at], cost=0.125)
        return Look(found, cost=0.5)

    return call, verify


def bought(routed: Routed) -> list[Action]:
    return [step.action for step in routed.steps[:-1]]


both = cascades(votes=True).flatmap(
    lambda tiers: st.tuples(policies(st.just(tiers), votes=True), policies(st.just(tiers), votes=True))
)


@examples(25)
@given(both, st.integers(0, 10**6), st.integers(0, 99))
def test_what_is_identified_is_what_a_router_with_the_candidate_does(
    pair: tuple[Policy, Policy], seed: int, key: int
) -> None:
    live, candidate = pair
    label = next(iter(candidate.vertices[0].context_roots), None)
    routed = Router(live, *world(live, seed)).route({}, key=key, context=label)
    wanted = Router(candidate, *world(live, seed)).route({}, key=key, context=label)
    found = follow(candidate, [*decision_lines(routed, 0.0)])
    assert found is not None
    assert (found.live, found.live_cost) == (routed.action, pytest.approx(routed.cost))
    there = bought(routed)
    lacking = []
    for action in bought(wanted):
        if action in there:
            there.remove(action)
        else:
            lacking.append(action)
    if lacking:
        assert not found.identified
        assert found.then == lacking[0]
    else:
        assert found.identified
        assert (found.then, found.cost) == (wanted.action, pytest.approx(wanted.cost))
    assert found.differs == (found.then != found.live)


@examples(20)
@given(policies(votes=True), st.integers(0, 10**6), st.integers(0, 99))
def test_a_policy_in_its_own_shadow_changes_nothing(policy: Policy, seed: int, key: int) -> None:
    routed = Router(policy, *world(policy, seed)).route({}, key=key)
    found = follow(policy, [*decision_lines(routed, 0.0)])
    assert found is not None
    assert (found.then, found.cost) == (found.live, pytest.approx(found.live_cost))


def spread(budget: float) -> Policy:
    return load_policy(GOLDEN / "spread.json").at(budget=budget)


def test_a_shadow_counts_and_hands_on_and_answers_stay(tmp_path: Path) -> None:
    cheap, dear = spread(1.0), spread(5.5)
    confidences = iter([0.9, 0.4, 0.6, None])

    def call(tier: str, _: Any) -> Reply:
        return Reply(tier, {"conf": next(confidences)} if tier == "small" else {}, cost=1.0 if tier == "small" else 8.0)

    with DecisionLog(tmp_path / "d.jsonl") as log:
        shadow = Shadow(cheap, log=log)
        router = Router(dear, call, log=shadow)
        assert [router.route(None, key=key).answer for key in range(4)] == ["small", "large", "small", "large"]
    assert len((tmp_path / "d.jsonl").read_text().splitlines()) == 2 + 3 + 2 + 3
    assert shadow.report() == {
        "requests": {"different": 2, "same": 2},
        "live": {"large": 2, "small": 2},
        "candidate": {"small": 4},
        "wanted": {},
        "error": {},
        "cost": {"live": 20.0, "candidate": 4.0},
    }
    assert 'metaverify_shadow_requests_total{is="different"} 2' in shadow.prometheus()
    assert not shadow.put(Router(dear, lambda *_: Reply("x", {"conf": 1.0})).route(None, key=1))  # the log is closed


def test_what_nobody_bought_is_counted_by_what_it_is_and_exploring_buys_it() -> None:
    cheap, dear = spread(1.0), spread(5.5)
    for exploration, wanted in ((None, {"call large": 20}), (Exploration(1.0), {})):
        shadow = Shadow(dear)
        router = Router(cheap, lambda tier, _: Reply(tier, {"conf": 0.25}), log=shadow, exploration=exploration)
        for key in range(20):
            assert router.route(None, key=key).answer == "small"
        told = shadow.report()
        assert told["wanted"] == wanted
        assert told["requests"] == ({"not identified": 20} if wanted else {"different": 20})
        assert told["cost"]["live"] == (0.0 if wanted else 20.0)  # exploring is not the policy's


def test_a_request_in_which_something_failed_is_left_out() -> None:
    def call(tier: str, _: Any) -> Reply:
        if tier == "large":
            raise Failure("rate limit", cost=0.0)
        return Reply(tier, {"conf": 0.25})

    shadow = Shadow(spread(1.0))
    Router(spread(5.5), call, log=shadow).route(None, key=1)
    assert shadow.report()["requests"] == {"left out": 1}


def test_a_shadow_never_raises_and_follows_a_store(tmp_path: Path) -> None:
    mixed = load_policy(GOLDEN / "spread.json")
    save_policy(mixed, tmp_path / "candidate.json")
    shadow = Shadow(PolicyStore(tmp_path / "candidate.json", every=0.0))
    router = Router(spread(5.5), lambda tier, _: Reply(tier, {"conf": 0.75}), log=shadow)
    assert router.route(None).answer == "small"  # without a key, which the candidate needs
    assert shadow.report()["error"] == {"ValueError": 1}
    assert 'metaverify_shadow_errors_total{kind="ValueError"} 1' in shadow.prometheus()
    save_policy(spread(1.0), tmp_path / "candidate.json")
    router.route(None)
    assert shadow.report()["requests"] == {"same": 1}


def test_a_key_of_bytes_draws_as_it_does_in_production() -> None:
    mixed = load_policy(GOLDEN / "spread.json")
    mixed = replace(mixed, point=replace(mixed.point, share=0.5))
    shadow = Shadow(mixed)
    router = Router(mixed, lambda tier, _: Reply(tier, {"conf": 0.25}), log=shadow)
    ends = [router.route(None, key=bytes([at, 255])).tier for at in range(40)]
    assert len({*ends}) == 2
    assert shadow.report()["requests"] == {"same": 40}


def test_what_a_shadow_wants_is_named() -> None:
    policy = load_policy(GOLDEN / "signals.json")
    shadow = Shadow(policy)
    answers = Router(spread(1.0), lambda tier, _: Reply(tier, {})).route(None, key=1)
    shadow.put(answers)
    assert shadow.report()["wanted"] == {"conf of length": 1}
    handing_over = load_policy(GOLDEN / "policy.json").at(budget=3.0)
    shadow = Shadow(handing_over)
    router = Router(handing_over, lambda tier, _: Reply(tier, {"self_verify": None}), log=shadow)
    assert router.route(None, context="résumé").tier is None
    assert (shadow.report()["live"], shadow.report()["candidate"]) == ({"abstain": 1}, {"abstain": 1})
