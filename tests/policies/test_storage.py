"""A policy file is the old one or the new one, whole and signed, whatever fails and whoever is killed."""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metaverify.policies import storage
from metaverify.policies.document import read_at_most
from metaverify.policies.file import PolicyFileError, load_policy, parse_policy, save_policy
from metaverify.policies.policy import Policy
from metaverify.policies.storage import _make_temporary, signature_path, write_atomically

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
KEY = b"0123456789abcdef"
posix = pytest.mark.skipif(os.name != "posix", reason="locks and signals are POSIX")


def edition(serial: int, **changes: Any) -> Policy:
    return replace(load_policy(GOLDEN / "policy.json"), serial=serial, **changes)


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(path: Path, **asked: Any) -> PolicyFileError:
    with pytest.raises(PolicyFileError) as caught:
        load_policy(path, **asked)
    assert str(caught.value).startswith(f"{caught.value.code} at {path}")
    return caught.value


# ------------------------------------------------------------------------------------------- what the router asks


def test_an_older_edition_is_not_taken_where_a_later_one_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    for serial, lowest, taken in ((0, 0, True), (0, 1, False), (7, 7, True), (7, 6, True), (7, 8, False)):
        save_policy(edition(serial), path)
        if taken:
            assert load_policy(path, at_least=lowest).serial == serial
        else:
            error = refusal(path, at_least=lowest)
            assert (error.code, error.place) == ("E_ROLLBACK", f"{path} serial")


