"""A comparison as `metaverify compare` writes it, with figures made up by formula: what the page is tested with.

``python -m tests.page.comparison FILE`` writes it.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

from metaverify.simulators.digits import load_digits_log
from metaverify.simulators.inspection import inspect_log
from metaverify.simulators.log import ReplayLog, fingerprint, fingerprint_queries
from metaverify.simulators.outcome import mean_with_interval
from metaverify.simulators.references import no_information_hull, oracle

METHODS = {  # the most that it gains, in points, and how far its intervals reach
    "default": ("default: what a fit takes", 5.9, 0.7),
    "chain": ("chain on a smooth table", 5.7, 0.7),
    "lattice": ("lattice, exact", 5.5, 0.75),
    "thresholds": ("thresholds on rows", 5.8, 0.7),
    "automix-threshold": ("AutoMix threshold", 3.1, 0.9),
    "automix-pomdp": ("AutoMix POMDP, as printed", 2.2, 1.0),
    "isotonic-pair": ("isotonic calibration, one pair", 3.9, 0.8),
    "frugalgpt": ("FrugalGPT, at most 3 tiers", 4.4, 0.8),
    "random": ("random escalation", 0.0, 0.3),
    "context-only": ("no readings", -0.2, 0.2),
}


def estimate(mean: float, half: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def comparison(log: ReplayLog, budgets: int = 9) -> dict[str, Any]:
    """Every part of a comparison, for a log of at least two tiers."""
    hull, best = no_information_hull(log), oracle(log)
    low, high = hull.points[0].cost, hull.points[-1].cost
    spread = [low * (high / low) ** (at / (budgets + 1)) for at in range(1, budgets + 1)]
    names = list(METHODS)
    gains = [peak / 100 * 0.6 for _, peak, _ in METHODS.values()]
    square = [[row - column for column in gains] for row in gains]
    p = [[1.0 if not d else min(1.0, math.exp(-abs(d) * 200)) for d in row] for row in square]
    return {
        "format": "metaverify-comparison",
        "version": 1,
        "metaverify": "0.1.0",
        "log": {
            "fingerprint": fingerprint(log),
            "queries": fingerprint_queries(log),
            "rows": len(log),
            "groups": len(log),
            "context": list(log.context_names),
            "tiers": [
                {
                    "name": tier.name,
                    "cost": vars_of(mean_with_interval(tier.cost, log)),
                    "quality": vars_of(mean_with_interval(tier.correct, log)),
                }
                for tier in log.tiers
            ],
        },
        "inspection": inspect_log(log).to_json(),
        "folds": 5,
        "repeats": 1,
        "seed": 0,
        "level": 0.9,
        "resamples": 1000,
        "budgets": spread,
        "cost_range": [low, high],
        "hull": [{"tier": point.tier, "cost": point.cost, "quality": point.quality} for point in hull.points],
        "oracle": {"cost": best.cost, "quality": best.quality},
        "methods": [method(log, name, at, spread) for at, name in enumerate(names)],
        "failed": [],
        "differences": {
            "names": names,
            "mean": square,
            "low": [[d - 0.008 for d in row] for row in square],
            "high": [[d + 0.008 for d in row] for row in square],
            "p": p,
            "holm": [[min(1.0, 10 * value) for value in row] for row in p],
        },
        "calibration": [
            {"tier": tier.name, "reading": reading.name, "bins": bins(at)}
            for at, tier in enumerate(log.tiers)
            for reading in tier.readings[:1]
        ],
    }


def vars_of(found: Any) -> dict[str, float]:
    return {"mean": found.mean, "low": found.low, "high": found.high}


def method(log: ReplayLog, name: str, at: int, budgets: list[float]) -> dict[str, Any]:
    label, peak, half = METHODS[name]
    hull = no_information_hull(log)
    tiers = [tier.name for tier in log.tiers]
    curve = []
    for step, budget in enumerate(budgets):
        gain = peak / 100 * math.sin(math.pi * (step + 1) / (len(budgets) + 1)) ** (1 + at / 20)
        share = (step + 1) / (len(budgets) + 1)
        curve.append(
            {
                "budget": budget,
                "cost": estimate(budget * (1 + 0.002 * at), 0.05 * budget),
                "quality": estimate(hull.quality(budget) + gain, 0.011),
                "gain": estimate(gain, half / 100),
                "calls": {tier: 1.0 if not place else share / place for place, tier in enumerate(tiers)},
                "accepts": {tier: share / len(tiers) if place else 1 - share for place, tier in enumerate(tiers)},
                "optimism": 0.001 * at,
            }
        )
    mean = sum(point["gain"]["mean"] for point in curve) / len(curve)
    return {
        "name": name,
        "label": label,
        "describe": None,
        "curve": curve,
        "gain": estimate(mean, half / 130),
        "area": estimate(mean * 0.9, half / 130),
        "adherence": {"mean": 0.002 * at, "sd": 0.03},
        "regions": [
            {"low": low, "high": high, "ibc": None if name == "random" else estimate(0.01, 0.004), "lift": None}
            for low, high in itertools.pairwise(budgets)
        ],
        "ibc_lift": None if name == "random" else estimate(0.8 - 0.09 * at, 0.12),
        "aiq": estimate(0.93 + mean / 4, 0.004),
        "apgr": estimate(0.6 + 3 * mean, 0.03),
        "optimism": 0.001 * at,
        "readings": ["small.conf", "mid.conf"][: 1 + at % 2],
        "by_context": at == 0,
        "gain_as_spent": {"mean": 0.01 * at, "low": 0.0, "high": 0.02 * at},
        "seconds": 0.4 + 1.7 * at,
    }


def bins(at: int) -> list[dict[str, Any]]:
    return [
        {
            "low": b / 8,
            "high": (b + 1) / 8,
            "share": (1 + b) / 36,
            "confidence": (b + 0.5) / 8,
            "quality": estimate(min(0.97, 0.2 + 0.09 * b + 0.02 * at), 0.05),
        }
        for b in range(8)
    ]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(comparison(load_digits_log()), indent=1) + "\n", "utf-8")
