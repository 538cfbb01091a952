"""Which queries a policy was fitted on, remembered by a small sample of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaverify.policies.policy import Policy
from metaverify.policies.tiers import Tier
from metaverify.simulators.log import Floats, ReplayLog

__all__ = ["overlapping", "sample_of_rows", "shared_rows"]

Bools = NDArray[np.bool_]

KEPT = 64
"""Rows that are remembered: of a log that has a tenth of them again, one is met in 999 of 1,000 cases."""


def sample_of_rows(log: ReplayLog, tiers: Sequence[Tier]) -> tuple[str, ...]:
    """The rows whose ids have the lowest hashes, each as a hash of its id and one of its readings; none of a counted
    log, which has no queries' ids.

    Of a query for which some tier was not called it is a hash of the readings of the others, and which these are
    follows, as a hexadecimal number whose lowest bit stands for the first reading.
    """
    if log.counted is not None:
        return ()
    ids = [_hash(str(query)) for query in log.query_ids]
    lowest = sorted(range(len(ids)), key=ids.__getitem__)[:KEPT]
    readings = _Readings.of(log, tiers)
    return tuple(f"{ids[at]}:{readings.remembered(at)}" for at in lowest)


def overlapping(policy: Policy, log: ReplayLog) -> bool:
    """Whether the policy was fitted on rows of this log.

    Of the remembered rows whose ids are met again more than half must have the same readings: ids alone may be those
    of other queries, row numbers for instance.  Where no id is met, and what was read differs from row to row, more
    than half of that must be met: ids may be new.
    """
    known = dict(entry.split(":", 1) for entry in policy.provenance.get("rows", ()))
    if not known:
        return False
    ids = {_hash(str(query)): at for at, query in enumerate(log.query_ids)}
    readings = _Readings.of(log, policy.tiers)
    met = [readings.agree(ids[query], told) for query, told in known.items() if query in ids]
    if sum(met) > len(met) / 2:
        return True
    whole = {told for told in known.values() if ":" not in told}
    here = {readings.remembered(at) for at in range(len(log))}
    telling = len(whole) >= 0.9 * len(known) and len(here) >= 0.98 * len(log)  # else other queries read the same
    return telling and len(whole & here) > len(whole) / 2


def shared_rows(first: ReplayLog, second: ReplayLog, tiers: Sequence[Tier]) -> str | None:
    """A query that two logs have both, with the same readings; None where they have none.

    Of some ids that are in both more than half must have the same readings, as in `overlapping`.
    """
    ids = [{str(query): at for at, query in enumerate(log.query_ids)} for log in (first, second)]
    both = sorted(ids[0].keys() & ids[1].keys())[:KEPT]
    read = [_Readings.of(log, tiers) for log in (first, second)]
    same = [query for query in both if len({r.remembered(of[query]) for r, of in zip(read, ids, strict=True)}) == 1]
    return same[0] if len(same) > len(both) / 2 else None


@dataclass(frozen=True, slots=True, eq=False)
class _Readings:
    """What was read: the readings that the policy knows or, where it knows none, all of its tiers.

    One that the log does not have is missing.
    """

    columns: tuple[Floats, ...]  # a reading: [n]
    seen: tuple[Bools, ...]  # a reading: [n], whether its answer was there at all

    @classmethod
    def of(cls, log: ReplayLog, tiers: Sequence[Tier]) -> _Readings:
        known: dict[tuple[str, str], Floats] = {
            (source.name, reading.name): reading.confidence for source in log.sources for reading in source.readings
        }
        names = [(tier.name, reading.name) for tier in tiers for reading in tier.readings if not reading.parts]
        names = names or sorted(name for name in known if name[0] in {tier.name for tier in tiers})
        always = np.ones(len(log), dtype=bool)
        called = {tier.name: ~np.isnan(tier.cost) for tier in log.tiers}
        missing = np.full(len(log), np.nan)
        return cls(
            tuple(known.get(name, missing) for name in names), tuple(called.get(source, always) for source, _ in names)
        )

    def remembered(self, at: int) -> str:
        """A row's hash; where a tier was not called with what it was taken of."""
        taken = [column for column, seen in enumerate(self.seen) if seen[at]]
        mask = sum(1 << column for column in taken)
        return self._hashed(at, taken) + ("" if len(taken) == len(self.seen) else f":{mask:x}")

    def agree(self, at: int, told: str) -> bool:
        """Whether a row reads as one that is remembered."""
        known, _, mask = told.partition(":")
        every = range(len(self.columns))
        taken = [column for column in every if not mask or int(mask, 16) >> column & 1]
        return known == self._hashed(at, taken) and mask != "0"

    def _hashed(self, at: int, taken: Sequence[int]) -> str:
        return _hash(" ".join(f"{self.columns[column][at]:.6g}" for column in taken))[:8]


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=6, key=b"metaverify rows").hexdigest()