def test_a_policy_that_has_expired_is_refused_from_that_second_on(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    save_policy(edition(1, expires=1000.5), path)
    assert load_policy(path) == load_policy(path, now=1000.4999)
    for now in (1000.5, 2e9, float("nan"), float("inf")):
        error = refusal(path, now=now)
        assert (error.code, error.place) == ("E_EXPIRED", f"{path} expires")
    save_policy(edition(1), path)
    assert load_policy(path, now=1e12).expires is None


def test_a_file_that_names_a_tier_which_the_router_lacks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    save_policy(edition(1), path)
    assert load_policy(path, tiers=["huge", "large", "medium", "small"]).serial == 1
    error = refusal(path, tiers=["small", "mediun", "large"])
    assert (error.code, error.place) == ("E_TIERS", f"{path} tiers[1].name")
    assert "'medium'" in error.message
    assert "did you mean 'mediun'?" in error.message


# ---------------------------------------------------------------------------------------------------- signatures


def test_a_signature_is_the_hmac_of_the_file_as_anyone_can_reckon_it(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    save_policy(edition(1), path, key=KEY)
    digest = hmac.new(KEY, path.read_bytes(), hashlib.sha256).hexdigest()
    assert signature_path(path).read_text() == f"hmac-sha256:{digest}\n"
    assert inside(tmp_path) == ["p.json", "p.json.sig"]
    assert load_policy(path, key=KEY) == load_policy(path) == edition(1)


def test_what_was_not_signed_with_the_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    save_policy(edition(1), path)
    assert refusal(path, key=KEY).code == "E_SIGNATURE"
    save_policy(edition(1), path, key=KEY)
    assert refusal(path, key=KEY[::-1]).code == "E_SIGNATURE"
    signature = signature_path(path).read_bytes()
    save_policy(edition(2), path)
    assert refusal(path, key=KEY).code == "E_SIGNATURE"
    save_policy(edition(1), path)
    assert load_policy(path, key=KEY).serial == 1
    for damaged in (b"", signature[:-2], signature.upper(), b"\xff\x00" + signature, b"x" * 10_000):
        signature_path(path).write_bytes(damaged)
        assert refusal(path, key=KEY).code == "E_SIGNATURE"
    path.write_bytes(b"{}")
    assert refusal(path, key=KEY).code == "E_SIGNATURE"  # before anything of it is read


def test_a_reader_finds_a_signature_between_the_two_steps_of_an_export(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    save_policy(edition(1), path, key=KEY)
    before = path.read_bytes()
    save_policy(edition(2), path, key=KEY)
    path.write_bytes(before)  # the signature was written, and the file not yet
    assert load_policy(path, key=KEY).serial == 1
    save_policy(edition(3), path, key=KEY)
    assert len(signature_path(path).read_text().split()) == 2
    path.write_bytes(b"not signed by anybody")
    save_policy(edition(3), path, key=KEY)
    assert len(signature_path(path).read_text().split()) == 1, "what stood there unsigned is not signed on the way"


@pytest.mark.parametrize("key", [b"", b"short", b"x" * 15])
def test_a_key_that_is_too_short_signs_nothing_and_lets_nothing_in(tmp_path: Path, key: bytes) -> None:
    path = tmp_path / "p.json"
    with pytest.raises(ValueError, match="at least 16"):
        save_policy(edition(1), path, key=key)
    assert inside(tmp_path) == []
    save_policy(edition(1), path, key=KEY)
    with pytest.raises(ValueError, match="at least 16"):
        load_policy(path, key=key)


def test_a_missing_signature_is_told_with_its_file_and_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    save_policy(edition(1), path)
    assert str(refusal(path, key=KEY)) == (
        f"E_SIGNATURE at {path}: has no signature by this key in p.json.sig: it was changed, or signed with another "
        "key or none; export it again with the key"
    )


def test_of_a_large_file_one_byte_more_than_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    for limit, read in ((3, b"0123"), (9, b"0123456789"), (10, b"0123456789")):
        assert read_at_most(tmp_path / "file", limit, "") == read


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, why in (
        (tmp_path / "loop", f"cannot be read: {os.strerror(errno.ELOOP)}; do this"),
        (f"{tmp_path}/a\x00b", "cannot be read: embedded null byte; do this"),
        (tmp_path / "none", "does not exist; do this"),
        (tmp_path, "is not a file; do this"),
    ):
        with pytest.raises(PolicyFileError) as caught:
            read_at_most(path, 10, "do this")
        assert (caught.value.code, caught.value.place, caught.value.message) == ("E_NOTFILE", "", why)


# ------------------------------------------------------------------------------------------- failures and the dead


@contextmanager
def failing(at: int, patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The system call of this number, counted from 0, fails; what was called until then."""
    import fcntl

    called: list[str] = []

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            called.append(name)
            if len(called) == at + 1:
                if name == "close":
                    real(*args)  # what fails to close is closed
                raise OSError(errno.EIO, "broken")
            return real(*args, **options)

        return call

    with patch.context() as patched:
        for module, names in (
            (os, "open close fsync fstat urandom replace unlink scandir fdopen stat"),
            (fcntl, "flock"),
        ):
            for name in names.split():
                patched.setattr(module, name, wrapped(name, getattr(module, name)))
        yield called


@posix
@pytest.mark.parametrize("key", [None, KEY], ids=["unsigned", "signed"])
def test_whatever_call_of_an_export_fails_the_file_is_whole_and_the_next_export_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: bytes | None
) -> None:
    path, old, new = tmp_path / "p.json", edition(1), edition(2)
    met: set[str] = set()
    for at in range(1000):
        save_policy(old, path, key=key)
        raised: OSError | None = None
        with failing(at, monkeypatch) as called:
            try:
                save_policy(new, path, key=key)
            except OSError as error:
                raised = error
        assert raised is None or raised.strerror == "broken"  # and nothing that came of it
        assert load_policy(path, key=key) in ((old, new) if raised else (new,))
        save_policy(old, path, key=key)
        assert not [name for name in inside(tmp_path) if name.endswith(".tmp")], called
        if len(called) <= at:
            break
        met.add(called[at])
    assert not raised
    assert met >= {"open", "close", "fsync", "fstat", "urandom", "replace", "scandir", "fdopen", "flock"}


def open_handles() -> int:
    """How many this process has, where that can be seen."""
    seen = Path("/proc/self/fd")
    return len(list(seen.iterdir())) if seen.is_dir() else 0


@posix
@pytest.mark.parametrize("key", [None, KEY], ids=["unsigned", "signed"])
def test_whatever_call_of_a_load_fails_it_is_a_refusal_and_no_handle_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: bytes | None
) -> None:
    path = tmp_path / "p.json"
    save_policy(edition(1), path, key=key)
    handles, refused = open_handles(), 0
    for at in range(100):
        error: PolicyFileError | None = None
        with failing(at, monkeypatch) as called:
            try:
                load_policy(path, key=key)
            except PolicyFileError as caught:
                error = caught
        if len(called) <= at:
            break
        if error is None:
            assert called[at:].count("open") >= 2, "only what is read again can be had after a failure"
            continue
        assert error.code in {"E_NOTFILE", "E_SIGNATURE"}
        refused += 1
    assert refused >= 3
    assert open_handles() == handles


@posix
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.json")
    assert refusal(tmp_path / "p.json").code == "E_NOTFILE"


# ------------------------------------------------------------------------------------------------- what is replaced


@posix
@pytest.mark.parametrize("key", [None, KEY], ids=["unsigned", "signed"])
@pytest.mark.parametrize("name", ["p.json", "p.json.sig"])
def test_a_pipe_a_device_and_a_folder_are_not_written_over_and_not_waited_for(
    tmp_path: Path, key: bytes | None, name: str
) -> None:
    if name.endswith(".sig") and key is None:
        pytest.skip("nothing is written there")
    path, place = tmp_path / "p.json", tmp_path / name
    makers: list[Callable[[], object]] = [
        lambda: os.mkfifo(place),
        place.mkdir,
        lambda: place.symlink_to("/dev/null"),
        lambda: place.symlink_to(tmp_path),
    ]
    for make in makers:
        make()
        kind = place.lstat().st_mode
        with pytest.raises(PolicyFileError) as caught:
            save_policy(edition(1), path, key=key)
        assert str(caught.value) == f"E_NOTFILE at {place}: is there already, and is no file; name a file"
        assert inside(tmp_path) == [name]
        assert place.lstat().st_mode == kind
        place.rmdir() if stat.S_ISDIR(kind) else place.unlink()


@posix
@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    kept, link, replaced = tmp_path / "kept", tmp_path / "p.json", os.replace
    kept.mkdir()
    link.symlink_to("between")
    (tmp_path / "between").symlink_to(Path("kept") / "real.json")
    if there:
        save_policy(edition(1), kept / "real.json", key=KEY)
    from_folders = []

    def replaces(source: Path, target: Path) -> None:
        from_folders.append(Path(source).parent.resolve() == Path(target).parent.resolve())
        replaced(source, target)

    monkeypatch.setattr(os, "replace", replaces)
    save_policy(edition(2), link, key=KEY)
    assert link.readlink() == Path("between")
    assert not (kept / "real.json").is_symlink()
    assert load_policy(link, key=KEY) == load_policy(kept / "real.json") == edition(2)
    assert inside(tmp_path) == ["between", "kept", "p.json", "p.json.sig"], "the signature is beside the name given"
    assert all(from_folders), "what is renamed is of the folder that the link leads to"


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o664])
def test_what_is_replaced_keeps_its_mode_and_a_new_file_has_the_usual_one(tmp_path: Path, mode: int) -> None:
    path, before = tmp_path / "p.json", os.umask(0o022)
    try:
        save_policy(edition(1), path, key=KEY)
        assert [stat.S_IMODE(file.stat().st_mode) for file in (path, signature_path(path))] == [0o644, 0o644]
        path.chmod(mode)
        signature_path(path).chmod(0o604)
        save_policy(edition(2), path, key=KEY)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(file.stat().st_mode) for file in (path, signature_path(path))] == [mode, 0o604]


@posix
def test_the_owner_stays_where_that_is_allowed_and_nothing_is_readable_before_its_mode_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.json"
    write_atomically(path, b"before")
    path.chmod(0o600)
    found, calls = path.stat(), []

    def refuses(name: str) -> Callable[..., None]:
        def call(handle: int, *to: int) -> None:
            calls.append((name, to, os.fstat(handle).st_size))
            raise PermissionError(errno.EPERM, "not yours")

        return call

    for name in ("fchown", "fchmod"):
        monkeypatch.setattr(os, name, refuses(name))
    write_atomically(path, b"after")
    assert path.read_bytes() == b"after"
    assert calls == [("fchown", (-1, found.st_gid), 0), ("fchown", (found.st_uid, -1), 0), ("fchmod", (0o600,), 0)]


# ------------------------------------------------------------------------------------------- several at one time


@posix
def test_of_two_signed_exports_at_once_one_waits_for_the_other(tmp_path: Path) -> None:
    path, rounds = tmp_path / "p.json", 12
    start, failures = threading.Barrier(2), list[BaseException]()
    ended = threading.Barrier(2)

    def export(serial: int) -> None:
        try:
            for _ in range(rounds):
                start.wait(30)
                save_policy(edition(serial), path, key=KEY)
                ended.wait(30)
                assert load_policy(path, key=KEY).serial in (1, 2)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=export, args=(serial,)) for serial in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@posix
def test_a_signed_export_begins_when_the_folder_is_free(tmp_path: Path) -> None:
    import fcntl

    path, handle = tmp_path / "p.json", os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    export = threading.Thread(target=save_policy, args=(edition(1), path), kwargs={"key": KEY})
    export.start()
    export.join(0.2)
    assert export.is_alive()
    assert inside(tmp_path) == []
    save_policy(edition(2), path)  # what is not signed has nothing to wait for
    os.close(handle)
    export.join()
    assert load_policy(path, key=KEY) == edition(1)


def test_without_locks_signed_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "POSIX", False)
    save_policy(edition(1), tmp_path / "p.json", key=KEY)
    assert load_policy(tmp_path / "p.json", key=KEY) == edition(1)


@pytest.mark.parametrize("exports", [1, 2, 3, 4])
def test_a_reader_that_was_overtaken_by_exports_reads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exports: int
) -> None:
    """Two editions between the file and its signatures: neither of them is that of what was read."""
    path, serials, reads, real = tmp_path / "p.json", iter(range(2, 100)), [], storage._signatures
    save_policy(edition(1), path, key=KEY)

    def signatures(of: Path) -> list[bytes]:
        if len(reads) < exports and of == path:
            reads.append(next(serials))
            with monkeypatch.context() as patched:
                patched.setattr(storage, "_signatures", real)
                save_policy(edition(reads[-1]), path, key=KEY)
                save_policy(edition(next(serials)), path, key=KEY)
        return real(of)

    monkeypatch.setattr(storage, "_signatures", signatures)
    if exports < storage.READS:
        assert load_policy(path, key=KEY) == edition(1 + 2 * exports)
    else:
        assert refusal(path, key=KEY).code == "E_SIGNATURE"
    assert len(reads) == min(exports, storage.READS + 1)


def test_what_does_not_change_is_read_twice_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reads, real = tmp_path / "p.json", [], storage.read_at_most
    save_policy(edition(1), path, key=KEY)

    def reads_file(of: Path, *rest: Any) -> bytes:
        reads.append(Path(of).name)
        return real(of, *rest)

    monkeypatch.setattr(storage, "read_at_most", reads_file)
    assert refusal(path, key=KEY[::-1]).code == "E_SIGNATURE"
    assert reads == ["p.json", "p.json.sig"] * 2


@posix
def test_what_is_there_is_read_in_bounds_before_a_signed_export(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # of holes
    save_policy(edition(1), path, key=KEY)
    assert load_policy(path, key=KEY) == edition(1)


@posix
def test_only_the_dead_writers_of_the_same_file_are_cleaned_up_after(tmp_path: Path) -> None:
    import fcntl

    path = tmp_path / "p.json"
    stale, living = (tmp_path / f".p.json.{digit * 16}.tmp" for digit in "ab")
    others = [
        tmp_path / name for name in (".q.json.0123456789abcdef.tmp", ".p.json.tmp", ".p.json.x.tmp", "p.json.tmp")
    ]
    for file in (stale, living, *others):
        file.write_bytes(b"half")
    with living.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        write_atomically(path, b"whole")
        assert inside(tmp_path) == sorted(["p.json", *(file.name for file in (living, *others))])
    write_atomically(path, b"whole")
    assert not living.exists()


@posix
def test_a_temporary_file_is_new_and_locked_and_named_so_that_the_next_writer_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    made: list[tuple[str, int]] = []
    locked: list[int] = []
    opened, lock = os.open, fcntl.flock

    def opens(path: Any, flags: int, *mode: int) -> int:
        made.append((Path(path).name, flags))
        return opened(path, flags, *mode)

    def locks(handle: int, how: int) -> None:
        locked.append(how)
        lock(handle, how)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", opens)
        patched.setattr(fcntl, "flock", locks)
        write_atomically(tmp_path / "p.json", b"whole")
    (name, flags), (folder, _) = made
    assert re.fullmatch(r"\.p\.json\.[0-9a-f]{16}\.tmp", name)
    assert flags & os.O_EXCL
    assert flags & os.O_CREAT
    assert folder == tmp_path.name
    assert locked == [fcntl.LOCK_EX]


@posix
@pytest.mark.parametrize("letter", ["a", "\u00fc"])
def test_a_name_as_long_as_a_folder_takes_is_written_and_cleaned_up_after(tmp_path: Path, letter: str) -> None:
    size = len(letter.encode())
    for length in (232, 233, 234, 245, 255):
        target = tmp_path / (letter * (length // size)).ljust(length // size + length % size, "x")
        write_atomically(target, b"old")
        handle, stale = _make_temporary(target)  # as of a writer that is killed
        os.close(handle)
        write_atomically(target, b"new")
        assert target.read_bytes() == b"new"
        assert not stale.exists()
    with pytest.raises(OSError, match="too long"):
        write_atomically(tmp_path / ("a" * 256), b"")


@posix
def test_links_with_the_name_of_a_temporary_file_are_left_and_do_not_protect_the_stale(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    links = [tmp_path / f".p.json.{number:016x}.tmp" for number in range(0, 40, 2)]
    stale = [tmp_path / f".p.json.{number:016x}.tmp" for number in range(1, 40, 2)]
    for link in links:
        link.symlink_to(precious)
    for file in stale:
        file.write_bytes(b"half")
    write_atomically(tmp_path / "p.json", b"whole")
    assert inside(tmp_path) == sorted(["p.json", "precious", *(link.name for link in links)])
    assert precious.read_bytes() == b"mine"


@posix
def test_a_stale_file_that_another_writer_removes_first_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = tmp_path / f".p.json.{'a' * 16}.tmp"
    stale.write_bytes(b"half")
    lock = storage._lock

    def locks(handle: int, *, wait: bool) -> bool | None:
        stale.unlink(missing_ok=True)
        return lock(handle, wait=wait)

    monkeypatch.setattr(storage, "_lock", locks)
    write_atomically(tmp_path / "p.json", b"whole")
    assert inside(tmp_path) == ["p.json"]


@posix
def test_a_file_that_fails_to_close_after_the_exchange_says_so_and_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.fdopen

    @contextmanager
    def fdopen(handle: int, mode: str, **options: Any) -> Iterator[Any]:
        with opened(handle, mode, **options) as file:
            yield file
        if mode == "wb":
            raise OSError(errno.EIO, "late")

    monkeypatch.setattr(os, "fdopen", fdopen)
    with pytest.raises(OSError, match="late"):
        write_atomically(tmp_path / "p.json", b"whole")
    assert inside(tmp_path) == ["p.json"]
    assert (tmp_path / "p.json").read_bytes() == b"whole"


@posix
def test_an_interrupt_before_the_lock_goes_on_though_the_temporary_file_was_taken_for_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupts(handle: int, *, wait: bool) -> bool | None:
        for file in tmp_path.iterdir():
            file.unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "_lock", interrupts)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "p.json", b"whole")
    assert inside(tmp_path) == []


@posix
def test_a_temporary_file_that_was_taken_for_stale_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer removes the first two of them before they are locked; none is left open, none is left behind."""
    lock, closed = storage._lock, os.close
    names: list[str] = []
    handles: list[int] = []
    left: list[int] = []

    def late(handle: int, *, wait: bool) -> bool | None:
        if wait:
            (made,) = tmp_path.glob(".p.json.*.tmp")
            names.append(made.name)
            handles.append(handle)
            if len(names) < 3:
                made.unlink()
        return lock(handle, wait=wait)

    def closes(handle: int) -> None:
        left.append(handle)
        closed(handle)

    monkeypatch.setattr(storage, "_lock", late)
    monkeypatch.setattr(os, "close", closes)
    write_atomically(tmp_path / "p.json", b"whole")
    assert len({*names}) == 3
    assert left[:2] == handles[:2]
    assert (tmp_path / "p.json").read_bytes() == b"whole"
    assert inside(tmp_path) == ["p.json"]


def test_without_locks_a_file_is_written_and_nothing_of_others_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metaverify.policies.storage.POSIX", False)
    other = tmp_path / f".p.json.{'a' * 16}.tmp"
    other.write_bytes(b"half")
    write_atomically(tmp_path / "p.json", b"whole")
    assert (tmp_path / "p.json").read_bytes() == b"whole"
    assert inside(tmp_path) == [other.name, "p.json"]


@posix
def test_writers_of_one_file_do_not_take_each_other_s_temporary_files(tmp_path: Path) -> None:
    path, failures = tmp_path / "p.json", []

    def write(serial: int) -> None:
        try:
            for _ in range(60):
                write_atomically(path, bytes([serial]) * 1000)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(serial,)) for serial in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert inside(tmp_path) == ["p.json"]
    assert len(path.read_bytes()) == 1000
    assert len(set(path.read_bytes())) == 1


@posix
@pytest.mark.parametrize("rounds", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_writers_leave_the_old_file_or_the_new_one_and_nothing_after_the_next(rounds: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.policies.killing", str(rounds)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(ran.stdout)
    assert seen | {"left": 0} == {"rounds": rounds, "left": 0, "wrong": 0, "stale": 0, "failed_readers": 0}


# ----------------------------------------------------------------------------------------------- everywhere the same


@pytest.mark.parametrize(
    "settings", [{"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "77"}, {"LC_ALL": "C"}, {"LC_ALL": "de_DE.UTF-8"}]
)
def test_a_file_is_the_same_bytes_in_every_process_and_locale(settings: dict[str, str]) -> None:
    script = (
        "import sys, locale; from metaverify.policies.file import dump_policy, load_policy\n"
        "try: locale.setlocale(locale.LC_ALL, '')\n"
        "except locale.Error: pass\n"
        "for path in sys.argv[1:]: sys.stdout.buffer.write(dump_policy(load_policy(path)).encode())"
    )
    files = sorted(path for path in GOLDEN.glob("*.json"))
    ran = subprocess.run(
        [sys.executable, "-c", script, *files], env={**os.environ, **settings}, capture_output=True, check=True
    )
    assert ran.stdout == b"".join(path.read_bytes() for path in files)
    assert all(parse_policy(path.read_bytes()) for path in files)


def test_what_is_filled_by_hand_takes_the_place_of_a_file_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    path.write_bytes(b"old")
    with storage.replacing(path) as (file, name):
        file.write(b"new")
        assert (path.read_bytes(), name.parent) == (b"old", tmp_path)
    assert path.read_bytes() == b"new"

    def broken() -> None:
        with storage.replacing(path) as (file, _):
            file.write(b"half")
            raise KeyError("broken off")

    with pytest.raises(KeyError):
        broken()
    assert (path.read_bytes(), [*tmp_path.iterdir()]) == (b"new", [path])
