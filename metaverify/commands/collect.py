"""`metaverify collect`: from nothing to a log."""

from __future__ import annotations

import argparse
import logging
import math
from typing import TYPE_CHECKING, Any

from metaverify.arguments import parse_counts, parse_names
from metaverify.options import number
from metaverify.output import check_out, print_json, progress

if TYPE_CHECKING:
    from metaverify.policies.integrations.settings import CascadeSettings
    from metaverify.simulators.collecting.collected import Collected
    from metaverify.simulators.collecting.rehearsal import Estimate

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify collect prompts.csv --settings cascades.toml --grade exact --cap 5.00 -o log.parquet"
DETAILS = (
    "Prompts are a table (.jsonl, .csv, .parquet) of prompt (or messages) and reference; query_id, group_id and\n"
    "contexts go into the log.  Finished calls are kept in LOG.journal, with the answers, and never paid for again:\n"
    "after a crash, a stop or a change the same command goes on where it was."
)
EMPTY = "-"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = f"{parser.description}\n{DETAILS}"
    parser.add_argument("prompts", help="what to ask, a row a query")
    parser.add_argument("-o", "--out", required=True, metavar="LOG", help="the log to write: .parquet, .csv, .jsonl")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--settings", metavar="FILE", help="whom to ask: the cascades.toml of the LiteLLM provider")
    asked.add_argument("--tiers", help="without a file: models of LiteLLM's, or name=model, separated by commas")
    parser.add_argument("--cascade", metavar="NAME", help="which cascade of the settings, where there are several")
    parser.add_argument(
        "--verifier", action="append", default=[], metavar="NAME", help="with --tiers: what reads every tier's answers"
    )
    _add_grading(parser)
    _add_limits(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what it would cost, and ask nobody")
    parser.add_argument(
        "--answer-tokens", type=_count, default=256, help="of --dry-run: what answers have (default: %(default)s)"
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="keep queries that lack an answer or a grade of some tier, for a partial log",
    )


def _add_grading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grade",
        default="exact",
        metavar="HOW",
        help="exact, f1, regex, judge, or your own module:function(prompt, answer) (default: %(default)s)",
    )
    parser.add_argument(
        "--extract",
        default="",
        metavar="REGEX",
        help="grade what the group of its last match has, not the whole answer",
    )
    parser.add_argument("--judge", metavar="MODEL", help="of --grade judge: a tier of the settings, or a model")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cap",
        type=number("cap", 0.0, math.inf),
        default=math.inf,
        metavar="DOLLARS",
        help="the most that all runs may cost",
    )
    parser.add_argument("--at-once", type=_count, default=8, help="queries under way at once (default: %(default)s)")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="TIER=N", help="calls of this tier's model at once"
    )
    parser.add_argument(
        "--tries", type=_count, default=6, help="how often a call is tried that failed (default: %(default)s)"
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 1")
    return int(text)


def run(options: argparse.Namespace) -> None:
    """Ask, grade, and write the log."""
    from metaverify.simulators.collecting.collecting import collect
    from metaverify.simulators.collecting.collection import Grading
    from metaverify.simulators.collecting.prompts import read_prompts
    from metaverify.simulators.collecting.purchases import Limits
    from metaverify.simulators.collecting.rehearsal import estimate

    check_out(options.out)
    logging.getLogger("LiteLLM").setLevel(logging.ERROR)  # it warns of every model with a price of one's own
    settings, prompts = _settings(options), read_prompts(options.prompts)
    told: dict[str, Any] = {"grading": Grading(options.grade, options.extract, options.judge)}
    limits = Limits(options.at_once, _limits(options, settings), options.tries)
    if options.dry_run:
        with progress() as tell:
            guess = estimate(prompts, settings, options.out, answer_tokens=options.answer_tokens, progress=tell, **told)
        if options.json:
            print_json(guess.to_json())
        else:
            print("\n".join(_estimated(guess, options.answer_tokens)))
        return
    try:
        with progress() as tell:
            found = collect(
                prompts,
                settings,
                options.out,
                cap=options.cap,
                limits=limits,
                whole=not options.partial,
                progress=tell,
                **told,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; what is finished is in {options.out}.journal, and the same command goes on from there"
        ) from None
    if options.json:
        print_json(found.to_json())
    else:
        print("\n".join(_lines(found)))
    if found.stopped is not None and not found.capped:
        raise ValueError(f"{found.stopped}; the same command goes on from there")


def _settings(options: argparse.Namespace) -> CascadeSettings:
    """Whom to ask.

    Raises:
        ValueError: there is no such cascade, or several and none is named.
    """
    from metaverify.policies.integrations.settings import read_settings
    from metaverify.policies.names import did_you_mean
    from metaverify.simulators.collecting.panel import quick_settings

    if options.settings is None:
        return quick_settings(parse_names(options.tiers) or [], options.verifier)
    if options.verifier:
        raise ValueError(
            f"--verifier {options.verifier[0]}: the verifiers are those of {options.settings}; leave it out"
        )
    known = read_settings(options.settings)
    name = options.cascade or (next(iter(known)) if len(known) == 1 else None)
    if name is None:
        raise ValueError(f"{options.settings} has several cascades: name one, --cascade {next(iter(known))}")
    if name not in known:
        there = ", ".join(known)
        raise ValueError(f"--cascade {name}: {options.settings} has {there}{did_you_mean(name, known)}")
    return known[name]


def _limits(options: argparse.Namespace, settings: CascadeSettings) -> dict[str, int]:
    from metaverify.policies.names import did_you_mean

    limits = parse_counts("--limit", options.limit)
    for name in limits:
        if name not in settings.tiers:
            raise ValueError(f"--limit {name}: there is no such tier{did_you_mean(name, settings.tiers)}")
    return limits


def _lines(found: Collected) -> list[str]:
    """What was collected, as a table, and what to do next."""
    from metaverify.report import table

    rows = [
        (
            of.tier if of.reading is None else f"  {of.reading}",
            f"{of.calls:,}",
            EMPTY if of.dollars is None else f"${of.dollars:.4f}",
            EMPTY if of.quality is None else f"{of.quality:.3f}",
            EMPTY if of.reading == "grade" else f"{of.missing:,}",
        )
        for of in found.sources
    ]
    lines = [table(("tier", "calls", "cost", "quality", "missing"), rows), ""]
    lines += [
        f"{of.tier}{f' {of.reading}' if of.reading else ''} failed: "
        + ", ".join(f"{why} {count:,}" for why, count in of.failed.items())
        for of in found.sources
        if of.failed
    ]
    if found.partial:
        kept = "left out; --partial keeps them" if found.queries < found.asked else "kept"
        lines.append(f"queries without an answer or a grade of some tier: {found.partial:,}, {kept}")
    for source in found.unpriced:
        lines.append(
            f"LiteLLM knows no price of {source}, so the log has none: give it in litellm_params, or fit --cost"
        )
    if found.lost:
        calls = "1 call" if len(found.lost) == 1 else f"{len(found.lost):,} calls"
        lines.append(f"of {calls} nobody knows what became; that may have cost ${sum(found.lost):.4f} more at most")
    if found.asked < found.prompts:
        lines.append(f"{found.prompts - found.asked:,} of {found.prompts:,} prompts are left: {found.stopped}")
        lines += ["the same command with a higher --cap goes on from there"] if found.capped else []
    lines.append(f"wrote {found.out}: {found.queries:,} queries; ${found.dollars:.4f} in all runs")
    lines.append(
        f"kept {found.journal}: all answers, so that nothing is paid for twice; delete it once you need it no more"
    )
    if found.queries == found.asked - found.partial or not found.partial:
        lines.append(f"next: metaverify inspect {found.out}")
    else:
        lines.append(f"next: metaverify fit {found.out} --partial --budget COST")
    return lines


def _estimated(guess: Estimate, answer_tokens: int) -> list[str]:
    """What it would cost, as a table."""
    from metaverify.report import table

    shares = {**guess.shares, "in all": guess.total}
    rows = [
        (
            purpose,
            f"{share.calls:,}",
            f"{share.prompt_tokens:,}",
            f"{share.answer_tokens:,}",
            "?" if share.dollars is None else f"${share.dollars:.4f}",
            "?" if share.dearest is None else f"${share.dearest:.4f}",
        )
        for purpose, share in shares.items()
    ]
    lines = [table(("for", "calls", "tokens asked", "answered", "cost", "at most"), rows)]
    lines += ["", f"{guess.prompts:,} prompts; answers of {answer_tokens:,} tokens, where they may be as long"]
    if guess.paid:
        lines.append(f"${guess.paid:.4f} are paid already, and not in the table")
    lines += [f"{name} may cost more: nobody knows before it is read" for name in guess.unforeseen]
    if guess.total.dearest is None:
        lines.append("where no most is known (?), give litellm_params prices and max_tokens")
    lines.append("nobody was asked")
    return lines
