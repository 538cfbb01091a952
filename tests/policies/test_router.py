"""The router does what the decision loop says, and comes to an answer where one can be had, whatever fails."""

from __future__ import annotations

import asyncio
import contextvars
import enum
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.policies.episode import Episode
from metaverify.policies.exposition import _escaped
from metaverify.policies.file import load_policy, save_policy
from metaverify.policies.guards import Guard, TokenBucket
from metaverify.policies.monitor import Monitor
from metaverify.policies.policy import Policy
from metaverify.policies.routed import Routed, Step
from metaverify.policies.router import Failure, Look, Reply, Router
from metaverify.policies.store import PolicyStore

from .strategies import confidences, examples, policies
from .test_guards import HIGH, LOW, MIDDLE, cascade
from .test_store import Clock, revision

World = Mapping[str, Mapping[str, Any]]  # tier -> reading -> confidence, of votes a list of them
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "policy.json"


class Refusing:
    """Raises whatever is done with it."""

    def __float__(self) -> float:
        raise ZeroDivisionError

    __str__ = __bool__ = __float__  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Refusing()"


class Callables:
    """A world to buy from, in which what stands in ``failing`` fails, and the list of what was bought."""

    def __init__(self, world: World, failing: frozenset[Any] = frozenset()) -> None:
        self.world, self.failing = world, failing
        self.bought: list[Action] = []
        self.asked: dict[tuple[str, str], int] = {}

    def call(self, tier: str, request: Any) -> Reply:
        self.bought.append(Call(tier))
        if tier in self.failing:
            raise Failure("down", 0.0)
        return Reply((tier, request))

    def verify(self, tier: str, reading: str, request: Any, answers: Mapping[str, Any]) -> Look:
        self.bought.append(Verify(tier, reading))
        if (tier, reading) in self.failing:
            raise OSError
        told = self.world[tier][reading]
        if isinstance(told, list):
            told = told[self.asked.setdefault((tier, reading), 0)]
            self.asked[tier, reading] += 1
        return Look(told)

    async def acall(self, tier: str, request: Any) -> Reply:
        await asyncio.sleep(0)
        return self.call(tier, request)

    async def averify(self, *asked: Any) -> Look:
        await asyncio.sleep(0)
        return self.verify(*asked)


@st.composite
def worlds(draw: st.DrawFn, policy: Policy) -> World:
    votes = st.lists(st.booleans(), min_size=9, max_size=9)
    return {
        t.name: {r.name: draw(votes if r.votes else confidences(policy.nodes)) for r in t.readings}
        for t in policy.tiers
    }


def loop(policy: Policy, world: World, failing: frozenset[Any], context: str | None, key: Any) -> list[Action]:
    """What the decision loop asks for: a failed tier is gone on without where the policy was solved for that, and
    otherwise has answered and all of its readings are missing."""
    readings: dict[str, dict[str, Any]] = {}
    solved = [{*outage.without} for outage in policy.vertices[0].outages]
    whole, down = policy, set[str]()
    needs = {tier.name: (tier.name,) if tier.answer else tier.needs for tier in policy.tiers}
    actions = []
    while True:
        action = policy.decide(readings, context=context, key=key)
        match action:
            case Call(tier) if tier in failing:
                down |= {tier}
                if any(down <= without for without in solved):
                    policy = whole.without(*down)
                else:
                    readings[tier] = {}
            case Call(tier):
                readings[tier] = {}
            case Verify(tier, reading):
                told = world[tier][reading]
                if isinstance(told, list):
                    yes, asked = readings.get(tier, {}).get(reading, (0, 0))
                    told = (yes + told[asked], asked + 1)
                gone = (tier, reading) in failing or failing & set(needs[tier])
                readings.setdefault(tier, {})[reading] = None if gone else told
                if failing & set(needs[tier]):
                    continue  # not asked for: there is nothing to verify
            case _:
                return [*actions, action]
        actions.append(action)


