"""Reports for people: tables whose columns line up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from metaverify.policies.certificate import certificate_text

if TYPE_CHECKING:
    from metaverify.fitting.fit import Fit
    from metaverify.fitting.partial_fit import PartialFit
    from metaverify.simulators.offpolicy import Appraisal, Finding
    from metaverify.simulators.outcome import Estimate, Outcome
    from metaverify.simulators.shadowing import ShadowReport

__all__ = [
    "appraisal_table",
    "fit_table",
    "outcome_table",
    "partial_fit_table",
    "peak_memory",
    "shadow_table",
    "signed",
    "table",
]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text columns, the first aligned left and the others right."""
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(w) if at == 0 else cell.rjust(w) for at, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join((first, *others)).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *(line(row) for row in rows)])


def fit_table(fitted: Fit) -> str:
    """The policy beside everything else that could have been done, on queries that none of them was fitted on."""
    outcome, budget = fitted.outcome, fitted.policy.point.budget
    rows = [_row("this policy", outcome.cost, outcome.quality, outcome.gain)]
    rows += [_row(r.name, r.cost, r.quality, r.gain) for r in fitted.references]
    price = fitted.policy.point.price
    spend = f"price {price:g}" if price is not None else f"budget {budget:g}" if budget is not None else "quality floor"
    head = ["cross-fitted", "cost", "quality", "90 % interval", "gain, points", "90 % interval"]
    lines = [
        f"{spend}; {outcome.n:,} queries; gain is quality above the hull of fixed tiers at the same cost",
        "",
        table(head, rows),
        "",
        _routes(outcome),
        "",
        certificate_text(fitted.policy.certificate),
        *(f"\nnote: {note}" for note in fitted.notes),
        "",
    ]
    return "\n".join(lines)


def outcome_table(outcome: Outcome) -> str:
    """What a policy earned on a log."""
    rows = [
        ["cost per query", f"{outcome.cost.mean:.5g}", _interval(outcome.cost, "{:.5g}")],
        ["quality", f"{outcome.quality.mean:.4f}", _interval(outcome.quality, "{:.4f}")],
        ["quality of the no-information hull at this cost", f"{outcome.hull:.4f}", ""],
        [
            "gain over it, points",
            signed(outcome.gain.mean),
            f"[{signed(outcome.gain.low)}, {signed(outcome.gain.high)}]",
        ],
    ]
    title = f"{outcome.n:,} queries" + ("" if outcome.groups == outcome.n else f" in {outcome.groups:,} groups")
    return "\n".join([table([title, "mean", "90 % interval"], rows), "", _routes(outcome), ""])


NAMES = {
    "dr": "doubly robust",
    "switch-dr": "doubly robust, switched",
    "direct": "direct method",
    "snips": "self-normalised weights",
    "ips": "inverse propensities",
}


def appraisal_table(found: Appraisal) -> str:
    """What a policy would have earned on a partial log, by whom it is said, and on how much it stands."""
    title = f"{found.n:,} queries" + ("" if found.groups == found.n else f" in {found.groups:,} groups")
    head = [title, "cost", "90 % interval", "quality", "90 % interval"]
    rows = [
        [NAMES[name], *_found(value.cost, "{:.5g}"), *_found(value.quality, "{:.4f}")]
        for name, value in found.estimators.items()
    ]
    told = ["wanted", "traffic", "queries", "seen", "least chance", "never tried"]
    support = [
        [
            f"{row.wanted}, {row.where}",
            f"{row.share:.1%}",
            f"{row.rows:,}",
            f"{row.seen:,}",
            "" if row.least is None else f"{row.least:.3g}",
            f"{row.untried:.1%}" if row.untried else "",
        ]
        for row in found.support
    ]
    lines = [
        table(head, rows),
        "",
        f"as much as {found.effective:,.0f} queries that are all seen; the largest weight is {found.largest:.4g}",
        "",
        table(told, support),
    ]
    if not found.identified:
        lines += [
            "",
            "not identified: the policy goes where the log has never been, or nothing was labelled; the intervals hold "
            "whatever may be there",
            "(weights alone say nothing of it, and are left out)",
        ]
    return "\n".join([*lines, ""])


SHOWN = 8  # slices


