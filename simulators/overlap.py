"""Which queries a policy was fitted on, remembered by a small sample of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from metaverify.policies.policy import Policy
from metaverify.policies.tiers import Tier
from metaverify.simulators.log import Floats, ReplayLog

__all__ = ["overlapping", "sample_of_rows", "shared_rows"]

KEPT = 64
"""Rows that are remembered: of a log that has a tenth of them again, one is met in 999 of 1,000 cases."""


def sample_of_rows(log: ReplayLog, tiers: Sequence[Tier]) -> tuple[str, ...]:
    """The rows whose ids have the lowest hashes, each as a hash of its id and one of its readings; none of a counted
    log, which has no queries' ids."""
    if log.counted is not None:
        return ()
    ids = [_hash(str(query)) for query in log.query_ids]
    lowest = sorted(range(len(ids)), key=ids.__getitem__)[:KEPT]
    return tuple(f"{ids[at]}:{_hash(text)[:8]}" for at, text in zip(lowest, _readings(log, tiers, lowest), strict=True))


def overlapping(policy: Policy, log: ReplayLog) -> bool:
    """Whether the policy was fitted on rows of this log.

    Of the remembered rows whose ids are met again more than half must have the same readings: ids alone may be those
    of other queries, row numbers for instance.  Where no id is met, and what was read differs from row to row, more
    than half of that must be met: ids may be new.
    """
    known: dict[str, str] = dict(entry.split(":") for entry in policy.provenance.get("rows", ()))
    if not known:
        return False
    ids = {_hash(str(query)): at for at, query in enumerate(log.query_ids)}
    met = [query for query in known if query in ids]
    texts = _readings(log, policy.tiers, [ids[query] for query in met])
    same: int = sum(known[query] == _hash(text)[:8] for query, text in zip(met, texts, strict=True))
    if same > len(met) / 2:
        return True
    read, here = set(known.values()), {_hash(text)[:8] for text in _readings(log, policy.tiers, range(len(log)))}
    telling = len(read) >= 0.9 * len(known) and len(here) >= 0.98 * len(log)  # else other queries read the same
    return telling and len(read & here) > len(read) / 2


def shared_rows(first: ReplayLog, second: ReplayLog, tiers: Sequence[Tier]) -> str | None:
    """A query that two logs have both, with the same readings; None where they have none.

    Of some ids that are in both more than half must have the same readings, as in `overlapping`.
    """
    ids = [{str(query): at for at, query in enumerate(log.query_ids)} for log in (first, second)]
    both = sorted(ids[0].keys() & ids[1].keys())[:KEPT]
    texts = [_readings(log, tiers, [of[query] for query in both]) for log, of in zip((first, second), ids, strict=True)]
    same = [query for query, a, b in zip(both, *texts, strict=True) if a == b]
    return same[0] if len(same) > len(both) / 2 else None


def _readings(log: ReplayLog, tiers: Sequence[Tier], rows: Sequence[int]) -> list[str]:
    """What was read in these rows, as text: the readings that the policy knows or, where it knows none, all of its
    tiers; one that the log does not have is missing."""
    columns: dict[tuple[str, str], Floats] = {
        (source.name, reading.name): reading.confidence for source in log.sources for reading in source.readings
    }
    names = [(tier.name, reading.name) for tier in tiers for reading in tier.readings if not reading.parts]
    names = names or sorted(name for name in columns if name[0] in {tier.name for tier in tiers})
    missing = np.full(len(log), np.nan)
    return [" ".join(f"{columns.get(name, missing)[at]:.6g}" for name in names) for at in rows]


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=6, key=b"metaverify rows").hexdigest()