@examples(80)
@given(data=st.data())
def test_a_request_takes_the_steps_of_the_decision_loop_whatever_fails(data: st.DataObject) -> None:
    policy = data.draw(policies(votes=True, outages=True))
    world = data.draw(worlds(policy))
    things = [t.name for t in policy.tiers] + [(t.name, r.name) for t in policy.tiers for r in t.readings]
    failing = frozenset(data.draw(st.sets(st.sampled_from(things), max_size=3)))
    context = data.draw(st.none() | st.sampled_from(["?", *policy.vertices[0].context_roots]))
    key = data.draw(st.integers() | st.text() | st.binary())
    *planned, end = loop(policy, world, failing, context, key)

    sold = Callables(world, failing)
    routed = Router(policy, sold.call, sold.verify).route("?", key=key, context=context)
    assert sold.bought[: len(planned)] == planned
    assert routed.vertex == policy.arm(key)
    answered = [a.tier for a in sold.bought if isinstance(a, Call) and a.tier not in failing]
    assert routed.action == routed.steps[-1].action
    if isinstance(end, Abstain) or end.tier in answered:
        assert (routed.action, sold.bought) == (end, planned)
    elif any(isinstance(a, Call) and a.tier not in failing for a in planned):
        latest = [a.tier for a in planned if isinstance(a, Call) and a.tier not in failing][-1]
        assert (routed.action, sold.bought) == (Accept(latest), planned)
    else:  # no answer is in hand: the cheapest of the others, as the file lists them
        called = {a.tier for a in planned if isinstance(a, Call)}
        others = [t.name for t in policy.tiers if t.answer and t.name not in called]
        up = next((at for at, name in enumerate(others) if name not in failing), None)
        assert sold.bought[len(planned) :] == [Call(name) for name in others[: None if up is None else up + 1]]
        assert routed.action == (Abstain() if up is None else Accept(others[up]))
    assert routed.answer == (None if routed.tier is None else (routed.tier, "?"))

    again = Callables(world, failing)
    assert asyncio.run(Router(policy, again.acall, again.averify).aroute("?", key=key, context=context)) == routed
    assert again.bought == sold.bought


def doubted(tier: str, _: object) -> Reply:
    return Reply(tier, {"conf": 0.1})


def test_a_reading_that_fails_takes_the_missing_branch() -> None:
    def verify(*_: object) -> Look:
        raise Failure("down", 0.2)

    routed = Router(cascade(low=MIDDLE, high=MIDDLE), doubted, verify).route("?")
    assert (routed.answer, routed.cost, routed.reasons) == ("small", 1.2, ("down",))


def test_without_a_verifier_what_it_would_read_is_missing() -> None:
    routed = Router(cascade(low=MIDDLE, high=MIDDLE), doubted).route("?")
    assert (routed.answer, routed.cost, routed.reasons) == ("small", 1.0, ("no verifier",))


def test_where_the_dear_tier_fails_the_answer_in_hand_is_returned_and_the_failure_charged() -> None:
    def call(tier: str, _: object) -> Reply:
        if tier == "large":
            raise ConnectionError
        return Reply(tier, {"conf": 0.1})

    routed = Router(cascade(), call).route("?")
    assert (routed.answer, routed.cost, routed.reasons) == ("small", 11.0, ("error", "unanswered"))


def test_where_the_first_tier_fails_the_policy_goes_on_without() -> None:
    def call(tier: str, _: object) -> Reply:
        if tier == "small":
            raise Failure("rate limit", 0.0)
        return Reply(tier)

    routed = Router(cascade(), call).route("?")
    assert (routed.answer, routed.cost, routed.reasons) == ("large", 10.0, ("rate limit", "unanswered"))
    lowest = Router(cascade(low=LOW, high=LOW), call).route("?")
    assert (lowest.answer, lowest.reasons) == ("large", ("rate limit", "fallback"))


@pytest.mark.parametrize("reason", ["error", "cap", "budget"])
def test_where_everything_fails_the_request_is_handed_over(reason: str) -> None:
    def call(*_: object) -> Reply:
        raise Failure(reason, 0.25)

    for fail_open in (False, True):
        routed = Router(cascade(low=LOW, high=LOW), call, guard=Guard(fail_open=fail_open)).route("?")
        assert (routed.action, routed.answer, routed.cost) == (Abstain(), None, 0.5)


@pytest.mark.parametrize("nonsense", ["0.5", [0.5], b"1", object()])
def test_a_reading_that_is_no_number_is_missing_and_said_so(nonsense: Any) -> None:
    routed = Router(cascade(), lambda tier, _: Reply(tier, {"conf": nonsense} if tier == "small" else {})).route("?")
    assert (routed.answer, routed.reasons, dict(routed.steps[0].readings)) == ("large", ("invalid",), {"conf": None})
    bought = Router(cascade(low=MIDDLE, high=MIDDLE), doubted, lambda *_: Look(nonsense)).route("?")
    assert (bought.answer, bought.reasons) == ("small", ("invalid",))
    no_mapping = Router(cascade(), lambda tier, _: Reply(tier, nonsense)).route("?")
    assert "invalid" in no_mapping.reasons