def shadow_table(found: ShadowReport) -> str:
    """What a candidate would have changed, the slices that it changes most for the worse, and whether it is safe."""
    head = [f"{found.n:,} requests, candidate against the policy in use", "change", "90 % interval"]
    rows = [
        ["cost per query", *_found(found.cost, "{:+.5g}")],
        ["quality, points", *_found(_hundredfold(found.quality), "{:+.2f}")],
        ["other answers", f"{found.differs:.1%}", ""],
    ]
    answered = [[name, f"{now:.1%}", f"{then:.1%}"] for name, (now, then) in found.tiers.items()]
    slices = [
        [
            each.where,
            f"{each.n:,}",
            _found(each.cost, "{:+.4g}")[0],
            _found(_hundredfold(each.quality), "{:+.2f}")[0],
            f"{each.differs:.1%}",
            f"{each.chance:.2g}",
            " and ".join("more other answers" if kind == "decisions" else f"worse {kind}" for kind in each.worse),
        ]
        for each in found.slices[:SHOWN]
    ]
    lines = [table(head, rows), "", table(["answered by", "in use", "candidate"], answered)]
    if slices:
        told = ["worst slices first", "requests", "cost", "quality, points", "other answers", "Holm's p", ""]
        lines += ["", table(told, slices)]
        left = f"; {len(found.slices) - SHOWN} more in --json" if len(found.slices) > SHOWN else ""
        lines.append(f"{found.tested} tests of slices, with Holm's correction for their number{left}")
    if found.unidentified:
        lines += [
            "",
            f"not identified: {found.unidentified:.1%} of requests, for which the candidate wants what nobody bought; "
            "intervals hold whatever they cost and earn",
        ]
    if found.labelled < 1.0:
        lines += [
            "",
            f"the change of quality is known for {found.labelled:.1%} of requests, by labels or equal answers",
        ]
    if found.left_out:
        lines += ["", f"{found.left_out:,} requests left out, in which something failed"]
    margins = f"margins: {100 * found.margins.quality:g} of quality in points, {found.margins.cost:.0%} of cost"
    return "\n".join(
        [*lines, "", *(f"- {reason}" for reason in found.reasons), f"verdict: {found.verdict} ({margins})"]
    )


def _hundredfold(value: Finding) -> Finding:
    mean = None if value.mean is None else 100 * value.mean
    return replace(value, mean=mean, low=100 * value.low, high=100 * value.high)


def partial_fit_table(fitted: PartialFit) -> str:
    """A policy that was learnt from a partial log, beside the fixed tiers; by the classes with standard errors."""
    head = ["cross-fitted, doubly robust", "cost", "90 % interval", "quality", "90 % interval"]
    rows = [["this policy", *_found(fitted.cost, "{:.4g}"), *_found(fitted.quality, "{:.4f}")]]
    rows += [[r.name, *_found(r.cost, "{:.4g}"), *_found(r.quality, "{:.4f}")] for r in fitted.references]
    if any(r.classes for r in fitted.references):
        head.append("by the classes")
        told = ["" if r.classes is None else f"{r.classes.mean:.4f} ±{r.classes.error:.4f}" for r in fitted.references]
        rows = [[*row, text] for row, text in zip(rows, ["", *told], strict=True)]
    groups = "" if fitted.groups == fitted.n else f" in {fitted.groups:,} groups"
    lines = [f"{fitted.n:,} queries{groups}, known in part", "", table(head, rows)]
    notes = [f"note: {note}" for note in fitted.notes]
    return "\n".join([*lines, *(["", *notes] if notes else []), ""])


def _found(finding: Finding, form: str) -> list[str]:
    mean = "unknown" if finding.mean is None else form.format(finding.mean)
    return [mean, f"[{form.format(finding.low)}, {form.format(finding.high)}]"]


def _row(name: str, cost: Estimate, quality: Estimate, gain: Estimate | None) -> list[str]:
    exact = quality.low == quality.high
    return [
        name,
        f"{cost.mean:.4g}",
        f"{quality.mean:.4f}",
        "" if exact else _interval(quality, "{:.4f}"),
        "" if gain is None else signed(gain.mean),
        "" if gain is None or gain.low == gain.high else f"[{signed(gain.low)}, {signed(gain.high)}]",
    ]


def _interval(estimate: Estimate, form: str) -> str:
    return f"[{form.format(estimate.low)}, {form.format(estimate.high)}]"


def signed(gain: float) -> str:
    """A gain in points, with its sign; nothing is +0.00."""
    text = f"{100 * gain:+.2f}"
    return "+0.00" if text == "-0.00" else text


def _routes(outcome: Outcome) -> str:
    """Who was called, read and accepted, as shares of queries."""
    readings = sorted({name for reads in outcome.reads.values() for name in reads})
    rows = [
        [
            source,
            f"{outcome.calls[source]:.1%}" if source in outcome.calls else "",
            *(f"{reads[name]:.1%}" if name in reads else "" for name in readings),
            f"{outcome.accepts[source]:.1%}" if source in outcome.accepts else "",
        ]
        for source, reads in outcome.reads.items()
    ]
    if outcome.abstained > 0:
        rows.append(["(handed over)", "", *("" for _ in readings), f"{outcome.abstained:.1%}"])
    return table(["share of queries", "called", *(f"{name} read" for name in readings), "accepted"], rows)


def peak_memory() -> int | None:
    """The most memory, in bytes, that this process and those that it started and that still run ever held, each at its
    own peak; None where the system does not say."""
    own = Path("/proc/self")
    try:
        started = [pid for task in (own / "task").iterdir() for pid in (task / "children").read_text().split()]
        return sum(_most_held(Path("/proc") / pid) for pid in ("self", *started))
    except OSError:
        return None


def _most_held(process: Path) -> int:
    lines = (process / "status").read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
