"""Thresholds tuned with Optuna: which tiers, in which order, and between which readings a query goes on.

The search is over chains with windows on the log's own rows.  Any mixture of two trials is a policy, so all of them
count: what comes out is the concave hull of their costs and qualities.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from joblib import delayed

from metaverify.fitting.archive import open_storage
from metaverify.fitting.backends import in_turn
from metaverify.fitting.chain import Thresholds
from metaverify.fitting.chain_space import ChainSpace, Params
from metaverify.fitting.crossfit import Learner
from metaverify.fitting.frontier import Solved, trace_frontier
from metaverify.fitting.sweep import coarse_sweep, sweep, sweep_size
from metaverify.fitting.windows import ChainLog, Valued, WindowChain, policy_of_chains
from metaverify.policies.policy import Policy
from metaverify.simulators.log import ReplayLog, fingerprint

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

__all__ = ["LEARNERS", "TunedChains", "Watch", "tpe"]

P = TypeVar("P", bound=Solved)

AROUND = 2  # points of a hull to each side of the budget that a search starts from
FEW = 4_000_000
"""Sums (see `sweep_size`) up to which all chains are compared: about as long as 200 trials take."""


def tpe(seed: int) -> BaseSampler:
    """Tree-structured Parzen estimators, each parameter by itself."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed)


class Watch:
    """Who is told of trials, (done, wanted); and how many are made at the most once somebody has had enough.

    A learner has one for all its studies: an interrupt ends the study that runs, and those after it stop at as many
    trials, since what is cross-fitted must be learnt alike.  It does not travel: another process has a silent one.
    """

    def __init__(self, tell: Callable[[int, int], None] = lambda done, wanted: None) -> None:
        self.tell = tell
        self.most: int | None = None

    def __reduce__(self) -> tuple[type[Watch], tuple[()]]:
        return Watch, ()


