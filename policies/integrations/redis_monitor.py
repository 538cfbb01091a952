"""A monitor that all processes and hosts have in common by Redis: what was spent in all, and whether it drifts."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from itertools import chain
from typing import Any

from metaverify.policies.exposition import counter
from metaverify.policies.integrations.redis_link import Link, connect, redis, registered
from metaverify.policies.monitor import BLOCK, NANO, WINDOW, Counts, Drift, Monitor, _Watch, families, of_kind, totals
from metaverify.policies.routed import Routed
from metaverify.policies.store import Snapshot

__all__ = ["SharedMonitor", "connect"]

EVERY = 1.0  # seconds after which is told what was counted
WAITS = (0.0, 0.1, 0.3)  # seconds before each try to tell Redis at the end
TRIES = 10  # to leave, where others leave at the same moment
GONE = "gone"  # the record of the processes that ended
WEEK = 7 * 86400  # seconds that a policy's windows and alarms are kept for after it was last used

TELL = """
-- KEYS: what each process counted; the last readings with this policy; its alarms; whether this process has left.
local name, seq, counts, kept = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[5])
local before = redis.call('HGET', KEYS[1], name)
if redis.call('EXISTS', KEYS[4]) == 1 or before and tonumber(string.match(before, '^%d+')) >= seq then
  return {}