@pytest.mark.parametrize("cost", [math.nan, math.inf, -1.0])
def test_a_cost_that_is_none_is_the_dearest(cost: float) -> None:
    routed = Router(cascade(), lambda tier, _: Reply(tier, {"conf": 0.9}, cost), guard=Guard(dearest={"small": 3.0}))
    assert routed.route("?").cost == 3.0


def test_what_is_no_reply_is_an_error_of_the_caller_and_is_charged() -> None:
    bucket, ends = TokenBucket(1.0, 100.0, Clock()), Ends()
    router = Router(cascade(), lambda *_: "an answer", guard=Guard(bucket=bucket), monitor=ends)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'an answer', not as a Reply"):
        router.route("?")
    assert bucket.level == 99.0
    assert [step.reason for step in ends.routed[0].steps] == ["interrupted", "cancelled"]


class Reason(enum.Enum):
    RATE = "rate limit"


class Down(Failure):
    def __init__(self) -> None:
        pass


REASONS = {
    5: "5",
    Reason.RATE: "Reason.RATE",
    "": "error",
    "  ": "error",
    None: "error",
    "\ud800": "\\ud800",
    "x" * 200: "x" * 80,
    "explored": "failed: explored",
    "cap": "failed: cap",
    "busy": "failed: busy",
    Refusing(): "error",
}


@pytest.mark.parametrize("reason", REASONS, ids=[*map(str, range(len(REASONS)))])
def test_a_reason_is_a_text_that_says_that_it_failed(reason: Any) -> None:
    def call(tier: str, _: object) -> Reply:
        if tier == "large":
            raise Failure(reason, 0.0)
        return Reply(tier, {"conf": 0.1})

    monitor = Monitor()
    routed = Router(cascade(), call, monitor=monitor).route("?")
    assert (routed.answer, routed.reasons) == ("small", (REASONS[reason], "unanswered"))
    assert monitor.report()["reasons"] == {REASONS[reason]: 1, "unanswered": 1}
    assert f'reason="{_escaped(REASONS[reason])}"}} 1\n'.encode() in monitor.prometheus().encode()


def test_a_failure_that_says_nothing_at_all_is_an_error() -> None:
    def call(*_: object) -> Reply:
        raise Down

    assert Router(cascade(low=LOW, high=LOW), call).route("?").reasons == ("error", "error", "unanswered")


NO_COSTS = [math.nan, math.inf, -1.0, 1.1e100, 10**400, "3", b"3", True, np.True_, [1], 1 + 0j, object()]


@pytest.mark.parametrize("cost", [*NO_COSTS, Refusing()])
def test_what_is_told_as_a_cost_and_is_none_is_charged_as_the_dearest_and_the_answer_kept(cost: Any) -> None:
    bucket, monitor = TokenBucket(0.0, 10.0, Clock()), Monitor()
    guard = Guard(bucket=bucket, dearest={"small": 2.0, ("small", "judge"): 1.5})
    policy = cascade(low=MIDDLE, high=MIDDLE)

    def call(tier: str, _: object) -> Reply:
        return Reply(tier, {"conf": 0.1}, cost)

    def verify(*_: object) -> Look:
        return Look(0.9, cost)

    router = Router(policy, call, verify, guard=replace(guard, bucket=None), monitor=monitor)
    routed = router.route("?")
    assert (routed.answer, routed.cost, routed.reasons) == ("small", 3.5, ("invalid cost", "invalid cost"))
    assert monitor.report()["reasons"] == {"invalid cost": 2}
    low = Router(cascade(low=LOW, high=LOW), call, guard=guard)
    answers = [low.route("?").answer for _ in range(500)]
    assert answers == ["small"] * 5 + [None] * 495
    assert bucket.level == 0.0

    def fail(*_: object) -> Reply:
        raise Failure("down", cost)

    failed = Router(cascade(low=LOW, high=LOW), fail, guard=Guard(dearest={"large": 30.0})).route("?")
    assert (failed.cost, failed.reasons) == (31.0, ("down", "down", "unanswered"))


