"""What a log's columns are called, and which column is what."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from metaverify.policies.names import name_fault
from metaverify.simulators.log import LogError

__all__ = [
    "AGREE",
    "NO_SIGNALS",
    "KeyColumns",
    "LogColumns",
    "ReadingColumns",
    "SignalColumns",
    "Signals",
    "TierColumns",
    "check_names",
    "check_signals",
    "nearest",
    "reading_column",
    "source_columns",
]

AGREE = "agree"
"""How far two answers agree: the start of its column's name, and the name of its reading."""

Signals = Mapping[str, Sequence[str]]
"""What is declared to be a signal: its name, and the tiers whose answers must be in hand before it can be read."""

NO_SIGNALS: Signals = MappingProxyType({})

_CORRECT = "correct_"
_MISSPELT = 0.85  # of difflib's ratio
_MOST_BINS = 100  # of a context column: far more than can be learnt apart
_LONG = ("tier", "reading", "confidence", "correct", "cost", "verify_cost")


@dataclass(frozen=True, slots=True)
class ReadingColumns:
    """The wide form's columns of one reading; without a price column it is free."""

    name: str
    confidence: str
    price: str | None
    correct: str | None = None  # of a sample


@dataclass(frozen=True, slots=True)
class TierColumns:
    """The wide form's columns of one tier, its readings with "conf" first and then in file order."""

    name: str
    correct: str
    cost: str | None
    readings: tuple[ReadingColumns, ...]


@dataclass(frozen=True, slots=True)
class SignalColumns:
    """The wide form's columns of one source without an answer; ``needs`` are tiers."""

    name: str
    needs: tuple[str, ...]
    readings: tuple[ReadingColumns, ...]


@dataclass(frozen=True, slots=True)
class KeyColumns:
    """The columns that say which query a row belongs to, and what is known of it before any call.

    ``bins`` has those of the context columns that are numbers, and the most intervals that each is cut into.
    """

    query: str | None
    group: str | None
    weight: str | None
    context: tuple[str, ...]
    bins: Mapping[str, int]

    def given_cuts(self, file: str, given: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
        """Where columns of the context are cut, as it was said.

        Raises:
            LogError: a column that is no context; cuts that are no finite numbers that rise.
        """
        for column in given:
            if column not in self.context:
                known = ", ".join(self.context) or "none"
                raise LogError(
                    "E_OPTION", f"{file}: context_cuts of {column!r}, which is no context column; there are {known}"
                )
        cuts = {column: tuple(map(float, at)) for column, at in given.items()}
        for column, at in cuts.items():
            if not at or not all(map(math.isfinite, at)) or any(not low < high for low, high in pairwise(at)):
                raise LogError(
                    "E_OPTION", f"{file}: context_cuts of {column!r} are {at}; give finite numbers that rise"
                )
        return cuts


@dataclass(frozen=True, slots=True)
class LogColumns:
    """How a file's columns are understood: ``form`` is "wide" or "long"; every column is used or ignored.

    ``tiers`` and ``signals`` are those of the wide form; the long form's stand in its rows.
    """

    form: str
    keys: KeyColumns
    used: tuple[str, ...]
    ignored: tuple[str, ...]
    tiers: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        file: str,
        columns: Sequence[str],
        *,
        context: Sequence[str],
        group: str | None,
        weight: str | None,
        signals: Signals = NO_SIGNALS,
        samples: Sequence[str] = (),
    ) -> LogColumns:
        """The form, the keys and the used of a file's columns; a context is a column or, of a number, column:bins.

        Raises:
            LogError: no column says what was correct, an asked column is not there, or one belongs to no tier.
        """
        if "conf" in samples:
            raise LogError(
                "E_OPTION", f"{file}: --samples conf is the first answer's own reading; name a later one, such as conf2"
            )
        keys = _keys(file, columns, tuple(context), group, weight)
        form = _form(file, columns)
        wanted = {keys.query, keys.group, keys.weight, *keys.context}
        tiers, found = ([], []) if form == "long" else source_columns(file, columns, signals, samples)
        wanted |= set(_LONG) if form == "long" else _wide_columns(tiers, found)
        used = tuple(column for column in columns if column in wanted)
        check_names(file, used)
        ignored = tuple(column for column in columns if column not in wanted)
        return cls(form, keys, used, ignored, tuple(t.name for t in tiers), tuple(s.name for s in found))


