"""Who is asked: the tiers and verifiers of a gateway's settings, with calls that are recorded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metaverify.policies.integrations.models import Request
from metaverify.policies.integrations.settings import CascadeSettings, ReadingSettings, TierSettings
from metaverify.policies.integrations.verifiers import Verifier, find_verifier
from metaverify.policies.names import did_you_mean, name_fault
from metaverify.policies.router import Look
from metaverify.simulators.collecting.calls import Calls, Place, Recorded, purpose_of, sound
from metaverify.simulators.log import LogError

__all__ = ["Panel", "Reader", "panel_of", "quick_settings"]


@dataclass(frozen=True, slots=True)
class Reader:
    """One reading of a source: who reads it, and ``of`` whose answer, None where it needs none."""

    source: str
    name: str
    verifier: Verifier
    model: Recorded
    of: str | None
    needs: tuple[str, ...]
    settings: ReadingSettings

    @property
    def with_answer(self) -> bool:
        """Whether it comes with the answer, at no price."""
        return bool(getattr(self.verifier, "with_answer", False))

    @property
    def purpose(self) -> str:
        """What its calls are counted under."""
        return purpose_of(self.source, self.name)

    async def read(self, calls: Calls, place: Place, request: Request, answer: Any) -> Look:
        """The reading of an answer; a share of fewer votes than were asked for is missing.

        Raises:
            StopError: nothing more is asked.
            Exception: whatever the verifier raises.
        """

        async def read() -> Look:
            came: Any = self.verifier(self.model, request, answer)
            look: Look = await came if inspect.isawaitable(came) else came
            return look

        if self.with_answer:
            return sound(await read())
        said = None if answer is None else [choice.message.model_dump() for choice in answer.choices]
        look = await calls.look(place, [self.settings.verifier, self.settings.params, said], read, self.model.dollars)
        votes = getattr(self.verifier, "k", None) if hasattr(self.verifier, "vote") else None
        yes = (look.confidence or 0.0) * (votes or 0)
        return look if abs(yes - round(yes)) < 1e-9 else Look(None, look.cost)


@dataclass(frozen=True, slots=True)
class Panel:
    """The tiers that answer, with what each is asked for beside the messages, and all readings; ``dollars`` is what a
    unit of cost is."""

    tiers: Mapping[str, Recorded]
    added: Mapping[str, Mapping[str, Any]]
    readers: Sequence[Reader]
    dollars: float


def panel_of(settings: CascadeSettings, calls: Calls) -> Panel:
    """The panel of a cascade.

    Raises:
        LogError: a name that no log can have, no tier that answers, a signal that needs what there is not.
        ValueError: there is no such verifier, or not with these parameters.
    """
    names = [*settings.tiers]
    fault = name_fault(names) or name_fault([name for of in settings.tiers.values() for name in {*of.readings}])
    if fault:
        raise LogError("E_NAME", f"{settings.name}.tiers: a name {fault[1]}; rename it")
    tiers = {
        name: Recorded(name, of.litellm_params, settings.dollars, calls, of.timeout, _dollars(of, settings))
        for name, of in settings.tiers.items()
        if of.litellm_params is not None
    }
    if not tiers:
        raise LogError("E_COLUMN", f"{settings.name} has no tier with litellm_params; there is nobody to answer")
    readers = [
        _reader(settings, tiers, calls, name, reading) for name, of in settings.tiers.items() for reading in of.readings
    ]
    added: dict[str, dict[str, Any]] = {name: {} for name in tiers}
    for reader in readers:
        if reader.with_answer and reader.source in added:
            added[reader.source] |= getattr(reader.verifier, "params", {})
    return Panel(tiers, added, readers, settings.dollars)


def quick_settings(tiers: Sequence[str], verifiers: Sequence[str]) -> CascadeSettings:
    """Settings without a file: each tier a model of LiteLLM's, or name=model; each verifier reads every tier.

    Raises:
        LogError: two tiers have one name.
    """
    params: dict[str, dict[str, Any]] = {}
    for tier in tiers:
        name, equals, model = tier.partition("=")
        if not equals:
            name, model = tier.rpartition("/")[2], tier
        if name in params:
            raise LogError("E_OPTION", f"--tiers names {name!r} twice; write name=model to tell them apart")
        params[name] = {"model": model}
    kinds = [verifier.replace("-", "_") if ":" not in verifier else verifier for verifier in verifiers]
    readings = {"conf" if at == 0 else kind.rpartition(":")[2]: ReadingSettings(kind) for at, kind in enumerate(kinds)}
    made = {name: TierSettings(of, readings=readings) for name, of in params.items()}
    return CascadeSettings(name="--tiers", folder=Path.cwd(), policy=Path(), tiers=made)


def _dollars(of: TierSettings | ReadingSettings, settings: CascadeSettings) -> float | None:
    return None if of.dearest is None else of.dearest * settings.dollars


def _reader(settings: CascadeSettings, tiers: Mapping[str, Recorded], calls: Calls, source: str, name: str) -> Reader:
    of, place = settings.tiers[source], f"{settings.name}.tiers.{source}"
    told = of.readings[name]
    for tier in of.needs:
        if tier not in tiers:
            raise LogError("E_OPTION", f"{place}.needs has {tier!r}, no tier that answers{did_you_mean(tier, tiers)}")
    params = dict(told.params)
    if "litellm_params" in params:
        params["model"] = Recorded(
            purpose_of(source, name), params.pop("litellm_params"), settings.dollars, calls, told.timeout
        )
    try:
        verifier = find_verifier(told.verifier, params, settings.folder)
    except ValueError as error:
        raise ValueError(f"{place}.readings.{name}: {error}") from error
    answered = source if source in tiers else next(reversed(of.needs), None)
    model = tiers.get(answered or "") or Recorded(source, {}, settings.dollars, calls)
    return Reader(source, name, verifier, replace(model, timeout=told.timeout, dearest=None), answered, of.needs, told)
