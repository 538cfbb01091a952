"""Which part of a record becomes which column of a log, and what may stand there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from metaverify.simulators.columns import AGREE, check_names
from metaverify.simulators.log import LogError
from metaverify.simulators.sheet import reckonable

__all__ = ["Answer", "Columns", "MisfitError", "dotted", "meets"]

Path = str | float
"""Where in a record a value stands, its keys joined by dots; a number stands for itself."""

Get = Callable[[Mapping[str, Any]], Any]

_SHARES = ("confidence", "correct", "propensity", "label_propensity")
_AMOUNTS = ("cost", "verify_cost")
_KNOWN = ("query_id", "group_id", "weight", "tier", "reading", *_SHARES, *_AMOUNTS)
_WIDE = re.compile(r"(correct|cost|label_propensity|conf|verify_cost|propensity)(\d*)_(.+)", re.DOTALL)
_OF_READINGS = ("conf", "verify_cost", "propensity")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MISSPELT = 0.8  # of difflib's ratio
_MOST_PLANS = 1_000  # sets of keys that the records of a table may have, before they are worked out anew
_MOST_IGNORED = 100
_HEAVIEST = 1e15
_TINY, _HUGE = 1e-9, 1e9  # between them nobody needs to ask whether prices can be reckoned with
_WHOLE = 2.0**53


class MisfitError(ValueError):
    """A value that its column cannot hold: why, in words that many may share, and the value."""

    def __init__(self, why: str, value: object = None):
        super().__init__(why)
        self.why, self.value = why, value


class Answer(NamedTuple):
    """What a record says of a tier's answer to a query, and of one reading of it; None where it does not say."""

    query_id: str
    tier: str
    reading: str | None  # None is "conf"
    correct: float | None
    cost: float | None
    label_propensity: float | None
    confidence: float | None
    verify_cost: float | None
    propensity: float | None
    group_id: str | None
    weight: float | None
    contexts: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a record tells of one tier and one reading of it: getters of values, and which of them make it known."""

    tier: Get
    reading: Get
    values: tuple[Get, ...]  # correct, cost, label_propensity, confidence, verify_cost, propensity
    telling: tuple[bool, ...]  # whether a value there says that there is an answer
    always: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    query: Get
    group: Get
    weight: Get
    contexts: tuple[Get, ...]
    places: tuple[_Place, ...]


class Columns:
    """What is taken from a record: of each column the paths at which its value may stand, the first that has one.

    The columns are those of the long form (``tier``, ``correct``, ``confidence``, ``cost``, …; a further reading is
    ``confidence.<reading>`` with ``verify_cost.<reading>``) or, without ``tier``, those of the wide one.  Any other
    name is a column that is kept as text: a context, or a group.

    Args:
        paths: what the format says; a number stands for itself.
        given: what the user says, which goes before; numbers too.
        own: whether what a record has under a name of ours counts as well.
        scale: what the confidences are divided by.

    Attributes:
        contexts: the names that are kept as text.
        ignored: of tables, columns from which nothing is taken.
        texts: of tables, columns of numbers by their names that have none, left out; with what one has instead.
        unmet: what the user says, by column, as long as no record has anything there.
        partly: whether a record may say of a part of an answer only, such as one reading.
        detached: of the wide form, sources with a price that may be a tier's or a signal's.

    Raises:
        LogError: a name that is misspelt, or one that cannot be shown.
    """

    def __init__(
        self,
        paths: Mapping[str, Sequence[Path]],
        given: Mapping[str, str] | None = None,
        *,
        own: bool = False,
        scale: float = 1.0,
    ):
        given = given or {}
        long = own or "tier" in paths or "tier" in given
        for name in given:
            _check_name(name, wide=own or not long)
        self._paths: dict[str, Sequence[Path]] = {
            **paths,
            **{name: (float(path) if _NUMBER.fullmatch(path) else path,) for name, path in given.items()},
        }
        self._own, self._scale = own, scale
        self._plans: dict[tuple[tuple[str, ...], bool], _Plan] = {}
        self.contexts = tuple(sorted(n for n in self._paths if not _is_known(n, wide=own or not long)))
        self.ignored: set[str] = set()
        self.texts: dict[str, Any] = {}
        self.unmet = {name: path for name, path in given.items() if not _NUMBER.fullmatch(path)}
        self.detached: set[str] = set()
        self.partly = own or "reading" in self._paths
        self._mapped = frozenset(self.unmet.values())
        self._left_out: frozenset[str] = frozenset()
        self._tiers: set[str] = set()

    def look(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Leave out of what follows the columns that should have numbers by their names, and have only texts here."""
        texts: dict[str, Any] = {}
        numbers: set[str] = set()
        for record in records if self._own else ():
            for name in record.keys() - numbers:
                if name not in self._paths and _WIDE.fullmatch(name):
                    try:
                        if _number(name, record[name]) is not None:
                            numbers.add(name)
                    except MisfitError:
                        texts.setdefault(name, record[name])
        if self._left_out != (found := frozenset(texts.keys() - numbers)):
            self._left_out = found
            self._plans.clear()
        self.texts |= {name: texts[name] for name in sorted(found) if name not in self._mapped}

    def answers(self, record: Mapping[str, Any], tier: str | None = None) -> Iterator[Answer]:
        """What a record says, an answer or a reading of one each time; of ``tier``, if that is told.

        Raises:
            MisfitError: a value that its column cannot hold, or no query or tier.
        """
        key = tuple(record) if self._own else (), tier is not None
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            plan = self._plans[key] = self._plan(*key)
        if self.unmet:
            self.unmet = {name: path for name, path in self.unmet.items() if dotted(record, path) is None}
        query = plan.query(record)
        if query is None:
            raise MisfitError("has no query_id")
        group, weight = plan.group(record), plan.weight(record)
        contexts = tuple([get(record) for get in plan.contexts])
        for place in plan.places:
            values = [get(record) for get in place.values]
            if place.always or any(
                told and value is not None for told, value in zip(place.telling, values, strict=True)
            ):
                name = tier or place.tier(record)
                if name not in self._tiers:
                    self._tiers.add(_checked(name))
                reading = place.reading(record)
                own = query, name, None if reading == "conf" else reading
                yield Answer._make((*own, *values, group, weight, contexts))

    def _plan(self, keys: Sequence[str], of_one: bool) -> _Plan:
        taken = self._paths.keys() | self._mapped | self._left_out
        names = [*self._paths, *(key for key in keys if key not in taken and _is_known(key, wide=True))]
        paths = {name: self._paths.get(name, (name,)) for name in names}
        used = {path for of in paths.values() for path in of if isinstance(path, str)}
        if len(self.ignored) < _MOST_IGNORED:
            self.ignored |= {key for key in keys if key not in used and not any(p.startswith(f"{key}.") for p in used)}
        places = list(self._long_places(paths) if of_one or "tier" in paths else self._wide_places(paths))
        return _Plan(
            _getter(paths.get("query_id", ()), _text("query_id")),
            _getter(paths.get("group_id", ()), _text("group_id")),
            _getter(paths.get("weight", ()), _weight),
            tuple(_getter(paths[name], _text(name)) for name in self.contexts),
            tuple(places),
        )

    def _long_places(self, paths: Mapping[str, Sequence[Path]]) -> Iterator[_Place]:
        tier = _getter(paths.get("tier", ()), _text("tier"))
        yield self._place(tier, _getter(paths.get("reading", ()), _text("reading")), {n: n for n in paths}, paths, True)
        readings = dict.fromkeys(
            name.partition(".")[2] for name in paths if "." in name and _is_known(name, wide=False)
        )
        for reading in readings:
            columns = {n.partition(".")[0]: n for n in paths if n.partition(".")[2] == reading}
            yield self._place(tier, _constant(reading), columns, paths, False)

    def _wide_places(self, paths: Mapping[str, Sequence[Path]]) -> Iterator[_Place]:
        found: dict[tuple[str, str | None], dict[str, str]] = {}
        tiers = [name.removeprefix("correct_") for name in paths if name.startswith("correct_")]
        for name in paths:
            if name.startswith(f"{AGREE}_"):
                found.setdefault((name, AGREE), {})["confidence"] = name
                found[name, AGREE]["verify_cost"] = f"cost_{name}"
            elif (match := _WIDE.fullmatch(name)) and not name.startswith(f"cost_{AGREE}_"):
                kind, number, rest = match.groups()
                tier = max((t for t in tiers if rest == t or rest.endswith(f"_{t}")), key=len, default=rest)
                words = [f"conf{number}" if number else "", rest.removesuffix(tier).removesuffix("_")]
                reading = "_".join(word for word in words if word) or None
                if reading is not None and kind not in _OF_READINGS:  # a sample's answer
                    self.ignored.add(name)
                else:
                    if kind == "cost" and tier not in tiers:
                        self.detached.add(tier)
                    found.setdefault((tier, reading), {})["confidence" if kind == "conf" else kind] = name
        for (tier, reading), columns in found.items():
            yield self._place(_constant(tier), _constant(reading), columns, paths, False)

    def _place(
        self, tier: Get, reading: Get, columns: Mapping[str, str], paths: Mapping[str, Sequence[Path]], always: bool
    ) -> _Place:
        fields = ("correct", "cost", "label_propensity", "confidence", "verify_cost", "propensity")
        at = [paths.get(columns.get(field, ""), ()) for field in fields]
        parses = [
            _amount(columns.get(field, field))
            if field in _AMOUNTS
            else _share(columns.get(field, field), self._scale if field == "confidence" else 1.0)
            for field in fields
        ]
        gets = tuple(_getter(path, parse) for path, parse in zip(at, parses, strict=True))
        return _Place(tier, reading, gets, tuple(not _is_constant(path) for path in at), always)