@pytest.mark.parametrize("cost", [Decimal("1.5"), Fraction(3, 2), np.float32(1.5), np.array(1.5), 1.5])
def test_what_converts_to_an_amount_is_that_amount(cost: Any) -> None:
    bucket = TokenBucket(0.0, 10.0, Clock())
    router = Router(cascade(), lambda tier, _: Reply(tier, {"conf": 0.9}, cost), guard=Guard(bucket=bucket))
    routed = router.route("?")
    assert (routed.cost, routed.reasons, bucket.level) == (1.5, (), 8.5)
    assert {type(routed.cost), type(bucket.level)} == {float}


def test_a_reading_that_is_none_goes_before_a_cost_that_is_none() -> None:
    routed = Router(cascade(), lambda tier, _: Reply(tier, {"conf": True}, "1")).route("?")
    assert routed.reasons == ("invalid", "invalid")
    bought = Router(cascade(low=MIDDLE, high=MIDDLE), doubted, lambda *_: Look(Refusing(), "1")).route("?")  # type: ignore[arg-type]
    assert (bought.answer, bought.reasons) == ("small", ("invalid",))


@pytest.mark.parametrize("nonsense", [True, np.False_, Refusing(), np.array([0.1, 0.9])])
def test_a_reading_of_no_kind_never_keeps_an_answer_that_was_paid_for(nonsense: Any) -> None:
    routed = Router(cascade(), lambda tier, _: Reply(tier, {"conf": nonsense} if tier == "small" else {})).route("?")
    assert (routed.answer, routed.reasons, dict(routed.steps[0].readings)) == ("large", ("invalid",), {"conf": None})
    policy = load_policy(GOLDEN.with_name("votes.json"))
    voted = Router(policy, lambda tier, _: Reply(tier), lambda *_: Look(nonsense)).route("?", key=1)
    assert voted.tier is not None


class Unreadable(Mapping[str, float]):
    def __iter__(self) -> Any:
        raise ZeroDivisionError

    __len__ = __getitem__ = __iter__  # type: ignore[assignment]


def test_readings_that_cannot_be_read_are_none() -> None:
    routed = Router(cascade(), lambda tier, _: Reply(tier, Unreadable())).route("?")
    assert (routed.answer, routed.reasons) == ("large", ("invalid", "no verifier", "invalid"))


def test_a_sample_changes_the_answer() -> None:
    router = Router(cascade(low=MIDDLE, high=MIDDLE), doubted, lambda *_: Look(0.9, answer="majority"))
    assert router.route("?").answer == "majority"


def test_a_verifier_is_shown_the_answers() -> None:
    seen: list[dict[str, Any]] = []

    def verify(tier: str, reading: str, request: Any, answers: Mapping[str, Any]) -> Look:
        seen.append({**answers, "of": (tier, reading, request)})
        return Look(0.9, 0.1)

    routed = Router(cascade(low=MIDDLE, high=MIDDLE), doubted, verify).route("hello")
    assert (seen, routed.cost) == ([{"small": "small", "of": ("small", "judge", "hello")}], 1.1)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_timeouts_that_are_none_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="timeout of 'small'"):
        Router(cascade(), doubted, timeouts={"small": seconds})


def test_names_that_the_policy_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match=r"timeout of 'lagre'.*'small', .*'large'"):
        Router(cascade(), doubted, timeouts={"lagre": 1.0})
    with pytest.raises(ValueError, match="dearest price of 'lagre'"):
        Router(cascade(), doubted, guard=Guard(dearest={"lagre": 1.0}))


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE")


def test_a_call_that_takes_too_long_is_given_up_and_its_answer_dropped() -> None:
    late, seen = threading.Event(), []

    def call(tier: str, _: object) -> Reply:
        seen.append(VARIABLE.get())
        if tier == "large":
            assert late.wait(10)
        return Reply(tier, {"conf": 0.1})

    VARIABLE.set("here")
    routed = Router(cascade(), call, timeouts={"large": 0.02, "small": 10.0}).route("?")
    late.set()
    assert (routed.answer, routed.cost, routed.reasons) == ("small", 11.0, ("timeout", "unanswered"))
    assert seen == ["here", "here"]


def test_an_error_in_time_is_that_error() -> None:
    def call(tier: str, _: object) -> Reply:
        raise Failure("refused", 0.5)

    assert Router(cascade(), call, timeouts={"small": 10.0, "large": 10.0}).route("?").cost == 1.0


def test_asyncio_cancels_what_takes_too_long() -> None:
    cancelled = []

    async def call(tier: str, _: object) -> Reply:
        if tier == "large":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(tier)
                raise
        return Reply(tier, {"conf": 0.1})

    routed = asyncio.run(Router(cascade(), call, timeouts={"large": 0.02}).aroute("?"))
    assert (routed.answer, routed.reasons, cancelled) == ("small", ("timeout", "unanswered"), ["large"])


