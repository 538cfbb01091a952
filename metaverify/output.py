"""What every command says and writes: JSON, warnings, progress, and whether there is a place for a file."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Task

    from metaverify.simulators.log import LogWarning
    from metaverify.simulators.progress import Tell

__all__ = ["check_out", "json_text", "print_json", "print_warnings", "progress", "spare_inputs", "working"]

CASES = 3  # of a warning, that are named


def check_out(path: str | None) -> None:
    """Make sure, before any work is done, that there is a place for the file.

    Raises:
        ValueError: there is none.
    """
    if path is None:
        return
    target = pathlib.Path(path)
    if target.is_symlink():
        target = pathlib.Path(os.path.realpath(target))
    if target.is_dir():
        raise ValueError(f"{path} is a folder; name a file in it")
    if target.exists() and not target.is_file():
        raise ValueError(f"{path} is there already, and is no file; name a file")
    if not target.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {str(target.parent)!r}; make it first")
    if not os.access(target.parent, os.W_OK):
        raise ValueError(f"{path}: Permission to write in {str(target.parent)!r} is missing")


def spare_inputs(options: Namespace) -> None:
    """Make sure, whatever the command, that the file to be written is none that is read.

    ``options.in_place`` names what a command may write over.

    Raises:
        ValueError: it would be replaced.
    """
    out = getattr(options, "out", None)
    if out is None:
        return
    for name, value in vars(options).items():
        if name not in ("out", getattr(options, "in_place", "")):
            for read in _files_of(value):
                if any(_same_file(read, written) for written in (out, f"{out}.sig")):
                    raise ValueError(f"-o {out} would replace {read}, which is read; name another file")


def _files_of(value: object) -> Iterator[str]:
    """The files that an option may name: by itself or in a list, as TIER=FILE, or by a pattern."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from _files_of(each)
    elif isinstance(value, str):
        yield value
        if value.partition("=")[2]:
            yield from _files_of(value.partition("=")[2])
        if "*" in value or "?" in value or "[" in value:
            from glob import iglob

            with contextlib.suppress(OSError, ValueError):
                yield from iglob(value, recursive=True)  # noqa: PTH207


def _same_file(one: str, other: str) -> bool:
    with contextlib.suppress(OSError, ValueError):  # not there, or no path at all
        return pathlib.Path(one).samefile(other)
    return False


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    print(json_text(value))


def json_text(value: object) -> str:
    """The value as JSON, with null for every number that JSON has no word for."""
    return json.dumps(_finite(value), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not float("-inf") < value < float("inf"):
        return None
    return value


def print_warnings(warnings: Iterable[LogWarning]) -> None:
    """What is odd about a log, a line each."""
    for warning in warnings:
        some = ", ".join(warning.cases[:CASES])
        more = f", and {len(warning.cases) - CASES} more" if len(warning.cases) > CASES else ""
        print(f"warning {warning.slug}: {warning.text}{f' ({some}{more})' if some else ''}")


@contextlib.contextmanager
def progress() -> Iterator[Tell]:
    """A progress bar on stderr, where that is a terminal: what is being done, how fast, and for how long still.

    It has no end while no share was told.
    """
    if not sys.stderr.isatty():
        yield lambda what, share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Percent of the whole in a second."""

        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{100 * task.speed:.2g} %/s")

    doing = TextColumn("{task.description:<32}")
    columns = (doing, BarColumn(), Rate(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def tell(what: str, share: float | None) -> None:
            bar.update(task, description=what, completed=share, total=None if share is None else 1.0)

        yield tell


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Says what is being done, for as long as it is; nobody knows how far it has come."""
    with progress() as tell:
        tell(what, None)
        yield
