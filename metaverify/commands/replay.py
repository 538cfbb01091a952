"""`metaverify replay`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from metaverify.inputs import in_use, read_for, read_policy
from metaverify.options import add_in_use, add_log, add_partial, add_policy, check_partial
from metaverify.output import print_json, print_warnings, working

if TYPE_CHECKING:
    from metaverify.policies.policy import Policy
    from metaverify.simulators.log import ReplayLog

__all__ = ["EXAMPLE", "add", "run"]

IN_SAMPLE = (
    "the policy was fitted on this log, or on rows of it, so these figures are better than what new queries will show"
)

EXAMPLE = "metaverify replay policy.json log.parquet --budget 3"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_policy(parser)
    add_log(parser)
    add_partial(parser)
    add_in_use(parser)


def run(options: argparse.Namespace) -> None:
    """What a policy would have earned on a log."""
    from metaverify.policies.certificate import certificate_text
    from metaverify.report import outcome_table
    from metaverify.simulators.inspection import inspect_log
    from metaverify.simulators.outcome import replay

    check_partial(options)
    policy = read_policy(options)
    if options.partial:
        _appraise(options, policy)
        return
    log = read_for(policy, options)
    with working("replaying"):
        outcome = replay(in_use(policy, options), log)
    seen, most = _fitted_on(policy, log), policy.vertices[-1].cost
    notes = []
    if options.budget is not None and options.budget > most * (1 + 1e-9):
        notes.append(
            f"the dial ends at {most:.4g}, below the {options.budget:g} allowed: "
            "the file has nothing dearer that earned more"
        )
    notes += [IN_SAMPLE] if seen else []
    warnings = inspect_log(log).warnings
    certificate = in_use(policy, options).certificate
    if options.json:
        promised = None if certificate is None else asdict(certificate)
        told = {**outcome.to_json(), "in_sample": seen, "certificate": promised}
        print_json({**told, "notes": notes, "warnings": [w.slug for w in warnings]})
        return
    print(outcome_table(outcome))
    print(certificate_text(certificate))
    print_warnings(warnings)
    for note in notes:
        print(f"note: {note}")


def _appraise(options: argparse.Namespace, policy: Policy) -> None:
    """`replay` on a partial log."""
    from metaverify.policies.certificate import certificate_text
    from metaverify.report import appraisal_table
    from metaverify.simulators.offpolicy import appraise

    partial, used = read_for(policy, options), in_use(policy, options)
    with working("appraising"):
        found = appraise(used, partial)
    warnings, seen, certificate = partial.log.notes, _fitted_on(policy, partial.log), used.certificate
    notes = [*found.notes, *([IN_SAMPLE] if seen else [])]
    if options.json:
        promised = None if certificate is None else asdict(certificate)
        told = {**found.to_json(), "in_sample": seen, "certificate": promised, "notes": notes}
        print_json({**told, "warnings": [w.slug for w in warnings]})
        return
    print(appraisal_table(found))
    print(certificate_text(certificate))
    print_warnings(warnings)
    for note in notes:
        print(f"note: {note}")


def _fitted_on(policy: Policy, log: ReplayLog) -> bool:
    """Whether the policy was fitted on this log, or on rows of it, as far as its file can tell."""
    from metaverify.simulators.log import fingerprint_queries
    from metaverify.simulators.overlap import overlapping

    return policy.provenance.get("queries") == fingerprint_queries(log) or overlapping(policy, log)