def test_a_reading_that_takes_too_long_is_missing() -> None:
    async def verify(*_: object) -> Look:
        await asyncio.sleep(60)
        return Look(0.0)

    policy = cascade(low=MIDDLE, high=MIDDLE)
    routed = asyncio.run(Router(policy, doubted, verify, timeouts={("small", "judge"): 0.02}).aroute("?"))
    assert (routed.answer, routed.reasons) == ("small", ("timeout",))


class Ends:
    """Stands where a monitor does."""

    def __init__(self) -> None:
        self.routed: list[Routed] = []

    def record(self, routed: Routed) -> None:
        self.routed.append(routed)


def test_a_cancelled_request_is_charged_settled_and_told() -> None:
    bucket, ends = TokenBucket(1.0, 100.0, Clock()), Ends()

    async def call(tier: str, _: object) -> Reply:
        await asyncio.sleep(60 if tier == "large" else 0)
        return Reply(tier, {"conf": 0.1})

    async def main() -> None:
        router = Router(cascade(), call, guard=Guard(bucket=bucket), monitor=ends)  # type: ignore[arg-type]
        task = asyncio.create_task(router.aroute("?", key=7))
        await asyncio.sleep(0.02)
        assert bucket.level == 100.0 - 11.0  # set aside
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    (routed,) = ends.routed
    assert (routed.action, routed.cost, routed.reasons) == (Abstain(), 11.0, ("interrupted", "cancelled"))
    assert bucket.level == 100.0 - 11.0


def test_an_interrupt_goes_on_to_the_caller() -> None:
    ends, bucket = Ends(), TokenBucket(1.0, 100.0, Clock())

    def call(*_: object) -> Reply:
        raise KeyboardInterrupt

    router = Router(cascade(), call, guard=Guard(bucket=bucket), monitor=ends)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        router.route("?")
    assert (ends.routed[0].cost, bucket.level) == (1.0, 99.0)


def test_an_interrupt_between_two_purchases_charges_what_was_bought_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends, bucket = Ends(), TokenBucket(1.0, 100.0, Clock())

    def interrupted(*_: object) -> Action:
        raise KeyboardInterrupt

    monkeypatch.setattr(Episode, "answered", interrupted)
    router = Router(cascade(), doubted, guard=Guard(bucket=bucket), monitor=ends)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        router.route("?")
    (routed,) = ends.routed
    assert (routed.cost, bucket.level, routed.reasons) == (1.0, 99.0, ("cancelled",))
    assert [step.action for step in routed.steps] == [Call("small"), Abstain()]


def test_many_requests_at_once_in_asyncio_keep_to_themselves() -> None:
    async def call(tier: str, request: Any) -> Reply:
        await asyncio.sleep(0.001 * (request % 3))
        return Reply((tier, request), {"conf": request % 10 / 10})

    async def main() -> list[Routed]:
        router = Router(cascade(0.4, LOW, HIGH), call)
        return await asyncio.gather(*(router.aroute(request, key=request) for request in range(200)))

    policy = cascade(0.4, LOW, HIGH)
    for request, routed in enumerate(asyncio.run(main())):
        tier = "large" if policy.arm(request) == HIGH and request % 10 < 5 else "small"
        assert routed.answer == (tier, request)


