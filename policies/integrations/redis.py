"""One token bucket for all processes and hosts, kept in Redis: joint spend is bounded, whoever spends."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from metaverify.policies.exposition import gauge
from metaverify.policies.forks import renew_in_children
from metaverify.policies.guards import TokenBucket, check_flow
from metaverify.policies.integrations.redis_link import Link, connect, redis, registered

__all__ = ["RedisBucket", "connect"]

NANO = 10**9  # amounts are told in billionths
TICK = 0.1  # seconds after which is told what nobody told with a request of theirs
IDLE = 1.0  # seconds after which it is told again: Redis may have lost what it was told last
RETRY = 0.25  # seconds between tries where Redis is away
HANDICAP = 0.5  # seconds for which nothing flows into a process's own share: others may find Redis back so much sooner
FRESH = 0.01  # seconds for which a level is known well enough to refuse without asking

SCRIPT = """
-- KEYS: the bucket; what this process has out of it.  Amounts are billionths, times microseconds.
local seq, out, acked, ask, fill = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local rate, burst, first, name = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]
local known, heard, away = ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12])
local own, lacks, share, handicap = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16])
local time = redis.call('TIME')
local now = time[1] * 1e6 + time[2]

local kept = redis.call('HMGET', KEYS[1], 'level', 'filled', 'flowed', 'epoch')
local level, filled, flowed, epoch = tonumber(kept[1]), tonumber(kept[2]), tonumber(kept[3]), kept[4]
if not level then
  level, filled, flowed, epoch = first, now, 0, name .. ARGV[1]
end
local record = redis.call('HMGET', KEYS[2], 'seq', 'out', 'granted', 'own')
if record[1] and tonumber(record[1]) >= seq then
  if tonumber(record[1]) > seq then
    return {}
  end
  return {record[3], record[4], kept[1] or level, epoch, kept[3] or 0}
end

-- Nothing flows in for the time in which who comes back found nobody here: it flowed into the shares.  The others may
-- have saved theirs up, and be back a moment later.
local alone, flow, brim = math.max(now - filled, 0), math.max(now - away - filled, 0), burst
if away > 0 then
  brim = burst - (1 - share) * math.min(rate * alone, burst) - rate * math.min(alone, handicap)
end
level, filled, flowed = math.min(level + rate * flow, brim), math.max(filled, now), flowed + flow

-- Of what was spent of a share as much as did not flow in there again, or flowed in here too.
local both = math.min(epoch == known and flowed - heard or flowed, away)
own = math.min(own, math.ceil(lacks + share * rate * both))
level = math.min(level - (out - (tonumber(record[2]) or acked)) - own, burst)
if fill == '1' then
  level = burst
end
local granted = 0
if ask <= level then
  granted, level = 1, level - ask
end
local function told(number)
  return string.format('%.17g', number)
