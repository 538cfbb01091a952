"""The policy file in use and the editions before it: one takes another's place in one step, and can be taken back."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from metaverify.policies.file import dump_policy, load_policy, policy_id, save_policy
from metaverify.policies.policy import Policy
from metaverify.policies.storage import signature_path, write_atomically

__all__ = ["Edition", "Exchange", "editions", "promote", "rollback"]

_NAME = re.compile(r"(\d{6})-([0-9a-f]{64})(\.withdrawn)?\.json")
_SHORTEST = 6  # hexadecimal digits of an id that may stand for it


@dataclass(frozen=True, slots=True)
class Edition:
    """A policy file that was in use: ``number`` counts them, the latest last; one that was taken back is withdrawn."""

    path: Path
    number: int
    id: str
    withdrawn: bool

    def policy(self, key: bytes | None = None) -> Policy:
        """The policy in it; raises as `load_policy`."""
        return load_policy(self.path, key=key)

    def remove(self) -> None:
        """Remove the file, and its signature."""
        self.path.unlink(missing_ok=True)
        signature_path(self.path).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One policy file in the place of another: ids and serials, None where there was none before.

    ``source`` is the id that the new one had where it came from: another one where its serial was raised.
    """

    id: str
    serial: int
    source: str
    before: str | None
    before_serial: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)

    def text(self, live: str) -> str:
        """What was done, in a sentence or two."""
        place = "" if self.before is None else f" in the place of {self.before[:19]} (serial {self.before_serial})"
        raised = f"; it was {self.source[:19]}, and has the next serial now" if self.source != self.id else ""
        return f"{live} is now {self.id[:19]} (serial {self.serial}){place}{raised}"


def editions(live: str | os.PathLike[str]) -> tuple[Edition, ...]:
    """The files that were in use before, in their order; they stand in a folder beside the file in use."""
    folder = _folder(live)
    found = [_NAME.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    kept = [Edition(folder / name[0], int(name[1]), f"sha256:{name[2]}", name[3] is not None) for name in found if name]
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
    is not above the one in use, it gets the next one; it has another id then.  Otherwise not a byte of what it says
    changes.

    Args:
        candidate: the policy file to be used; it stays where it is.
        live: the policy file in use, or where it is to be.
        key: what both are signed with; needed where the one in use is signed.
        now: seconds since 1970, past which the candidate must not have expired; None does not look.

    Raises:
        PolicyFileError: one of them does not load.
        ValueError: the one in use is signed, and there is no key; or the candidate is what is in use.
    """
    return _exchange(load_policy(candidate, key=key, now=now), live, key, withdrawn=False)


def rollback(live: str | os.PathLike[str], to: str | None = None, *, key: bytes | None = None) -> Exchange:
    """Put an edition before back in the place of the one in use, which is kept as withdrawn.

    Args:
        live: the policy file in use.
        to: the edition's id, as far as it takes to tell it from the others, or its serial; the latest that was not
            withdrawn where not given.
        key: as in `promote`.

    Raises:
        PolicyFileError: a file does not load.
        ValueError: there is no such edition, or several; or as `promote`.
    """
    current = policy_id(load_policy(live, key=key))
    kept = [edition for edition in editions(live) if edition.id != current]
    chosen = _chosen(kept, to, os.fspath(live), key)
    exchanged = _exchange(chosen.policy(key), live, key, withdrawn=True)
    chosen.remove()  # it is in use again
    return exchanged


def _chosen(kept: list[Edition], to: str | None, live: str, key: bytes | None) -> Edition:
    if to is None:
        able = [edition for edition in kept if not edition.withdrawn][-1:]
    else:
        digits = to.removeprefix("sha256:")
        by_id = len(digits) >= _SHORTEST and all(digit in "0123456789abcdef" for digit in digits)
        able = [edition for edition in kept if by_id and edition.id.removeprefix("sha256:").startswith(digits)]
        if not able and to.isascii() and to.isdigit():
            able = [edition for edition in kept if edition.policy(key).serial == int(to)]
    if len({edition.id for edition in able}) == 1:
        return able[-1]
    known = ", ".join(_told(edition, key) for edition in kept) or "none"
    what = (
        "no edition before it that was not withdrawn" if to is None else f"{'several' if able else 'no'} editions {to}"
    )
    raise ValueError(f"{live} has {what}; kept are {known}")


def _told(edition: Edition, key: bytes | None) -> str:
    return f"{edition.id[:19]} (serial {edition.policy(key).serial}{', withdrawn' if edition.withdrawn else ''})"


def _exchange(policy: Policy, live: str | os.PathLike[str], key: bytes | None, *, withdrawn: bool) -> Exchange:
    own = policy_id(policy)
    if key is None and signature_path(live).exists():
        raise ValueError(f"{os.fspath(live)} is signed; give the key, or routers that ask for a signature refuse it")
    before = load_policy(live, key=key) if os.path.lexists(live) else None
    if before is None:
        return Exchange(save_policy(policy, live, key=key), policy.serial, own, None, None)
    replaced = policy_id(before)
    if own == replaced:
        raise ValueError(f"{os.fspath(live)} is {own} already")
    if before.serial > 0 and policy.serial <= before.serial:
        policy = replace(policy, serial=before.serial + 1)
    _keep(before, live, key, withdrawn)
    return Exchange(save_policy(policy, live, key=key), policy.serial, own, replaced, before.serial)


def _keep(policy: Policy, live: str | os.PathLike[str], key: bytes | None, withdrawn: bool) -> None:
    """Put what is in use beside it, before it is replaced; once is enough."""
    kept, name = editions(live), policy_id(policy).removeprefix("sha256:")
    for edition in kept:
        if edition.id.endswith(name):
            edition.remove()
    folder = _folder(live)
    folder.mkdir(exist_ok=True)
    number = kept[-1].number + 1 if kept else 1
    end = ".withdrawn" if withdrawn else ""
    write_atomically(folder / f"{number:06}-{name}{end}.json", dump_policy(policy).encode(), key=key)


def _folder(live: str | os.PathLike[str]) -> Path:
    return Path(f"{os.fspath(live)}.editions")