end
redis.call('HSET', KEYS[1], name, ARGV[2] .. ' ' .. counts)
local windows = {'heard'}
for of, told in pairs(cjson.decode(ARGV[4])) do
  local mark = 'told ' .. name .. ' ' .. of
  local new = told.done - tonumber(redis.call('HGET', KEYS[2], mark) or 0)
  local window = cjson.decode(redis.call('HGET', KEYS[2], 'window ' .. of) or '[]')
  for at = math.max(#told.blocks - new, 0) + 1, #told.blocks do
    window[#window + 1] = told.blocks[at]
  end
  while #window > kept do
    table.remove(window, 1)
  end
  if #window > 0 then
    local text = cjson.encode(window)
    redis.call('HSET', KEYS[2], 'window ' .. of, text, mark, told.done)
    windows[#windows + 1] = of
    windows[#windows + 1] = text
  end
end
for at = 7, #ARGV, 2 do
  redis.call('HSETNX', KEYS[3], ARGV[at], ARGV[at + 1])
end
redis.call('EXPIRE', KEYS[2], ARGV[6])
redis.call('EXPIRE', KEYS[3], ARGV[6])
return {windows, redis.call('HVALS', KEYS[3])}
"""

LEAVE = """
-- KEYS: what each process counted; whether this process has left.  Its record is added to that of those who are gone.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return 1
end
if (redis.call('HGET', KEYS[1], ARGV[2]) or '') ~= ARGV[3] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], 1, 'EX', 86400)
return 1
"""


class SharedMonitor(Monitor):
    """A `Monitor` whose counts and drift are those of many processes.

    It counts as a monitor does, and a thread tells Redis once a second: all that this process ever counted, so that
    totals are exact whatever is lost on the way, and right again after Redis was away or lost its memory.  Readings
    are compared twice, this process's last 600 and the last 600 of all with the same policy, each with half the chance
    of a false alarm; what any process finds, all know.  No request waits for any of it.

    A process that ends in order leaves its counts behind.  One that is killed loses what it had not told, of the last
    second; one that ends while Redis is away, what it counted meanwhile.

    Args:
        client: see `connect`.
        key: the monitor's name; who gives the same one shares it.

    Raises:
        ValueError: the client waits long where Redis is away.
    """

    def __init__(self, client: redis.Redis, key: str) -> None:
        self.key = key
        self.error = ""  # why Redis did not answer last
        self._client = client
        self._tell_all = registered(client, TELL)
        self._leave = registered(client, LEAVE)
        super().__init__()

    def _renew(self) -> None:
        """Begin as a process that counted nothing; what its parent did is its parent's."""
        super()._renew()
        self._counts, self._watch = Counter(), None
        self._link = Link(self._tell, self.close, EVERY)
        self._others: Counts = Counter()
        self._windows: dict[str, list[int]] = {}  # of all processes, as last heard

    def record(self, routed: Routed) -> None:
        """Count a request that came to its end.  It never raises, and never waits for Redis."""
        super().record(routed)
        self._link.start()

    def _count(self, routed: Routed) -> None:
        super()._count(routed)
        self._counts["spent", routed.snapshot.id] += round(routed.cost * NANO)

    def _watching(self, snapshot: Snapshot) -> _Watch:
        watch = super()._watching(snapshot)
        watch.chance /= 2  # the windows of all are compared too
        self._windows = {}
        return watch

    def report(self) -> dict[str, Any]:
        """What this process counted, and as ``fleet`` what all did: the same, ``spent`` by policy in whole billionths,
        and ``windows``, histograms of the last 600 readings of all.  Where Redis is away, that of all is as last told.
        """
        counts = self._joint()
        with self._lock:
            windows = dict(self._windows)
        fleet = {**totals(counts), "spent": of_kind(counts, "spent"), "windows": windows}
        return super().report() | {"fleet": fleet}

    def prometheus(self) -> str:
        """What this process counted, and with names that begin with ``metaverify_fleet_`` what all did: of these every
        process tells the same, so take the largest and not the sum."""
        counts = self._joint()
        spent = {policy: amount / NANO for policy, amount in of_kind(counts, "spent").items()}
        told = counter("fleet_spent_total", "What requests cost, by policy.", spent, "policy")
        return super().prometheus() + families(counts, "fleet_") + told

    def close(self) -> None:
        """Tell what is to be told, and leave; what is counted later is told to nobody.  Done at the process's end."""
        self._link.end()
        for wait in WAITS:
            time.sleep(wait)
            if self._tell() and self._go():
                return

    def __enter__(self) -> SharedMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _joint(self) -> Counts:
        """What all processes counted: of the others as Redis knows it, or as last told."""
        try:
            records: Any = self._client.hgetall(self.key)
            name = self._link.name
            others = _sum(_text(told) for of, told in records.items() if _text(of) != name)
        except (redis.RedisError, OSError, ValueError) as error:
            others = None
            self.error = f"{type(error).__name__}: {error}"
        with self._lock:
            self._others = self._others if others is None else others
            return self._counts + self._others

    def _tell(self) -> bool:
        """Tell Redis everything, and hear what the others found; whether it answered."""
        with self._link.wire:
            with self._lock:
                watch = self._watch
                keys, args = self._message(watch)
            try:
                answer = self._tell_all(keys, args)
                (_, *windows), alarms = answer
                heard = {_text(of): json.loads(told) for of, told in zip(windows[::2], windows[1::2], strict=True)}
                found = [Drift(**json.loads(told)) for told in alarms]
            except (redis.RedisError, OSError, ValueError, TypeError) as error:
                self.error = f"{type(error).__name__}: {error}"
                return False
            with self._lock:
                self.error = ""
                if watch is not None and watch is self._watch:
                    self._hear(watch, heard, found)
            return True

    def _message(self, watch: _Watch | None) -> tuple[list[str], list[str | int]]:
        """What the script is told, in its order."""
        policy, blocks, alarms = "", {}, {}
        if watch is not None:
            policy = watch.snapshot.id
            blocks = {name: {"done": h.done, "blocks": [*h.blocks]} for _, name, h in watch.histograms()}
            alarms = {name: json.dumps(asdict(drift)) for name, drift in watch.found.items()}
        link = self._link
        keys = [self.key, f"{self.key}:{policy}:readings", f"{self.key}:{policy}:alarms", f"{self.key}:{link.name}"]
        told: list[str | int] = [link.name, link.number(), _written(self._counts), json.dumps(blocks)]
        return keys, [*told, WINDOW // BLOCK, WEEK, *chain.from_iterable(alarms.items())]

    def _hear(self, watch: _Watch, windows: dict[str, list[list[int]]], found: list[Drift]) -> None:
        """Compare the readings of all, and take up what others found."""
        for drift in found:
            watch.found.setdefault(drift.name, drift)
        for kind, name, histogram in watch.histograms():
            if name in windows:
                self._windows[name] = [sum(column) for column in zip(*windows[name], strict=True)]
                watch.judge(kind, name, histogram.compare(windows[name]))

    def _go(self) -> bool:
        """Have this process's record added to that of those who are gone, exactly once; whether it is."""
        name = self._link.name
        try:
            for _ in range(TRIES):
                gone, own = (_text(told or "") for told in self._client.hmget(self.key, [GONE, name]))
                args = [name, GONE, gone, f"0 {_written(_sum([gone, own]))}"]
                if self._leave([self.key, f"{self.key}:{name}"], args):
                    return True
        except (redis.RedisError, OSError) as error:
            self.error = f"{type(error).__name__}: {error}"
        return False


def _written(counts: Counts) -> str:
    return json.dumps([[*name, count] for name, count in counts.items()])


def _sum(records: Iterable[str]) -> Counts:
    """What all records come to: each is a message's number, and kinds, names and counts in JSON."""
    summed: Counts = Counter()
    for record in records:
        for kind, name, count in json.loads(record.partition(" ")[2] or "[]"):
            summed[kind, name] += count
    return summed


def _text(told: Any) -> str:
    return told.decode() if isinstance(told, bytes) else str(told)
