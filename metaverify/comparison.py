"""A comparison as text: who gains what, whether the differences are clear, and what else there is to choose."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from metaverify.report import signed, table

if TYPE_CHECKING:
    from metaverify.fitting.comparison import Comparison, MethodScores

__all__ = ["CLEAR", "TELLING", "comparison_text", "score_table", "terms", "verdict"]

WIDTH = 100  # columns of a terminal
VISIBLE = 5e-5  # a difference in quality that two digits of points show
CLEAR = 0.1  # Holm's p up to which a difference is called clear
TELLING = 0.1  # of what knowing the best tier of each query would gain; methods gain that and more where readings help
LAVISH = 0.1  # a share beyond budgets, in the mean over them, from which on a method does not keep them
STARS = ((0.01, "***"), (0.05, "**"), (CLEAR, "*"))

POMDPS = ("lattice", "automix-pomdp", "automix-pomdp-counts")
"""Methods that solve a POMDP; the default does so where that earns clearly more."""


def comparison_text(found: Comparison) -> str:
    """The whole comparison for a terminal of 100 columns."""
    told = found.to_json()
    groups = "" if found.groups == found.rows else f" in {found.groups:,} groups"
    repeats = "" if found.repeats == 1 else f", {found.repeats} times"
    low, high = found.budgets[0], found.budgets[-1]
    budgets = f"budget {low:.4g}" if low == high else f"{len(found.budgets)} budgets from {low:.4g} to {high:.4g}"
    return "\n".join(
        [
            f"{found.rows:,} queries{groups}; {budgets}; {found.folds} folds{repeats}, every figure on unseen queries",
            "",
            score_table(found),
            "",
            *(line for name, meaning in terms(told).items() for line in _wrapped(f"{name}: {meaning}")),
            "",
            *_by_budget(found),
            *_differences(found),
            *_references(found),
            "",
            *(part for line in verdict(told) for part in _wrapped(line)),
            "",
        ]
    )


def verdict(told: Mapping[str, Any]) -> list[str]:
    """Who wins, whether that is clear, and where the POMDP stands: sentences, from a comparison's JSON."""
    best, *others = sorted(told["methods"], key=lambda method: -method["gain"]["mean"])
    mean, low, high = (best["gain"][end] for end in ("mean", "low", "high"))
    names, holm = (told["differences"][key] for key in ("names", "holm"))
    over = "over mixing fixed tiers at random"

    def p(other: str) -> float:
        return float(holm[names.index(best["name"])][names.index(other)])

    lines = []
    telling = TELLING * _most_to_gain(told)
    if low <= 0.0 <= high and high - mean > telling:
        lines.append(
            f"Too few queries to tell: a gain of {signed(telling)} points, a tenth of what knowing the best tier of "
            "each query would bring, would not be seen."
        )
    if len(told["hull"]) == 1:
        lines.append(f"{told['hull'][0]['tier']} is as good as any tier and no dearer: only another look can gain.")
    if low > 0.0:
        lines.append(f"{best['name']} gains most: {_points(mean, high)} points {over}.")
    else:
        lines.append(f"No method clearly gains {over}: the best, {best['name']}, gains {_points(mean, high)} points.")
    count = len(names) * (len(names) - 1) // 2
    at_once = "" if count < 2 else f"; all {count} pairs are tested at once"
    close = [method["name"] for method in others if p(method["name"]) > CLEAR]
    if close:
        lines.append(f"It is not clearly ahead of {', '.join(close)} (Holm's p > {CLEAR:g}{at_once}).")
    elif others:
        lines.append(f"It is clearly ahead of every other method (Holm's p <= {CLEAR:g}).")
    lines += [*_clear_gains(told["methods"]), *_over_budget(told["methods"]), *_by_context(told["methods"])]
    solved = next((method for method in others if method["name"] in POMDPS), None)
    if solved is not None and best["name"] not in POMDPS:
        lines.append(_pomdp_stands(told["differences"], best["name"], solved["name"], clear=p(solved["name"]) <= CLEAR))
    return [*lines, *(f"{each['name']} is left out: {each['error']}" for each in told["failed"])]


