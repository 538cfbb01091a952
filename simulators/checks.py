"""Checks: what every row must keep to be counted, and what is said where one does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any

import narwhals as nw

from metaverify.simulators.cells import SCORE, Cells, Place
from metaverify.simulators.engines import BATCH, collected
from metaverify.simulators.expressions import Expr, confidence, is_missing, number
from metaverify.simulators.frames import Part
from metaverify.simulators.log import LogError

__all__ = ["TOO_DEAR", "Check", "UnforeseenError", "checks_of", "refuse", "sound"]

NO_VOTE = 1e-4  # of a vote: more than rounding takes off a share
TOO_DEAR, TOO_HEAVY = 1e100, 1e15


@dataclass(frozen=True, slots=True)
class Check:
    """What must not be: a column, when it is at fault, and what is said then."""

    code: str
    column: str
    fault: Expr
    why: str
    unforeseen: bool = False  # in the sketch's sample, though it may be so


class UnforeseenError(LogError):
    """What a sketch of some of the rows could not tell."""


def checks_of(part: Part, cells: Cells | None) -> list[Check]:
    """Every rule that rows must keep; where there are cells, also that they hold what is there."""
    found = []
    tiers = {source.name: source for source in cells.sources} if cells else {}
    amounts = {place: amount for _, place, amount in cells.amounts() if amount is not SCORE} if cells else {}
    for (source, sample), column in part.answers().items():
        value = number(column)
        none = is_missing(value)
        if sample is None:
            found.append(Check("E_MISSING", column, none, "but every answer must be right or wrong, or in between"))
        found.append(Check("E_RANGE", column, ~none & ~((value >= 0.0) & (value <= 1.0)), "outside [0, 1]; rescale it"))
        if cells is not None:
            own = tiers[source]
            graded = own.graded if sample is None else next(r for r in own.readings if r.name == sample).graded
            between = ~none & (value > 0.0) & (value < 1.0)
            if not graded:
                told = "though the cells were made for right and wrong; sketch the log anew"
                found.append(Check("E_RANGE", column, between, told, unforeseen=True))
    for _, reading, scale in part.readings():
        value = confidence(reading, scale)
        none = is_missing(value)
        outside = ~none & ~((value >= 0.0) & (value <= 1.0))
        found.append(Check("E_RANGE", reading.confidence, outside, f"outside [0, {scale:g}]; see --scale"))
        if count := (part.choice.votes or {}).get(reading.name, 0):
            share = value * float(count)
            odd = share - (share + 0.5).floor()
            apart = ~none & ((odd > NO_VOTE) | (odd < -NO_VOTE))
            found.append(Check("E_RANGE", reading.confidence, apart, f"no share of {count} votes; correct --votes"))
        if reading.correct is not None:
            unknown = is_missing(number(reading.correct)) & ~none
            found.append(Check("E_MISSING", reading.correct, unknown, f"though {reading.confidence} is there"))
    confidences = {place: confidence(reading, scale) for place, reading, scale in part.readings()}
    for place, price in part.prices().items():
        if isinstance(price, str):
            column, value = price, number(price)
            none = is_missing(value)
            unpaid = none if place[1] is None else none & ~is_missing(confidences[place])
            found.append(Check("E_MISSING", column, unpaid, "but every answer and reading has a price; fill it in"))
            found.append(Check("E_RANGE", column, ~none & ~((value >= 0.0) & (value <= TOO_DEAR)), "not a price"))
            if place in amounts:
                told = "far beyond the prices that the cells were made for; sketch the log anew"
                found.append(Check("E_RANGE", column, ~none & (value > amounts[place].most), told, unforeseen=True))
    if part.weight is not None:
        value = number(part.weight)
        none = is_missing(value)
        wrong = none | ~((value >= 1 / TOO_HEAVY) & (value <= TOO_HEAVY))
        found.append(Check("E_RANGE", part.weight, wrong, "not a weight; give a finite number above 0"))
        if ("", None) in amounts:
            told = "far beyond the weights that the cells were made for; sketch the log anew"
            found.append(Check("E_RANGE", part.weight, ~none & (value > amounts["", None].most), told, unforeseen=True))
    return found


def sound(part: Part, cells: Cells) -> Expr:
    """Whether a row keeps the rules, false or null where not; in fewer words than `checks_of`, which says why."""
    amounts = {place: amount for _, place, amount in cells.amounts() if amount is not SCORE}
    graded: dict[Place, bool] = {(source.name, None): source.graded for source in cells.sources}
    graded |= {(source.name, r.name): r.graded for source in cells.sources for r in source.readings}
    missing = {place: is_missing(confidence(reading, scale)) for place, reading, scale in part.readings()}
    rules = [~nw.col(BATCH).is_null()]
    for place, column in part.answers().items():
        value = number(column)
        rule = (value >= 0.0) & (value <= 1.0) if graded.get(place) else (value == 0.0) | (value == 1.0)
        rules.append(rule if place[1] is None else rule | (is_missing(value) & missing[place]))
    for place, reading, scale in part.readings():
        value = confidence(reading, scale)
        rule = (value >= 0.0) & (value <= 1.0)
        if count := (part.choice.votes or {}).get(reading.name, 0):
            odd = value * float(count) - (value * float(count) + 0.5).floor()
            rule = rule & (odd <= NO_VOTE) & (odd >= -NO_VOTE)
        rules.append(rule | missing[place])
    for place, price in part.prices().items():
        if isinstance(price, str):
            most = amounts[place].most if place in amounts else TOO_DEAR
            rule = (number(price) >= 0.0) & (number(price) <= min(most, TOO_DEAR))
            rules.append(rule if place[1] is None else rule | (is_missing(number(price)) & missing[place]))
    if part.weight is not None:
        most = min(cells.weight.most if cells.weight else TOO_HEAVY, TOO_HEAVY)
        rules.append((number(part.weight) >= 1 / TOO_HEAVY) & (number(part.weight) <= most))
    return reduce(and_, rules)


def refuse(part: Part, checks: Sequence[Check]) -> None:
    """Raise for the first rule that some row does not keep, if there is one."""
    faults = collected(
        part.frame.select(**{str(at): check.fault.cast(nw.Int64).sum() for at, check in enumerate(checks)})
    )
    for at, check in enumerate(checks):
        if count := faults[str(at)].item():
            shown: Any = collected(part.frame.filter(check.fault).select(nw.col(check.column)).head(1)).item()
            kind = UnforeseenError if check.unforeseen else LogError
            value = "missing" if shown is None or shown != shown else repr(shown)
            rows = "one row" if count == 1 else f"{count:,} rows"
            raise kind(check.code, f"{part.name}: {check.column} is {value} in {rows}, {check.why}")
