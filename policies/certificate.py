"""The certificate: what is promised of a policy, how surely, and what that rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["BEYOND", "LEVELS", "METHODS", "PROMISES", "SOURCES", "Certificate", "Level", "Promise", "certificate_text"]

Promise = Literal["expected cost", "realised cost", "expected quality"]
Level = Literal["approximate", "finite-sample"]

PROMISES: tuple[Promise, ...] = ("expected cost", "realised cost", "expected quality")
LEVELS: tuple[Level, ...] = ("approximate", "finite-sample")
METHODS = ("clopper-pearson", "hoeffding-bentkus", "betting", "e-process", "student")
SOURCES = ("prices", "cap", "fitting rows")
LOOSE = 1e-6  # what a bound that was searched for is off by, at the most
BEYOND = 1.25  # times a limit of cost: the dearest point of the dial that is tested, but for the cheapest one


@dataclass(frozen=True, slots=True)
class Certificate:
    """A promise that is broken with a chance of at most ``delta``, over all logs that might have been had.

    The promise is about new queries drawn as the rows were: that their expected cost is at most ``limit``, that the
    mean cost of the next ``next`` of them is (the chance counts these too), or that their expected quality is at least
    ``limit``.

    ``level`` is "finite-sample" where that holds for any number of rows and any distribution, "approximate" where it
    rests on the central limit theorem.  It takes for granted that groups are independent, that none has more than
    ``largest_group`` rows, and that no query costs more than ``dearest``: by the prices in the file, by a cap that the
    run time keeps, or because no price is above twice the largest on the rows that the policy was fitted on
    (``dearest_from``).

    ``bound`` is what the rows show: the cost that is exceeded, or the quality that is missed, with a chance of at most
    ``delta``.  ``cost`` is the operating point's expected cost in the file; every cheaper point of the dial was tested
    too, every dearer one for quality.  ``looks`` counts how often a growing log was looked at.
    """

    promise: Promise
    limit: float
    delta: float
    level: Level
    method: str
    bound: float
    cost: float
    rows: int
    groups: int
    largest_group: float = 1.0
    dearest: float | None = None  # None where quality is promised
    dearest_from: str = ""
    looks: int = 1
    next: int = 0

    def covers(self, cost: float) -> bool:
        """Whether an operating point of this expected cost was tested too."""
        if self.promise == "expected quality":
            return cost >= self.cost * (1 - 1e-9)
        return cost <= self.cost * (1 + 1e-9)

    def fault(self, cheapest: float) -> tuple[str, str] | None:
        """Which field makes no sense beside the others, and why, on a dial whose cheapest point costs ``cheapest``."""
        if self.delta == 0.0:
            return "delta", "is 0, but nothing is certain"
        quality = self.promise == "expected quality"
        loose = LOOSE if quality else LOOSE * self.limit
        if self.bound < self.limit - loose if quality else self.bound > self.limit + loose:
            side = "below" if quality else "above"
            return "bound", f"is {self.bound}, {side} the limit {self.limit}: the rows do not show it"
        if not quality and self.cost > max(self.limit * BEYOND, cheapest) * (1 + LOOSE):
            return "cost", f"is {self.cost}, far above the limit {self.limit}: no such point is tested"
        return None

    def __str__(self) -> str:
        """In a line or two."""
        return "; ".join([self._promise(), self._ground()])

    def _promise(self) -> str:
        sure = f"{1 - self.delta:.4g}"
        match self.promise:
            case "expected cost":
                what = f"expected cost per query at most {self.limit:.6g} (bound {self.bound:.6g})"
            case "realised cost":
                what = f"mean cost of the next {self.next:,} queries at most {self.limit:.6g} (bound {self.bound:.6g})"
            case _:
                what = f"expected quality at least {self.limit:.6g} (bound {self.bound:.6g})"
        return f"{what}, with probability {sure}"

    def _ground(self) -> str:
        rows = f"{self.rows:,} rows" + ("" if self.groups == self.rows else f" in {self.groups:,} groups")
        looks = f", look {self.looks}" if self.method == "e-process" else ""
        group = "" if self.largest_group == 1.0 else f", no group above {self.largest_group:g} rows"
        dearest = ""
        if self.dearest is not None and self.level == "finite-sample":
            ground = {
                "prices": "by its prices",
                "cap": "by a cap on each request",
                "fitting rows": "as on the rows it was fitted on",
            }
            dearest = f", no query above {self.dearest:.6g} {ground[self.dearest_from]}"
        return f"{self.level} by {self.method} on {rows}{looks}{group}{dearest}"


def certificate_text(certificate: Certificate | None) -> str:
    """The certificate as reports have it, "none" where there is none."""
    return f"certificate: {'none' if certificate is None else certificate}"
