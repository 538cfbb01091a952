"""Signatures: a shared secret's (HMAC-SHA256), or an ed25519 key pair's, whose public half only checks.

A key is bytes.  Those of a PEM file are an ed25519 key, private or public; all others are a shared secret.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["is_secret", "is_signed", "sign"]

KEY_BYTES = 16  # the fewest that a shared secret has
PEM = b"-----BEGIN "
PUBLIC = re.compile(  # keys that are no secret, in other forms than PEM
    rb"---- BEGIN SSH2 PUBLIC"  # RFC 4716
    rb"|\A\s*(?:sk-)?(?:ssh|ecdsa)-|\s(?:sk-)?(?:ssh|ecdsa)-\S+\s+AAAA"  # OpenSSH, after options or a host too
    rb"|\A\0\0\0.(?:sk-)?(?:ssh|ecdsa)-"  # the same, unpacked
    rb"|\A\x30(?:[^\x80-\xff]|\x81.|\x82..)\x30.\x06.(?:\x2a\x86\x48|\x2b\x65)"  # DER: SubjectPublicKeyInfo
    rb"|\A\x30(?:\x81.|\x82..)\x02(?:\x81.|\x82..)\0.*\x02\x03\x01\0\x01\Z"  # DER: RSAPublicKey
    rb"|\A\x30\x82..\x30\x82..\xa0\x03\x02\x01"  # DER: a certificate
    rb'|"kty"',  # a JSON web key
    re.DOTALL,
)


def sign(data: bytes, key: bytes) -> str:
    """The signature as a line of a ``.sig`` file: a scheme, a colon, and hexadecimal digits.

    Raises:
        ImportError: the key is ed25519, and the extra is not installed.
        TypeError: the key is not bytes.
        ValueError: the key cannot sign.
    """
    if PEM in _text(key):
        pair = _ed25519(key)
        if not hasattr(pair, "sign"):
            raise ValueError("the key is a public one, which only checks; sign with the private one")
        return f"ed25519:{pair.sign(data).hex()}"
    return _hmac(data, key)


def is_signed(data: bytes, lines: list[bytes], key: bytes) -> bool:
    """Whether one of these lines of a ``.sig`` file is the signature of ``data`` by this key.

    What a line claims to be says nothing of how it is checked: that is for the key to say.

    Raises:
        ImportError: the key is ed25519, and the extra is not installed.
        TypeError: the key is not bytes.
        ValueError: the key is none.
    """
    if PEM in _text(key):
        pair = _ed25519(key)
        public = pair.public_key() if hasattr(pair, "public_key") else pair
        return any(_verifies(public, line, data) for line in lines)
    import hmac  # only where files are signed

    wanted = _hmac(data, key).encode()
    return any(hmac.compare_digest(line, wanted) for line in lines)


def is_secret(key: bytes) -> bool:
    """Whether who has this key can sign."""
    text = _text(key)
    return b"PRIVATE KEY" in text if PEM in text else not _is_public(key)


def _text(key: bytes) -> bytes:
    """The key without what an editor put around its text: UTF-16, a byte-order mark."""
    if not isinstance(key, bytes):
        raise TypeError(
            f"the key is of type {type(key).__name__}; give bytes: Path(...).read_bytes(), or text.encode()"
        )
    for coding in ("utf-16-le", "utf-16-be") if b"\0" in key else ():
        text = key.decode(coding, "replace").removeprefix("\ufeff")
        if text.isascii():
            return text.encode()
    return key.removeprefix(b"\xef\xbb\xbf")


def _is_public(key: bytes) -> bool:
    """Whether a key that is not PEM is known to be a public one, as it stands or in base64."""
    import binascii

    forms = [_text(key)]
    with suppress(binascii.Error):
        forms.append(binascii.a2b_base64(b"".join(forms[0].split()), strict_mode=True))
    return any(PUBLIC.search(form) for form in forms)


def _hmac(data: bytes, key: bytes) -> str:
    import hmac  # only where files are signed

    if len(key) < KEY_BYTES:
        raise ValueError(f"the key has {len(key)} bytes; give at least {KEY_BYTES}, such as os.urandom(32)")
    if _is_public(key):
        raise ValueError("the key is a public one, not a shared secret; give an ed25519 key in PEM form")
    return "hmac-sha256:" + hmac.new(key, data, "sha256").hexdigest()


def _verifies(public: Ed25519PublicKey, line: bytes, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    scheme, _, digits = line.partition(b":")
    try:
        public.verify(bytes.fromhex(digits.decode("ascii")), data)
    except (InvalidSignature, ValueError):  # a ValueError for what is no hexadecimal text
        return False
    return scheme == b"ed25519"


def _ed25519(key: bytes) -> Ed25519PrivateKey | Ed25519PublicKey:
    """The key of a PEM file."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ed25519
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
    except ModuleNotFoundError as error:
        raise ImportError("an ed25519 key needs the extra `ed25519`: pip install 'metaverify[ed25519]'") from error
    try:
        pair = load_pem_private_key(_text(key), None) if is_secret(key) else load_pem_public_key(_text(key))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # a TypeError for one that is encrypted
        raise ValueError(f"the key cannot be read: {error}") from None
    if not isinstance(pair, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        raise ValueError("the key is not ed25519; `openssl genpkey -algorithm ed25519 -out private.pem` makes one")
    return pair
