"""Signatures by a shared secret and by an ed25519 key pair, and what is neither."""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metaverify.policies.file import PolicyFileError, load_policy, save_policy
from metaverify.policies.signatures import is_secret, is_signed, sign
from metaverify.policies.storage import signature_path
from metaverify.policies.store import PolicyStore

GOLDEN = load_policy(Path(__file__).resolve().parents[1] / "golden" / "policy.json")
SECRET = b"0123456789abcdef"
RFC8032 = [  # section 7.1: seed, public key, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
]


def pem(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.b64encode(der).decode()}\n-----END {label}-----\n".encode()


def private(seed: str) -> bytes:
    """A private key in PEM form (RFC 8410)."""
    return pem("PRIVATE KEY", bytes.fromhex("302e020100300506032b657004220420" + seed))


def public(point: str) -> bytes:
    return pem("PUBLIC KEY", bytes.fromhex("302a300506032b6570032100" + point))


PRIVATE, PUBLIC = private(RFC8032[0][0]), public(RFC8032[0][1])
OTHER_PRIVATE, OTHER_PUBLIC = private(RFC8032[1][0]), public(RFC8032[1][1])


@pytest.mark.parametrize(("seed", "point", "message", "signature"), RFC8032)
def test_signatures_are_those_of_the_standard(seed: str, point: str, message: str, signature: str) -> None:
    data = bytes.fromhex(message)
    assert sign(data, private(seed)) == f"ed25519:{signature}"
    for key in (public(point), private(seed)):
        assert is_signed(data, [f"ed25519:{signature}".encode()], key)
        assert not is_signed(data + b"!", [f"ed25519:{signature}".encode()], key)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="another implementation to ask")