end
redis.call('HSET', KEYS[1], 'level', told(level), 'filled', told(filled), 'flowed', told(flowed), 'epoch', epoch)
out = out + own + granted * ask
redis.call('HSET', KEYS[2], 'seq', ARGV[1], 'out', told(out), 'granted', granted, 'own', told(own))
redis.call('EXPIRE', KEYS[2], 86400)
return {granted, told(own), told(level), epoch, told(flowed)}
"""


class RedisBucket:
    """A `TokenBucket` that many processes have in common.

    Each process tells Redis what it has out in all, so that everything is counted once whatever gets lost on the way.
    A `take` asks Redis; what is settled goes with the next message, a tenth of a second later at most.

    **While Redis is away** a process spends from a bucket of its own, which begins empty and has its ``share`` of the
    rate and of the burst; only the request that finds it gone waits for it.  Meanwhile nothing flows into the common
    bucket, and afterwards it is charged with what the shares lack.  So the bound, rate × seconds + burst over all
    processes, holds where Redis is stopped and comes back, with its memory or without.  Where only some processes are
    cut off from it they spend ``share`` × rate beyond it while they are, and repay that afterwards.

    Args:
        client: see `connect`.
        key: the bucket's name; who gives the same one shares it, and should give the same rate and burst.
        rate: cost per second, of all.
        burst: what may be spent at once, by all.
        share: this process's part of both while Redis is away; those of all processes should come to 1 at most.  What
            a request may cost must fit into this part of the burst, or none is granted then.
        clock: seconds, of this process.

    Raises:
        ValueError: rate, burst or share is none; requests would wait long for this client.
    """

    def __init__(
        self,
        client: redis.Redis,
        key: str,
        rate: float,
        burst: float,
        *,
        share: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_flow(rate, burst)
        if not 0.0 < share <= 1.0:
            raise ValueError(f"share is {share}; give this process's part while Redis is away, above 0 and at most 1")
        self.rate, self.burst, self.key = rate, burst, key
        self.error = ""  # why Redis did not answer last
        self._clock = clock
        self._run = registered(client, SCRIPT)
        self._share = share
        self._own = _Share(rate * share, burst * share, clock)
        self._epoch, self._flowed, self._level = "", "0", math.nan  # as Redis told last
        self._renew()
        renew_in_children(self._renew)

    def _renew(self) -> None:
        """Begin as a process that has nothing out; what its parent has is its parent's."""
        self._lock = threading.Lock()  # never held while Redis is asked
        self._link = Link(self._beat, self.close, TICK)
        self._out = self._acked = 0  # taken and not given back, in all; and as far as Redis has said that it knows
        self._heard = self._tried = -math.inf  # when Redis answered, and when it was last asked
        if self.away:
            self._own.begin()

    @property
    def away(self) -> bool:
        """Whether Redis did not answer last, so that this process spends its share."""
        return self._own.since is not None

    @property
    def level(self) -> float:
        """What could be granted now, of this process's share while Redis is away."""
        told = self._tell(0.0)
        with self._lock:
            return self._own.level if told is None else self._level

    def take(self, amount: float) -> bool:
        """Take ``amount`` out if all of it is there, of this process's share while Redis is away."""
        if not self._link.start():
            self._beat()
        while True:
            with self._lock:
                if self.away:
                    return self._own.take(amount)
                if not amount <= self._most():
                    return False
            granted = self._tell(amount)
            if granted is not None:
                return granted

    def settle(self, taken: float, spent: float) -> None:
        """Give back what was taken and not spent, or owe what was spent beyond it."""
        with self._lock:
            back = _nano(taken) - _nano(spent)
            self._out -= back - self._own.give_back(back) if self.away else back

    def reset(self) -> None:
        """Fill it to the brim and forget what is owed, by all; the bound begins anew.

        Raises:
            ConnectionError: Redis did not answer, and may have done it or not.
        """
        if self._tell(fill=True) is None:
            raise ConnectionError(f"the bucket {self.key!r} may not be full: Redis did not answer ({self.error})")

    def prometheus(self) -> str:
        """Whether this process spends its share, in Prometheus' text format."""
        return gauge("redis_away", "Whether this process spends its own share of the budget.", float(self.away))

    def close(self) -> None:
        """Tell what is to be told; what is done later is told by requests alone.  Done at the end of the process."""
        self._link.end()
        self._tell()

    def __enter__(self) -> RedisBucket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _most(self) -> float:
        """What would be granted at most; the brim where the last level is too old to know."""
        since = self._clock() - self._heard
        if since > FRESH:
            return self.burst
        return min(self._level + (self._acked - self._out) / NANO + self.rate * since, self.burst)

    def _beat(self) -> None:
        """Tell what no request told, and see whether Redis is back."""
        now = self._clock()
        with self._lock:
            untold = self._out != self._acked
            due = now >= self._tried + RETRY if self.away else untold or now >= self._tried + IDLE
        if due:
            self._tell()

    def _tell(self, ask: float | None = None, *, fill: bool = False) -> bool | None:
        """Tell Redis what is out, and ask for more; whether it is granted, None where Redis does not answer.

        What asks for an amount asks in vain where Redis is known to be away; what does not tries all the same.
        """
        asked = _nano(ask or 0.0)
        with self._link.wire:
            with self._lock:
                if self.away and ask is not None:
                    return None
                out, own, args = self._out, self._own.spent, self._args(asked, fill)
            try:
                answer = self._run([self.key, f"{self.key}:{self._link.name}"], args)
                granted, charged, level, epoch, flowed = map(_text, answer)
            except (redis.RedisError, OSError, ValueError) as error:
                with self._lock:
                    self.error = f"{type(error).__name__}: {error}"
                    if not self.away:
                        self._own.begin()
                return None
            with self._lock:
                more = int(charged) + asked * int(granted)
                self._acked = out + more
                self._out += more + self._own.end() - own  # with what was taken of the share meanwhile
                self._level, self._epoch, self._flowed = float(level) / NANO, epoch, flowed
                self._heard = self._clock()
                self.error = ""
            return granted == "1"

    def _args(self, ask: int, fill: bool) -> list[str | int | float]:
        """What the script is told, in its order."""
        self._tried = self._clock()
        away = 0.0 if self._own.since is None else max(self._tried - self._own.since, 0.0)
        known = not math.isnan(self._level)
        first = min(self._level, 0.0) if known else 0.0 if self.away else self.burst
        return [
            *(self._link.number(), self._out, self._acked, ask, int(fill)),
            *(self.rate * NANO / 1e6, self.burst * NANO, first * NANO, self._link.name),
            *(self._epoch, self._flowed, away * 1e6),
            *(self._own.spent, self._own.lacks * NANO, self._share, HANDICAP * 1e6),
        ]


class _Share:
    """What a process may spend while Redis is away: its part of the flow, saved up to its part of the burst."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self.since: float | None = None  # when Redis was found away
        self.spent = 0  # billionths, net of what was given back
        self._clock = clock
        self._granted = TokenBucket(rate, burst, clock)
        self._full = TokenBucket(rate, burst, clock)  # the same, begun full: what it lacks did not flow in again

    def begin(self) -> None:
        self.since, self.spent = self._clock(), 0
        self._full.reset()
        self._granted.reset()
        self._granted.settle(0.0, self._granted.burst + self._granted.rate * HANDICAP)

    def end(self) -> int:
        """What was spent of it."""
        spent, self.since, self.spent = self.spent, None, 0
        return spent

    @property
    def level(self) -> float:
        return self._granted.level

    @property
    def lacks(self) -> float:
        return self._full.burst - self._full.level

    def take(self, amount: float) -> bool:
        granted = self._granted.take(amount)
        if granted:
            self._full.settle(0.0, amount)
            self.spent += _nano(amount)
        return granted

    def give_back(self, amount: int) -> int:
        """Give back what was taken of it, and no more, or owe; so many billionths it was."""
        own = min(amount, self.spent)
        self.spent -= own
        for bucket in (self._granted, self._full):
            bucket.settle(own / NANO, 0.0)
        return own


def _nano(amount: float) -> int:
    return round(amount * NANO)


def _text(told: Any) -> str:
    return told.decode() if isinstance(told, bytes) else str(told)