def dotted(record: Any, path: str) -> Any:
    """What stands at a path of keys joined by dots, which may hold dots themselves; None where there is nothing.

    >>> dotted({"a": {"b.c": [1, 2]}}, "a.b.c.1")
    2
    """
    if isinstance(record, dict):
        at = path.find(".")
        while at >= 0:
            if path[:at] in record and (found := dotted(record[path[:at]], path[at + 1 :])) is not None:
                return found
            at = path.find(".", at + 1)
        return record.get(path)
    if isinstance(record, list | tuple):
        first, _, rest = path.partition(".")
        if first.isdecimal() and int(first) < len(record):
            return dotted(record[int(first)], rest) if rest else record[int(first)]
    return None


def meets(record: Mapping[str, Any], where: Mapping[str, str]) -> bool:
    """Whether a record has these values at these paths; ``true``, ``false``, ``null`` and numbers as JSON has them.

    >>> meets({"status": "success", "cache_hit": False}, {"status": "success", "cache_hit": "false"})
    True
    """
    return all(_plain(dotted(record, path)) == wanted for path, wanted in where.items())


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _check_name(name: str, *, wide: bool) -> None:
    check_names("--map", [name])
    if _is_known(name, wide=wide):
        return
    close = difflib.get_close_matches(name.partition(".")[0], _KNOWN, n=1, cutoff=_MISSPELT)
    if _is_known(name, wide=True):
        close = [name.rpartition("_")[0]]
    if close:
        raise LogError("E_OPTION", f"--map {name}: did you mean {close[0]!r}? give a context another name")


