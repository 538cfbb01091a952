"""The prompts that a log is collected on, and what is known of each."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metaverify.simulators.columns import nearest
from metaverify.simulators.importers.sources import Record, Source, Unused
from metaverify.simulators.log import LogError

__all__ = ["Prompt", "read_prompts"]

_OWN = ("query_id", "prompt", "messages", "reference", "references")
_OF_THE_LOG = re.compile(r"(?:correct|conf|cost|verify_cost|propensity|label_propensity|agree)\d*_.+", re.DOTALL)
_OF_ITS_LONG_FORM = ("tier", "reading", "confidence", "correct", "cost", "verify_cost")
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One query: what every tier is asked, what would be right, and what goes into the log as it is.

    ``content`` is the text of a ``prompt``, or the ``messages``, as the file has them.
    """

    id: str
    messages: Sequence[Mapping[str, Any]]
    content: str | Sequence[Mapping[str, Any]]
    references: tuple[str, ...]
    carried: Mapping[str, str | float | bool | None]


def read_prompts(path: str | os.PathLike[str]) -> list[Prompt]:
    """The prompts of a JSON Lines, CSV or Parquet file (``.gz`` too), in its order.

    Columns: ``prompt``, a text, or ``messages``, a list of ``{"role", "content"}``; ``query_id``, else one is made of
    the content; ``reference`` (a text, a number or a list of such) or ``references`` (a list).  In CSV lists are
    written in JSON.  All others are carried into the log; where prompts repeat and there is no ``group_id``, one is
    added.

    Raises:
        LogError: the file, or a prompt in it, cannot be used.
    """
    file = Path(path)
    source = Source(file)
    if source.suffix not in _SUFFIXES:
        raise LogError("E_FILE", f"{file.name} has no known suffix; prompts are one of {', '.join(_SUFFIXES)}")
    source.check()
    places: list[_Place] = []
    found: list[Prompt] = []
    for place in _places(source):
        if not places and not {"prompt", "messages"} & {*place.values}:
            raise LogError(
                "E_COLUMN", f"{file.name} has neither prompt nor messages; {nearest('prompt', [*place.values])}"
            )
        places.append(place)
        found.append(_prompt(place))
    if not found:
        raise LogError("E_EMPTY", f"{file.name} has no prompts; write one a line")
    _check_kinds(places, found)
    return _grouped(_named(places, found))


@dataclass(frozen=True, slots=True)
class _Place:
    """A row of the file, to be named where something is amiss."""

    name: str
    coded: bool  # whether lists are written in JSON
    values: Mapping[str, Any]

    def fault(self, code: str, column: str, way_out: str, value: object = None) -> LogError:
        shown = "is missing" if value is None else f"is {repr(value)[:60]}"
        return LogError(code, f"{self.name}: {column} {shown}; {way_out}")

    def get(self, column: str) -> Any:
        """What stands there; None where nothing does."""
        value = self.values.get(column)
        return None if value == "" or (isinstance(value, float) and math.isnan(value)) else value


def _places(source: Source) -> Iterator[_Place]:
    unit = "row" if source.suffix == ".parquet" else "line"
    for record in source.records():
        name = f"{source.path.name} {unit} {record.line}"
        if isinstance(record, Unused):
            raise LogError("E_SYNTAX", f"{name} {record.why} ({record.value}); correct it, or take it out")
        yield _Place(name, source.suffix == ".csv", _plain(record))


def _plain(record: Record) -> Mapping[str, Any]:
    return {name: value for name, value in record.values.items() if isinstance(name, str)}


def _prompt(place: _Place) -> Prompt:
    content = _content(place)
    given = place.get("query_id")
    if given is not None and not isinstance(given, str | int):
        raise place.fault("E_TYPE", "query_id", "give a text or a whole number", given)
    return Prompt(
        id="" if given is None else str(given),
        messages=[{"role": "user", "content": content}] if isinstance(content, str) else content,
        content=content,
        references=_references(place),
        carried=_carried(place),
    )