def source_columns(
    file: str, columns: Sequence[str], declared: Signals = NO_SIGNALS, samples: Sequence[str] = ()
) -> tuple[list[TierColumns], list[SignalColumns]]:
    """The wide form's tiers and signals, in file order.

    Tiers are the suffixes of the ``correct_`` columns, but for those of ``samples``, readings that change the answer.
    Signals are the declared ones, and the agreement of two tiers
    wherever there is a column ``agree_<tier>_<tier>``.

    Raises:
        LogError: a confidence or a price that belongs to no source or no reading, one reading in two columns, a
            declared signal that is not there, a sample without a reading, or a column that is the agreement of two
            different pairs.
    """
    tiers = [c.removeprefix(_CORRECT) for c in columns if c.startswith(_CORRECT) and c != _CORRECT]
    changed = {reading_column("correct", sample, tier): (tier, sample) for sample in samples for tier in tiers}
    tiers = [tier for tier in tiers if _CORRECT + tier not in changed]
    agreements = _agreements(file, columns, tiers)
    signals = {name: tuple(needs) for name, needs in declared.items() if name not in agreements}
    check_signals(file, signals, tiers)
    others = [column for column in columns if column not in {f"cost_{name}" for name in agreements}]
    names = [*tiers, *signals]
    costs = _by_reading(file, others, names, r"cost()_(.+)")
    confidences = _by_reading(file, others, names, r"conf(\d*)_(.+)")
    prices = _by_reading(file, others, names, r"verify_cost(\d*)_(.+)")
    for (name, reading), column in costs.items():
        if reading != "conf":
            raise LogError(
                "E_COLUMN", f"{file}: {column} is no tier's price; rename it, cost_{name} or verify_{column}"
            )
        if name in signals:  # what a signal costs is what reading it costs
            if (name, reading) in prices:
                twice = f"{column} and {prices[name, reading]} are both the price of {name!r}"
                raise LogError("E_DUPCOL", f"{file}: {twice}; drop one")
            prices[name, reading] = column
    for (name, reading), column in prices.items():
        if (name, reading) not in confidences:
            needed = reading_column("conf", reading, name)
            raise LogError(
                "E_COLUMN", f"{file}: {column} is the price of no reading, there is no {needed}; rename or drop it"
            )

    answers = {place: column for column, place in changed.items() if column in columns}
    for (name, reading), column in answers.items():
        if (name, reading) not in confidences:
            needed = reading_column("conf", reading, name)
            raise LogError(
                "E_COLUMN", f"{file}: {column} has no reading beside it, there is no {needed}; add it or drop {column}"
            )

    def readings(name: str) -> tuple[ReadingColumns, ...]:
        return tuple(
            ReadingColumns(reading, column, prices.get((name, reading)), answers.get((name, reading)))
            for (owner, reading), column in sorted(confidences.items(), key=lambda item: item[0][1] != "conf")
            if owner == name
        )

    for name in signals:
        if not readings(name):
            raise LogError(
                "E_OPTION", f"{file} has no column conf_{name} for --signal {name}; {nearest(f'conf_{name}', columns)}"
            )
    return (
        [TierColumns(tier, _CORRECT + tier, costs.get((tier, "conf")), readings(tier)) for tier in tiers],
        [SignalColumns(name, needs, readings(name)) for name, needs in signals.items()]
        + [
            SignalColumns(name, pair, (ReadingColumns(AGREE, name, price if price in columns else None),))
            for name, pair in agreements.items()
            for price in (f"cost_{name}",)
        ],
    )


