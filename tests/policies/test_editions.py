"""Promoting and rolling back: what is in use is always whole, what was in use is kept, and routers take what comes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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
    assert done.to_json() == {"id": done.id, "serial": 0, "source": done.id, "before": done.before, "before_serial": 0}
    assert done.text("live") == f"live is now {done.id[:19]} (serial 0) in the place of {done.before[:19]} (serial 0)"
    assert [kept.path.read_bytes() for kept in editions(live)] == [first.read_bytes()]
    assert rollback(live).id == policy_id(edition(1))
    assert live.read_bytes() == first.read_bytes()
    assert [(kept.id, kept.withdrawn) for kept in editions(live)] == [(policy_id(edition(2)), True)]


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
    (kept,) = editions(live)
    whole = kept.path.read_bytes()
    kept.path.write_bytes(put(tmp_path, edition(9, serial=1)).read_bytes())
    with pytest.raises(PolicyFileError, match="E_SIGNATURE"):
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
    assert (live.read_bytes(), editions(live)) == (before, ())
    promote(ended, live, now=50.0)
    assert number(live) == 2


def test_an_exchange_that_is_cut_off_leaves_what_was_in_use_and_can_be_done_again(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in (1, 2):
        promote(put(tmp_path, edition(at)), live)

    def killed(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_policy", killed)
        with pytest.raises(KeyboardInterrupt):
            promote(GOLDEN / "votes.json", live)
    assert number(live) == 2
    assert rollback(live).id == policy_id(edition(1))  # and not the copy of what is in use
    with monkeypatch.context() as patch:
        patch.setattr(module, "save_policy", killed)
        with pytest.raises(KeyboardInterrupt):
            rollback(live, policy_id(edition(2)))
    assert number(live) == 1
    assert rollback(live, policy_id(edition(2))).id == policy_id(edition(2))


def test_other_files_in_the_folder_are_let_alone(live: Path, tmp_path: Path) -> None:
    promote(put(tmp_path, edition(1)), live)
    folder = tmp_path / "live.json.editions"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    promote(put(tmp_path, edition(2)), live)
    assert [kept.number for kept in editions(live)] == [1]
    assert (folder / "notes.txt").read_text() == "mine"