def test_a_request_keeps_the_policy_that_it_began_with(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    save_policy(cascade(), path)
    store = PolicyStore(path, every=0.0)

    def call(tier: str, _: object) -> Reply:
        save_policy(revision(1), path)
        store.reload()
        return Reply(tier, {"conf": 0.1} if tier == "small" else {})

    router = Router(store, call, guard=Guard(dearest={"large": 12.0}))
    first = router.route("?")
    assert (first.answer, first.snapshot.number) == ("large", 0)
    assert (router.route("?").answer, router.route("?").snapshot.number) == ("tier1", 1)


def test_the_propensity_is_the_chance_of_a_graph_that_would_have_done_the_same() -> None:
    policy = cascade(0.25, LOW, HIGH)
    for key in range(40):
        routed = Router(policy, doubted).route("?", key=key)
        share = 0.25 if routed.vertex == HIGH else 0.75
        assert [step.propensity for step in routed.steps] == [1.0, *[share] * (len(routed.steps) - 1)]
        sure = Router(policy, lambda tier, _: Reply(tier, {"conf": 0.9})).route("?", key=key)
        assert [step.propensity for step in sure.steps] == [1.0, 1.0]


def test_a_mixture_wants_a_key() -> None:
    with pytest.raises(ValueError, match="pass key="):
        Router(cascade(0.5, LOW, HIGH), doubted).route("?")


def test_the_share_of_a_mixture_is_kept_and_two_policies_draw_apart() -> None:
    check_shares(20_000)


@pytest.mark.slow
def test_the_share_of_a_mixture_is_kept_over_a_million_keys() -> None:
    check_shares(1_000_000)


def check_shares(keys: int) -> None:
    share = 0.3
    one, other = (Policy(*_parts(cascade(share, LOW, HIGH)), salt=salt) for salt in ("one", "other"))
    a = b = both = 0
    for key in range(keys):
        first, second = one.arm(key) == HIGH, other.arm(key) == HIGH
        a, b, both = a + first, b + second, both + (first and second)
    sigma = math.sqrt(share * (1 - share) * keys)
    assert abs(a - share * keys) < 4 * sigma
    assert abs(b - share * keys) < 4 * sigma
    correlation = (both / keys - a * b / keys**2) / (share * (1 - share))
    assert abs(correlation) < max(0.01, 4 / math.sqrt(keys))


def _parts(policy: Policy) -> tuple[Any, ...]:
    return policy.tiers, policy.nodes, policy.vertices, policy.point


@pytest.mark.parametrize("seed", ["0", "1"])
def test_the_same_key_takes_the_same_graph_in_every_process(seed: str) -> None:
    script = (
        "import sys; from metaverify import load_policy; policy = load_policy(sys.argv[1]); "
        "print(''.join(str(policy.arm(key)) for n in range(300) for key in (n, str(n), f'r-{n}', bytes([n % 256]))))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(GOLDEN)],
        env={"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    policy = load_policy(GOLDEN)
    keys = (key for n in range(300) for key in (n, str(n), f"r-{n}", bytes([n % 256])))
    assert ran.stdout.strip() == "".join(str(policy.arm(key)) for key in keys)


def test_what_is_asked_for_wrongly_is_refused_in_these_words() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Router(cascade(), doubted, timeouts={"lagre": 1.0})
    assert str(caught.value) == (
        "a timeout of 'lagre', which the policy does not buy; it knows 'small', ('small', 'conf'), ('small', 'judge'), "
        "'large'"
    )
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Router(cascade(), doubted, timeouts={"small": 0.0})
    assert str(caught.value) == "the timeout of 'small' is 0.0; give seconds above 0, or leave it out"
    with pytest.raises(TypeError) as wrong:
        Router(cascade(low=MIDDLE, high=MIDDLE), doubted, lambda *_: 0.5).route("?")
    assert str(wrong.value) == "Verify(tier='small', reading='judge') came back as 0.5, not as a Look"


def test_a_failure_says_why() -> None:
    assert (Failure().reason, Failure().cost, str(Failure("down", 0.5))) == ("error", None, "down")


def test_what_has_a_timeout_runs_in_a_thread_that_keeps_no_process_alive() -> None:
    seen = []

    def verify(*_: object) -> Look:
        seen.append((threading.current_thread().name, threading.current_thread().daemon))
        return Look(0.9)

    Router(cascade(low=MIDDLE, high=MIDDLE), doubted, verify, timeouts={("small", "judge"): 10.0}).route("?")
    assert seen == [("metaverify-call", True)]


def test_a_fallback_is_the_cheapest_tier_that_its_bound_allows_and_is_charged_as_told() -> None:
    def call(tier: str, _: object) -> Reply:
        if tier == "small":
            raise Failure("down", 0.25)
        return Reply(tier, {}, 7.0)

    policy = cascade(low=LOW, high=LOW)
    open_, closed = (Router(policy, call, guard=Guard(cap=5.0, fail_open=free)).route("?") for free in (True, False))
    assert (open_.answer, open_.cost, open_.reasons) == ("large", 7.25, ("down", "fallback"))
    assert (closed.answer, closed.cost, closed.reasons) == (None, 0.25, ("down", "unanswered"))
    assert [step.spent for step in open_.steps] == [0.25, 7.25, 7.25]
    assert [step.cost for step in open_.steps] == [0.25, 7.0, 0.0]


def test_costs_told_as_nothing_are_those_of_the_file_and_of_failures_the_dearest() -> None:
    down = False

    def call(tier: str, _: object) -> Reply:
        if down and tier == "large":
            raise Failure("down")
        return Reply(tier, {"conf": 0.1})

    guard = Guard(dearest={"large": 30.0, ("small", "judge"): 2.0})
    router = Router(cascade(low=MIDDLE, high=MIDDLE), call, lambda *_: Look(0.1, 0.0), guard=guard)
    assert [step.cost for step in router.route("?").steps] == [1.0, 0.0, 10.0, 0.0]
    down = True
    assert [step.cost for step in router.route("?").steps] == [1.0, 0.0, 30.0, 0.0]


def test_each_step_says_what_it_was_what_it_cost_and_why() -> None:
    def verify(*_: object) -> Look:
        return Look(0.9, 0.25)

    first = Step(Call("small"), {"conf": 0.1}, 1.0, 1.0, 1.0, "", told=False)
    judged = Router(cascade(low=MIDDLE, high=MIDDLE), doubted, verify).route("?")
    last = Step(Accept("small"), {}, 0.0, 1.25, 1.0, "")
    assert judged.steps == (first, Step(Verify("small", "judge"), {"judge": 0.9}, 0.25, 1.25, 1.0, ""), last)
    capped = Router(cascade(low=MIDDLE, high=MIDDLE), doubted, verify, guard=Guard(cap=1.2)).route("?")
    refused = Step(Verify("small", "judge"), {}, 0.0, 1.0, 1.0, "cap")
    assert capped.steps == (first, refused, Step(Accept("small"), {}, 0.0, 1.0, 1.0, ""))


def test_the_propensity_is_that_of_the_graphs_of_the_request_s_own_context() -> None:
    plain = cascade(0.25, LOW, HIGH)
    low, middle, high = plain.vertices
    known = (replace(low, context_roots={"x": high.root}), middle, replace(high, context_roots={"x": high.root}))
    policy = replace(plain, vertices=known)
    for key in range(20):
        same = Router(policy, doubted).route("?", key=key, context="x")
        assert [step.propensity for step in same.steps] == [1.0, 1.0, 1.0]
        apart = Router(policy, doubted).route("?", key=key, context="y")
        assert apart.steps[-1].propensity == (0.25 if apart.vertex == HIGH else 0.75)


# Threads ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """What calls may wait for; set in the end, so that no thread outlives its test for long."""
    event = threading.Event()
    yield event
    event.set()


def calls_alive() -> int:
    return sum(thread.name == "metaverify-call" for thread in threading.enumerate())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_calls_that_hang_take_no_more_threads_than_they_may_and_then_none_is_made(
    hanging: threading.Event, asynchronous: bool
) -> None:
    made, before = list[str](), calls_alive()

    def call(tier: str, _: object) -> Reply:
        made.append(tier)
        assert hanging.wait(30)
        return Reply(tier)

    bucket = TokenBucket(0.0, 1000.0, Clock())
    policy, timeouts = cascade(low=LOW, high=LOW), {"small": 0.005, "large": 0.005}
    router = Router(policy, call, timeouts=timeouts, guard=Guard(bucket=bucket), threads=3)
    route = partial(_at_once, router) if asynchronous else router.route
    routed = [route("?") for _ in range(20)]
    while len(made) < 3:
        time.sleep(1e-3)
    assert calls_alive() - before == len(made) == 3
    steps = [step for one in routed for step in one.steps[:-1]]
    assert sorted(step.action.tier for step in steps if step.reason == "timeout") == sorted(made)
    assert {step.reason for step in steps} == {"timeout", "busy"}
    assert {step.cost for step in steps if step.reason == "busy"} == {0.0}  # what was not made is not charged
    assert bucket.level == 1000.0 - sum({"small": 1.0, "large": 10.0}[tier] for tier in made)
    assert router._threads._waiting == {}
    hanging.set()
    while calls_alive() > before:
        time.sleep(1e-3)
    router._timeouts["small"] = 30.0
    assert route("?").answer == "small"
    assert len(made) == 4


def _at_once(router: Router, request: object) -> Routed:
    return asyncio.run(router.aroute(request))


def test_plain_callables_hold_up_no_event_loop_and_come_to_their_timeouts(hanging: threading.Event) -> None:
    threads = set()

    def call(tier: str, request: Any) -> Reply:
        threads.add(threading.current_thread().name)
        if request == "slow":
            assert hanging.wait(30)
        return Reply(tier, {"conf": 0.9})

    async def main() -> tuple[Routed, Routed, Routed]:
        router = Router(cascade(low=LOW, high=LOW), call, timeouts={"small": 0.2, "large": 1.0})
        slow = asyncio.create_task(router.aroute("slow"))
        await asyncio.sleep(0)
        quick = await router.aroute("quick")
        assert not slow.done()
        untimed = await Router(cascade(low=LOW, high=LOW), call).aroute("quick")
        return await slow, quick, untimed

    slow, quick, untimed = asyncio.run(main())
    assert (quick.answer, untimed.answer, threads) == ("small", "small", {"metaverify-call"})
    assert (slow.answer, slow.reasons) == (None, ("timeout", "timeout", "unanswered"))


class Client:
    async def __call__(self, tier: str, _: object) -> Reply:
        return Reply(threading.current_thread().name, {"conf": 0.9})


@pytest.mark.parametrize("kind", ["object", "method", "partial", "lambda"])
def test_whatever_can_be_awaited_is_and_coroutine_functions_are_not_sent_to_a_thread(kind: str) -> None:
    client = Client()
    call = {
        "object": client,
        "method": client.__call__,
        "partial": partial(client.__call__),
        "lambda": lambda tier, request: client(tier, request),
    }[kind]
    routed = asyncio.run(Router(cascade(), call).aroute("?"))
    assert routed.answer == "MainThread"  # where coroutines run, whoever made them


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, StopIteration, asyncio.CancelledError])
def test_what_a_call_raises_in_a_thread_is_what_it_raises_without(error: type[BaseException]) -> None:
    def call(*_: object) -> Reply:
        raise error

    def told(route: Any) -> object:
        try:
            return route("?").reasons
        except BaseException as raised:
            return type(raised)

    plain, threaded = Router(cascade(), call), Router(cascade(), call, timeouts={"small": 30.0, "large": 30.0})
    assert told(plain.route) == told(threaded.route)
    if error in (StopIteration, asyncio.CancelledError):  # the others end the event loop as well
        assert told(plain.route) == told(partial(_at_once, plain))


def test_a_request_that_is_interrupted_while_it_waits_for_a_thread_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    router = Router(cascade(), doubted, timeouts={"small": 30.0})

    def interrupted(self: Future[Any], timeout: float | None = None) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "result", interrupted)
    monkeypatch.setattr(threading.Thread, "start", lambda self: None)
    with pytest.raises(KeyboardInterrupt):
        router.route("?")
    assert router._threads._waiting == {}