def _clear_gains(methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which methods clearly gain, and which clearly lose, each by its own interval; nothing where the best says it."""
    ranked = sorted(methods, key=lambda method: -method["gain"]["mean"])
    gain = [method["name"] for method in ranked if method["gain"]["low"] > 0.0]
    lose = [method["name"] for method in ranked if method["gain"]["high"] < 0.0]
    told = "every method" if len(gain) == len(ranked) else ", ".join(gain)
    lines = [f"Clear gains, each by its own interval: {told}."] if len(gain) > 1 else []
    return lines + ([f"Clear losses against mixing at random: {', '.join(lose)}."] if lose else [])


def _over_budget(methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which methods do not keep budgets: what they gain at them is to be had by mixing only."""
    over = [method for method in methods if method["adherence"]["mean"] > LAVISH]
    if not over:
        return []
    told = ", ".join(f"{method['name']} ({100 * method['adherence']['mean']:+.0f} %)" for method in over)
    return [f"Beyond budgets spend {told}: their gain is what mixing them with the cheapest tier would bring."]


def _by_context(methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which methods decide by the context, where only some do."""
    by = [method["name"] for method in methods if method["by_context"]]
    return [f"By context decide {', '.join(by)}; the others do not know it."] if 0 < len(by) < len(methods) else []


def _pomdp_stands(differences: Mapping[str, Any], best: str, solved: str, *, clear: bool) -> str:
    i, j = (differences["names"].index(each) for each in (best, solved))
    mean, high = (differences[key][i][j] for key in ("mean", "high"))
    if mean < VISIBLE:
        return f"{solved}, which solves the POMDP, earns as much."
    behind = f"{solved}, which always solves the POMDP, is {_points(mean, high)} points behind"
    if not clear:
        return f"{behind}, not clearly so."
    if best == "default":
        return f"{behind}, clearly so; default solves it where that earns clearly more."
    return f"Solving the POMDP does not win here: {behind}, clearly so."


def _most_to_gain(told: Mapping[str, Any]) -> float:
    """The oracle's quality less the hull's, in the mean over budgets."""
    above = [told["oracle"]["quality"] - _hull_quality(told["hull"], budget) for budget in told["budgets"]]
    return float(sum(above) / len(above))


def _hull_quality(hull: Sequence[Mapping[str, Any]], cost: float) -> float:
    """The quality of mixing fixed tiers at a mean cost; beyond its ends that of the end."""
    for low, high in pairwise(hull):
        if cost <= high["cost"]:
            share = max(cost - low["cost"], 0.0) / (high["cost"] - low["cost"])
            return float((1 - share) * low["quality"] + share * high["quality"])
    return float(hull[-1]["quality"])


def score_table(found: Comparison) -> str:
    """Every method's scores, the best first."""
    head = [
        "90 % intervals",
        "gain, points",
        "spent, %",
        "as spent",
        "area",
        "IBC lift",
        "AIQ",
        "APGR",
        "optimism",
        "s",
    ]
    rows = [_row(method) for method in found.ranking]
    return "\n".join(_narrow(head, rows))


def _row(method: MethodScores) -> list[str]:
    return [
        method.name,
        _points(method.gain.mean, method.gain.high),
        f"{_percent(method.adherence.mean)} ±{100 * method.adherence.sd:.1f}",
        signed(method.gain_as_spent.mean),
        signed(method.area.mean),
        "undefined" if method.ibc_lift is None else f"{_percent(method.ibc_lift.mean)} %",
        f"{method.aiq.mean:.3f}",
        "undef." if method.apgr is None else f"{method.apgr.mean:.3f}",
        signed(method.optimism),
        f"{method.seconds:.3g}" if method.seconds < 100 else f"{method.seconds:.0f}",
    ]


def terms(told: Mapping[str, Any]) -> dict[str, str]:
    """What the scores of a comparison mean, by the names that the terminal and the page give them."""
    low, high = told["cost_range"]
    return {
        "gain": "quality above mixing fixed tiers at random at exactly the budget, in points; money left idle earns "
        "nothing; mean over budgets",
        "spent": "beyond the budget, mean and standard deviation over budgets and folds",
        "as spent": "the gain at what was really spent, instead of at the budget",
        "area": f"the mean gain over all costs from {low:.4g} to {high:.4g}, in points",
        "IBC lift": "AutoMix's, mean over 5 cost regions",
        "AIQ": "RouterBench's, over the same costs as the area",
        "APGR": "RouteLLM's; as IBC lift undefined where it is divided by what may be 0",
        "optimism": "gain on the queries learnt from less that on unseen ones, in points",
        "s": "seconds of one core, a fit",
        **_readings(told["methods"]),
    }


def _readings(methods: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Which readings the methods looked at, where not all looked at the same."""
    by_readings: dict[tuple[str, ...], list[str]] = {}
    for method in sorted(methods, key=lambda method: -method["gain"]["mean"]):
        if names := {each.rpartition(".")[2] for each in method["readings"]}:
            by_readings.setdefault(tuple(sorted(names)), []).append(method["name"])
    if len(by_readings) < 2:
        return {}
    each = (f"{', '.join(readings)} by {', '.join(names)}" for readings, names in by_readings.items())
    return {"readings": "; ".join(each)}


def _by_budget(found: Comparison) -> list[str]:
    if len(found.budgets) == 1:
        return []
    head = ["gain at budget, points", *(f"{budget:.4g}" for budget in found.budgets)]
    rows = [[method.name, *(signed(point.gain.mean) for point in method.curve)] for method in found.ranking]
    return [*_narrow(head, rows), ""]


def _differences(found: Comparison) -> list[str]:
    names = [method.name for method in found.ranking]
    if len(names) < 2:
        return []
    head = ["row less column, points", *(str(at) for at in range(1, len(names)))]
    columns = list(enumerate(names[:-1], start=1))
    rows = [
        [f"{at} {one}", *(_starred(found, one, other) if before < at else "" for before, other in columns)]
        for at, one in enumerate(names, start=1)
    ]
    stars = ", ".join(f"{mark} <= {p:g}" for p, mark in reversed(STARS))
    return [*_narrow(head, rows), f"Holm's p over {len(names) * (len(names) - 1) // 2} pairs: {stars}", ""]


def _starred(found: Comparison, one: str, other: str) -> str:
    apart, p = found.difference(one, other)
    return signed(apart.mean) + next((mark for level, mark in STARS if p <= level), "").ljust(3)


def _references(found: Comparison) -> list[str]:
    mixed = {point.tier: "*" for point in found.hull}
    rows = [
        [f"always {tier.name}", f"{tier.cost.mean:.4g}", f"{tier.quality.mean:.4f}", mixed.get(tier.name, "")]
        for tier in found.tiers
    ]
    rows.append(["oracle: the cheapest best answer", f"{found.oracle.cost:.4g}", f"{found.oracle.quality:.4f}", ""])
    return [*_narrow(["nothing learnt", "cost", "quality", "hull"], rows), "hull *: the tiers to mix at random"]


def _narrow(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table, or several one after another with the same first column where one would be too wide."""
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    parts = _parts(widths, WIDTH)
    for width in range(WIDTH, 0, -1):  # as many tables as it takes, and those about equally wide
        even = _parts(widths, width)
        if len(even) > len(parts):
            break
        parts = even

    def some(row: Sequence[str], columns: Sequence[int]) -> list[str]:
        return [row[0], *(row[at] for at in columns)]

    tables = []
    for columns in parts:
        kept = [some(row, columns) for row in rows if columns == parts[0] or any(row[at] for at in columns)]
        tables.append(table(some(head, columns), kept))
    return "\n\n".join(tables).splitlines()


def _parts(widths: Sequence[int], most: int) -> list[list[int]]:
    """The columns after the first, in as few runs as fit beside it."""
    parts: list[list[int]] = [[]]
    for at in range(1, len(widths)):
        if parts[-1] and widths[0] + sum(2 + widths[column] for column in (*parts[-1], at)) > most:
            parts.append([])
        parts[-1].append(at)
    return parts


def _wrapped(line: str) -> list[str]:
    """The line in pieces that fit, broken at spaces."""
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ")


def _percent(share: float) -> str:
    """With its sign; nothing is +0.0."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def _points(mean: float, high: float) -> str:
    return f"{signed(mean)} ±{100 * (high - mean):.2f}"
