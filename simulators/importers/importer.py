"""What reads one format, and where those of other packages are found."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TypeVar, cast

from metaverify.simulators.columns import nearest
from metaverify.simulators.importers.sources import Record, Source, Unused
from metaverify.simulators.log import LogError

__all__ = ["ENTRY_POINTS", "Importer", "find_importer", "known_formats"]

_Given = TypeVar("_Given")

ENTRY_POINTS = "metaverify.importers"
"""The entry-point group of formats of other packages: each an `Importer`."""

_HOMES = {
    "automix": "automix",
    "decisions": "decisions",
    "inspect-ai": "inspect_logs",
    "langfuse": "langfuse",
    "litellm": "litellm",
    "lm-eval": "lm_eval",
    "long": "tables",
    "otel": "otel",
    "routerbench": "routerbench",
    "wide": "tables",
}


@dataclass(frozen=True, slots=True)
class Importer:
    """How one format is read.

    ``read`` gives the records of a file, and ``paths`` says where in a record the columns of a log stand: those of the
    long form, or without ``tier`` those of the wide one.  Where what is known of an answer is scattered, ``read`` gives
    records a ``key``, and ``join`` makes records that are whole of all that share one, in the order in which they were
    read; their ``line`` is their position among these, and what it gives names the one that it comes from.  What it
    gives another key is joined once more, with all that has got that one.

    A record is a whole answer, and the last of a query and tier stands for itself; where ``paths`` have a ``reading``,
    and in tables, those that do not contradict each other say of one answer.  ``own`` is for tables: it takes what a
    record has under a name of ours as well.

    ``whole`` leaves out queries that some tier did not answer: right where that is an accident, as in a benchmark, and
    wrong where somebody decided it, as in traffic.  ``form`` is what is written.
    """

    read: Callable[[Source], Iterator[Record | Unused]]
    paths: Mapping[str, Sequence[str | float]] = field(default_factory=lambda: MappingProxyType({}))
    join: Callable[[Sequence[Record]], Iterator[Record | Unused]] | None = None
    own: bool = False
    whole: bool = False
    form: str = "wide"


def known_formats() -> list[str]:
    """The formats that can be imported, those of other packages last."""
    return [*_HOMES, *(name for name in _foreign() if name not in _HOMES)]


def find_importer(name: str) -> Importer:
    """What reads a format.

    Raises:
        LogError: there is none of this name, or another package brings it and it cannot be loaded or is none.
    """
    if name in _HOMES:
        module = importlib.import_module(f"metaverify.simulators.importers.{_HOMES[name]}")
        return cast("Importer", module.IMPORTER)
    point = _foreign().get(name)
    if point is None:
        raise LogError("E_OPTION", f"no format is called {name!r}; {nearest(name, known_formats())}")
    of = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
    whose = f"the format {name!r}{of} (entry point {point.value})"
    try:
        found = point.load()
    except Exception as error:
        raise LogError("E_OPTION", f"{whose} cannot be loaded: {_named(error)}; tell whoever made it") from error
    if not isinstance(found, Importer):
        raise LogError("E_OPTION", f"{whose} is no Importer; tell whoever made it")
    join = None if found.join is None else _guarded(found.join, whose)
    return replace(found, read=_guarded(found.read, whose), join=join)


def _guarded(
    call: Callable[[_Given], Iterator[Record | Unused]], whose: str
) -> Callable[[_Given], Iterator[Record | Unused]]:
    """The same, which says whose it is where it fails or gives what is neither a record nor unused."""

    def guarded(given: _Given) -> Iterator[Record | Unused]:
        try:
            for found in call(given):
                if not _is_either(found):
                    raise TypeError(f"{found!r:.80} is neither a Record nor an Unused")
                yield found
        except LogError:
            raise
        except Exception as error:
            raise LogError("E_OPTION", f"{whose} failed: {_named(error)}; tell whoever made it") from error

    return guarded


def _is_either(found: object) -> bool:
    if isinstance(found, Record):
        return isinstance(found.line, int) and isinstance(found.values, Mapping) and isinstance(found.key, str | None)
    return isinstance(found, Unused) and isinstance(found.line, int)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _foreign() -> dict[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name)}
