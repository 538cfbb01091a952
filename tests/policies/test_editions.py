"""Promoting and rolling back: what is in use is always whole, what was in use is kept, and routers take what comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metaverify.policies import editions as module
from metaverify.policies.document import PolicyFileError
from metaverify.policies.editions import editions, promote, rollback
from metaverify.policies.file import load_policy, policy_id, save_policy
from metaverify.policies.policy import Policy
from metaverify.policies.store import PolicyStore

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
KEY = b"sixteen bytes or more of it"


@pytest.fixture
def live(tmp_path: Path) -> Path:
    return tmp_path / "live.json"


def edition(number: int, serial: int = 0) -> Policy:
    """One of several policies."""
    return replace(load_policy(GOLDEN / "spread.json"), provenance={"number": number}, serial=serial)


def put(folder: Path, policy: Policy, key: bytes | None = None) -> Path:
    path = folder / f"candidate-{policy.provenance['number']}.json"
    save_policy(policy, path, key=key)
    return path


def number(path: Path, key: bytes | None = None) -> int:
    return int(load_policy(path, key=key).provenance["number"])


def test_a_candidate_takes_the_place_byte_for_byte_where_editions_are_not_counted(live: Path, tmp_path: Path) -> None:
    first, second = put(tmp_path, edition(1)), put(tmp_path, edition(2))
    done = promote(first, live)
    assert (done.id, done.before) == (policy_id(edition(1)), None)
    assert done.text("live") == f"live is now {done.id[:19]} (serial 0)"
    assert live.read_bytes() == first.read_bytes()
    done = promote(second, live)
    assert (done.id, done.source, done.before, done.serial) == (
        policy_id(edition(2)),
        policy_id(edition(2)),
        policy_id(edition(1)),
        0,
    )
    assert live.read_bytes() == second.read_bytes()
    assert done.to_json() == {
        "id": done.id,
        "serial": 0,
        "source": done.id,
        "before": done.before,
        "before_serial": 0,
        "damaged": [],
    }
    assert done.text("live") == f"live is now {done.id[:19]} (serial 0) in the place of {done.before[:19]} (serial 0)"
    assert [kept.path.read_bytes() for kept in editions(live)] == [first.read_bytes(), second.read_bytes()]
    assert rollback(live).id == policy_id(edition(1))
    assert live.read_bytes() == first.read_bytes()
    kept = [(kept.id, kept.number, kept.before) for kept in editions(live)]
    assert kept == [(policy_id(edition(1)), 1, 0), (policy_id(edition(2)), 2, 1), (policy_id(edition(1)), 3, 0)]


def test_a_running_store_takes_every_exchange_where_editions_are_counted(live: Path, tmp_path: Path) -> None:
    promote(put(tmp_path, edition(1, serial=4)), live)
    store = PolicyStore(live, every=0.0)
    seen = []
    for step in (lambda: promote(put(tmp_path, edition(2)), live), lambda: rollback(live), lambda: rollback(live, "5")):
        done = step()
        seen.append((store.policy.provenance["number"], store.snapshot().serial, done.id == store.snapshot().id))
        assert store.health().error is None
    assert seen == [(2, 5, True), (1, 6, True), (2, 7, True)]
    done = promote(put(tmp_path, edition(3, serial=30)), live)
    assert (done.serial, done.id) == (30, done.source)
    assert "has the next serial now" in promote(put(tmp_path, edition(4)), live).text("live")


def test_rolling_back_twice_goes_back_two(live: Path, tmp_path: Path) -> None:
    for at in (1, 2, 3):
        promote(put(tmp_path, edition(at)), live)
    assert [number(live), *(rollback(live) and number(live) for _ in range(2))] == [3, 2, 1]
    with pytest.raises(ValueError, match="no edition before it that was not withdrawn; kept are sha256:"):
        rollback(live)
    assert number(live) == 1
    rollback(live, policy_id(edition(3)))
    assert number(live) == 3
    rollback(live, policy_id(edition(2)).removeprefix("sha256:")[:8])
    assert number(live) == 2


def test_what_was_meant_by_no_edition_is_told(live: Path, tmp_path: Path) -> None:
    promote(put(tmp_path, edition(1, serial=3)), live)
    with pytest.raises(ValueError, match="no edition before it that was not withdrawn; kept are none"):
        rollback(live)
    promote(put(tmp_path, edition(2, serial=7)), live)
    for to in ("4", "sha256:000000", "abc", policy_id(edition(1, serial=3))[7:12], ""):
        with pytest.raises(ValueError, match=r"no editions .*kept are sha256:.*\(serial 3\)"):
            rollback(live, to)
    assert number(live) == 2


def test_signed_files_stay_signed_and_need_their_key(live: Path, tmp_path: Path) -> None:
    promote(put(tmp_path, edition(1, serial=1), KEY), live, key=KEY)
    second = put(tmp_path, edition(2, serial=1), KEY)
    with pytest.raises(ValueError, match="is signed; give the key"):
        promote(second, live)
    assert promote(second, live, key=KEY).serial == 2
    assert number(live, KEY) == 2
    kept = editions(live)[0]
    whole = kept.path.read_bytes()
    kept.path.write_bytes(put(tmp_path, edition(9, serial=1)).read_bytes())
    with pytest.raises(ValueError, match=r"no edition before it .*E_SIGNATURE"):
        rollback(live, key=KEY)
    kept.path.write_bytes(whole)
    rollback(live, key=KEY)
    assert (number(live, KEY), load_policy(live, key=KEY).serial) == (1, 3)


def test_what_is_refused_changes_nothing(live: Path, tmp_path: Path) -> None:
    promote(put(tmp_path, edition(1)), live)
    before = live.read_bytes()
    ended = put(tmp_path, replace(edition(2), expires=100.0))
    with pytest.raises(PolicyFileError, match="E_EXPIRED"):
        promote(ended, live, now=200.0)
    with pytest.raises(PolicyFileError, match="E_NOTFILE"):
        promote(tmp_path / "none.json", live)
    with pytest.raises(ValueError, match=r"is sha256:.* already"):
        promote(put(tmp_path, edition(1)), live)
    (tmp_path / "torn.json").write_bytes(before[:100])
    with pytest.raises(PolicyFileError, match="E_"):
        promote(tmp_path / "torn.json", live)
    assert (live.read_bytes(), len(editions(live))) == (before, 1)
    promote(ended, live, now=50.0)
    assert number(live) == 2


@pytest.mark.parametrize("serial", [0, 4])
@pytest.mark.parametrize("writes", [0, 1])
def test_an_exchange_that_is_cut_off_leaves_what_was_in_use_and_can_be_done_again(
    writes: int, serial: int, live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in (1, 2):
        promote(put(tmp_path, edition(at, serial)), live)
    left = 0

    def killed(*args: Any, **known: Any) -> str:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return save_policy(*args, **known)

    def cut_off(step: Callable[[], Any]) -> None:
        nonlocal left
        left = writes
        before = live.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(module, "save_policy", killed)
            with pytest.raises(KeyboardInterrupt):
                step()
        assert live.read_bytes() == before

    cut_off(lambda: promote(GOLDEN / "votes.json", live))
    rollback(live)
    assert number(live) == 1  # and not the copy of what is in use, or what never was
    cut_off(lambda: rollback(live, policy_id(load_policy(put(tmp_path, edition(2, serial and 5))))))
    assert number(live) == 1
    rollback(live, policy_id(edition(2, serial and 5)))
    assert number(live) == 2
    store = PolicyStore(live, every=0.0)
    cut_off(lambda: promote(put(tmp_path, edition(3, serial)), live))
    promote(put(tmp_path, edition(4, serial)), live)
    assert (store.policy.provenance["number"], store.health().error) == (4, None)
    rollback(live)
    assert (store.policy.provenance["number"], store.health().error) == (2, None)


@pytest.mark.parametrize("serial", [0, 1])
def test_there_and_back_again_is_three_editions(serial: int, live: Path, tmp_path: Path) -> None:
    for at in (1, 2, 1):
        promote(put(tmp_path, edition(at, serial)), live)
    assert [number(live), *(rollback(live) and number(live) for _ in range(2))] == [1, 2, 1]
    with pytest.raises(ValueError, match="no edition before it"):
        rollback(live)
    promote(put(tmp_path, edition(3, serial)), live)
    assert (rollback(live), number(live))[1] == 1  # which it took the place of, and not what was withdrawn


def empty(live: Path) -> None:
    live.write_bytes(b"")


def tear(live: Path) -> None:
    live.write_bytes(live.read_bytes()[:100])


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("damage", [empty, tear, Path.unlink])
def test_a_damaged_file_in_use_is_put_back_and_serials_only_rise(
    damage: Callable[[Path], None], key: bytes | None, live: Path, tmp_path: Path
) -> None:
    for at in (1, 2):
        promote(put(tmp_path, edition(at, serial=10), key), live, key=key)
    whole = live.read_bytes()
    store = PolicyStore(live, every=0.0, load=lambda path: load_policy(path, key=key))
    damage(live)
    done = rollback(live, key=key)
    assert live.read_bytes() == whole  # the edition that it was a copy of
    assert (done.serial, done.before, len(done.damaged)) == (11, None, 1)
    assert str(live) in done.text(str(live)).splitlines()[0]
    assert rollback(live, key=key).serial == 12
    assert number(live, key) == 1
    damage(live)
    done = promote(put(tmp_path, edition(1, serial=10), key), live, key=key)
    assert (done.serial, len(done.damaged)) == (13, 1)  # above what routers hold
    assert (store.policy.provenance["number"], store.health().serial, store.health().error) == (1, 13, None)


def test_the_edition_in_use_can_be_promoted_again_where_its_copy_is_gone(live: Path, tmp_path: Path) -> None:
    for at in (1, 2):
        promote(put(tmp_path, edition(at)), live)
    live.unlink()
    promote(tmp_path / "candidate-2.json", live)
    assert [number(live), *(rollback(live) and number(live) for _ in range(1))] == [2, 1]


def test_a_damaged_edition_is_passed_over_and_named(live: Path, tmp_path: Path) -> None:
    for at in (1, 2, 3, 4):
        promote(put(tmp_path, edition(at, serial=1)), live)
    one, two, three, _ = editions(live)
    tear(two.path)
    three.path.write_bytes(one.path.read_bytes())  # whole, but another
    done = rollback(live)
    assert (number(live), done.serial) == (1, 5)
    assert all(kept.path.name in fault for kept, fault in zip((three, two), done.damaged, strict=True))
    with pytest.raises(ValueError, match=rf"no whole edition 2; .*{two.path.name}"):
        rollback(live, "2")
    assert rollback(live, "4").serial == 6
    one.path.unlink()
    with pytest.raises(ValueError, match="no edition before it"):
        rollback(live)
    assert number(live) == 4


def test_a_policy_that_was_put_there_by_hand_is_kept(live: Path, tmp_path: Path) -> None:
    save_policy(edition(1, serial=5), live)
    promote(put(tmp_path, edition(2)), live)
    save_policy(edition(3, serial=9), live)
    assert (rollback(live).serial, number(live)) == (10, 2)
    assert (rollback(live).serial, number(live)) == (11, 1)
    assert (rollback(live, "9").serial, number(live)) == (12, 3)


def test_a_file_that_may_be_anything_is_not_replaced(live: Path, tmp_path: Path) -> None:
    live.write_text("my notes")
    for step in (lambda: promote(put(tmp_path, edition(1)), live), lambda: rollback(live)):
        with pytest.raises(PolicyFileError, match=r"E_"):
            step()
    assert (live.read_text(), editions(live)) == ("my notes", ())
    live.write_bytes(b"")
    promote(put(tmp_path, edition(1)), live)
    assert number(live) == 1
    other = b"another secret of sixteen bytes"
    promote(put(tmp_path, edition(2), KEY), tmp_path / "signed.json", key=KEY)
    with pytest.raises(PolicyFileError, match="E_SIGNATURE"):
        promote(put(tmp_path, edition(3), other), tmp_path / "signed.json", key=other)


def test_other_files_in_the_folder_are_let_alone(live: Path, tmp_path: Path) -> None:
    promote(put(tmp_path, edition(1)), live)
    folder = tmp_path / "live.json.editions"
    (folder / "notes.txt").write_text("mine")
    promote(put(tmp_path, edition(2)), live)
    assert [kept.number for kept in editions(live)] == [1, 2]
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_rollback_does_not_lead_to_what_is_in_use(live: Path, tmp_path: Path) -> None:
    first, second = put(tmp_path, edition(1)), put(tmp_path, edition(2))
    for candidate in (first, second, first):
        promote(candidate, live)
    editions(live)[1].path.write_text("")
    with pytest.raises(ValueError, match=r"no edition before it that was not withdrawn; .* damaged is .*E_EMPTY"):
        rollback(live)
    assert live.read_bytes() == first.read_bytes()