@dataclass(frozen=True, slots=True)
class TunedChains:
    """Chains tuned with Optuna, or all of them compared where they are few.

    Every chain can be compared where few cuts are to be placed (one tier read, or two with one cut each), or readings
    take few values.  That is done where it takes at most ``exact`` sums and no storage is given; no trial is made then.

    Trials come in batches: ``batch`` are asked for, run under the caller's joblib ``parallel_config``, and told in the
    order in which they were asked for.  So for a seed and a batch size the trials are the same with every back end, as
    long as the sampler draws on nothing but its seed and the study, as Optuna's TPESampler, NSGAIISampler and
    RandomSampler do.  One that draws on more (GPSampler on what torch's threads round) does not permit that, and one
    that keeps what it has learnt to itself begins anew with every batch.

    With a storage a study goes on where it stopped, and ends as if it had not.  Its name is a hash of the log and of
    all that sets the trials, so each fold of a cross-fit has a study of its own in the one file.  A trial is stored in
    one write when it is told; a killed run loses only what was not finished.  Let one run at a time work on a study.

    Args:
        budget: a mean cost: trials maximise quality, and are feasible where they cost no more; without one they have
            two objectives, quality and cost.
        trials: of a study, those in its storage counted.
        cuts: of a tier that is read: 1, to go on below it; or 2, to go on between them.
        seed: of the sampler.
        batch: trials that are asked for before any of them is told.
        sampler: a function from a seed to a sampler of Optuna; a study knows it by its name.
        storage: a file, SQLite where its name ends in .db, .sqlite or .sqlite3 and a journal otherwise; or a URL that
            Optuna knows.
        exact: sums up to which every chain is compared instead; 0 always searches.
        gap: no mixture of trials lies more than this, in quality, above the frontier.
        watch: told of trials; an interrupt (Ctrl-C) ends the search, and what was found is kept.
    """

    budget: float | None = None
    trials: int = 200
    cuts: int = 1
    seed: int = 0
    batch: int = 10
    sampler: Callable[[int], BaseSampler] = tpe
    storage: str | None = None
    exact: int = FEW
    gap: float = 1e-4
    watch: Watch = field(default_factory=Watch, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.budget is not None and not 0.0 <= self.budget < math.inf:
            raise ValueError(f"budget {self.budget} is not a finite number of at least 0")
        for name in ("trials", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.cuts not in (1, 2):
            raise ValueError(f"cuts is {self.cuts}; a tier that is read has 1 or 2")

    @property
    def abstain(self) -> None:
        """A chain always answers."""
        return None

    def describe(self) -> dict[str, Any]:
        """The method's name and options, for the record."""
        options = {"budget": self.budget, "trials": self._wanted, "exact": self.exact, "gap": self.gap}
        return {"method": "optuna", "options": {**options, **self._search_options()}}

    def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
        """The frontier of all trials, or of all chains, and of their mixtures."""
        rows = ChainLog(log)
        if self.storage is None and sweep_size(rows, self.cuts) <= self.exact:
            found: Sequence[Valued] = sweep(rows, self.cuts)
        else:
            found = self.tried(log)
        return policy_of_chains(log, found, gap=self.gap, near=near)

    def tried(self, log: ReplayLog) -> list[Valued]:
        """The chain of every trial of a log's study."""
        space = ChainSpace(ChainLog(log), self.cuts)
        return [_valued(space, trial) for trial in _finished(self.study(log))]

    def study(self, log: ReplayLog) -> Study:
        """A log's study with all its trials, in memory: for Optuna's own importances and plots.

        Raises:
            KeyboardInterrupt: it came before any trial was finished.
            ValueError: the storage is a file of another kind.
        """
        from optuna import create_study
        from optuna.study import StudyDirection

        space = ChainSpace(ChainLog(log), self.cuts)
        directions = [StudyDirection.MAXIMIZE, *([StudyDirection.MINIMIZE] if self.budget is None else [])]
        with _quiet():
            study, archive, stored = create_study(directions=directions), None, 0
            if self.storage is not None:
                archive = create_study(
                    storage=open_storage(self.storage),
                    study_name=self._name(log),
                    directions=directions,
                    load_if_exists=True,
                )
                kept = _finished(archive)
                stored = len(kept)
                study.add_trials(kept if stored >= self._wanted else kept[: stored - stored % self.batch])
        try:
            done = len(study.trials)
            starts = [] if done >= self._wanted else [space.params(chain) for chain in self._starts(log, space)]
            while (done := len(study.trials)) < self._wanted:
                study.sampler = self.sampler(_seed(self.seed, done))
                self._batch(study, archive, stored, space, starts[done : min(done + self.batch, self._wanted)])
        except KeyboardInterrupt:
            finished = len(_finished(study))
            if finished == 0:
                raise
            self.watch.most = finished
        return study

    def _batch(
        self, study: Study, archive: Study | None, stored: int, space: ChainSpace, starts: Sequence[Params]
    ) -> None:
        """Ask, run, tell, store; of a batch that was cut short, trials that are ``stored`` already are run again, so
        that the sampler draws as if it had not been."""
        done = len(study.trials)
        for params in starts:
            study.enqueue_trial(dict(params))
        asked = [_ask(study, space) for _ in range(min(self.batch, self._wanted - done))]
        runs = in_turn(delayed(space.rows.value)(chain) for _, chain in asked)
        for number, ((trial, _), valued) in enumerate(zip(asked, runs, strict=True), start=done + 1):
            trial.set_user_attr("cost", valued.cost)
            trial.set_user_attr("quality", valued.quality)
            if self.budget is not None:
                trial.set_constraint("budget", valued.cost - self.budget)
            told = study.tell(trial, valued.quality if self.budget is not None else (valued.quality, valued.cost))
            if number > stored:
                if archive is not None:
                    archive.add_trial(told)
                self.watch.tell(number, self._wanted)

    def _starts(self, log: ReplayLog, space: ChainSpace) -> list[WindowChain]:
        """Where a search begins, half of its trials at the most: fixed tiers, the best chains on a grid of quantiles,
        and the best of one cut a tier in order of price; those around the budget, where there is one."""
        chains = Thresholds().chains(log)
        plans = trace_frontier(chains, gap=self.gap).plans
        ordered = (chains[plan.chains[0]] for plan in self._near(plans))
        known = (
            WindowChain(tuple(log.tier_names[at] for at in chain.tiers), tuple((0.0, cut) for cut in chain.cuts))
            for chain in ordered
        )
        grid = self._near(coarse_sweep(space.rows, self.cuts, FEW))
        found = dict.fromkeys([*(WindowChain((name,)) for name in log.tier_names), *(v.chain for v in grid), *known])
        return [*found][: max(self.trials // 2, 1)]

    def _near(self, hull: Sequence[P]) -> Sequence[P]:
        """Those of a hull's points around the budget; all without one."""
        if self.budget is None:
            return hull
        dearer = bisect_right([point.cost for point in hull], self.budget)
        return hull[max(dearer - AROUND, 0) : dearer + AROUND]

    def _search_options(self) -> dict[str, Any]:
        return {"cuts": self.cuts, "seed": self.seed, "batch": self.batch, "sampler": self.sampler.__name__}

    def _name(self, log: ReplayLog) -> str:
        """The name of a log's study."""
        told = json.dumps({"log": fingerprint(log), "budget": self.budget, **self._search_options()}, sort_keys=True)
        return f"metaverify {hashlib.sha256(told.encode()).hexdigest()[:16]}"

    @property
    def _wanted(self) -> int:
        return self.trials if self.watch.most is None else min(self.trials, self.watch.most)


def _ask(study: Study, space: ChainSpace) -> tuple[Trial, WindowChain]:
    trial = study.ask()
    return trial, space.chain(trial)


def _finished(study: Study) -> list[FrozenTrial]:
    from optuna.trial import TrialState

    return study.get_trials(states=(TrialState.COMPLETE,))


def _valued(space: ChainSpace, trial: FrozenTrial) -> Valued:
    return Valued(space.chain(trial), trial.user_attrs["cost"], trial.user_attrs["quality"])


def _seed(seed: int, done: int) -> int:
    """The seed of the batch after so many trials."""
    return int(np.random.SeedSequence([seed, done]).generate_state(1)[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's word that a study was made."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)


LEARNERS = MappingProxyType[str, Callable[[], Learner]]({"optuna": TunedChains})
"""By the names under which `compare` knows them."""