def _is_known(name: str, *, wide: bool) -> bool:
    base, dot, rest = name.partition(".")
    if name in _KNOWN or (dot and rest and base in ("confidence", "verify_cost", "propensity")):
        return True
    return wide and (_WIDE.fullmatch(name) is not None or name.startswith((f"{AGREE}_", f"cost_{AGREE}_")))


def _checked(tier: str | None) -> str:
    if tier is None:
        raise MisfitError("has no tier")
    try:
        check_names("", [tier])
    except LogError as error:
        raise MisfitError("has a hidden character in the name of its tier", ascii(tier)) from error
    return tier


# Values --------------------------------------------------------------------------------------------------------------


def _getter(paths: Sequence[Path], parse: Callable[[Any], Any]) -> Get:
    if not paths:
        return _nothing
    finds = [_finder(path) if isinstance(path, str) else _constant(path) for path in paths]
    if len(finds) == 1:
        (find,) = finds
        return lambda record: parse(find(record))

    def get(record: Mapping[str, Any]) -> Any:
        for find in finds:
            value = parse(find(record))
            if value is not None:
                return value
        return None

    return get


def _finder(path: str) -> Get:
    """`dotted`, and faster where keys are plain ones of objects."""
    *keys, last = path.split(".")
    if not keys:
        return lambda record: record.get(path)

    def find(record: Mapping[str, Any]) -> Any:
        value: Any = record
        for key in keys:
            value = value.get(key) if type(value) is dict else None
        found = value.get(last) if type(value) is dict else None
        return dotted(record, path) if found is None else found

    return find


