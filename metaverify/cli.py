"""The command line: results on stdout, messages on stderr; exit 0 done, 1 could not be done, 2 wrong use, 143
broken off by SIGTERM."""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from keyword import iskeyword
from typing import Any

from metaverify.output import spare_inputs

__all__ = ["COMMANDS", "main", "module_name"]

COMMANDS = {
    "demo": "the whole road on a log that ships with the package",
    "collect": "ask models and verifiers on prompts, grade them, and write the log",
    "inspect": "what is in a log, and what is wrong with it",
    "count": "count logs of any size into one small file, from which to fit",
    "fit": "learn a policy from a log",
    "compare": "methods side by side on queries that none of them learnt from",
    "pomdp": "write the cascade as a POMDP that solvers outside read",
    "certify": "set the dial where a budget certainly holds",
    "replay": "what a policy would have earned on a log",
    "explore": "how much to explore, and where, to know a new policy's value",
    "join": "put labels into a router's decision log",
    "decide": "one decision",
    "show": "draw a policy",
    "report": "a policy as one web page: the dial, its trees, decisions by hand",
    "simulate": "draw a log from a synthetic world",
    "import": "make a log of what gateways, evaluation harnesses and warehouses write",
    "shadow": "what a candidate would have changed, and whether it is safe to turn on",
    "promote": "put a candidate in the place of the policy in use",
    "rollback": "put the policy before back in its place",
    "serve-verdict": "accept or escalate, over HTTP, for gateways",
    "export-vllm-sr": "a policy as one threshold, for vLLM semantic-router",
}
"""What each command is for; how is in its module of `metaverify.commands`."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SQLITE_FULL = "database or disk is full"

TERMINATED = 128 + 15  # the exit code of what SIGTERM ended

EXTRA = "this command needs the extra `fit`: pip install 'metaverify[fit]'"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.  SIGTERM ends it as Ctrl-C does, with 143 where it is broken off."""
    with _ended_by_sigterm() as told:
        code = _run(argv)
    return TERMINATED if told and code else code


def _run(argv: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter gets the rest
    options = argparse.Namespace()
    try:
        options = _parser().parse_args(argv)
        spare_inputs(options)
        options.run(options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "interrupted; every file is as it was, or whole")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "metaverify":
            raise
        return _fail(f"{EXTRA} (it brings {error.name})")
    except (ValueError, TypeError, MemoryError, OSError, ImportError) as error:
        return _fail(_text(error, options))
    except Exception as error:
        if (full := _full(error)) is None:
            raise
        return _fail(_unwritten(_places(options), full))
    return 0


@contextmanager
def _ended_by_sigterm() -> Iterator[list[int]]:
    """Inside, SIGTERM is passed on as SIGINT, so that whatever cleans up after the one does after the other; the list
    is empty until it came.

    What ignores SIGTERM, or has a handler for it, keeps that.
    """
    told: list[int] = []
    own = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() != own:  # a forked child, which is ended as ever
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        told.append(number)
        if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL, None):  # as in a shell's background
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    try:
        ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if ours:
            signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread, to which signals come
        ours = False
    try:
        yield told
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="metaverify",
        description="Learn from logs when to trust a cheap model, look again, or pay for a better one.",
        epilog="Start with: metaverify demo",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Command)
    for name, what in COMMANDS.items():
        commands.add_parser(name, help=what).set_defaults(command=name)
    return parser


class _Command(argparse.ArgumentParser):
    """The parser of a command, bare until the command is called."""

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        name = self.get_default("command")
        what = COMMANDS[name]
        module = import_module(f"metaverify.commands.{module_name(name)}")
        self.description = f"{what[0].upper()}{what[1:]}."
        self.epilog = f"example:\n  {module.EXAMPLE}"
        self.formatter_class = argparse.RawDescriptionHelpFormatter
        self.set_defaults(run=module.run)
        self.add_argument("--json", action="store_true", help="print JSON")
        module.add(self)
        return super().parse_known_args(*args, **kwargs)


def module_name(command: str) -> str:
    """The module of a command, in `metaverify.commands`: its name, made one that Python takes."""
    name = command.replace("-", "_")
    return f"{name}_" if iskeyword(name) else name


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"metaverify {version('metaverify')}")
        parser.exit()


def _fail(message: str) -> int:
    print(f"metaverify: {message}", file=sys.stderr)
    return 1


def _text(error: Exception, options: argparse.Namespace) -> str:
    if isinstance(error, OSError) and (full := _full(error)) is not None:
        return _unwritten(_places(options) if error.filename is None else [str(error.filename)], full)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _full(error: Exception) -> str | None:
    """Why there is no room for a file, if that is what an error of whatever library says."""
    return next((words for words in (*map(os.strerror, FULL), SQLITE_FULL) if words in str(error)), None)


def _places(options: argparse.Namespace) -> list[str]:
    """Where a command was told to write."""
    return [of for name in ("out", "resume", "plots", "storage") if (of := getattr(options, name, None)) is not None]


def _unwritten(places: Sequence[str], why: str) -> str:
    return f"{' or '.join(map(str, places)) or 'a file'} cannot be written: {why}"
