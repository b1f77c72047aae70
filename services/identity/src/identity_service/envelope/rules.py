"""Envelope encryption of secrets at rest: AES-256-GCM, a fresh data key for each value.

Layout of a sealed value: 1 byte format, 12 bytes nonce and 48 bytes wrapped data key (32 bytes and a 16-byte tag), then
12 bytes nonce and the ciphertext with its tag. The purpose is authenticated, so that a value sealed for one column does
not open in another.
"""

from __future__ import annotations

import base64
import contextlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_FORMAT = b"\x01"
_NONCE = 12
_WRAPPED = 48


class SealBroken(Exception):
    """The value was not sealed with this key and purpose, or was changed."""


class Envelope:
    """Seals values under the first of its key-encryption keys (32 bytes each), opens those sealed under any of them."""

    def __init__(self, *keys: bytes) -> None:
        if not keys or any(len(key) != 32 for key in keys):
            raise ValueError("each envelope key must be 32 bytes")
        self._keys = keys
        self._wraps = [AESGCM(key) for key in keys]

    @classmethod
    def from_base64(cls, text: str | None) -> Envelope:
        """The envelope of base64 keys with white space between, as settings hold them. Raises ValueError for none."""
        if text is None:
            raise ValueError("OMOIOS_ENVELOPE_KEY is needed: it protects the signing keys")
        return cls(*(base64.b64decode(key, validate=True) for key in text.split()))

    def seal(self, value: bytes, purpose: str) -> bytes:
        """The sealed form of `value`; two calls never give the same bytes."""
        data_key = AESGCM.generate_key(bit_length=256)
        context = purpose.encode()
        wrap_nonce, nonce = secrets.token_bytes(_NONCE), secrets.token_bytes(_NONCE)
        wrapped = self._wraps[0].encrypt(wrap_nonce, data_key, context)
        return _FORMAT + wrap_nonce + wrapped + nonce + AESGCM(data_key).encrypt(nonce, value, context)

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """The value inside. Raises SealBroken."""
        header = 1 + _NONCE + _WRAPPED
        _, data_key = self._unwrapped(sealed, purpose)
        try:
            nonce = sealed[header : header + _NONCE]
            return AESGCM(data_key).decrypt(nonce, sealed[header + _NONCE :], purpose.encode())
        except InvalidTag as error:
            raise SealBroken("the value was changed") from error

    def resealed(self, sealed: bytes, purpose: str) -> bytes | None:
        """The value under the first key, None where it is so already. Raises SealBroken."""
        number, _ = self._unwrapped(sealed, purpose)
        return None if number == 0 else self.seal(self.open(sealed, purpose), purpose)

    def derive(self, purpose: str, salt: bytes) -> list[bytes]:
        """32 bytes for each key that belong to it, purpose and salt: for keyed digests that need no storing."""
        return [HKDF(algorithm=SHA256(), length=32, salt=salt, info=purpose.encode()).derive(key) for key in self._keys]

    def _unwrapped(self, sealed: bytes, purpose: str) -> tuple[int, bytes]:
        """(number of the key that sealed the value, the value's data key)."""
        header = 1 + _NONCE + _WRAPPED
        if len(sealed) < header + _NONCE + 16 or sealed[:1] != _FORMAT:
            raise SealBroken("this is not a sealed value")
        for number, wrap in enumerate(self._wraps):
            with contextlib.suppress(InvalidTag):
                nonce, wrapped = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE : header]
                return number, wrap.decrypt(nonce, wrapped, purpose.encode())
        raise SealBroken("the value was sealed with another key or purpose")
