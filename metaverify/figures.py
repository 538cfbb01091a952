"""Figures of a comparison, for papers and slides: PNG and SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from metaverify.fitting.comparison import Comparison, MethodScores
    from metaverify.simulators.outcome import Estimate

__all__ = ["write_figures"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00", "#000000")
"""Okabe & Ito's, which colour-blind people tell apart; the yellow darkened so that it can be read on white."""

MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 2)), (0, (1, 3)))
"""Every method has its own colour, mark and dashes, so that a grey print is enough."""

BANDS = 4  # methods, the best ones, whose intervals are shaded; more of them would hide each other
ACROSS = 3  # small figures side by side

SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "metaverify",
}


def write_figures(found: Comparison, folder: str | Path) -> list[Path]:
    """Write every figure of a comparison to a folder, which is made where there is none; returns the files.

    cost_quality: what each method cost and earned; gain: over the hull at each budget; calibration: how good answers
    are by what was read of them; calls: who is called at each budget, a method a panel.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(SETTINGS):
        for name, draw in (
            ("cost_quality", _cost_quality),
            ("gain", _gain),
            ("calibration", _calibration),
            ("calls", _calls),
        ):
            figure = Figure(layout="constrained")
            if not draw(figure, found):
                continue
            for suffix, extra in (("png", {"dpi": 160}), ("svg", {"metadata": {"Date": None}})):
                file = home / f"{name}.{suffix}"
                figure.savefig(file, facecolor="white", **extra)
                written.append(file)
    return written


def _cost_quality(figure: Figure, found: Comparison) -> bool:
    figure.set_size_inches(8.5, 5)
    axes = figure.add_subplot()
    for place, method in enumerate(found.ranking):
        cost = [point.cost.mean for point in method.curve]
        _curve(axes, place, method, cost, [point.quality for point in method.curve], 1.0)
    axes.plot([p.cost for p in found.hull], [p.quality for p in found.hull], color="#555555", lw=1, zorder=1)
    for number, tier in enumerate(found.tiers, start=1):
        at = tier.cost.mean, tier.quality.mean
        axes.plot(*at, "o", color="white", mec="#333333", ms=11, zorder=4)
        axes.annotate(str(number), at, ha="center", va="center", fontsize=7, zorder=5)
        axes.plot([], [], " ", label=f"{number}  always {tier.name}")
    axes.set(xlabel="cost per query", ylabel="quality")
    axes.set_title(f"What methods cost and earn on unseen queries\n{_shaded(found)}")
    axes.plot([], [], color="#555555", lw=1, label="fixed tiers mixed at random")
    _legend(figure, axes)
    return True


def _gain(figure: Figure, found: Comparison) -> bool:
    figure.set_size_inches(8.5, 5)
    axes = figure.add_subplot()
    axes.axhline(0.0, color="#555555", lw=1, zorder=1, label="fixed tiers mixed at random")
    for at, method in enumerate(found.ranking):
        _curve(axes, at, method, found.budgets, [point.gain for point in method.curve], 100.0)
    axes.set(xlabel="budget per query", ylabel="gain, points")
    axes.set_title(f"Gain over mixing fixed tiers at random\n{_shaded(found)}")
    _legend(figure, axes)
    return True


def _shaded(found: Comparison) -> str:
    """What the bands are, as the second line of a title."""
    which = "" if len(found.methods) <= BANDS else f" of the best {BANDS}"
    return f"shaded: {found.level:.0%} intervals{which}"


def _curve(
    axes: Axes, at: int, method: MethodScores, x: Sequence[float], estimates: Sequence[Estimate], scale: float
) -> None:
    """A method's line, the best ones' with their 90 % intervals."""
    style = _style(at)
    axes.plot(x, [scale * e.mean for e in estimates], label=method.name, lw=1.5, ms=4.5, **style)
    if at < BANDS:
        low, high = ([scale * getattr(e, end) for e in estimates] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=style["color"], alpha=0.13, lw=0)


def _calibration(figure: Figure, found: Comparison) -> bool:
    readings = [each for each in found.calibration if each.bins]
    for at, (axes, each) in enumerate(zip(_panels(figure, len(readings)), readings, strict=True)):
        axes.plot([0, 1], [0, 1], color="#999999", lw=0.8, ls="--")
        confidence, quality = [b.confidence for b in each.bins], [b.quality.mean for b in each.bins]
        arms = zip(*((b.quality.mean - b.quality.low, b.quality.high - b.quality.mean) for b in each.bins), strict=True)
        axes.errorbar(confidence, quality, yerr=list(arms), color=COLOURS[0], lw=1, marker="o", ms=4, capsize=2)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", title=f"{each.reading} of {each.tier}")
        if at % ACROSS == 0:
            axes.set_ylabel("quality")
        if at >= len(readings) - ACROSS:
            axes.set_xlabel("confidence")
    return bool(readings)


def _calls(figure: Figure, found: Comparison) -> bool:
    if len(found.budgets) < 2:
        return False
    methods = found.ranking
    panels = list(_panels(figure, len(methods)))
    for at, (axes, method) in enumerate(zip(panels, methods, strict=True)):
        for number, tier in enumerate(found.tiers):
            share = [100 * point.calls[tier.name] for point in method.curve]
            axes.plot(found.budgets, share, label=tier.name, lw=1.5, ms=3.5, **_style(number))
        axes.set(ylim=(-3, 103), title=method.name)
        if at % ACROSS == 0:
            axes.set_ylabel("queries that call it, %")
        if at >= len(methods) - ACROSS:
            axes.set_xlabel("budget per query")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return True


def _panels(figure: Figure, count: int) -> Iterator[Axes]:
    """Small figures in rows of `ACROSS`."""
    across = min(count, ACROSS)
    down = math.ceil(count / max(across, 1))
    figure.set_size_inches(max(3.2 * across, 4.0), max(2.9 * down, 3.2) + 0.4)
    for at in range(count):
        yield figure.add_subplot(down, across, at + 1)


def _style(at: int) -> dict[str, Any]:
    """Colour, mark and dashes of the one at a place; of more than eight the dashes tell one round from the next."""
    turn, place = divmod(at, len(COLOURS))
    return {"color": COLOURS[place], "marker": MARKS[place], "ls": LINES[(place + turn) % len(LINES)]}


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", handlelength=3.5)
