"""AutoMix's rules beside those of the package automix-llm 1.0.3: the same decisions, but for its known defects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from metaverify.fitting.automix.objectives import Envelope, LargestIBC
from metaverify.fitting.automix.routing import AutoMix
from metaverify.fitting.automix.rules import (
    DoubleThreshold,
    GreedyPOMDP,
    POMDPSimple,
    Rule,
    SelfConsistency,
    Threshold,
    TripleThreshold,
    pomdp_union,
)
from metaverify.policies.actions import Accept, Call
from metaverify.policies.file import dump_policy, parse_policy
from metaverify.policies.policy import Policy
from metaverify.simulators.digits import load_digits_log
from metaverify.simulators.log import LoggedReading, LoggedTier, ReplayLog
from metaverify.simulators.outcome import replay
from metaverify.simulators.replay import route
from metaverify.simulators.worlds import shared_difficulty

peer: Any = pytest.importorskip("automix", reason="automix-llm is not installed: pip install automix-llm==1.0.3")
pd: Any = pytest.importorskip("pandas", reason="pandas comes with automix-llm: pip install automix-llm==1.0.3")

SMALL, LARGE, VERIFY = 1.0, 50.0, 1.0  # its default prices
RULES: dict[str, tuple[Rule, Any]] = {
    "Threshold": (Threshold(), peer.Threshold),
    "DoubleThreshold": (DoubleThreshold(), peer.DoubleThreshold),
    "TripleThreshold": (TripleThreshold(), peer.TripleThreshold),
    "SelfConsistency": (SelfConsistency(), peer.SelfConsistency),
    "POMDPSimple": (POMDPSimple(), peer.POMDPSimple),
    "GreedyPOMDP": (GreedyPOMDP(), peer.GreedyPOMDP),
    "Union": (pomdp_union(), peer.POMDP),
}
LARGEST = LargestIBC(regions=1)


def two_tiers(
    small: np.ndarray,
    large: np.ndarray,
    confidence: np.ndarray,
    ids: np.ndarray | None = None,
    *,
    verify: float = VERIFY,
) -> ReplayLog:
    """A log at its prices."""
    n = len(small)
    ids = np.array([f"q{at:05}" for at in range(n)]) if ids is None else ids
    verifier = LoggedReading("conf", confidence, np.full(n, verify))
    tiers = (
        LoggedTier("small", small, np.full(n, SMALL), (verifier,)),
        LoggedTier("large", large, np.full(n, LARGE)),
    )
    return ReplayLog(ids, tiers, np.ones(n), ids)


def drawn(rows: int, seed: int, *, scored: bool = False) -> ReplayLog:
    """Queries of shared difficulty, 8 votes on the small answer; ``scored``: performance is a score, not 0 or 1."""
    small, large = shared_difficulty(2, 9).draw(rows, seed).tiers
    rng = np.random.default_rng(seed)
    blur = rng.integers(1, 6, size=(2, rows)) / 5 if scored else np.ones((2, rows))
    votes = np.floor(small.readings[0].confidence * 9) / 8
    return two_tiers(small.correct * blur[0], large.correct * blur[1], votes)


def digits(cheap: str, dear: str) -> ReplayLog:
    """Two tiers of the log that ships, whose readings ``votes`` are shares of 8."""
    log = load_digits_log()
    votes = next(r for r in log.tier(cheap).readings if r.name == "votes")
    return two_tiers(log.tier(cheap).correct, log.tier(dear).correct, votes.confidence, log.query_ids)


LOGS = {
    "drawn, 300 rows": lambda: drawn(300, 1),
    "drawn, 2,000 rows": lambda: drawn(2000, 2),
    "scores": lambda: drawn(1000, 3, scored=True),
    "digits, tiny and small": lambda: digits("tiny", "small"),
    "digits, small and medium": lambda: digits("small", "medium"),
}


def frame(log: ReplayLog) -> Any:
    """The log under the package's column names, with its categories as its scripts have them."""
    small, large = (tier.correct for tier in log.tiers)
    data = pd.DataFrame({"llama13b_f1": small, "llama70b_f1": large})
    low_small, low_large = data.quantile(0.1)
    kinds = [small < large, (small == large) & (small != 0), (small <= low_small) & (large <= low_large)]
    data["category"] = np.select(kinds, ["NEEDY", "GOOD", "HOPELESS"], default="UNDEFINED")
    data["p_ver_13b"] = log.tiers[0].readings[0].confidence
    return data


def mixer(method: Any, bins: int = 8) -> Any:
    return peer.Automix(method(num_bins=bins), costs=[SMALL, LARGE], verifier_cost=VERIFY)