def _agreements(file: str, columns: Sequence[str], tiers: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The columns that say how far two tiers agree, and which two."""
    found: dict[str, tuple[str, str]] = {}
    for column in columns:
        pairs = [(a, b) for a in tiers for b in tiers if a != b and column == f"{AGREE}_{a}_{b}"]
        if len(pairs) > 1:
            (a, b), (c, d) = pairs[:2]
            fault = f"{column} is the agreement of {a!r} and {b!r}, or of {c!r} and {d!r}"
            raise LogError("E_DUPCOL", f"{file}: {fault}; rename a tier")
        if pairs:
            found[column] = pairs[0]
    return found


def check_signals(file: str, signals: Signals, tiers: Sequence[str]) -> None:
    """Make sure that what is declared a signal is no tier, and needs nothing but tiers.

    Raises:
        LogError: naming the signal and the way out.
    """
    for name, needs in signals.items():
        if name in tiers:
            raise LogError(
                "E_OPTION", f"{file}: --signal {name} has answers, in {_CORRECT}{name}; it is a tier already"
            )
        if len(set(needs)) < len(needs):
            raise LogError("E_OPTION", f"{file}: --signal {name}={','.join(needs)} names a tier twice; name it once")
        for need in needs:
            if need not in tiers:
                raise LogError(
                    "E_OPTION", f"{file}: --signal {name} needs {need!r}, which is no tier; {nearest(need, tiers)}"
                )


def check_names(file: str, names: Sequence[str]) -> None:
    """Make sure that names can be told from what is shown of them: none has a letter that cannot be seen.

    Raises:
        LogError: naming it, escaped.
    """
    for name in filter(None, names):
        if fault := name_fault([name]):
            raise LogError("E_NAME", f"{file}: a name {fault[1]}; rename it")


def reading_column(kind: str, reading: str, tier: str) -> str:
    """The wide form's name of a reading's column: ``kind`` is "conf", "verify_cost" or, of a sample, "correct".

    >>> reading_column("conf", "conf", "small"), reading_column("verify_cost", "conf2", "small")
    ('conf_small', 'verify_cost2_small')
    >>> reading_column("conf", "logit", "small")
    'conf_logit_small'
    """
    plain = re.fullmatch(r"conf(\d*)", reading)
    return f"{kind}{plain[1]}_{tier}" if plain else f"{kind}_{reading}_{tier}"


def nearest(wanted: str, known: Sequence[str]) -> str:
    """The way out of a name that is not known: the one that was meant, or all there are."""
    close = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"


def _form(file: str, columns: Sequence[str]) -> str:
    if any(column.startswith(_CORRECT) and column != _CORRECT for column in columns):
        return "wide"
    if {"tier", "correct"} <= set(columns):
        if "query_id" not in columns:
            raise LogError(
                "E_COLUMN", f"{file} has a row for each tier but no column 'query_id'; {nearest('query_id', columns)}"
            )
        return "long"
    if {"key", "action", "propensity"} <= set(columns):
        way_out = "`metaverify join` puts labels into one (in Python read_decisions and join_labels)"
        raise LogError(
            "E_COLUMN", f"{file} is the decision log of a router, which does not say what was correct; {way_out}"
        )
    near = [c for c in columns if "correct" in c.lower()] or difflib.get_close_matches("correct_tier", columns)
    has = f"nearest: {', '.join(map(repr, near[:3]))}" if near else f"it has {', '.join(map(repr, columns[:8]))}"
    raise LogError(
        "E_COLUMN",
        f"{file} has no column correct_<tier>; {has}; "
        "give one row a query (correct_<tier>, …) or one row a reading (query_id, tier, correct, …); "
        "where they are called otherwise `metaverify import wide FILE --map correct_<tier>=COLUMN … -o LOG` says so",
    )


def _keys(
    file: str, columns: Sequence[str], context: tuple[str, ...], group: str | None, weight: str | None
) -> KeyColumns:
    bins = _bins(file, columns, context)
    asked = [*(("context", column) for column in bins), ("group", group), ("weight", weight)]
    for option, column in asked:
        if column is not None and column not in columns:
            raise LogError("E_OPTION", f"{file} has no column {column!r} for --{option}; {nearest(column, columns)}")
    return KeyColumns(
        query="query_id" if "query_id" in columns else None,
        group=group or ("group_id" if "group_id" in columns else None),
        weight=weight or ("weight" if "weight" in columns else None),
        context=tuple(bins),
        bins={column: most for column, most in bins.items() if most is not None},
    )


def _bins(file: str, columns: Sequence[str], context: Sequence[str]) -> dict[str, int | None]:
    """The context columns, and the bins that were asked for; None for one that is told as it stands."""
    found: dict[str, int | None] = {}
    for text in context:
        column, most = text, None
        if text not in columns and ":" in text:
            column, _, count = text.rpartition(":")
            if not (count.isascii() and count.isdigit() and 2 <= int(count) <= _MOST_BINS):
                way_out = f"write it as column:bins with 2 to {_MOST_BINS} bins, for example tokens:4"
                raise LogError("E_OPTION", f"{file}: --context {text} is no number of bins; {way_out}")
            most = int(count)
        if column in found:
            raise LogError("E_OPTION", f"{file}: --context names {column!r} twice; name it once")
        found[column] = most
    return found


def _wide_columns(tiers: Sequence[TierColumns], signals: Sequence[SignalColumns]) -> set[str | None]:
    own = {column for tier in tiers for column in (tier.correct, tier.cost)}
    readings = [reading for of in (tiers, signals) for source in of for reading in source.readings]
    return own | {column for reading in readings for column in (reading.confidence, reading.price, reading.correct)}


def _by_reading(file: str, columns: Sequence[str], tiers: Sequence[str], pattern: str) -> dict[tuple[str, str], str]:
    """The columns of one kind by (source, reading); names may hold underscores, the longest that fits wins."""
    found: dict[tuple[str, str], str] = {}
    for column in columns:
        if not (match := re.fullmatch(pattern, column, flags=re.DOTALL)):
            continue
        number, rest = match.groups()
        tier = max((t for t in tiers if rest == t or rest.endswith(f"_{t}")), key=len, default=None)
        if tier is None:
            near = difflib.get_close_matches(rest, tiers, n=1, cutoff=0.0)[0]
            others = [other for other in columns if not other.startswith(_CORRECT)]
            meant = difflib.get_close_matches(_CORRECT + rest, others, n=1, cutoff=_MISSPELT)
            fault = f"{column} belongs to no tier, there is no {_CORRECT}{rest}"
            fault += f", but {meant[0]!a}: was that meant?" if meant else ""
            raise LogError(
                "E_COLUMN",
                f"{file}: {fault}; nearest tier: {near!r}; rename or drop the column, "
                f"or declare a signal without answers (--signal NAME=TIER)",
            )
        words = [f"conf{number}" if number else "", rest.removesuffix(tier).removesuffix("_")]
        key = tier, "_".join(word for word in words if word) or "conf"
        if key in found:
            raise LogError(
                "E_DUPCOL", f"{file}: {found[key]} and {column} are both reading {key[1]!r} of {tier!r}; rename one"
            )
        found[key] = column
    return found