def test_openssl_finds_the_same(tmp_path: Path) -> None:
    def openssl(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    openssl("genpkey", "-algorithm", "ed25519", "-out", "private.pem")
    openssl("pkey", "-in", "private.pem", "-pubout", "-out", "public.pem")
    path = tmp_path / "policy.json"
    save_policy(GOLDEN, path, key=(tmp_path / "private.pem").read_bytes())
    assert load_policy(path, key=(tmp_path / "public.pem").read_bytes()) == GOLDEN
    digits = signature_path(path).read_text().strip().removeprefix("ed25519:")
    (tmp_path / "raw").write_bytes(bytes.fromhex(digits))
    check = ("pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", path, "-sigfile", "raw")
    openssl(*check)
    path.write_bytes(path.read_bytes().replace(b"golden", b"goldem"))
    with pytest.raises(subprocess.CalledProcessError):
        openssl(*check)


def refused(path: Path, key: bytes) -> None:
    with pytest.raises(PolicyFileError) as caught:
        load_policy(path, key=key)
    assert caught.value.code == "E_SIGNATURE"


def test_a_router_that_holds_the_public_key_takes_what_the_private_one_signed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    save_policy(GOLDEN, path, key=PRIVATE)
    assert load_policy(path, key=PUBLIC) == load_policy(path, key=PRIVATE) == GOLDEN
    for key in (OTHER_PUBLIC, OTHER_PRIVATE, SECRET):
        refused(path, key)
    line = signature_path(path).read_bytes().strip()
    for wrong in (
        b"",
        line[:-2],
        line[:-1],
        line + b"00",
        line.replace(b"ed25519", b"hmac-sha256"),
        line[8:],
        b"\xff:1",
    ):
        signature_path(path).write_bytes(wrong)
        refused(path, PUBLIC)
    signature_path(path).write_bytes(b"ed25519:zz\n" + line + b"\n")
    assert load_policy(path, key=PUBLIC) == GOLDEN
    save_policy(replace(GOLDEN, serial=1), path, key=SECRET)
    refused(path, PUBLIC)


def test_a_public_key_is_never_taken_for_a_shared_secret(tmp_path: Path) -> None:
    """Who has the public key could otherwise sign with it."""
    path = tmp_path / "p.json"
    save_policy(GOLDEN, path, key=PRIVATE)
    for key in (PUBLIC, b"issued to the router\n" + PUBLIC):
        forged = hmac.new(key, path.read_bytes(), hashlib.sha256).hexdigest()
        signature_path(path).write_text(f"hmac-sha256:{forged}\n")
        refused(path, key)
        with pytest.raises(ValueError, match="sign with the private one"):
            save_policy(GOLDEN, path, key=key)
    for other in (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", bytes.fromhex("302a300506032b6570032100" + RFC8032[0][1])):
        for use in (save_policy, lambda _, to, key: load_policy(to, key=key)):
            with pytest.raises(ValueError, match="give an ed25519 key in PEM form"):
                use(GOLDEN, path, key=other)


def public_forms() -> dict[str, bytes]:
    """Public keys in every form in which the library that makes them hands them out, and what becomes of the text."""
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    der, spki = to.Encoding.DER, to.PublicFormat.SubjectPublicKeyInfo
    curve = ec.derive_private_key(12345, ec.SECP256R1()).public_key()
    modulus = ec.derive_private_key(7, ec.SECP521R1()).public_key().public_numbers()
    big = rsa.RSAPublicNumbers(65537, (modulus.x << 1600) * 2 + modulus.y * 2 + 1).public_key()
    small = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(RFC8032[0][1]))
    forms = {"rsa pkcs1": big.public_bytes(der, to.PublicFormat.PKCS1)}
    for name, key in {"rsa": big, "p-256": curve, "ed25519": small}.items():
        forms[f"{name} der"] = key.public_bytes(der, spki)
        line = forms[f"{name} openssh"] = key.public_bytes(to.Encoding.OpenSSH, to.PublicFormat.OpenSSH)
        kind, base = line.split()
        forms[f"{name} unpacked"] = base64.b64decode(base)
        forms[f"{name} base"] = base
        forms[f"{name} ssh2"] = b"---- BEGIN SSH2 PUBLIC KEY ----\n" + base + b"\n---- END SSH2 PUBLIC KEY ----\n"
        forms[f"{name} options"] = b'from="10.0.0.0/8" ' + line
        forms[f"{name} host"] = b"example.org " + kind + b"\t" + base
    texts = {name: form for name, form in forms.items() if form.isascii()}
    forms |= {f"{name}, base64": base64.encodebytes(form) for name, form in forms.items() if name not in texts}
    for name, form in texts.items():
        forms[f"{name}, newline"] = b"\r\n" + form
        forms[f"{name}, mark"] = b"\xef\xbb\xbf" + form
        for coding in ("utf-16", "utf-16-le", "utf-16-be"):
            forms[f"{name}, {coding}"] = form.decode().encode(coding)
    return forms | {"jwk": b'{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}'}


def test_no_form_of_a_public_key_that_can_be_known_is_a_secret() -> None:
    forms = public_forms()
    assert len(forms) > 100
    for name, key in forms.items():
        assert not is_secret(key), name
        for use in (lambda key=key: sign(b"a policy", key), lambda key=key: is_signed(b"a policy", [], key)):
            with pytest.raises(ValueError, match="the key is a public one, not a shared secret"):
                use()


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_pem_file_that_an_editor_saved_otherwise_is_the_same_key(coding: str) -> None:
    secret, known = (key.decode().encode(coding) for key in (PRIVATE, PUBLIC))
    assert (is_secret(secret), is_secret(known)) == (True, False)
    assert sign(b"a policy", secret) == sign(b"a policy", PRIVATE)
    assert is_signed(b"a policy", [sign(b"a policy", PRIVATE).encode()], known)
    with pytest.raises(ValueError, match="sign with the private one"):
        sign(b"a policy", known)


def test_secrets_of_every_kind_are_taken_as_they_stand() -> None:
    rng = random.Random(3)
    drawn = [rng.randbytes(size) for size in (16, 32, 64, 300) for _ in range(2000)]
    told = [b"0" * 16, b"correct horse battery staple\n", "s\u00e9same ouvre-toi".encode("utf-16"), b"a\0" * 16]
    for key in (*drawn, *map(base64.b64encode, drawn[::5]), *told):
        assert is_secret(key)
        assert sign(b"a policy", key) == f"hmac-sha256:{hmac.new(key, b'a policy', hashlib.sha256).hexdigest()}"


@pytest.mark.parametrize("key", ["0123456789abcdef", PUBLIC.decode(), bytearray(SECRET), 7])
def test_a_key_that_is_not_bytes_is_told_so(tmp_path: Path, key: Any) -> None:
    path = tmp_path / "p.json"
    words = rf"^the key is of type {type(key).__name__}; give bytes: .*text\.encode\(\)$"
    with pytest.raises(TypeError, match=words):
        save_policy(GOLDEN, path, key=key)
    assert list(tmp_path.iterdir()) == []
    save_policy(GOLDEN, path, key=SECRET)
    with pytest.raises(TypeError, match=words):
        load_policy(path, key=key)


def test_a_reader_finds_a_signature_between_the_two_steps_of_an_export(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    save_policy(GOLDEN, path, key=PRIVATE)
    before = path.read_bytes()
    save_policy(replace(GOLDEN, serial=2), path, key=PRIVATE)
    path.write_bytes(before)  # the signature was written, and the file not yet
    assert load_policy(path, key=PUBLIC) == GOLDEN


@pytest.mark.parametrize(
    ("key", "match"),
    [
        (pem("PUBLIC KEY", b"nonsense"), "cannot be read"),
        (pem("PRIVATE KEY", b""), "cannot be read"),
        (b"-----BEGIN PUBLIC KEY-----", "cannot be read"),
        (pem("CERTIFICATE", b"nonsense"), "cannot be read"),
        (pem("PRIVATE KEY", bytes.fromhex("302e020100300506032b656e04220420" + RFC8032[0][0])), "is not ed25519"),
        (pem("PUBLIC KEY", bytes.fromhex("302a300506032b656e032100" + RFC8032[0][1])), "is not ed25519"),
    ],
    ids=["public", "empty", "cut short", "certificate", "x25519", "x25519 public"],
)
def test_a_key_that_is_none_neither_signs_nor_checks(tmp_path: Path, key: bytes, match: str) -> None:
    path = tmp_path / "p.json"
    with pytest.raises(ValueError, match=match):
        save_policy(GOLDEN, path, key=key)
    assert list(tmp_path.iterdir()) == []
    save_policy(GOLDEN, path, key=PRIVATE)
    with pytest.raises(ValueError, match=match):
        load_policy(path, key=key)


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    locked = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"a word"),
    )
    with pytest.raises(ValueError, match=r"the key cannot be read: .*encrypted"):
        save_policy(GOLDEN, tmp_path / "p.json", key=locked)