def goes_on(policy: Policy, log: ReplayLog, vertex: int = -1) -> np.ndarray:
    """Whether each query is answered by the large tier at a vertex, [n]."""
    return route(policy, log, vertex % len(policy.vertices)).accepted == 1


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("rule", RULES)
def test_the_largest_ibc_decides_as_the_package_does(rule: str, log: str) -> None:
    rows = LOGS[log]()
    train, test = rows.split(0.5, seed=1)
    own, method = RULES[rule]
    theirs = mixer(method)
    theirs.train(frame(train))
    policy = AutoMix(own, LARGEST).policy(train)
    assert len(policy.vertices) == 2
    for part in (train, test):
        decided = theirs.method.run(frame(part), theirs.best_param)
        np.testing.assert_array_equal(goes_on(policy, part), decided.to_numpy(dtype=bool))
    quality, cost = theirs.compute_performance_cost(frame(train), theirs.method.run(frame(train), theirs.best_param))
    assert (policy.vertices[1].cost, policy.vertices[1].quality) == pytest.approx((cost, quality), abs=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_the_largest_ibc_within_limits_of_cost_decides_as_the_package_does(rule: str) -> None:
    rows, (own, method) = drawn(2000, 2), RULES[rule]
    tried = 0
    for within in ((10.0, 25.0), (20.0, 35.0), (30.0, 45.0)):
        theirs = mixer(method)
        try:
            theirs.train(frame(rows), cost_constraint=within)
        except ValueError:  # see below
            with pytest.raises(ValueError, match="no rule costs from"):
                AutoMix(own, replace(LARGEST, within=within)).policy(rows)
            continue
        tried += 1
        policy = AutoMix(own, replace(LARGEST, within=within)).policy(rows)
        decided = theirs.method.run(frame(rows), theirs.best_param)
        np.testing.assert_array_equal(goes_on(policy, rows), decided.to_numpy(dtype=bool))
    assert tried > 0


@pytest.mark.parametrize("rule", RULES)
def test_the_envelope_is_no_worse_than_any_parameter_of_the_package(rule: str) -> None:
    rows, (own, method) = drawn(1000, 5, scored=True), RULES[rule]
    policy, theirs, data = AutoMix(own, Envelope()).policy(rows), mixer(method), frame(rows)
    costs, qualities = ([getattr(vertex, name) for vertex in policy.vertices] for name in ("cost", "quality"))
    for parameter in theirs.method.generate_points(data):
        quality, cost = theirs.compute_performance_cost(data, theirs.method.run(data, parameter))
        assert np.interp(cost, costs, qualities) >= quality - 1e-9


# Its defects, each beside the right thing -----------------------------------------------------------------------------


def trained(log: ReplayLog, method: str = "Threshold") -> Any:
    theirs = mixer(getattr(peer, method))
    theirs.train(frame(log))
    return theirs


def test_limits_that_no_parameter_keeps_are_an_error_that_says_so() -> None:
    log = drawn(300, 1)
    with pytest.raises(ValueError, match=r"max\(\)"):
        mixer(peer.Threshold).train(frame(log), cost_constraint=(0.0, 1.0))
    with pytest.raises(ValueError, match=r"no rule costs from 0 to 1 a query; they cost from \d"):
        AutoMix(Threshold(), LargestIBC(within=(0.0, 1.0))).policy(log)


def decide(policy: Policy, confidence: Any) -> Any:
    return policy.at(budget=policy.vertices[-1].cost).decide({"small": {"conf": confidence}})


def test_a_confidence_that_is_missing_is_never_taken_for_a_sure_one() -> None:
    log = drawn(300, 1)
    row = frame(log).iloc[0].copy()
    row["p_ver_13b"] = np.nan
    assert not trained(log).infer(row)  # kept
    with pytest.raises(TypeError):
        trained(log, "POMDPSimple").infer(row)
    for own in (Threshold(), POMDPSimple()):
        assert decide(AutoMix(own, LARGEST).policy(log), np.nan) == Call("large")


def test_a_confidence_out_of_range_is_one_that_is_missing() -> None:
    log = drawn(300, 1)
    row = frame(log).iloc[0].copy()
    row["p_ver_13b"] = 1.1
    with pytest.raises(TypeError):
        trained(log, "POMDPSimple").infer(row)
    assert decide(AutoMix(POMDPSimple(), LARGEST).policy(log), 1.1) == Call("large")


def test_a_confidence_in_single_precision_is_a_confidence() -> None:
    log = drawn(300, 1)
    row = frame(log).astype({"p_ver_13b": "float32"}).iloc[0][["p_ver_13b"]].astype("float32")
    with pytest.raises(AttributeError):
        trained(log, "POMDPSimple").infer(row)
    policy = AutoMix(POMDPSimple(), LARGEST).policy(log)
    for votes in range(9):
        assert decide(policy, np.float32(votes / 8)) == decide(policy, votes / 8)


def test_columns_of_any_name_can_be_read() -> None:
    log = drawn(300, 1)
    other = frame(log).rename(columns={"llama13b_f1": "small", "llama70b_f1": "large", "p_ver_13b": "conf"})
    method = peer.GreedyPOMDP(num_bins=8, slm_column="small", llm_column="large")
    with pytest.raises(KeyError, match="llama70b_f1"):
        peer.Automix(method, "small", "large", "conf").train(other)
    log = replace(log, tiers=tuple(replace(t, name=n) for t, n in zip(log.tiers, ("8B", "a/b c"), strict=True)))
    assert [tier.name for tier in AutoMix(GreedyPOMDP(), LARGEST).policy(log).tiers] == ["8B", "a/b c"]


@pytest.mark.parametrize("bins", [5, 10])
def test_every_share_of_votes_falls_into_its_own_bin(bins: int) -> None:
    shares = np.arange(bins + 1) / bins
    theirs = [peer.POMDPSimple(num_bins=bins).get_neearest_prob_idx(share) for share in shares]
    assert theirs != list(range(bins + 1))
    large = np.tile(np.linspace(0.9, 0.1, bins + 1), 20)  # gain falls with confidence
    log = two_tiers(np.zeros(len(large)), large, np.tile(shares, 20), verify=0.0)
    policy = AutoMix(GreedyPOMDP(sigma=0.1), Envelope(), bins=bins + 1).policy(log)
    found = {tuple(np.unique(shares[goes_on(policy, log, at)[: bins + 1]])) for at in range(len(policy.vertices))}
    assert found == {tuple(shares[:count]) for count in range(bins + 1)} | {tuple(shares)}


def test_an_evaluation_uses_the_prices_that_it_is_given() -> None:
    log = drawn(300, 1)
    theirs = trained(log)
    given = theirs.evaluate(frame(log), costs=[SMALL, 7.0], return_dict=True)
    assert given == theirs.evaluate(frame(log), return_dict=True)
    policy = AutoMix(Threshold(), LARGEST).policy(log)
    policy = policy.at(budget=policy.vertices[-1].cost)
    small, large = log.tiers
    cheaper = replace(log, tiers=(small, replace(large, cost=np.full(len(log), 7.0))))
    on = float(goes_on(policy, log).mean())
    assert replay(policy, log).cost.mean == pytest.approx(SMALL + VERIFY + LARGE * on)
    assert replay(policy, cheaper).cost.mean == pytest.approx(SMALL + VERIFY + 7.0 * on)


def test_a_rule_is_data_and_comes_back_from_its_file() -> None:
    log = drawn(300, 1)
    assert not hasattr(peer.Automix, "save")
    policy = AutoMix(pomdp_union(), Envelope()).policy(log)
    loaded = parse_policy(dump_policy(policy).encode())
    assert loaded == policy
    assert all((goes_on(loaded, log, at) == goes_on(policy, log, at)).all() for at in range(len(policy.vertices)))


def test_a_budget_is_spent() -> None:
    log = drawn(4000, 2)
    train, test = log.split(0.5, seed=1)
    budget = 30.0
    theirs = mixer(peer.POMDP)
    theirs.train(frame(train), cost_constraint=(0.0, budget))
    own = replay(AutoMix().policy(train).at(budget=budget), test)
    data = frame(test)
    quality, cost = theirs.compute_performance_cost(data, theirs.method.run(data, theirs.best_param))
    assert cost < 0.65 * budget
    assert own.cost.mean == pytest.approx(budget, rel=0.05)
    assert own.quality.mean > quality + 0.02


def test_where_the_large_model_is_worse_nothing_goes_on() -> None:
    log = drawn(1000, 4)
    small, large = log.tiers
    log = replace(log, tiers=(replace(small, correct=large.correct), replace(large, correct=small.correct)))
    theirs = trained(log)
    data = frame(log)
    quality, cost = theirs.compute_performance_cost(data, theirs.method.run(data, theirs.best_param))
    assert cost > SMALL
    assert quality < log.mean(log.tiers[0].correct)
    policy = AutoMix(Threshold(), LARGEST).policy(log)
    assert [vertex.cost for vertex in policy.vertices] == [SMALL]


def test_a_verifier_that_costs_nothing_is_no_division_by_nothing() -> None:
    log = drawn(1000, 2)
    small, large = log.tiers
    free = two_tiers(small.correct, large.correct, np.full(len(log), 1.0), verify=0.0)  # no double threshold takes any
    data = frame(free)
    theirs = peer.Automix(peer.DoubleThreshold(num_bins=8), costs=[SMALL, LARGE], verifier_cost=0.0)
    with np.errstate(invalid="ignore"):
        theirs.train(data)
    assert not theirs.method.run(data, theirs.best_param).any()
    policy = AutoMix(DoubleThreshold(), LARGEST).policy(free)
    assert [vertex.cost for vertex in policy.vertices] == [SMALL]
    assert policy.decide({}) == Call("small")
    assert policy.decide({"small": {"conf": 1.0}}) == Accept("small")
