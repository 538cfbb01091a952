"""Methods by name: they spend what they are asked to, come from other packages too, and say what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from metaverify.fitting import methods
from metaverify.fitting.chain import Thresholds
from metaverify.fitting.compare import compare
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.methods import LEARNERS, USUAL, Calibrated, Method, known_methods, named_methods
from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Stop
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Tier
from metaverify.simulators.log import LoggedReading, ReplayLog
from metaverify.simulators.outcome import replay
from metaverify.simulators.worlds import shared_difficulty, token_prices


def mixing(log: ReplayLog) -> Policy:
    """The cheapest tier and the dearest, mixed at random."""
    ends = log.tiers[0], log.tiers[-1]
    nodes = tuple(
        node for at, tier in enumerate(ends) for node in (Ask(tier.name, 2 * at + 1), Stop(Accept(tier.name)))
    )
    vertices = tuple(Vertex(0.0, log.mean(tier.cost), log.mean(tier.correct), 2 * at) for at, tier in enumerate(ends))
    tiers = tuple(Tier(tier.name, log.mean(tier.cost)) for tier in log.tiers)
    return Policy(tiers, nodes, vertices, OperatingPoint(0, 0, 0.0), "mixing")


def answerable(log: ReplayLog) -> ReplayLog:
    """The log with a further reading of the cheapest tier: every tenth answer is one that always goes on."""
    says = LoggedReading("answerable", (np.arange(len(log)) % 10 > 0).astype(float), np.zeros(len(log)))
    first, *others = log.tiers
    return replace(log, tiers=(replace(first, readings=(*first.readings, says)), *others))


@pytest.mark.parametrize("name", LEARNERS)
def test_every_method_describes_itself_and_spends_its_budget_on_new_queries(name: str) -> None:
    world = token_prices(2, 4)
    method = Method(name, named_methods([name])[name])
    assert method.describe() is not None
    budgets = (1.5, 2.5)
    policies = method.policies(answerable(world.draw(800, 3)), budgets)
    fresh = answerable(world.draw(20_000, 4))
    for policy, budget in zip(policies, budgets, strict=True):
        spent = replay(policy, fresh).cost.mean
        assert spent < 1.12 * budget
        assert spent > 0.88 * budget or name.endswith("-ibc"), "only AutoMix's objective leaves money"


def test_a_calibrated_dial_spends_what_an_uncalibrated_one_overruns() -> None:
    """Over draws: cuts tuned on the rows themselves spend more than they expect, and calibrated ones do not."""
    world = token_prices(2, 8)
    fresh = world.draw(30_000, 99)
    learner = TableLearner(policies="chain", bins=16)
    over: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(12):
        log = world.draw(60, seed)
        for calibrated in over:
            policy = (Calibrated(learner) if calibrated else learner).policy(log)
            outcome = replay(policy.at(budget=max(2.0, policy.vertices[0].cost)), fresh)
            over[calibrated].append(outcome.cost.mean / 2.0 - 1.0)
    assert np.mean(over[True]) < np.mean(over[False])
    assert abs(np.mean(over[True])) < 0.1


def test_a_dial_is_turned_within_what_a_policy_can_spend() -> None:
    log = shared_difficulty(2).draw(100, 0)
    below, above = Method("mixing", mixing).policies(log, (0.5, 99.0))
    assert (below.expected_cost, above.expected_cost) == (1.0, 4.0)


def test_a_callable_that_takes_a_budget_is_asked_for_each_and_its_policies_are_used_as_they_come() -> None:
    asked = []

    def dear(log: ReplayLog, *, budget: float) -> Policy:
        asked.append(budget)
        return mixing(log).at(budget=2 * budget)

    log = shared_difficulty(2).draw(100, 0)
    found = Method("dear", dear).policies(log, (1.0, 1.5))
    assert asked == [1.0, 1.5]
    assert [policy.expected_cost for policy in found] == [2.0, 3.0]


def test_a_learner_of_others_gets_its_dial_calibrated_once() -> None:
    log = shared_difficulty(2).draw(300, 1)
    own, wrapped = (Method("x", way).policies(log, (2.0,)) for way in (Thresholds(), Calibrated(Thresholds())))
    assert own == wrapped


def test_what_hands_queries_over_or_is_no_policy_is_refused() -> None:
    log = shared_difficulty(2).draw(100, 0)
    with pytest.raises(ValueError, match="method 'shy' hands queries over"):
        Method("shy", lambda log: replace(mixing(log), abstain=0.3)).policies(log, (2.0,))
    with pytest.raises(TypeError, match="method 'odd' returned NoneType, not a Policy"):
        Method("odd", lambda log: None).policies(log, (2.0,))  # type: ignore[arg-type, return-value]


# ------------------------------------------------------------------------------------------------------- by name


@dataclass(frozen=True)
class Point:
    """An entry point of another package."""

    name: str
    found: Any
    value: str = "other.package:thing"

    def load(self) -> Any:
        return self.found


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def make(*points: Point) -> None:
        monkeypatch.setattr(methods, "entry_points", lambda group: points if group == "metaverify.methods" else ())

    return make


def test_other_packages_bring_learners_classes_of_them_and_callables(install: Callable[..., None]) -> None:
    install(
        Point("their-class", Thresholds), Point("their-learner", Thresholds(bins=4)), Point("their-callable", mixing)
    )
    assert known_methods()[-3:] == ("their-callable", "their-class", "their-learner")
    found = named_methods(["their-class", "their-learner", "their-callable"])
    assert found == {"their-class": Thresholds(), "their-learner": Thresholds(bins=4), "their-callable": mixing}


def test_a_name_that_is_taken_or_unknown_is_told() -> None:
    with pytest.raises(ValueError, match=re.escape("no method is called 'latice'; did you mean 'lattice'?")):
        named_methods(["latice"])
    with pytest.raises(ValueError, match=r"no method is called 'zzz'. There are default, chain"):
        named_methods(["zzz"])


def test_another_package_cannot_take_a_name_of_this_one(install: Callable[..., None]) -> None:
    install(Point("chain", mixing))
    with pytest.raises(ValueError, match=r"other.package:thing calls its method 'chain', which is taken"):
        named_methods(["chain"])


class Absent:
    """What an import of another package may raise."""

    def __init__(self) -> None:
        raise ImportError("no module named 'torch'")


def test_an_entry_point_that_cannot_be_loaded_fails_alone(install: Callable[..., None]) -> None:
    install(Point("their-class", Absent))
    found = compare(shared_difficulty(2).draw(60, 1), ["their-class", "chain"], folds=2, resamples=20)
    assert [method.name for method in found.methods] == ["chain"]
    told = "ValueError: other.package:thing cannot be loaded: ImportError: no module named 'torch'"
    assert found.failed == {"their-class": told}


def test_the_usual_methods_have_labels() -> None:
    assert all(Method(name, mixing).label for name in USUAL)
    assert Method("mine", mixing).label == "mine"
