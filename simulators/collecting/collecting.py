"""From nothing to a log."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from metaverify.policies.integrations.settings import CascadeSettings
from metaverify.simulators.collecting.collected import Collected, written
from metaverify.simulators.collecting.collection import Collection, Grading, Tell
from metaverify.simulators.collecting.journal import Journal, journal_path
from metaverify.simulators.collecting.prices import price_of, the_litellm
from metaverify.simulators.collecting.prompts import Prompt
from metaverify.simulators.collecting.purchases import Limits, Purchases, unpriced
from metaverify.simulators.files import check_suffix
from metaverify.simulators.log import LogError

__all__ = ["collect"]

LOGGER = logging.getLogger("metaverify")

INTERRUPTED = "interrupted"


def collect(
    prompts: Sequence[Prompt],
    settings: CascadeSettings,
    out: str | os.PathLike[str],
    *,
    grading: Grading | None = None,
    cap: float = math.inf,
    limits: Limits | None = None,
    whole: bool = True,
    progress: Tell = lambda what, share: None,
) -> Collected:
    """Ask every tier and every verifier of the settings on every prompt, grade, and write the log in the wide form.

    Every finished call is in the journal beside ``out`` before the next of its query begins, and is never made again:
    what was killed, stopped or capped goes on where it was, and what is changed (another grading, one more tier or
    prompt) costs only what is new.  The calls under way when a process is killed, one a query, may be paid twice.
    Costs in the log are in the settings' unit.

    Args:
        prompts: see `read_prompts`.
        settings: see `read_settings`; no policy is needed yet.
        out: the log; ``.parquet``, ``.csv`` or ``.jsonl``.
        grading: exact match, where nothing is said.
        cap: the most dollars that all runs into this journal may cost.
        limits: calls at once, tries.
        whole: whether queries without an answer and a grade of every tier are left out of the log.
        progress: told how far it is.

    Raises:
        LogError: prompts, settings or the journal cannot be used, or no query is whole.
        ImportError: LiteLLM is not installed.
        ValueError: there is no such verifier.
        KeyboardInterrupt: the calls that were under way are finished and kept.
    """
    the_litellm()
    target = Path(out)
    check_suffix(target)
    with Journal(journal_path(target)) as journal:
        calls = Purchases(journal, cap, limits)
        run = Collection(prompts, settings, calls, grading or Grading(), progress)
        _check_prices(run, cap)
        asyncio.run(_until_interrupted(run, calls.limits.at_once))
        return written(run, target, whole)


async def _until_interrupted(run: Collection, at_once: int) -> None:
    """All of it; or, after Ctrl-C, what is under way, since it is paid for.  The second one ends at once."""
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        LOGGER.warning("interrupted; waiting for the calls under way, which are paid for (Ctrl-C again does not wait)")
        run.calls.stop(INTERRUPTED)

    with suppress(NotImplementedError, ValueError, RuntimeError):  # Windows, or another thread than the first
        loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        await run.all(at_once)
    finally:
        with suppress(NotImplementedError, ValueError, RuntimeError):
            loop.remove_signal_handler(signal.SIGINT)
    if str(run.calls.stopped) == INTERRUPTED:
        raise KeyboardInterrupt(INTERRUPTED)


def _check_prices(run: Collection, cap: float) -> None:
    """Make sure that where there is a cap it is known what every model can cost."""
    models = [*run.panel.tiers.values(), *(reader.model for reader in run.panel.readers if not reader.with_answer)]
    for model in models if cap < math.inf else ():
        if model.litellm_params and model.dearest is None and price_of(model, {}).dearest(0) is None:
            raise LogError("E_PRICE", unpriced(model.name, cap))
