"""A comparison as text: who gains what, whether the differences are clear, and what else there is to choose."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from metaverify.report import signed, table

if TYPE_CHECKING:
    from metaverify.fitting.comparison import Comparison, MethodScores
    from metaverify.simulators.outcome import Estimate

__all__ = ["comparison_text", "score_table", "verdict"]

WIDTH = 100  # columns of a terminal
VISIBLE = 5e-5  # a difference in quality that two digits of points show
CLEAR = 0.1  # Holm's p up to which a difference is called clear
STARS = ((0.01, "***"), (0.05, "**"), (CLEAR, "*"))


def comparison_text(found: Comparison) -> str:
    """The whole comparison for a terminal of 100 columns."""
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
            *_notes(found),
            "",
            *_by_budget(found),
            *_differences(found),
            *_references(found),
            "",
            *verdict(found),
            "",
        ]
    )


def verdict(found: Comparison) -> list[str]:
    """Who wins, whether that is clear, and where the POMDP stands."""
    from metaverify.fitting.methods import POMDPS

    best, *others = found.ranking
    over = "over mixing fixed tiers at random"
    if best.gain.low > 0.0:
        lines = [f"{best.name} gains most: {_points(best.gain)} points {over}."]
    else:
        lines = [f"No method clearly gains {over}: the best, {best.name}, gains {_points(best.gain)} points."]
    count = len(found.methods) * (len(found.methods) - 1) // 2
    at_once = "" if count < 2 else f"; all {count} pairs are tested at once"
    close = [m.name for m in others if found.difference(best.name, m.name)[1] > CLEAR]
    if close:
        lines.append(f"It is not clearly ahead of {', '.join(close)} (Holm's p > {CLEAR:g}{at_once}).")
    elif others:
        lines.append(f"It is clearly ahead of every other method (Holm's p <= {CLEAR:g}).")
    solved = [method for method in found.ranking if method.name in POMDPS]
    if solved and best.name not in POMDPS:
        behind, p = found.difference(best.name, solved[0].name)
        sure = "clearly" if p <= CLEAR else "not clearly"
        if behind.mean < VISIBLE:  # the default, too, solves it where that earns more
            lines.append(f"{solved[0].name}, which solves the POMDP, earns as much.")
        else:
            other = "" if solved[0].readings == best.readings else ", which reads other things,"
            lines.append(
                f"Solving the POMDP does not win here: {solved[0].name}{other} is {_points(behind)} points behind, "
                f"{sure} so."
            )
    for name, error in found.failed.items():
        lines.append(f"{name} failed and is left out: {error}")
    return [part for line in lines for part in _wrapped(line)]


def score_table(found: Comparison) -> str:
    """Every method's scores, the best first."""
    head = ["90 % intervals", "gain, points", "spent, %", "area", "IBC lift", "AIQ", "APGR", "optimism", "s"]
    rows = [_row(method) for method in found.ranking]
    return "\n".join(_narrow(head, rows))


def _row(method: MethodScores) -> list[str]:
    return [
        method.name,
        _points(method.gain),
        f"{_percent(method.adherence.mean)} ±{100 * method.adherence.sd:.1f}",
        signed(method.area.mean),
        "undefined" if method.ibc_lift is None else f"{_percent(method.ibc_lift.mean)} %",
        f"{method.aiq.mean:.3f}",
        "undef." if method.apgr is None else f"{method.apgr.mean:.3f}",
        signed(method.optimism),
        f"{method.seconds:.3g}" if method.seconds < 100 else f"{method.seconds:.0f}",
    ]


def _notes(found: Comparison) -> list[str]:
    low, high = found.cost_range
    return [
        "gain: quality above mixing fixed tiers at random, in points, at exactly the budget; money left",
        "idle earns nothing; mean over budgets",
        "spent: beyond the budget, mean and standard deviation over budgets and folds",
        f"area: the mean gain over all costs from {low:.4g} to {high:.4g}; AIQ: RouterBench's, over the same",
        "IBC lift: AutoMix's, mean over 5 cost regions; APGR: RouteLLM's; undefined: divided by what may be 0",
        "optimism: gain on the queries learnt from less that on unseen ones; s: of one core, a fit",
        *_readings(found),
    ]


def _readings(found: Comparison) -> list[str]:
    """What the methods read, where they do not all read the same."""
    by_readings: dict[tuple[str, ...], list[str]] = {}
    for method in found.ranking:
        if method.readings:
            by_readings.setdefault(method.readings, []).append(method.name)
    if len(by_readings) < 2:
        return []
    told = [f"{', '.join(names)}: {', '.join(readings)}" for readings, names in by_readings.items()]
    return _wrapped(f"Not all read the same, --readings makes them: {'; '.join(told)}")


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
    parts: list[list[int]] = [[]]
    for at in range(1, len(head)):
        if parts[-1] and widths[0] + sum(2 + widths[column] for column in (*parts[-1], at)) > WIDTH:
            parts.append([])
        parts[-1].append(at)

    def some(row: Sequence[str], columns: Sequence[int]) -> list[str]:
        return [row[0], *(row[at] for at in columns)]

    tables = []
    for columns in parts:
        kept = [some(row, columns) for row in rows if columns == parts[0] or any(row[at] for at in columns)]
        tables.append(table(some(head, columns), kept))
    return "\n\n".join(tables).splitlines()


def _wrapped(line: str) -> list[str]:
    """The line in pieces that fit, broken at spaces."""
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ")


def _percent(share: float) -> str:
    """With its sign; nothing is +0.0."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def _points(estimate: Estimate) -> str:
    return f"{signed(estimate.mean)} ±{100 * (estimate.high - estimate.mean):.2f}"
