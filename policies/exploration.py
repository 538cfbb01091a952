"""Exploration: for a small share of requests every tier is called, so that what the policy never tries is known too."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from metaverify.policies.document import Fields, PolicyFileError, parse_document, read_at_most, shown
from metaverify.policies.episode import Told
from metaverify.policies.graph import as_confidence, as_votes
from metaverify.policies.storage import write_atomically

__all__ = ["Exploration", "ExploredBin", "Explorer", "dump_exploration", "load_exploration", "save_exploration"]

FORMAT = "metaverify-exploration"
VERSION = 1
LIMIT = 1 << 20  # bytes of a file


@dataclass(frozen=True, slots=True)
class ExploredBin:
    """Requests that one tier answers, a reading of its answer being in [``low``, ``high``), and how many are explored.

    Of the first ``enough`` / ``rate`` of them the share ``rate``, later less and less: of those that are the t-th to
    come, ``enough`` / t.  So after twice as many requests as were planned 1.7 times as many are explored, after ten
    times 3.3 times; what is known goes on to become more precise, and nothing is ever beyond all chance.

    Raises:
        ValueError: an interval or a rate outside [0, 1], or nothing that is enough.
    """

    tier: str
    reading: str
    low: float  # 1 as ``high`` is part of the bin
    high: float
    rate: float
    enough: float | None = None  # explored requests; None where the rate is to stay

    def __post_init__(self) -> None:
        if not 0.0 <= self.low < self.high <= 1.0:
            raise ValueError(f"the bin [{self.low}, {self.high}) of {self.tier!r} is no interval within [0, 1]")
        _check_rate(self.rate)
        if self.enough is not None and not 0.0 < self.enough < math.inf:
            raise ValueError(f"enough is {self.enough}; give the number of explored requests, above 0, or None")

    def holds(self, value: float) -> bool:
        """Whether a reading is in the bin; one that is missing (NaN) is in none."""
        return self.low <= value < self.high or value == self.high == 1.0

    def rate_at(self, count: int) -> float:
        """The chance that the ``count``-th request of the bin is explored."""
        return self.rate if self.enough is None else min(self.rate, self.enough / count)


@dataclass(frozen=True, slots=True)
class Exploration:
    """Which requests are explored: a share of them, by a keyed hash of their ids.

    An explored request is answered as ever; then every tier that was not called is called as well, as far as the guard
    allows.  So the answer never gets worse, and any policy can be valued on what is explored.  The share may depend on
    what was read by then, since the decision log has the chance of every call: ``bins`` has those of a wanted
    precision from `plan_exploration`.  A request is explored in every process or in none where rates are the same.

    Args:
        rate: the share of requests that are in no bin, in [0, 1].
        salt: another one picks other requests.
        bins: other shares for some places; of several bins the first one counts.

    Example:
        >>> sum(Exploration(0.05).explores(key) for key in range(1000))
        49
        >>> doubtful = ExploredBin("small", "conf", 0.4, 0.8, rate=0.2)
        >>> Explorer(Exploration(0.01, bins=(doubtful,))).rate("small", {"conf": 0.5})
        0.2
    """

    rate: float
    salt: str = ""
    bins: tuple[ExploredBin, ...] = ()
    _key: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        object.__setattr__(self, "_key", blake2b(f"explore {self.salt}".encode(errors="surrogatepass")).digest())

    @property
    def highest(self) -> float:
        """The largest share anywhere; 0 where nothing is explored."""
        return max(self.rate, *(of.rate for of in self.bins), 0.0)

    def explores(self, key: str | bytes | int, rate: float | None = None) -> bool:
        """Whether the request with this id is explored, where a share ``rate`` of those like it is."""
        raw = key if isinstance(key, bytes) else str(key).encode()
        drawn = int.from_bytes(blake2b(raw, digest_size=7, key=self._key).digest())
        return drawn < (self.rate if rate is None else rate) * 2.0**56

    def place(self, tier: str | None, readings: Mapping[str, Told]) -> int | None:
        """The position of the bin of a request that ``tier`` answers with these readings; None where it is in none."""
        for at, of in enumerate(self.bins):
            if of.tier == tier and of.holds(_confidence(readings.get(of.reading), of)):
                return at
        return None


class Explorer:
    """An exploration at work, which counts the requests of each bin; every process counts its own."""

    def __init__(self, exploration: Exploration) -> None:
        self.exploration = exploration
        self._counts = [itertools.count(1) for _ in exploration.bins]  # to take the next number needs no lock

    def rate(self, tier: str | None, readings: Mapping[str, Told]) -> float:
        """The chance that this request, which ``tier`` answers with these readings, is explored."""
        at = self.exploration.place(tier, readings)
        return self.exploration.rate if at is None else self.exploration.bins[at].rate_at(next(self._counts[at]))


def dump_exploration(exploration: Exploration) -> str:
    """The exploration as JSON, a bin a line."""
    bins = [
        {
            "tier": of.tier,
            "reading": of.reading,
            "low": of.low,
            "high": of.high,
            "rate": of.rate,
            **({} if of.enough is None else {"enough": of.enough}),
        }
        for of in exploration.bins
    ]
    head = {"format": FORMAT, "version": VERSION, "rate": exploration.rate, "salt": exploration.salt}
    lines = [f' "{key}": {_json(value)}' for key, value in head.items()]
    inside = ",\n".join(f"  {_json(of)}" for of in bins)
    lines.append(f' "bins": [\n{inside}\n ]' if bins else ' "bins": []')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def save_exploration(exploration: Exploration, path: str | os.PathLike[str]) -> None:
    """Write what `load_exploration` reads, in one step."""
    write_atomically(path, dump_exploration(exploration).encode())


def load_exploration(path: str | os.PathLike[str]) -> Exploration:
    """The exploration in a file.

    Raises:
        PolicyFileError: a file that is none, with a code, the place and the way out.
    """
    data = read_at_most(path, LIMIT, "name the file that `metaverify explore` wrote")
    if len(data) > LIMIT:
        raise PolicyFileError("E_SIZE", "", f"has more than {LIMIT:,} bytes: not an exploration")
    top = Fields(parse_document(data), "document")
    if top.text("format") != FORMAT:
        top.fail("E_SCHEMA", "format", f"is {shown(top.text('format'))}, not {FORMAT!r}: not an exploration")
    if top.whole("version") != VERSION:
        top.fail("E_VERSION", "version", f"is {top.whole('version')}; this metaverify reads {VERSION}")
    rate, salt = top.number("rate", 0.0, 1.0), top.text("salt")
    bins = tuple(_decode_bin(item) for item in top.objects("bins"))
    top.end()
    return Exploration(rate, salt, bins)


def _decode_bin(item: Fields) -> ExploredBin:
    tier, reading = item.text("tier"), item.text("reading")
    low, high, rate = (item.number(key, 0.0, 1.0) for key in ("low", "high", "rate"))
    if not low < high:
        item.fail("E_RANGE", "high", f"is {high:g}, not above low, {low:g}")
    enough = item.number("enough", 0.0) if item.has("enough") else None
    if enough == 0.0:
        item.fail("E_RANGE", "enough", "is 0; leave it out, or give the number of explored requests")
    item.end()
    return ExploredBin(tier, reading, low, high, rate, enough)


def _check_rate(rate: float) -> None:
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"rate is {rate}; give the share of requests to be explored, in [0, 1]")


def _confidence(told: Told, of: ExploredBin) -> float:
    """A reading, or the share of votes that were yes; NaN where it is missing."""
    if not isinstance(told, tuple | list):
        return as_confidence(told, of.tier, of.reading)
    votes = as_votes(told, of.tier, of.reading)
    return votes[0] / votes[1] if votes and votes[1] else math.nan
