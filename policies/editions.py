"""The policy file in use and the editions before it: one takes another's place in one step, and can be taken back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from metaverify.policies.file import PolicyFileError, load_policy, policy_id, save_policy
from metaverify.policies.policy import Policy
from metaverify.policies.storage import signature_path

__all__ = ["Edition", "Exchange", "editions", "promote", "rollback"]

_NAME = re.compile(r"(\d{6,})-(\d{6,})-(\d{1,20})-([0-9a-f]{64})\.json")
_SHORTEST = 6  # hexadecimal digits of an id that may stand for it


@dataclass(frozen=True, slots=True)
class Edition:
    """A policy that was put in use.

    ``number`` counts them, the latest last; ``before`` is the number of the one that a rollback from it puts back, 0
    where there is none.  All of this stands in the file's name, so that a damaged file hides nothing but itself.
    """

    path: Path
    number: int
    before: int
    serial: int
    id: str

    def policy(self, key: bytes | None = None) -> Policy:
        """The policy in it.

        Raises:
            PolicyFileError: as `load_policy`, or E_ID: it is not the one that was kept.
        """
        policy = load_policy(self.path, key=key)
        if (policy_id(policy), policy.serial) != (self.id, self.serial):
            raise PolicyFileError("E_ID", str(self.path), f"is {policy_id(policy)[:19]}, not what its name says")
        return policy


@dataclass(frozen=True, slots=True)
class Exchange:
    """One policy file in the place of another: ids and serials, None where no whole one was there before.

    ``source`` is the id that the new one had where it came from: another one where its serial was raised.  ``damaged``
    says which files were in the way and why they could not be used.
    """

    id: str
    serial: int
    source: str
    before: str | None
    before_serial: int | None
    damaged: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {**asdict(self), "damaged": list(self.damaged)}

    def text(self, live: str) -> str:
        """What was done, in a sentence or two, and what was damaged, a line each."""
        place = "" if self.before is None else f" in the place of {self.before[:19]} (serial {self.before_serial})"
        raised = f"; it was {self.source[:19]}, and has the next serial now" if self.source != self.id else ""
        done = f"{live} is now {self.id[:19]} (serial {self.serial}){place}{raised}"
        return "\n".join([*(f"damaged: {fault}" for fault in self.damaged), done])


@dataclass(frozen=True, slots=True)
class _Use:
    """What is in use: the file's policy and the edition that it is a copy of, or None twice and what is wrong with it.

    ``line`` is all editions, this one among them even where nobody has kept it yet.
    """

    line: tuple[Edition, ...]
    policy: Policy | None = None
    edition: Edition | None = None
    faults: tuple[str, ...] = ()


def editions(live: str | os.PathLike[str]) -> tuple[Edition, ...]:
    """All that was put in use, in its order, the edition in use among them.

    They stand in a folder beside the file in use, which is a copy of one of them; nothing there is ever changed.
    """
    folder = _folder(live)
    found = [_NAME.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    kept = [Edition(folder / at[0], int(at[1]), int(at[2]), int(at[3]), f"sha256:{at[4]}") for at in found if at]
    return tuple(sorted(kept, key=lambda edition: edition.number))


def promote(
    candidate: str | os.PathLike[str],
    live: str | os.PathLike[str],
    *,
    key: bytes | None = None,
    now: float | None = None,
) -> Exchange:
    """Put a candidate in the place of the policy in use, which is kept.

    Routers take no older edition than the one that they have.  So where editions are counted and the candidate's serial
    is not above all that were in use, it gets the next one; it has another id then.  Otherwise not a byte of what it
    says changes.  What is damaged or gone is put in its place again where editions were kept.

    Args:
        candidate: the policy file to be used; it stays where it is.
        live: the policy file in use, or where it is to be.
        key: what both are signed with; needed where the one in use is signed.
        now: seconds since 1970, past which the candidate must not have expired; None does not look.

    Raises:
        PolicyFileError: the candidate does not load; or what is in its place does not, and no editions were kept.
        ValueError: the one in use is signed, and there is no key; or the candidate is what is in use.
    """
    policy = load_policy(candidate, key=key, now=now)
    use = _in_use(live, key)
    last = use.edition or (use.line[-1] if use.line else None)
    again = last is not None and use.edition is None and last.id == policy_id(policy)  # its copy was damaged
    before = 0 if last is None else last.before if again else last.number
    return _exchange(use, policy, before, live, key)


def rollback(live: str | os.PathLike[str], to: str | None = None, *, key: bytes | None = None) -> Exchange:
    """Put an edition before back in the place of the one in use, which is withdrawn: no rollback comes back to it.

    Where the file in use is damaged or gone, the edition before is the one that it was a copy of.

    Args:
        live: the policy file in use.
        to: the edition's id, as far as it takes to tell it from the others, or its serial; the latest before that is
            whole where not given.
        key: as in `promote`.

    Raises:
        PolicyFileError: the file in use does not load, and no editions were kept.
        ValueError: there is no such edition that is whole, or there are several; or as `promote`.
    """
    use = _in_use(live, key)
    faults = list(use.faults)
    for edition in _way_back(use) if to is None else _named(use, to, os.fspath(live)):
        try:
            policy = edition.policy(key)
        except PolicyFileError as error:
            faults.append(str(error))
            continue
        return _exchange(replace(use, faults=tuple(faults)), policy, edition.before, live, key)
    lost = "".join(f"; damaged is {fault}" for fault in faults)
    what = "no edition before it that was not withdrawn" if to is None else f"no whole edition {to}"
    raise ValueError(f"{os.fspath(live)} has {what}; {_kept(use)}{lost}")


def _in_use(live: str | os.PathLike[str], key: bytes | None) -> _Use:
    line = editions(live)
    if key is None and any(signature_path(path).exists() for path in (live, *(each.path for each in line[-1:]))):
        raise ValueError(f"{os.fspath(live)} is signed; give the key, or routers that ask for a signature refuse it")
    there = os.path.lexists(live)
    if not there and not line:
        return _Use(line)
    try:
        policy = load_policy(live, key=key)
    except PolicyFileError as error:
        # a file that no edition stands for may be anything, and a key by which nothing is signed another one
        if there and error.code != "E_EMPTY" and not any(_is_whole(edition, key) for edition in line[::-1]):
            raise
        return _Use(line, faults=(str(error),))
    own, last = policy_id(policy), line[-1].number if line else 0
    for edition in line[::-1]:
        if edition.id == own:
            return _Use(line, policy, edition)
    edition = _edition(live, last + 1, last, policy)
    return _Use((*line, edition), policy, edition)


def _is_whole(edition: Edition, key: bytes | None) -> bool:
    try:
        edition.policy(key)
    except PolicyFileError:
        return False
    return True


def _way_back(use: _Use) -> Iterator[Edition]:
    """The editions that rollbacks put back, one after the other, the next one first."""
    at = use.line[-1].number if use.edition is None and use.line else use.edition.before if use.edition else 0
    while earlier := [edition for edition in use.line if edition.number <= at]:  # the nearest, where one is gone
        edition = earlier[-1]
        if use.edition is None or edition.id != use.edition.id:
            yield edition
        at = edition.before


def _named(use: _Use, to: str, live: str) -> list[Edition]:
    """The editions of one id that an id's beginning or a serial names, the latest first."""
    others = [edition for edition in use.line[::-1] if use.edition is None or edition.id != use.edition.id]
    digits = to.removeprefix("sha256:")
    by_id = len(digits) >= _SHORTEST and all(digit in "0123456789abcdef" for digit in digits)
    able = [edition for edition in others if by_id and edition.id.removeprefix("sha256:").startswith(digits)]
    if not able and to.isascii() and to.isdigit():
        able = [edition for edition in others if edition.serial == int(to)]
    if len({edition.id for edition in able}) != 1:
        raise ValueError(f"{live} has {'several' if able else 'no'} editions {to}; {_kept(use)}")
    return able