def _content(place: _Place) -> str | list[Mapping[str, Any]]:
    prompt, messages = place.get("prompt"), place.get("messages")
    if prompt is not None and messages is not None:
        raise place.fault("E_CONFLICT", "messages", "leave one of prompt and messages empty", messages)
    if messages is None:
        if prompt is None:
            raise place.fault("E_MISSING", "prompt", "give a text, or take the row out")
        if not isinstance(prompt, str) or not prompt.strip():
            raise place.fault("E_TYPE", "prompt", "give a text; a conversation goes into messages", prompt)
        return prompt
    told = _list(place, "messages", messages)
    for message in told:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise place.fault("E_TYPE", "messages", 'give each as {"role": "user", "content": "…"}', message)
    if not told:
        raise place.fault("E_MISSING", "messages", "give one at least, or take the row out")
    return [_without_nulls(message) for message in told]


def _without_nulls(value: Any) -> Any:
    """The same without keys that Parquet fills with null, since other rows have them."""
    if isinstance(value, dict):
        return {key: _without_nulls(of) for key, of in value.items() if of is not None}
    return [*map(_without_nulls, value)] if isinstance(value, list) else value


def _list(place: _Place, column: str, value: Any) -> list[Any]:
    if isinstance(value, str) and place.coded:
        try:
            value = json.loads(value)
        except ValueError as error:
            raise place.fault("E_TYPE", column, f"write a list in JSON ({error})", value) from error
    if not isinstance(value, list):
        raise place.fault("E_TYPE", column, "give a list", value)
    return value


def _references(place: _Place) -> tuple[str, ...]:
    one, several = place.get("reference"), place.get("references")
    told = [*(one if isinstance(one, list) else [one])]
    told += [] if several is None else _list(place, "references", several)
    for value in told:
        if not isinstance(value, str | int | float | None):
            raise place.fault("E_TYPE", "reference", "give a text, a number or a list of such", value)
    return tuple(str(value) for value in told if value is not None)


def _carried(place: _Place) -> dict[str, str | float | bool | None]:
    found = {}
    for column in place.values:
        if column in _OWN or not column:
            continue
        value = place.get(column)
        if _OF_THE_LOG.fullmatch(column) or column in _OF_ITS_LONG_FORM:
            raise place.fault("E_COLUMN", column, "a log has columns of such names for its tiers; rename it", value)
        if not isinstance(value, str | int | float | None):
            raise place.fault("E_TYPE", column, "give a text or a number, or leave the column out", value)
        found[column] = value
    return found


def _check_kinds(places: Sequence[_Place], found: Sequence[Prompt]) -> None:
    """Every column that is carried has one kind of value."""
    kinds: dict[str, str] = {}
    for place, prompt in zip(places, found, strict=True):
        for column, value in prompt.carried.items():
            if value is None:
                continue
            kind = "true or false" if isinstance(value, bool) else "text" if isinstance(value, str) else "a number"
            if kinds.setdefault(column, kind) != kind:
                raise place.fault("E_TYPE", column, f"above it is {kinds[column]}; write one kind of value", value)


def _named(places: Sequence[_Place], found: Sequence[Prompt]) -> list[Prompt]:
    """Each with an id of its own."""
    seen: set[str] = set()
    times: Counter[str] = Counter()
    named = []
    for place, prompt in zip(places, found, strict=True):
        name = prompt.id
        if not name:
            made = _digest(prompt)
            times[made] += 1
            name = made if times[made] == 1 else f"{made}-{times[made]}"
        if name in seen:
            raise place.fault("E_DUPID", "query_id", "a query stands here twice; give each an id of its own", name)
        seen.add(name)
        named.append(replace(prompt, id=name))
    return named


def _grouped(prompts: list[Prompt]) -> list[Prompt]:
    """With groups of the same content, where there are any and the file has no groups."""
    digests = [_digest(prompt) for prompt in prompts]
    if len({*digests}) == len(prompts) or any("group_id" in prompt.carried for prompt in prompts):
        return prompts
    return [
        replace(prompt, carried={"group_id": digest, **prompt.carried})
        for prompt, digest in zip(prompts, digests, strict=True)
    ]


def _digest(prompt: Prompt) -> str:
    return hashlib.sha256(json.dumps(prompt.messages, sort_keys=True).encode()).hexdigest()[:16]
