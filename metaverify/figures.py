"""Figures of a comparison, for papers and slides: PNG and SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
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

WIDE = 10  # times the least cost drawn, beyond which costs are drawn in logarithms
LEGEND = 24  # names above one another, beyond which a legend takes a further column
BADGE = 14  # points across that a tier's number takes
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
    axes = figure.add_subplot()
    for place, method in enumerate(found.ranking):
        cost = [point.cost.mean for point in method.curve]
        _curve(axes, place, method, cost, [point.quality for point in method.curve], 1.0)
    for number, tier in enumerate(found.tiers, start=1):
        axes.plot(tier.cost.mean, tier.quality.mean, "o", color="#333333", ms=3, zorder=4)
        axes.plot([], [], " ", label=f"{number}  always {tier.name}")
    axes.plot(*_mixed(found), color="#555555", lw=1, zorder=1, label="fixed tiers mixed at random")
    axes.set(ylabel="quality")
    _cost_axis(axes, "cost per query")
    axes.set_title(f"What methods cost and earn on unseen queries\n{_shaded(found)}")
    _legend(figure, axes)
    _number(figure, axes, [(tier.cost.mean, tier.quality.mean) for tier in found.tiers])
    return True


def _mixed(found: Comparison) -> tuple[list[float], list[float]]:
    """Costs and qualities of the hull, so many of them that its lines bend as they must where costs are logarithms."""
    shares = [at / 32 for at in range(33)]
    pairs = list(pairwise(found.hull)) or [(found.hull[0], found.hull[0])]
    cost = [(1 - share) * low.cost + share * high.cost for low, high in pairs for share in shares]
    return cost, [(1 - share) * low.quality + share * high.quality for low, high in pairs for share in shares]


def _cost_axis(axes: Axes, label: str) -> None:
    """The axis of costs, in logarithms where what is drawn there is far apart."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xlabel(label)
    low, high = axes.dataLim.intervalx
    if 0.0 < WIDE * low < high:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100.0 * low else (1.0,)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")


def _number(figure: Figure, axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Number points, each on itself or, where another's number stands there, at the nearest free place around it."""
    figure.draw_without_rendering()  # now it is known where points are
    placed: list[Any] = []
    for number, point in enumerate(points, start=1):
        here = axes.transData.transform(point) * 72 / figure.dpi
        for far, turn in product((0.0, *(BADGE * (1 + step / 2) for step in range(8))), range(12)):
            away = far * math.cos(math.pi * turn / 6), far * math.sin(math.pi * turn / 6)
            there = here[0] + away[0], here[1] + away[1]
            if all(math.dist(there, other) >= BADGE for other in placed):
                break
        placed.append(there)
        axes.annotate(
            str(number),
            point,
            away,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7,
            zorder=5,
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": "#333333"},
            arrowprops={"arrowstyle": "-", "color": "#333333", "lw": 0.6},
        )


def _gain(figure: Figure, found: Comparison) -> bool:
    axes = figure.add_subplot()
    axes.axhline(0.0, color="#555555", lw=1, zorder=1, label="fixed tiers mixed at random")
    for at, method in enumerate(found.ranking):
        _curve(axes, at, method, found.budgets, [point.gain for point in method.curve], 100.0)
    axes.set(ylabel="gain, points")
    _cost_axis(axes, "budget per query")
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
    width: dict[str, Any] = {"lw": 1.5, "ms": 4.5} if at < len(COLOURS) else {"lw": 0.9, "ms": 3.5}
    axes.plot(x, [scale * e.mean for e in estimates], label=method.name, **width, **style)
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
    colours = _shades(found)
    for at, (axes, method) in enumerate(zip(panels, methods, strict=True)):
        for number, tier in enumerate(found.tiers):
            share = [100 * point.calls[tier.name] for point in method.curve]
            style = {**_style(number), "color": colours[tier.name]}
            axes.plot(found.budgets, share, label=tier.name, lw=1.5, ms=3.5, **style)
        axes.set(ylim=(-3, 103), title=method.name)
        if at % ACROSS == 0:
            axes.set_ylabel("queries that call it, %")
        _cost_axis(axes, "budget per query" if at >= len(methods) - ACROSS else "")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return True


def _shades(found: Comparison) -> dict[str, str]:
    """A colour of its own for each tier, from dark to light as they cost more."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    names = [tier.name for tier in sorted(found.tiers, key=lambda tier: tier.cost.mean)]
    last = max(len(names) - 1, 1)
    return {name: to_hex(colormaps["plasma"](0.88 * at / last)) for at, name in enumerate(names)}


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
    """To the right of the axes, which keep their size: the figure grows by what the names need."""
    handles, labels = axes.get_legend_handles_labels()
    columns = math.ceil(len(labels) / LEGEND)
    legend = figure.legend(handles, labels, loc="outside right upper", handlelength=3.5, ncols=columns)
    names = legend.get_window_extent()
    figure.set_size_inches(6.0 + names.width / figure.dpi, max(5.0, names.height / figure.dpi + 0.2))