def _nothing(record: Mapping[str, Any]) -> Any:
    return None


def _constant(value: Any) -> Get:
    return lambda record: value


def _is_constant(paths: Sequence[Path]) -> bool:
    return all(isinstance(path, float) for path in paths)


def _number(column: str, value: Any) -> float | None:
    """The value as a number, None where it is missing."""
    if isinstance(value, str):
        word = value.strip().lower()
        value = {"": None, "true": 1.0, "false": 0.0}.get(word, word)
    try:
        number = None if value is None else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise MisfitError(f"{column} is no number", value) from error
    return None if number != number else number


def _share(column: str, scale: float) -> Callable[[Any], float | None]:
    bounds = "[0, 1]" if scale == 1.0 else f"[0, {scale:g}]"

    def parse(value: Any) -> float | None:
        number = value if type(value) is float else _number(column, value)
        if number is None or number != number:
            return None
        if not 0.0 <= number <= scale:
            raise MisfitError(f"{column} is outside {bounds}", value)
        return number / scale

    return parse


def _amount(column: str) -> Callable[[Any], float | None]:
    def parse(value: Any) -> float | None:
        number = value if type(value) is float else _number(column, value)
        if number is None or number != number:
            return None
        if not 0.0 <= number < float("inf"):
            raise MisfitError(f"{column} is no price", value)
        if not (number == 0.0 or _TINY <= number <= _HUGE or reckonable(number)):
            raise MisfitError(f"{column} is too large or too small to reckon with", value)
        return number

    return parse


def _weight(value: Any) -> float | None:
    number = _number("weight", value)
    if number is not None and not 1 / _HEAVIEST <= number <= _HEAVIEST:
        raise MisfitError("weight is no weight", value)
    return number


def _text(column: str) -> Callable[[Any], str | None]:
    def parse(value: Any) -> str | None:
        if isinstance(value, str):
            text = value
        elif value is None or value != value:
            return None
        elif isinstance(value, bool):
            return "true" if value else "false"
        elif isinstance(value, Mapping | list | tuple | bytes):
            raise MisfitError(f"{column} is no plain value", value)
        elif isinstance(value, float) and abs(value) >= _WHOLE:
            raise MisfitError(f"{column} is a decimal number too large to tell its neighbours apart", value)
        else:
            try:
                text = str(int(value) if isinstance(value, float) and value.is_integer() else value)
            except ValueError as error:
                raise MisfitError(f"{column} is a number too long") from error
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise MisfitError(f"{column} is not UTF-8 text", ascii(text)) from error
        return text or None

    return parse
