"""A trial: one method learns on all folds but one, and what it learnt runs on that one."""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from threadpoolctl import threadpool_limits

from metaverify.fitting.methods import Method
from metaverify.policies.graph import Poll, Read
from metaverify.policies.policy import Policy
from metaverify.policies.storage import write_atomically
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.outcome import Ledger, ledger_of
from metaverify.simulators.replay import Routes, check_match, route
from metaverify.simulators.scores import Curve, Tiers, gain

__all__ = ["Failed", "Fold", "Trial", "run_trial"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Strings = NDArray[np.str_]
Flag = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Fold:
    """Which fold is left out, of how many, and for what budgets policies are asked of the rest."""

    at: int
    of: int
    seed: int
    budgets: tuple[float, ...]

    def rows(self, log: ReplayLog) -> Ints:
        """Positions of the fold's queries."""
        return np.flatnonzero(log.folds(self.of, seed=self.seed) == self.at)


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What a method earned on the queries of one fold, at each budget."""

    rows: Ints  # [m], positions in the log
    cost: Floats  # [budgets, m]
    quality: Floats  # [budgets, m]
    calls: Floats  # [budgets, tiers], weights of the queries that called each of the log's tiers
    accepts: Floats  # [budgets, tiers]
    known_gain: Floats  # [budgets], over the hull, on the queries that it learnt from
    readings: Strings  # "tier.reading" of each that its policies look at
    by_context: Flag  # [], whether its policies decide by the context
    seconds: Floats  # [], of one core, that learning took


@dataclass(frozen=True, slots=True)
class Failed:
    """A method that could not learn from a log, or whose policies do not fit it."""

    error: str


def run_trial(
    method: Method, log: ReplayLog, fold: Fold, cache: Path | None = None, fingerprint: str = ""
) -> Trial | Failed:
    """Learn, and run on the fold; or what ``cache`` has of that, a folder in which it is then kept.

    ``fingerprint`` is the log's.  What fails is not kept, and neither is a method that does not describe itself:
    nothing would tell it from another one by its name.
    """
    file = None if cache is None else _file(cache, method, fold, fingerprint)
    if file is not None and (kept := _load(file)) is not None:
        return kept
    try:
        with threadpool_limits(1), config_context(assume_finite=True, skip_parameter_validation=True):
            trial = _run(method, log, fold)
    except Exception as error:  # whatever a method of others may raise, the others are still to be compared
        return Failed(f"{type(error).__name__}: {error}")
    if file is not None:
        _save(trial, file)
    return trial


def _run(method: Method, log: ReplayLog, fold: Fold) -> Trial:
    rows = fold.rows(log)
    others = np.ones(len(log), dtype=bool)
    others[rows] = False
    known, unseen = log.take(np.flatnonzero(others)), log.take(rows)
    start = time.process_time()
    policies = method.policies(known, fold.budgets)
    seconds = time.process_time() - start
    ledgers, before = _ledgers(policies, unseen), _ledgers(policies, known)
    return Trial(
        rows,
        np.stack([ledger.cost for ledger in ledgers]),
        np.stack([ledger.quality for ledger in ledgers]),
        np.array([[ledger.calls.get(name, 0.0) for name in log.tier_names] for ledger in ledgers]),
        np.array([[ledger.accepts.get(name, 0.0) for name in log.tier_names] for ledger in ledgers]),
        _gain(before, known, fold.budgets),
        _readings(policies),
        np.array(any(vertex.context_roots for policy in policies for vertex in policy.vertices)),
        np.array(seconds),
    )


def _gain(ledgers: Sequence[Ledger], log: ReplayLog, budgets: Sequence[float]) -> Floats:
    """The gain over the hull at each budget, [budgets]."""

    def means(values: Iterable[Floats]) -> Floats:
        return np.array([[log.mean(each) for each in values]])

    tiers = Tiers(means(tier.cost for tier in log.tiers), means(tier.correct for tier in log.tiers))
    curve = Curve(means(ledger.cost for ledger in ledgers), means(ledger.quality for ledger in ledgers))
    return np.asarray(gain(curve, tiers, np.array(budgets))[0])


def _readings(policies: Iterable[Policy]) -> Strings:
    """What the policies read, as "tier.reading"; of a fused reading, its parts."""
    names = set[str]()
    for policy in policies:
        used = {(node.tier, node.reading) for node in policy.nodes if isinstance(node, Read | Poll)}
        for tier, reading in used:
            parts = next(r.parts for t in policy.tiers if t.name == tier for r in t.readings if r.name == reading)
            names.update(f"{tier}.{name}" for name in [part.reading for part in parts] or [reading])
    return np.array(sorted(names), dtype=np.str_)


def _ledgers(policies: Sequence[Policy], log: ReplayLog) -> list[Ledger]:
    """What each policy earns and spends at its operating point; a graph that several share is run once."""
    routes: dict[tuple[int, int], Routes] = {}

    def run(policy: Policy, vertex: int) -> Routes:
        key = id(policy.nodes), id(policy.vertices[vertex])
        if key not in routes:
            routes[key] = route(policy, log, vertex)
        return routes[key]

    ledgers = []
    for policy in policies:
        check_match(policy, log)
        point = policy.point
        parts = [(1.0 - point.share, point.low), (point.share, point.high)]
        ledgers.append(ledger_of(policy.tiers, [(share, run(policy, at)) for share, at in parts if share > 0.0]))
    return ledgers


# ------------------------------------------------------------------------------------------------------- the cache


def _file(cache: Path, method: Method, fold: Fold, fingerprint: str) -> Path | None:
    described = method.describe()
    if described is None:
        return None
    key = {
        "log": fingerprint,
        "method": described,
        "fold": fold.at,
        "folds": fold.of,
        "seed": fold.seed,
        "budgets": fold.budgets,
        "metaverify": version("metaverify"),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=repr).encode()).hexdigest()[:24]
    name = re.sub(r"[^\w.-]", "_", method.name)
    return cache / f"{name}.{fold.seed}.{fold.at}.{digest}.npz"


def _load(file: Path) -> Trial | None:
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as kept:
            return Trial(**{field.name: kept[field.name] for field in fields(Trial)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there, or cut short: it is made again


def _save(trial: Trial, file: Path) -> None:
    data = io.BytesIO()
    np.savez(data, **{field.name: getattr(trial, field.name) for field in fields(Trial)})
    write_atomically(file, data.getvalue())
