"""What may be spent: calls under way are reserved at their dearest."""

from __future__ import annotations

import asyncio
import math

__all__ = ["Cap", "CapReachedError"]


class CapReachedError(Exception):
    """The next call might cost more than is left."""


class Cap:
    """A bound on dollars, ``inf`` for none; ``spent`` is what was paid, by earlier runs too.

    What a call may cost is set aside before it begins.  Where that is not left, it waits for those under way, which as
    a rule cost less than was set aside for them; where none is, the end has come.  So what is paid stays below
    ``limit`` as far as the dearest prices are that, and what is not spent of it is less than that of one call.
    """

    def __init__(self, limit: float = math.inf, spent: float = 0.0) -> None:
        self.limit, self.spent, self.reserved = limit, spent, 0.0
        self._under_way = 0
        self._changed = asyncio.Condition()

    async def reserve(self, dearest: float, name: str) -> None:
        """Set so much aside, once there is so much.

        Raises:
            CapReachedError: there never will be.
        """
        async with self._changed:
            while self.spent + self.reserved + dearest > self.limit:
                if not self._under_way:
                    raise CapReachedError(
                        f"the cap of ${self.limit:g} is reached: ${self.spent:.4f} are spent, "
                        f"and the next call of {name} may cost ${dearest:.4f}"
                    )
                await self._changed.wait()
            self.reserved += dearest
            self._under_way += 1

    async def settle(self, dearest: float, paid: float) -> None:
        """The call that so much was set aside for is over, and cost so much."""
        async with self._changed:
            self._under_way -= 1
            self.reserved = self.reserved - dearest if self._under_way else 0.0
            self.spent += paid
            self._changed.notify_all()
