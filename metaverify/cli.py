"""The command line: results on stdout, messages on stderr; exit 0 done, 1 could not be done, 2 wrong use."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pathlib
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial as partial_function
from typing import TYPE_CHECKING, Any

from metaverify.options import build_parser

if TYPE_CHECKING:
    from metaverify.fitting.certify import Terms
    from metaverify.fitting.crossfit import Learner
    from metaverify.fitting.outages import Outages
    from metaverify.policies.policy import Policy
    from metaverify.simulators.log import LogWarning

__all__ = ["main"]

EXTRA = "this command needs the extra `fit`: pip install 'metaverify[fit]'"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter gets the rest
    options = build_parser(COMMANDS).parse_args(argv)
    try:
        options.run(options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "metaverify":
            raise
        return _fail(f"{EXTRA} (it brings {error.name})")
    except (ValueError, TypeError, MemoryError, OSError, ImportError) as error:
        return _fail(_text(error))
    return 0


def _fail(message: str) -> int:
    print(f"metaverify: {message}", file=sys.stderr)
    return 1


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


DEMO_METHODS = ("default", "chain", "thresholds", "automix-threshold", "random")
DEMO_BUDGETS = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 20.0, 50.0)


def _demo(options: argparse.Namespace) -> None:
    from metaverify.comparison import verdict
    from metaverify.fitting.compare import compare
    from metaverify.fitting.fit import fit
    from metaverify.page import report_page
    from metaverify.policies.drawing import draw_text
    from metaverify.policies.explain import explain
    from metaverify.policies.file import load_policy, save_policy, write_atomically
    from metaverify.simulators.digits import load_digits_log
    from metaverify.simulators.inspection import inspect_log, render

    _check_out(options.out)
    log = load_digits_log()
    if not options.json:
        print("Inspects a log of four classifiers of handwritten digits, fits a policy to it, compares it with other")
        print("ways, and explains a decision. A price is thousands of multiply-adds per prediction.\n")
        print(render(inspect_log(log)))
    with _progress() as tell:
        fitted = fit(log, budget=options.budget, seed=options.seed, progress=tell)
    with _progress() as tell:
        found = compare(log, DEMO_METHODS, budgets=DEMO_BUDGETS, folds=3, seed=options.seed, progress=tell)
    compared = found.to_json()
    save_policy(fitted.policy, options.out)
    page = pathlib.Path(options.out).with_name("report.html")
    write_atomically(page, report_page(fitted.policy, compared).encode())
    if options.json:
        _print_json({**fitted.to_json(), "out": str(options.out), "page": str(page)})
        return
    from metaverify.report import fit_table

    print(fit_table(fitted))
    policy = load_policy(options.out)
    print(draw_text(policy))
    unsure = {policy.tiers[1].name: 0.5}
    print(f"decide({unsure}, key='request 1'):")
    print(explain(policy, unsure, key="request 1"))
    print("\n" + "\n".join(verdict(compared)))
    print(f"\nwrote {page}, to be opened in a browser: the dial, the tree, decisions by hand, methods side by side")
    print(f"wrote {options.out}; try\n  metaverify decide {options.out} '{json.dumps(unsure)}' --key 7 --explain")


def _inspect(options: argparse.Namespace) -> None:
    from metaverify.simulators.inspection import inspect_log, render
    from metaverify.simulators.reader import log_columns

    report = inspect_log(_read(options))
    columns = log_columns(
        options.log,
        context=_names(options.context) or (),
        group=options.group,
        weight=options.weight,
        signals=_signals(options.signal),
        samples=_names(options.samples) or (),
    )
    if options.json:
        _print_json({**report.to_json(), "ignored_columns": list(columns.ignored)})
        return
    print(render(report), end="")
    if columns.ignored:
        print(f"\ncolumns not used: {', '.join(columns.ignored)}")


Tell = Callable[[str, float | None], None]
"""What is being done, and the share of the whole that is done; None where that has not changed."""


def _learner(options: argparse.Namespace, tell: Tell) -> Learner | None:
    """The way of learning that was named; None leaves the choice to cross-fitting."""
    from metaverify.fitting.chain import Thresholds
    from metaverify.fitting.learner import TableLearner
    from metaverify.fitting.models.zoo import MODELS
    from metaverify.fitting.select import TIERS

    model = MODELS[options.model]()
    on_rows = options.method in ("thresholds", "optuna")
    if options.pooling != "average" and (options.solver != "lattice" or on_rows):
        raise ValueError("--pooling is of tables: it goes with --method auto, chain or lattice and --solver lattice")
    tuning = {name: getattr(options, name) for name in ("trials", "cuts", "storage")}
    given = {name: value for name, value in tuning.items() if value is not None}
    if given and (options.solver != "lattice" or options.method != "optuna"):
        raise ValueError(f"--{next(iter(given))} goes with --method optuna")
    if options.solver != "lattice":
        from metaverify.fitting.pomdp_learner import PomdpLearner

        solver = options.solver.removeprefix("pomdp-py:")
        return PomdpLearner(
            model,
            solver=solver,
            simulations=options.simulations,
            bins=options.bins or 8,
            abstain=options.abstain,
            seed=options.seed,
        )
    if options.method == "auto":
        return None
    if options.method == "thresholds":
        return Thresholds(options.bins)
    if options.method == "optuna":
        from metaverify.fitting.tuned import TunedChains, Watch

        if options.storage is not None and "://" not in options.storage:
            _check_out(options.storage)
        watch = Watch(lambda done, wanted: tell(f"trial {done} of {wanted}", None))
        return TunedChains(options.budget, seed=options.seed, watch=watch, **given)
    return TableLearner(
        model,
        policies="chain" if options.method == "chain" else "lattice",
        bins=options.bins or 8,
        pooling=options.pooling,
        tiers=TIERS,
        abstain=options.abstain,
        budget=options.budget,
    )


def _fit(options: argparse.Namespace) -> None:
    from metaverify.fitting.fit import fit
    from metaverify.fitting.models.zoo import MODELS
    from metaverify.policies.file import save_policy
    from metaverify.policies.signatures import sign
    from metaverify.policies.storage import signature_path
    from metaverify.report import fit_table
    from metaverify.simulators.inspection import inspect_log

    _check_out(options.out)
    for name in ("serial", "expires", "key_file"):
        if getattr(options, name) and options.out is None:
            raise ValueError(f"--{name.replace('_', '-')} is of a file, and none is to be written: give -o policy.json")
    key = _key(options)
    if key is not None:
        sign(b"", key)  # refused before the work, where it cannot sign
    if options.partial:
        _fit_partial(options, key)
        return
    log = _read(options)
    with _progress() as tell:
        learner = _learner(options, tell)
        fitted = fit(
            log,
            budget=options.budget,
            price=options.price,
            quality_floor=options.quality_floor,
            certify=_terms(options),
            learner=learner,
            model=None if options.model == "default" else MODELS[options.model](),
            readings=_names(options.readings),
            abstain=options.abstain,
            bins=options.bins,
            pooling=options.pooling,
            folds=options.folds,
            seed=options.seed,
            outages=_outages(options.outages, log.tier_names),
            progress=tell,
        )
    _say_interrupted(learner)
    warnings = inspect_log(log).warnings
    if options.out is not None:
        fitted = replace(fitted, policy=replace(fitted.policy, serial=options.serial, expires=options.expires))
        save_policy(fitted.policy, options.out, key=key)
    if options.json:
        _print_json({**fitted.to_json(), "out": options.out, "warnings": [w.slug for w in warnings]})
        return
    print(fit_table(fitted))
    _print_warnings(warnings)
    if options.out is None:
        print("no file was written; -o policy.json writes one")
    else:
        signed = "" if key is None else f"; its signature is in {signature_path(options.out)}"
        size = pathlib.Path(options.out).stat().st_size
        print(f"wrote {options.out}: {len(fitted.policy.nodes)} nodes, {size:,} bytes{signed}")


def _fit_partial(options: argparse.Namespace, key: Any) -> None:
    """`fit` on a partial log."""
    from metaverify.fitting.models.zoo import MODELS
    from metaverify.fitting.partial_fit import fit_partial
    from metaverify.policies.file import save_policy
    from metaverify.report import partial_fit_table

    usual: dict[str, Any] = {"method": "auto", "pooling": "average", "solver": "lattice"}
    none = ("readings", "abstain", "outages", "trials", "cuts", "storage", "quality_floor", "certify", "delta")
    for name, value in {**usual, **dict.fromkeys(none)}.items():
        if getattr(options, name) != value:
            raise ValueError(f"--{name.replace('_', '-')} does not go with --partial")
    partial = _read(options)
    with _progress() as tell:
        fitted = fit_partial(
            partial,
            budget=options.budget,
            price=options.price,
            model=None if options.model == "default" else MODELS[options.model](),
            within_support=options.within_support,
            bins=options.bins or 8,
            folds=options.folds,
            seed=options.seed,
            progress=tell,
        )
    if options.out is not None:
        save_policy(replace(fitted.policy, serial=options.serial, expires=options.expires), options.out, key=key)
    if options.json:
        warned = [warning.slug for warning in partial.log.notes]
        _print_json({**fitted.to_json(), "out": options.out, "warnings": warned})
        return
    print(partial_fit_table(fitted))
    _print_warnings(partial.log.notes)
    wrote = "no file was written; -o policy.json writes one" if options.out is None else f"wrote {options.out}"
    print(wrote)


def _terms(options: argparse.Namespace) -> Terms | None:
    """How what is fitted is to be certified; None where it is not."""
    from metaverify.fitting.certify import Terms

    given = [name for name in ("dearest", "next") if getattr(options, name)]
    if options.quality_floor is not None:
        if given or options.certify is not None:
            raise ValueError(f"--{(given or ['certify'])[0]} goes with --budget; a floor is certified with --delta")
        return None if options.delta is None else Terms(delta=options.delta)
    if options.certify is None:
        if given or options.delta is not None:
            raise ValueError(f"--{(given or ['delta'])[0]} goes with --certify")
        return None
    delta = Terms().delta if options.delta is None else options.delta
    return Terms(delta=delta, level=options.certify, dearest=options.dearest, next=options.next)


def _compare(options: argparse.Namespace) -> None:
    from joblib import cpu_count, parallel_config

    from metaverify.comparison import comparison_text
    from metaverify.fitting.compare import compare
    from metaverify.fitting.methods import known_methods
    from metaverify.policies.file import write_atomically
    from metaverify.report import peak_memory

    start = time.perf_counter()
    _check_out(options.out)
    if options.plots is not None:
        pathlib.Path(options.plots).mkdir(parents=True, exist_ok=True)
    log = _read(options)
    if (readings := _names(options.readings)) is not None:
        log = log.with_readings(readings)
    resume, names = options.resume, _names(options.methods)
    try:
        with _progress() as tell, parallel_config(n_jobs=options.jobs or cpu_count()):
            found = compare(
                log,
                known_methods() if names == ["all"] else names,
                budgets=_budgets(options.budgets),
                folds=options.folds,
                repeats=options.repeats,
                seed=options.seed,
                resume=None if resume is None else pathlib.Path(resume),
                progress=tell,
            )
    except KeyboardInterrupt:
        if resume is None:
            raise
        raise ValueError(f"interrupted; the same command goes on where it was, with what is in {resume}") from None
    told = found.to_json(seconds=not options.no_seconds)
    if options.out is not None:
        write_atomically(options.out, (_json(told) + "\n").encode())
    if options.plots is not None:
        from metaverify.figures import write_figures

        write_figures(found, options.plots)
    if options.json:
        print(_json(told))
        return
    print(comparison_text(found), end="")
    _print_warnings(found.inspection.warnings)
    wrote = [text for text in (options.out, options.plots) if text is not None]
    print(f"\nwrote {' and '.join(wrote)}" if wrote else "\nno file was written; -o comparison.json writes one")
    peak = peak_memory()
    memory = "" if peak is None else f", peak memory {peak / 1e6:,.0f} MB over all processes"
    print(f"metaverify: {time.perf_counter() - start:.0f} s{memory}", file=sys.stderr)


def _budgets(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(budget) for budget in _names(text) or ()]
    except ValueError:
        raise ValueError(f"--budgets {text}: write them as numbers, for example --budgets 1,2.5,4") from None


def _print_warnings(warnings: Iterable[LogWarning]) -> None:
    """What is odd about a log, a line each."""
    for warning in warnings:
        print(f"warning {warning.slug}: {warning.text}")


def _say_interrupted(learner: Learner | None) -> None:
    """One line on stderr where a search was cut short."""
    from metaverify.fitting.tuned import TunedChains

    if isinstance(learner, TunedChains) and learner.watch.most is not None:
        print(f"metaverify: interrupted; kept the best of {learner.watch.most} trials a study", file=sys.stderr)


def _pomdp(options: argparse.Namespace) -> None:
    from metaverify.fitting.learner import TableLearner
    from metaverify.fitting.observation import observation_model
    from metaverify.fitting.pomdp import cascade_pomdp
    from metaverify.fitting.pomdp_file import write_pomdp

    _check_out(options.out)
    suffix = pathlib.Path(options.out).suffix
    if suffix not in (".pomdp", ".pomdpx"):
        raise ValueError(f"{options.out} ends in {suffix or 'nothing'}; name a file that ends in .pomdp or .pomdpx")
    study = TableLearner(bins=options.bins, first=True).study(_read(options))
    contexts = study.table.contexts
    if options.label is not None and options.label not in contexts:
        raise ValueError(f"--label {options.label!r} is no context; the log has {', '.join(contexts) or 'none'}")
    row = 0 if options.label is None else 1 + contexts.index(options.label)
    model = cascade_pomdp(observation_model(study.table, row), options.price, abstain=options.abstain)
    write_pomdp(model, options.out, "pomdp" if suffix == ".pomdp" else "pomdpx", discount=options.discount)
    if options.json:
        _print_json({"out": options.out, "hidden_states": len(model.prior), "actions": len(model.actions)})
        return
    print(f"wrote {options.out}: {len(model.prior):,} hidden states, {len(model.actions)} actions")


def _replay(options: argparse.Namespace) -> None:
    from metaverify.policies.certificate import certificate_text
    from metaverify.report import outcome_table
    from metaverify.simulators.inspection import inspect_log
    from metaverify.simulators.log import fingerprint_queries
    from metaverify.simulators.outcome import replay

    policy = _policy(options)
    if options.partial:
        _appraise(options, policy)
        return
    log = _read_for(policy, options)
    outcome = replay(_in_use(policy, options), log)
    seen = policy.provenance.get("queries") == fingerprint_queries(log)
    notes, most = [], policy.vertices[-1].cost
    if options.budget is not None and options.budget > most * (1 + 1e-9):
        notes.append(
            f"the dial ends at {most:.4g}, below the {options.budget:g} allowed: "
            "the file has nothing dearer that earned more"
        )
    if seen:
        notes.append("the policy was fitted on this log, so these figures are better than what new queries will show")
    warnings = inspect_log(log).warnings
    certificate = _in_use(policy, options).certificate
    if options.json:
        promised = None if certificate is None else asdict(certificate)
        told = {**outcome.to_json(), "in_sample": seen, "certificate": promised}
        _print_json({**told, "notes": notes, "warnings": [w.slug for w in warnings]})
        return
    print(outcome_table(outcome))
    print(certificate_text(certificate))
    _print_warnings(warnings)
    for note in notes:
        print(f"note: {note}")


def _read_for(policy: Policy, options: argparse.Namespace) -> Any:
    """The log that was named, its tiers, signals, votes, samples and contexts as the policy has them."""
    from metaverify.simulators.reader import log_columns

    signals = {tier.name: tier.needs for tier in policy.tiers if not tier.answer} | _signals(options.signal)
    tiers, context = _names(options.tiers), _names(options.context) or ()
    samples = {r.name for tier in policy.tiers for r in tier.readings if r.sample} | {*(_names(options.samples) or ())}
    columns = log_columns(
        options.log,
        context=context,
        group=options.group,
        weight=options.weight,
        signals=signals,
        samples=sorted(samples),
    )
    _check_columns(options, policy, columns)
    votes = {r.name: r.votes for tier in policy.tiers for r in tier.readings if r.votes} | _votes(options.votes)
    cuts = {name: at for name, at in policy.context_cuts.items() if name in (columns.keys.context or policy.context)}
    known = context or policy.context
    return _read(options, tiers or [tier.name for tier in policy.tiers], known, signals, votes, cuts, sorted(samples))


def _certify(options: argparse.Namespace) -> None:
    from metaverify.fitting.certify import Terms, certify
    from metaverify.policies.certificate import certificate_text
    from metaverify.policies.file import save_policy
    from metaverify.policies.signatures import sign
    from metaverify.simulators.inspection import repeat_warnings
    from metaverify.simulators.traffic import read_traffic

    out = options.out or options.policy
    _check_out(out)
    key = _key(options)
    if key is not None:
        sign(b"", key)  # refused before the work, where it cannot sign
    if options.log is None and options.traffic is None:
        raise ValueError("give a log that the policy was not fitted on, or --traffic")
    policy = _policy(options)
    logs = [] if options.log is None else [_read_for(policy, options)]
    if options.traffic is not None:
        known = {"costs": _costs(options.cost), "scale": options.scale, "group": options.group}
        logs.append(read_traffic(options.traffic, policy, **known, weight=options.weight))
    terms = Terms(options.delta, options.level, options.method, options.dearest, options.next, options.looks)
    certified = certify(policy, *logs, budget=options.budget, terms=terms)
    warnings = [warning for log in logs for warning in repeat_warnings(log)]
    save_policy(certified, out, key=key)
    if options.json:
        told = {
            "out": out,
            "certificate": asdict(certified.certificate) if certified.certificate else None,
            "operating_point": asdict(certified.point),
            "expected": {"cost": certified.expected_cost, "quality": certified.expected_quality},
            "warnings": [warning.slug for warning in warnings],
        }
        _print_json(told)
        return
    print(certificate_text(certified.certificate))
    before, after = policy.expected_cost, certified.expected_cost
    print(
        f"expected cost {after:.5g} (before: {before:.5g}), quality {certified.expected_quality:.4f}, at its new point"
    )
    _print_warnings(warnings)
    print(f"wrote {out}")


def _appraise(options: argparse.Namespace, policy: Policy) -> None:
    """`replay` on a partial log."""
    from metaverify.report import appraisal_table
    from metaverify.simulators.offpolicy import appraise

    partial = _read_for(policy, options)
    found = appraise(_in_use(policy, options), partial)
    warnings = partial.log.notes
    if options.json:
        _print_json({**found.to_json(), "warnings": [w.slug for w in warnings]})
        return
    print(appraisal_table(found))
    _print_warnings(warnings)


def _check_columns(options: argparse.Namespace, policy: Any, columns: Any) -> None:
    """Make sure that the log has what the policy routes to and decides by, where the options do not say otherwise."""
    from metaverify.simulators.log import LogError

    if options.tiers is None:
        for tier in policy.tiers:
            if columns.tiers and tier.name not in (*columns.tiers, *columns.signals):
                known = ", ".join((*columns.tiers, *columns.signals))
                raise LogError(
                    "E_POLICY",
                    f"{options.log}: the policy routes to {tier.name!r}, which the log does not have (it has {known}); "
                    "replay it on a log of its own cascade",
                )
    if options.context is None:
        for name in policy.context:
            if name not in (*columns.used, *columns.ignored):
                raise LogError(
                    "E_POLICY",
                    f"{options.log}: the policy decides by the context column {name!r}, which the log does not have; "
                    "name the columns with --context",
                )


def _decide(options: argparse.Namespace) -> None:
    from metaverify.policies.explain import action_json, action_text, explain

    policy = _in_use(_policy(options), options)
    readings = _readings(options.readings)
    known = {"context": _context(options.context, policy), "key": options.key}
    if options.key is None and 0.0 < policy.point.share < 1.0:
        raise ValueError("this policy mixes two decision graphs to meet its budget: give --key, the request's id")
    if options.explain:
        explanation = explain(policy, readings, **known)
        if options.json:
            _print_json(explanation.to_json())
        else:
            print(explanation)
        _warn_of_readings(policy, readings)
        return
    action = policy.decide(readings, **known)
    _warn_of_readings(policy, readings)
    if options.json:
        _print_json(action_json(action))
    else:
        print(action_text(action))


def _show(options: argparse.Namespace) -> None:
    from metaverify.policies.drawing import draw_mermaid, draw_text
    from metaverify.policies.file import dump_policy

    policy = _in_use(_policy(options), options)
    if options.json:
        sys.stdout.write(dump_policy(policy))
    else:
        if options.without and options.format == "text":
            print(f"without {options.without}; what is expected is so while all tiers are up")
        print((draw_mermaid if options.format == "mermaid" else draw_text)(policy), end="")


def _report(options: argparse.Namespace) -> None:
    from metaverify.page import load_comparison, report_page
    from metaverify.policies.file import write_atomically

    _check_out(options.out)
    policy = _policy(options)
    comparison = None if options.comparison is None else load_comparison(options.comparison)
    page = report_page(policy, comparison).encode()
    write_atomically(options.out, page)
    if options.json:
        _print_json({"out": options.out, "bytes": len(page)})
    else:
        print(f"wrote {options.out}: {len(page):,} bytes, complete in itself; open it in a browser")


def _simulate(options: argparse.Namespace) -> None:
    from metaverify.simulators.reader import write_log
    from metaverify.simulators.worlds import WORLDS

    world = WORLDS[options.world](options.tier_count, options.levels, missing=options.missing)
    log = world.draw(options.number, options.seed)
    if options.seen_by is None:
        write_log(log, options.out)
    else:
        from metaverify.policies.exploration import Exploration
        from metaverify.policies.file import load_policy
        from metaverify.simulators.partial_reader import write_partial_log
        from metaverify.simulators.trace import observed_by

        partial = observed_by(load_policy(options.seen_by), log, Exploration(options.epsilon))
        write_partial_log(partial, options.out)
    if options.json:
        _print_json({"out": options.out, "rows": len(log), "tiers": list(log.tier_names)})
    else:
        print(f"wrote {options.out}: {len(log):,} queries, tiers {', '.join(log.tier_names)}")


def _read(
    options: argparse.Namespace,
    tiers: Sequence[str] | None = None,
    context: Sequence[str] | None = None,
    signals: Mapping[str, Sequence[str]] | None = None,
    votes: Mapping[str, int] | None = None,
    context_cuts: Mapping[str, Sequence[float]] | None = None,
    samples: Sequence[str] | None = None,
) -> Any:
    from metaverify.simulators.partial_reader import read_partial_log
    from metaverify.simulators.reader import read_log

    read: Callable[..., Any] = read_log
    if getattr(options, "partial", False):
        read = partial_function(read_partial_log, logged_by=_logged_by(options), epsilon=options.epsilon)
    return read(
        options.log,
        tiers=tiers or _names(options.tiers),
        context=context or _names(options.context) or (),
        costs=_costs(options.cost),
        scale=options.scale,
        group=options.group,
        weight=options.weight,
        signals=_signals(options.signal) if signals is None else signals,
        votes=_votes(options.votes) if votes is None else votes,
        context_cuts=context_cuts,
        samples=_names(options.samples) or () if samples is None else samples,
    )


def _logged_by(options: argparse.Namespace) -> Policy | None:
    """The policy that wrote a partial log, at its operating point."""
    from metaverify.policies.file import load_policy

    return None if options.logged_by is None else load_policy(options.logged_by)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _costs(pairs: Sequence[str]) -> dict[str, float]:
    costs = {}
    for pair in pairs:
        tier, _, price = pair.rpartition("=")
        try:
            costs[tier] = float(price)
        except ValueError:
            raise ValueError(f"--cost {pair}: write it as tier=price, for example --cost small=0.2") from None
        if not tier:
            raise ValueError(f"--cost {pair}: write it as tier=price, for example --cost small=0.2")
    return costs


def _signals(declared: Sequence[str]) -> dict[str, tuple[str, ...]]:
    signals = {}
    for text in declared:
        name, equals, needs = text.partition("=")
        tiers = tuple(_names(needs) or ())
        if not name.strip() or (equals and not tiers):
            raise ValueError(f"--signal {text}: write it as name=tier, for example --signal judge=small")
        signals[name.strip()] = tiers
    return signals


def _votes(declared: Sequence[str]) -> dict[str, int]:
    votes = {}
    for text in declared:
        name, _, count = text.rpartition("=")
        try:
            votes[name.strip()] = int(count)
        except ValueError:
            raise ValueError(f"--votes {text}: write it as reading=number, for example --votes self_verify=8") from None
    return votes


def _readings(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the readings are no JSON ({error}); write '{{\"small\": 0.42}}' in quotes") from None
    except (RecursionError, ValueError):
        raise ValueError("the readings are no JSON that can be read: nested too deep, or too many digits") from None
    if not isinstance(value, dict):
        raise ValueError(f"the readings are {text}, not a JSON object such as '{{\"small\": 0.42}}'")
    return value


def _warn_of_readings(policy: Policy, readings: Mapping[str, Any]) -> None:
    """Say which readings the policy does not know; it decides without them, since a log may have had more."""
    from metaverify.policies.names import did_you_mean

    known = {tier.name: [reading.name for reading in tier.readings] for tier in policy.tiers}
    for tier, given in readings.items():
        for name in given if isinstance(given, Mapping) else ():
            if name not in known[tier]:
                has = ", ".join(known[tier]) or "none"
                hint = did_you_mean(name, known[tier])
                unknown = f"reading {name!r} of {tier!r} is not one that the policy knows ({has}), and changes nothing"
                print(f"metaverify: {unknown}{hint}", file=sys.stderr)


def _context(text: str | None, policy: Policy) -> str | dict[str, Any] | None:
    """A context as a label, or the values of its columns where it is a JSON object.

    Raises:
        ValueError: what begins as JSON does is neither an object nor a label that the policy knows.
    """
    if text is None or not text.startswith(("{", "[")) or text in policy.vertices[0].context_roots:
        return text
    example = json.dumps(dict.fromkeys(policy.context, "…"), ensure_ascii=False)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--context {text} is no JSON ({error}); write {example!r} in quotes, or a label") from None
    except (RecursionError, ValueError):
        raise ValueError("--context is no JSON that can be read: nested too deep, or too many digits") from None
    if not isinstance(value, dict):
        raise ValueError(f"--context {text} is not a JSON object such as {example!r}, nor a label of the policy")
    return value


def _check_out(path: str | None) -> None:
    """Make sure, before any work is done, that there is a place for the file.

    Raises:
        ValueError: there is none.
    """
    if path is None:
        return
    target = pathlib.Path(path)
    if target.is_dir():
        raise ValueError(f"{path} is a folder; name a file in it")
    if not target.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {str(target.parent)!r}; make it first")
    if not os.access(target.parent, os.W_OK):
        raise ValueError(f"{path}: Permission to write in {str(target.parent)!r} is missing")


def _policy(options: argparse.Namespace) -> Policy:
    """The policy that is named, signed with the key where one is given."""
    from metaverify.policies.file import load_policy

    return load_policy(options.policy, key=_key(options))


def _key(options: argparse.Namespace) -> bytes | None:
    """What is in the key file, None where none is named.

    Raises:
        ValueError: it is a secret that anybody can read.
    """
    from metaverify.policies.signatures import is_secret

    if options.key_file is None:
        return None
    path = pathlib.Path(options.key_file)
    key = path.read_bytes()
    if os.name == "posix" and is_secret(key) and path.stat().st_mode & stat.S_IROTH:
        raise ValueError(f"{path} is a secret that everybody on this machine can read: chmod o-rwx {path}")
    return key


def _in_use(policy: Policy, options: argparse.Namespace) -> Policy:
    """The policy with its dial where the options set it, and without the tiers that they say are down."""
    if options.budget is not None or options.price is not None:
        policy = policy.at(budget=options.budget, price=options.price)
    return policy.without(*(_names(options.without) or ()))


def _outages(text: str | None, tiers: Sequence[str]) -> Outages:
    """Outages as they were named; a tier may have a + in its own name."""
    if not text:
        return () if text is None else "each"
    return [[name] if name in tiers else [part.strip() for part in name.split("+")] for name in _names(text) or ()]


def _print_json(value: object) -> None:
    print(_json(value))


def _json(value: object) -> str:
    return json.dumps(_finite(value), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    """The value with null for every number that JSON has no word for."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not float("-inf") < value < float("inf"):
        return None
    return value


@contextlib.contextmanager
def _progress() -> Iterator[Tell]:
    """A progress bar on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda what, share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<32}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


COMMANDS = {
    "demo": _demo,
    "inspect": _inspect,
    "fit": _fit,
    "compare": _compare,
    "pomdp": _pomdp,
    "certify": _certify,
    "replay": _replay,
    "decide": _decide,
    "show": _show,
    "report": _report,
    "simulate": _simulate,
}