def _kept(use: _Use) -> str:
    """Which editions there are besides the one in use."""
    own, way_back = None if use.edition is None else use.edition.id, [edition.id for edition in _way_back(use)]
    others = {edition.id: edition for edition in use.line if edition.id != own}.values()
    told = [
        f"{edition.id[:19]} (serial {edition.serial}{'' if edition.id in way_back else ', withdrawn'})"
        for edition in others
    ]
    return f"kept are {', '.join(told) or 'none'}"


def _exchange(use: _Use, policy: Policy, before: int, live: str | os.PathLike[str], key: bytes | None) -> Exchange:
    """Put a policy at the end of the line, and a copy of it in use: whoever is cut off between the two begins anew."""
    own, replaced = policy_id(policy), None if use.edition is None else use.edition.id
    if own == replaced:
        raise ValueError(f"{os.fspath(live)} is {own} already")
    _folder(live).mkdir(exist_ok=True)
    if use.policy is not None and use.edition is not None and not _is_whole(use.edition, key):
        save_policy(use.policy, use.edition.path, key=key)
    last = use.line[-1] if use.line else None
    top = max((edition.serial for edition in use.line), default=0)
    again = last is not None and (last.id, last.before) == (own, before) and policy.serial == top
    if top > 0 and policy.serial <= top and not again:
        policy = replace(policy, serial=top + 1)
    number = (last.number if last else 0) + (not again)
    save_policy(policy, _edition(live, number, before, policy).path, key=key)
    name, serial = save_policy(policy, live, key=key), None if use.policy is None else use.policy.serial
    return Exchange(name, policy.serial, own, replaced, serial, use.faults)


def _edition(live: str | os.PathLike[str], number: int, before: int, policy: Policy) -> Edition:
    name = policy_id(policy)
    path = _folder(live) / f"{number:06}-{before:06}-{policy.serial}-{name.removeprefix('sha256:')}.json"
    return Edition(path, number, before, policy.serial, name)


def _folder(live: str | os.PathLike[str]) -> Path:
    return Path(f"{os.fspath(live)}.editions")
