"""What the options name, read: logs, policies, keys."""

from __future__ import annotations

import argparse
import os
import pathlib
import stat
from collections.abc import Callable
from functools import partial
from glob import glob
from typing import TYPE_CHECKING, Any

from metaverify.arguments import parse_costs, parse_names, parse_signals, parse_votes
from metaverify.output import progress

if TYPE_CHECKING:
    from metaverify.policies.policy import Policy

__all__ = ["in_use", "key_of", "read", "read_columns", "read_for", "read_policy", "signing_key"]

KEY_LIMIT = 1 << 16  # bytes


def read(options: argparse.Namespace, **known: Any) -> Any:
    """The log that was named, full or partial; what is ``known`` of its columns goes before what the options say."""
    from metaverify.simulators.partial_reader import read_partial_log
    from metaverify.simulators.reader import read_log

    read_from: Callable[..., Any] = read_log
    if getattr(options, "partial", False):
        read_from = partial(read_partial_log, logged_by=_logged_by(options), epsilon=options.epsilon)
    said = {
        "tiers": parse_names(options.tiers),
        "costs": parse_costs(options.cost),
        "scale": options.scale,
        **_columns(options),
        "votes": parse_votes(options.votes),
    }
    with progress() as tell:
        if "*" in options.log or "?" in options.log:
            from metaverify.simulators.counting import count

            return count(options.log, progress=tell, **said | known).log()
        tell(f"reading {pathlib.Path(options.log).name}", None)
        return read_from(options.log, **said | known)


def read_columns(options: argparse.Namespace, **known: Any) -> Any:
    """Which columns of the log are used and for what, without the log itself."""
    from metaverify.simulators.reader import log_columns

    path = next(iter(sorted(glob(options.log))), options.log)  # noqa: PTH207
    return log_columns(path, **_columns(options) | known)


def read_for(policy: Policy, options: argparse.Namespace, *, beside: Policy | None = None) -> Any:
    """The log that was named, its tiers, signals, votes, samples and contexts as the policy has them, with the tiers of
    another one ``beside`` it."""
    said = _columns(options)
    signals = {tier.name: tier.needs for tier in policy.tiers if not tier.answer} | said["signals"]
    samples = sorted({r.name for tier in policy.tiers for r in tier.readings if r.sample} | {*said["samples"]})
    columns = read_columns(options, signals=signals, samples=samples)
    _check_columns(options, policy, columns)
    cuts = {name: at for name, at in policy.context_cuts.items() if name in (columns.keys.context or policy.context)}
    tiers = policy.tiers if beside is None else (*policy.tiers, *beside.tiers)
    return read(
        options,
        tiers=parse_names(options.tiers) or list(dict.fromkeys(tier.name for tier in tiers)),
        context=said["context"] or policy.context,
        signals=signals,
        votes={r.name: r.votes for tier in policy.tiers for r in tier.readings if r.votes} | parse_votes(options.votes),
        context_cuts=cuts,
        samples=samples,
    )


def _columns(options: argparse.Namespace) -> dict[str, Any]:
    """How the options say that the columns are to be taken."""
    return {
        "context": parse_names(options.context) or (),
        "group": options.group,
        "weight": options.weight,
        "signals": parse_signals(options.signal),
        "samples": parse_names(options.samples) or (),
    }


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


def _logged_by(options: argparse.Namespace) -> Policy | None:
    """The policy that wrote a partial log, at its operating point."""
    from metaverify.policies.file import load_policy

    return None if options.logged_by is None else load_policy(options.logged_by)


def read_policy(options: argparse.Namespace) -> Policy:
    """The policy that is named, signed with the key where one is given."""
    from metaverify.policies.file import load_policy

    return load_policy(options.policy, key=key_of(options))


def key_of(options: argparse.Namespace) -> bytes | None:
    """What is in the key file, None where none is named.

    Raises:
        ValueError: it is larger than any key, or a secret that anybody can read.
    """
    from metaverify.policies.signatures import is_secret

    if options.key_file is None:
        return None
    path = pathlib.Path(options.key_file)
    with path.open("rb") as file:
        key = file.read(KEY_LIMIT + 1)
    if len(key) > KEY_LIMIT:
        raise ValueError(f"{path} is larger than {KEY_LIMIT:,} bytes; no key is")
    if os.name == "posix" and is_secret(key) and path.stat().st_mode & stat.S_IROTH:
        raise ValueError(f"{path} is a secret that everybody on this machine can read: chmod o-rwx {path}")
    return key


def signing_key(options: argparse.Namespace) -> bytes | None:
    """The key in the key file, refused before any work is done where it cannot sign."""
    from metaverify.policies.signatures import sign

    key = key_of(options)
    if key is not None:
        sign(b"", key)
    return key


def in_use(policy: Policy, options: argparse.Namespace) -> Policy:
    """The policy with its dial where the options set it, and without the tiers that they say are down."""
    if options.budget is not None or options.price is not None:
        policy = policy.at(budget=options.budget, price=options.price)
    return policy.without(*(parse_names(options.without) or ()))