def test_without_the_extra_shared_secrets_work_and_ed25519_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.json"
    save_policy(GOLDEN, path, key=PRIVATE)
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ImportError, match=r"the extra `ed25519`: pip install 'metaverify\[ed25519\]'"):
        load_policy(path, key=PUBLIC)
    save_policy(GOLDEN, path, key=SECRET)
    assert load_policy(path, key=SECRET) == GOLDEN


def test_a_shared_secret_signs_as_the_standard_library_does() -> None:
    for data in (b"", b"a policy", b"\x00" * 1000):
        digest = hmac.new(SECRET, data, hashlib.sha256).hexdigest()
        assert sign(data, SECRET) == f"hmac-sha256:{digest}"
        assert is_signed(data, [b"", f"hmac-sha256:{digest}".encode()], SECRET)
        assert not is_signed(data, [digest.encode(), f"HMAC-SHA256:{digest}".encode()], SECRET)
        assert not is_signed(data + b"!", [f"hmac-sha256:{digest}".encode()], SECRET)


def test_what_is_wrong_with_a_key_is_told_in_these_words(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        PUBLIC: "the key is a public one, which only checks; sign with the private one",
        b"short": "the key has 5 bytes; give at least 16, such as os.urandom(32)",
        SECRET[:-1]: "the key has 15 bytes; give at least 16, such as os.urandom(32)",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5":
            "the key is a public one, not a shared secret; give an ed25519 key in PEM form",
        pem("PRIVATE KEY", bytes.fromhex("302e020100300506032b656e04220420" + RFC8032[0][0])):
            "the key is not ed25519; `openssl genpkey -algorithm ed25519 -out private.pem` makes one",
    }  # fmt: skip
    for key, words in wrong.items():
        with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
            sign(b"a policy", key)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    words = "an ed25519 key needs the extra `ed25519`: pip install 'metaverify[ed25519]'"
    with pytest.raises(ImportError, match=f"^{re.escape(words)}$"):
        sign(b"a policy", PRIVATE)


def test_what_can_sign_is_secret() -> None:
    assert [is_secret(key) for key in (SECRET, PRIVATE, PUBLIC)] == [True, True, False]


# --------------------------------------------------------------------------------------------------------- editions


def test_a_store_refuses_an_older_edition_than_the_one_in_use(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    save_policy(replace(GOLDEN, serial=7), path, key=PRIVATE)
    store = PolicyStore(path, every=0.0, load=lambda file: load_policy(file, key=PUBLIC))
    assert (store.snapshot().serial, store.health().serial) == (7, 7)
    for older in (6, 0):
        save_policy(replace(GOLDEN, serial=older), path, key=PRIVATE)
        health = store.reload()
        assert health.error is not None
        assert f"E_ROLLBACK at serial: is {older}, before 7" in health.error
        assert (health.serial, store.policy.serial, health.reloads) == (7, 7, 0)
    save_policy(replace(GOLDEN, serial=7, salt="another draw"), path, key=PRIVATE)
    assert (store.reload().error, store.policy.salt) == (None, "another draw")
    save_policy(replace(GOLDEN, serial=8), path, key=PRIVATE)
    assert (store.reload().serial, store.health().reloads) == (8, 2)
