"""Exploration: for a small share of requests every tier is called, so that what the policy never tries is known too."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from hashlib import blake2b

__all__ = ["Exploration"]


@dataclass(frozen=True, slots=True)
class Exploration:
    """Which requests are explored: a share ``rate`` of them, by a keyed hash of their ids.

    An explored request is answered as ever; then every tier that was not called is called as well, as far as the guard
    allows.  So the answer never gets worse, what is explored is a fair sample of all requests, and any policy can be
    valued on it.  A request is explored in every process or in none, independently of the graph that it takes.

    Args:
        rate: the share, in [0, 1].
        salt: another one picks other requests.

    Example:
        >>> sum(Exploration(0.05).explores(key) for key in range(1000))
        49
    """

    rate: float
    salt: str = ""
    _cut: bytes = field(init=False, repr=False, compare=False)  # hashes below it, as big-endian bytes, are explored
    _key: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError(f"rate is {self.rate}; give the share of requests to be explored, in [0, 1]")
        object.__setattr__(self, "_cut", math.ceil(self.rate * 2.0**56).to_bytes(8)[1:])
        object.__setattr__(self, "_key", blake2b(f"explore {self.salt}".encode(errors="surrogatepass")).digest())

    def explores(self, key: str | bytes | int) -> bool:
        """Whether the request with this id is explored."""
        if self.rate == 1.0:
            return True
        raw = key if isinstance(key, bytes) else str(key).encode()
        return blake2b(raw, digest_size=7, key=self._key).digest() < self._cut