def test_a_router_without_threads_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^threads is 0; at least one call must be able to run$"):
        Router(cascade(), doubted, threads=0)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan, 1e10, "2", None, True])
def test_a_timeout_that_no_clock_has_is_refused_at_once(seconds: Any) -> None:
    with pytest.raises(ValueError, match=r"the timeout of 'small' is .*; give seconds above 0, or leave it out"):
        Router(cascade(), doubted, timeouts={"small": seconds})


def test_what_a_callable_waits_for_may_be_cancelled_and_the_request_goes_on() -> None:
    """Nobody cancelled the request: its call failed, and what is in hand is not lost."""

    async def cancelled(tier: str, _: object) -> Reply:
        if tier == "large":
            inner = asyncio.ensure_future(asyncio.sleep(30))
            asyncio.get_running_loop().call_soon(inner.cancel)
            await inner
        return Reply(tier, {"conf": 0.1})

    def plain(tier: str, _: object) -> Reply:
        if tier == "large":
            raise asyncio.CancelledError
        return Reply(tier, {"conf": 0.1})

    for timeouts in ({}, {"large": 30.0}):
        ways = [
            asyncio.run(Router(cascade(), cancelled, timeouts=timeouts).aroute("?", key=1)),
            asyncio.run(Router(cascade(), plain, timeouts=timeouts).aroute("?", key=1)),
            Router(cascade(), plain, timeouts=timeouts).route("?", key=1),
        ]
        for routed in ways:
            assert (routed.tier, routed.reasons) == ("small", ("error", "unanswered"))


def test_a_request_that_is_cancelled_amid_what_it_waits_for_ends() -> None:
    async def slow(tier: str, _: object) -> Reply:
        await asyncio.sleep(30)
        raise AssertionError

    async def main() -> None:
        task = asyncio.ensure_future(Router(cascade(), slow, timeouts={"small": 20.0}).aroute("?", key=1))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
