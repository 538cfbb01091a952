"""The loop in production: asks the policy, does what it says by the callables given, and always comes to an end."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.policies.decision_log import DecisionLog
from metaverify.policies.episode import Episode, Told
from metaverify.policies.exploration import Exploration, Explorer
from metaverify.policies.file import policy_id
from metaverify.policies.graph import as_confidence, as_number, as_votes
from metaverify.policies.guards import Allowance, Guard, Prices, as_cost, dearest_path, dearest_prices
from metaverify.policies.monitor import Monitor
from metaverify.policies.policy import OperatingPoint, Policy
from metaverify.policies.routed import RESERVED, Routed, Step
from metaverify.policies.shadow import Shadow
from metaverify.policies.store import PolicyStore, Snapshot
from metaverify.policies.threads import Threads

__all__ = ["Failure", "Look", "Reply", "Router"]

SAME = object()
NOTHING: Mapping[str, Told] = MappingProxyType({})
NO_PRICES: Prices = MappingProxyType({})
LONGEST = 80  # letters of a reason
TURNED = 64  # budgets of requests that are kept ready


@dataclass(frozen=True, slots=True)
class Reply:
    """A tier's answer, the readings that came with it, and what it cost: None for its price in the policy's file.

    What is no finite amount from 0 on is charged with the dearest price, and told as "invalid cost".
    """

    answer: Any
    readings: Mapping[str, Told] = field(default_factory=lambda: NOTHING)
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """A reading that was bought: the confidence, or one vote; what it cost; and of a sample the new answer."""

    confidence: float | None
    cost: float | None = None
    answer: Any = SAME


class Failure(Exception):  # noqa: N818 - it fails, which is no error of the caller
    """Raised by a callable to say why nothing came of it, and what that cost.

    Whatever else is raised is taken for "error", and charged with the dearest price: it may have been billed.  Reasons
    are counted, so there should be few: what differs from request to request belongs elsewhere.
    """

    reason: Any = "error"
    cost: Any = None

    def __init__(self, reason: str = "error", cost: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cost = cost


BUSY = Failure("busy", 0.0)
"""What comes of a call that no thread was free for."""


class Router:
    """Routes requests with a policy, sync by `route` and in asyncio by `aroute`.

    Args:
        policy: the policy, or a store that reloads it; a request keeps the one that it began with.
        call: (tier, request) -> `Reply`.
        verify: (tier, reading, request, answers by tier) -> `Look`; needed where readings are bought.
        timeouts: seconds by tier, for its call, or by (tier, reading), of votes for each.  A coroutine that takes
            longer is cancelled; for any other callable nobody waits any more, but its thread goes on, and what it
            brings is dropped.
        guard: what may be spent.
        monitor: counts, and looks for drift.
        log: where decisions are written, or held against those of another policy.
        exploration: which requests are explored: once the answer is settled, every tier that was not called is called
            too, cheapest first, as far as the guard allows and they are not down.  What is returned stays the same.
        final: (tier, request) -> `Reply`, asked instead of ``call`` where what it brings is returned whatever it says,
            because the policy accepts it unread; so it may be passed on while it arrives.
        threads: calls with a timeout run in threads, and in `aroute` all that are no coroutine functions, at most so
            many at once, with those that nobody waits for any more.  A call that comes to its timeout before a thread
            is free is not made, costs nothing and is told as "busy".

    **What fails.**  A reading that fails is missing, and takes the branch that was solved for that.  Where a call fails
    and the policy was solved for that outage, the request goes on by its graph without the tiers that failed, with
    everything that is known (see `Episode.failed`).  Otherwise the walk goes on as if the tier had answered and every
    reading of it were missing, so what the policy does in ignorance comes next.  What a guard forbids, and tiers of
    which the caller says that they are down, fail in the same way, at no cost.  Where the walk ends with an answer that
    is not there, the latest answer in hand is returned: the policy bought it last because it expected most of it.
    Where none is in hand the tiers that did not fail are called, cheapest first, until one answers, and the request is
    handed over if none does.  A failed purchase is charged with what its `Failure` says, else with the dearest price.

    Callables of `aroute` may be coroutine functions.  Others are called in threads, so that they do not hold up the
    event loop, and what can be awaited of what they return is awaited.  Cancelling it, or a `KeyboardInterrupt`, ends
    the request: what was pending is charged as failed, the guard settled, the log written, and the exception goes on.

    Example:
        >>> from metaverify.policies.graph import Ask, Stop
        >>> from metaverify.policies.policy import Vertex
        >>> from metaverify.policies.tiers import Tier
        >>> nodes = (Ask("small", 1), Stop(Accept("small")))
        >>> policy = Policy((Tier("small", 1.0),), nodes, (Vertex(0.0, 1.0, 0.7, 0),), OperatingPoint(0, 0, 0.0))
        >>> router = Router(policy, lambda tier, request: Reply(f"{tier} says {request}"))
        >>> routed = router.route("hello", key="request-17")
        >>> routed.answer, routed.cost
        ('small says hello', 1.0)
    """

    def __init__(
        self,
        policy: Policy | PolicyStore,
        call: Callable[[str, Any], Any],
        verify: Callable[[str, str, Any, Mapping[str, Any]], Any] | None = None,
        *,
        timeouts: Prices = NO_PRICES,
        guard: Guard | None = None,
        monitor: Monitor | None = None,
        log: DecisionLog | Shadow | None = None,
        exploration: Exploration | None = None,
        final: Callable[[str, Any], Any] | None = None,
        threads: int = 256,
    ) -> None:
        self._snapshot = policy.snapshot if isinstance(policy, PolicyStore) else _fixed(policy)
        first = self._snapshot()
        known = dearest_prices(first.policy, guard.dearest if guard else NO_PRICES)
        for name, seconds in timeouts.items():
            if name not in known:
                named = ", ".join(map(repr, known))
                raise ValueError(f"a timeout of {name!r}, which the policy does not buy; it knows {named}")
            if as_number(seconds) is None or not 0.0 < seconds <= threading.TIMEOUT_MAX:
                raise ValueError(f"the timeout of {name!r} is {seconds!r}; give seconds above 0, or leave it out")
        self._call = call
        self._final = final
        self._verify = verify or _no_verifier
        self._timeouts = dict(timeouts)
        self._guard = guard or Guard()
        self._monitor = monitor
        self._log = log
        self._explorer = Explorer(exploration) if exploration is not None and exploration.highest > 0.0 else None
        self._threads = Threads(threads)
        self._plan = _Plan(first, self._guard)

    def route(
        self,
        request: Any,
        *,
        key: str | bytes | int | None = None,
        context: str | Mapping[str, Any] | None = None,
        without: Collection[str] = (),
        budget: float | None = None,
    ) -> Routed:
        """The answer to a request, and how it was come to.

        Args:
            request: what the callables are given.
            key: the request's id.
            context: what is known before any call.
            without: tiers that are known to be down; they are not called.  Others than the policy's do not matter.
            budget: turns the dial for this request, as `Policy.at` does.

        Raises:
            BudgetError: the budget is below the cost of the cheapest policy.
            ValueError: a context without one of its columns, or no key where the policy mixes two graphs, or where
                requests are explored.
        """
        run = self._begin(key, context, without, budget)
        try:
            while run.pending is not None:
                run.tell(self._buy(run.pending, request, run))
        except BaseException:
            self._end(run.broken_off())
            raise
        return self._end(run.routed())

    async def aroute(
        self,
        request: Any,
        *,
        key: str | bytes | int | None = None,
        context: str | Mapping[str, Any] | None = None,
        without: Collection[str] = (),
        budget: float | None = None,
    ) -> Routed:
        """`route` in asyncio."""
        run = self._begin(key, context, without, budget)
        try:
            while run.pending is not None:
                run.tell(await self._abuy(run.pending, request, run))
        except BaseException:
            self._end(run.broken_off())
            raise
        return self._end(run.routed())

    def _begin(
        self,
        key: str | bytes | int | None,
        context: str | Mapping[str, Any] | None,
        without: Collection[str],
        budget: float | None,
    ) -> _Run:
        snapshot = self._snapshot()
        plan = self._plan
        if plan.snapshot is not snapshot:
            self._plan = plan = _Plan(snapshot, self._guard)
        label = None if context is None else snapshot.policy.context_of(context)
        plan = plan if budget is None else plan.at(budget)
        return _Run(plan, self._guard, key, label, without, self._explorer)

    def _end(self, routed: Routed) -> Routed:
        if self._monitor is not None:
            self._monitor.record(routed)
        if self._log is not None:
            self._log.put(routed)
        return routed

    def _job(self, action: Call | Verify, request: Any, run: _Run) -> partial[Any]:
        """What buys this."""
        if isinstance(action, Call):
            final = self._final if self._final is not None and run.certain else None
            return partial(final or self._call, action.tier, request)
        return partial(self._verify, action.tier, action.reading, request, MappingProxyType(run.answers))

    def _buy(self, action: Call | Verify, request: Any, run: _Run) -> Any:
        job = partial(_tried, self._job(action, request, run))
        seconds = self._timeouts.get(_bought(action))
        if seconds is None:
            return job()
        future = self._threads.begin(job)
        try:
            return future.result(seconds)
        except TimeoutError:
            return BUSY if self._threads.give_up(future) else Failure("timeout")
        finally:
            self._threads.give_up(future)

    async def _abuy(self, action: Call | Verify, request: Any, run: _Run) -> Any:
        import asyncio  # only where it is used, and slow to import

        job = self._job(action, request, run)
        future = None
        try:
            async with asyncio.timeout(self._timeouts.get(_bought(action))):
                if _is_coroutine_function(job.func):
                    return await job()
                future = self._threads.begin(partial(_tried, job))
                result = await asyncio.wrap_future(future)
                return await result if inspect.isawaitable(result) else result
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            return _as_failure(error)  # what it waited for was cancelled, and nobody cancelled the request
        except Exception as error:
            return BUSY if future is not None and self._threads.give_up(future) else _as_failure(error)
        finally:
            if future is not None:
                self._threads.give_up(future)


class _Plan:
    """What a router knows of one policy beforehand: that of the snapshot, with its dial turned, or without tiers that
    are down."""

    def __init__(self, snapshot: Snapshot, guard: Guard, policy: Policy | None = None) -> None:
        policy = policy or snapshot.policy
        self.snapshot, self.policy, self._guard = snapshot, policy, guard
        self.listed = dearest_prices(policy)
        # The next policy may have other tiers than the guard knows.
        self.dearest = dearest_prices(policy, {n: p for n, p in guard.dearest.items() if n in self.listed})
        self.ahead = dearest_path(policy, self.dearest)
        self.needs = {tier.name: (tier.name,) if tier.answer else tier.needs for tier in policy.tiers}
        self.votes = {(tier.name, r.name) for tier in policy.tiers for r in tier.readings if r.votes}
        self.answering = frozenset(tier.name for tier in policy.tiers if tier.answer)
        self._graphs: dict[int, Policy] = {}
        self._outages: dict[frozenset[str], _Plan] = {}
        self._turned: dict[float, _Plan] = {}

    def without(self, down: frozenset[str]) -> _Plan:
        """What it knows where these tiers are down; the same where the policy was not solved for that."""
        if down and down not in self._outages:
            try:
                self._outages[down] = _Plan(self.snapshot, self._guard, self.policy.without(*down))
            except ValueError:
                self._outages[down] = self
        return self._outages[down] if down else self

    def at(self, budget: float) -> _Plan:
        """What it knows where the dial is turned to this budget."""
        found = self._turned.get(budget)
        if found is None:
            found = _Plan(self.snapshot, self._guard, self.policy.at(budget=budget))
            if len(self._turned) >= TURNED:
                self._turned.clear()
            self._turned[budget] = found
        return found

    def graph(self, vertex: int) -> Policy:
        """The policy with only this vertex in use."""
        found = self._graphs.get(vertex)
        if found is None:
            found = self._graphs[vertex] = replace(self.policy, point=OperatingPoint(vertex, vertex, 0.0))
        return found

    def bound(self, vertex: int, context: str | None) -> float:
        """The most that a request can cost that follows this vertex."""
        of = self.policy.vertices[vertex]
        return self.ahead[of.root if context is None else of.context_roots.get(context, of.root)]


@dataclass(frozen=True, slots=True)
class _Paid:
    """What a purchase cost, whether the callable told that, and what was wrong with what it told."""

    cost: float
    told: bool
    wrong: str = ""


NOT_PAID = _Paid(0.0, told=True)


class _Run:
    """One request on its way, without input or output: `pending` is to be bought, and `tell` says what came of it."""

    def __init__(
        self,
        plan: _Plan,
        guard: Guard,
        key: str | bytes | int | None,
        context: str | None,
        without: Collection[str],
        explorer: Explorer | None,
    ) -> None:
        policy = plan.policy
        if explorer is not None and key is None:
            raise ValueError("requests are explored by their ids: pass key=<the request's id>")
        self._explorer = explorer
        self._rate: float | None = None  # the chance that the request is explored, once its answer is settled
        self._down = plan.answering.intersection([without] if isinstance(without, str) else without)
        whole, plan = plan, plan.without(self._down)
        self._known = self._down if plan is not whole else frozenset()  # without which it decides from the start
        self.answers: dict[str, Any] = {}
        self.pending: Call | Verify | None = None
        self._plan, self._guard, self._key, self._context = plan, guard, key, context
        self._failed: set[str] = {*self._down}
        self._steps: list[Step] = []
        self._tier: str | None = None
        self._allowance = Allowance(guard)
        drawn = policy.arm(key)
        bounds = ((v, plan.bound(v, context)) for v in range(drawn, -1, -1))
        admitted = next((v for v, bound in bounds if self._allowance.admit(bound)), None)
        self._vertex = admitted or 0
        self._propensity: float | None = 1.0
        self._other: Policy | None = None
        if admitted != drawn:
            self._propensity = None
        elif policy.point.low != policy.point.high and 0.0 < policy.point.share < 1.0:
            self._other = plan.graph(policy.point.low + policy.point.high - drawn)
        self._episode = Episode(plan.graph(self._vertex), context=context)
        self._fallback = False
        self._settled: tuple[str | None] | None = None  # the tier that answers, once that is settled
        if admitted is None and not guard.fail_open:
            self._finish(None, "budget")
        else:
            self._go_on()

    @property
    def certain(self) -> bool:
        """Whether the answer that is pending is the one that is returned, whatever comes with it."""
        action = self.pending
        if not isinstance(action, Call) or self._settled is not None:
            return False
        readings = {**self._episode.readings, action.tier: {}}
        return self._fallback or self._episode.policy.decide(readings, context=self._context) == Accept(action.tier)

    def tell(self, came: Any) -> None:
        """What came of the pending purchase: a `Reply` or a `Look`, or the `Failure`."""
        action = self.pending
        assert action is not None
        wanted = Reply if isinstance(action, Call) else Look
        if not isinstance(came, (wanted, Failure)):  # it stays pending, and is charged as such
            raise TypeError(f"{action} came back as {came!r}, not as a {wanted.__name__}")
        paid = self._charge(action, came.cost, failed=isinstance(came, Failure))
        self.pending = None
        if self._settled is not None and isinstance(came, Failure):
            self._note(action, NOTHING, paid, _why(came))
            self._failed |= {action.tier}
            self._explore(*self._settled)
            return
        if isinstance(came, Failure):
            self._failed |= {action.tier} if isinstance(action, Call) else set()
            self._fail(action, _why(came), paid)
        elif isinstance(came, Reply):
            self.answers[action.tier] = came.answer
            readings, reason = self._readable(action.tier, came.readings)
            reason = reason or paid.wrong
            if self._settled is not None:
                self._note(action, readings, paid, "explored")
                self._explore(*self._settled)
                return
            self._note(action, readings, paid, "fallback" if self._fallback else reason)
            if self._fallback:
                self._finish(action.tier)
                return
            self._episode.answered(readings)
        else:
            assert isinstance(action, Verify)
            if came.answer is not SAME:
                self.answers[action.tier] = came.answer
            self._read(action, came.confidence, paid)
        self._go_on()

    def routed(self) -> Routed:
        """How it ended."""
        plan = self._plan
        answer = None if self._tier is None else self.answers[self._tier]
        return Routed(
            answer,
            self._tier,
            tuple(self._steps),
            plan.snapshot,
            self._vertex,
            self._key,
            self._context,
            self._unseen(),
        )

    def _unseen(self) -> dict[str, float]:
        """The chance of every tier that was not called, where requests are explored."""
        if self._rate is None or self._propensity is None:
            return {}
        tiers = self._plan.snapshot.policy.tiers
        return {t.name: self._rate for t in tiers if t.answer and t.name not in self.answers}

    def broken_off(self) -> Routed:
        """How it ended where it was not let go on: what is pending may have been billed."""
        if self.pending is not None:
            self._note(self.pending, NOTHING, self._charge(self.pending, None, failed=True), "interrupted")
            self.pending = None
        self._finish(None, "cancelled")
        return self.routed()

    def _go_on(self) -> None:
        """To what can be bought next, or to the end; past what cannot be bought."""
        while self.pending is None:
            action = self._episode.action
            if isinstance(action, Abstain):
                return self._settle(None)
            if isinstance(action, Accept):
                return self._accept(action.tier)
            self._compare(action)
            reason = self._obstacle(action)
            if reason:
                self._fail(action, reason, NOT_PAID)
            else:
                self.pending = action
        return None

    def _accept(self, tier: str) -> None:
        if tier in self.answers:
            self._compare(Accept(tier))
            return self._settle(tier)
        if self.answers:
            return self._finish(next(reversed(self.answers)), "unanswered")
        self._fallback = True
        for other in self._plan.snapshot.policy.tiers:
            if other.answer and other.name not in self._failed:
                price = self._plan.dearest[other.name]
                if not self._allowance.refusal(price) or self._guard.fail_open:
                    self.pending = Call(other.name)
                    return None
        return self._finish(None, "unanswered")

    def _obstacle(self, action: Call | Verify) -> str:
        """Why this cannot be bought; "" where it can."""
        if isinstance(action, Call) and action.tier in self._down:
            return "known down"
        if isinstance(action, Verify) and any(need not in self.answers for need in self._plan.needs[action.tier]):
            return "unanswered"
        return self._allowance.refusal(self._plan.dearest[_bought(action)])

    def _fail(self, action: Call | Verify, reason: str, paid: _Paid) -> None:
        self._note(action, NOTHING, paid, reason)
        if isinstance(action, Verify):
            self._episode.read(None)
            return
        if not self._fallback:
            self._episode.failed()
            if self._other is not None:
                self._other = self._other.without(*self._episode.without)

    def _read(self, action: Verify, confidence: Any, paid: _Paid) -> None:
        reason = paid.wrong
        try:
            self._episode.read(confidence)
        except Exception:  # whatever a caller tells, what was bought is charged and the request goes on
            confidence, reason = None, "invalid"
            self._episode.read(None)
        self._note(action, {action.reading: confidence}, paid, reason)

    def _readable(self, tier: str, given: Any) -> tuple[dict[str, Told], str]:
        """The readings that came with an answer, and "invalid" where one is none and is taken as missing."""
        try:
            readings, reason = {**given}, ""
        except Exception:  # it is no mapping, or none that can be read
            return {}, "invalid"
        for name, value in readings.items():
            try:
                (as_votes if (tier, name) in self._plan.votes else as_confidence)(value, tier, name)
            except Exception:
                readings[name], reason = None, "invalid"
        return readings, reason

    def _charge(self, action: Call | Verify, told: Any, *, failed: bool) -> _Paid:
        """What a purchase cost: as told, else by the policy's file, by its dearest price where it failed or where what
        was told is no amount, which is "invalid cost"."""
        cost = as_cost(told)
        paid = _Paid(cost, True) if cost is not None else _Paid(0.0, False, "" if told is None else "invalid cost")
        if not paid.told:
            known = self._plan.dearest if failed or paid.wrong else self._plan.listed
            paid = replace(paid, cost=known[_bought(action)])
        self._allowance.spent += paid.cost
        return paid

    def _compare(self, action: Action) -> None:
        """Whether the graph that was not drawn would do the same."""
        if self._other is not None:
            other = self._other.decide(self._episode.readings, context=self._context)
            if other != action:
                point = self._plan.policy.point
                self._propensity = point.share if self._vertex == point.high else 1.0 - point.share
                self._other = None

    def _note(self, action: Action, readings: Mapping[str, Told], paid: _Paid, reason: str = "") -> None:
        chance = self._propensity
        if self._explorer is not None and chance is not None and isinstance(action, Call):
            chance = 1.0 if self._settled is None else self._rate
        spent, without = self._allowance.spent, self._without()
        self._steps.append(Step(action, readings, paid.cost, spent, chance, reason, without, paid.told))

    def _without(self) -> tuple[str, ...]:
        return tuple(sorted(self._known | self._episode.without))

    def _settle(self, tier: str | None) -> None:
        """The answer is settled; where the request is explored, the tiers that were not called come next."""
        if self._explorer is not None and self._key is not None:
            self._rate = self._explorer.rate(tier, {} if tier is None else self._episode.readings[tier])
            if self._explorer.exploration.explores(self._key, self._rate):
                self._settled = (tier,)
                return self._explore(tier)
        return self._finish(tier)

    def _explore(self, tier: str | None) -> None:
        for other in self._plan.snapshot.policy.tiers:
            if other.answer and other.name not in self.answers and other.name not in self._failed:
                reason = self._allowance.refusal(self._plan.dearest[other.name])
                if not reason:
                    self.pending = Call(other.name)
                    return
                self._failed |= {other.name}
                self._note(Call(other.name), NOTHING, NOT_PAID, reason)
        self._finish(tier)

    def _finish(self, tier: str | None, reason: str = "") -> None:
        self._tier = tier
        self._note(Abstain() if tier is None else Accept(tier), NOTHING, NOT_PAID, reason)
        self._allowance.close()


def _bought(action: Call | Verify) -> str | tuple[str, str]:
    return action.tier if isinstance(action, Call) else (action.tier, action.reading)


def _fixed(policy: Policy) -> Callable[[], Snapshot]:
    snapshot = Snapshot(policy, policy_id(policy))
    return lambda: snapshot


def _as_failure(error: BaseException) -> Failure:
    if isinstance(error, Failure):
        return error
    return Failure("timeout" if isinstance(error, TimeoutError) else "error")


def _is_cancellation(error: BaseException) -> bool:
    asyncio = sys.modules.get("asyncio")  # who raises it has imported it
    return asyncio is not None and isinstance(error, asyncio.CancelledError)


def _tried(job: Callable[[], Any]) -> Any:
    """What a job returns, or the `Failure` that what it raises is."""
    try:
        return job()
    except Exception as error:
        return _as_failure(error)
    except BaseException as error:
        if _is_cancellation(error):  # of something that the job waited for: a request in threads is not cancelled so
            return _as_failure(error)
        raise


def _why(failure: Failure) -> str:
    """A failure's reason as a text that can be counted and written, and is not that of anything else."""
    if failure is BUSY:
        return "busy"
    try:
        reason = str(failure.reason or "").strip()[:LONGEST].encode(errors="backslashreplace").decode()
    except Exception:
        return "error"
    return f"failed: {reason}" if reason in RESERVED else reason or "error"


def _no_verifier(*_: Any) -> Failure:
    return Failure("no verifier", 0.0)


def _is_coroutine_function(job: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(job) or inspect.iscoroutinefunction(getattr(job, "__call__", None))  # noqa: B004
