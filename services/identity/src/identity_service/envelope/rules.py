"""Envelope encryption of secrets at rest: AES-256-GCM, a fresh data key for each value.

Layout of a sealed value: 1 byte format, 12 bytes nonce and 48 bytes wrapped data key (32 bytes and a 16-byte tag), then
12 bytes nonce and the ciphertext with its tag. The purpose is authenticated, so that a value sealed for one column does
not open in another.
"""

from __future__ import annotations

import base64
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
    """Seals and opens values under one key-encryption key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ValueError("the envelope key must be 32 bytes")
        self._key = key
        self._wrap = AESGCM(key)

    @classmethod
    def from_base64(cls, text: str | None) -> Envelope:
        """The envelope of a base64 key, as settings hold it. Raises ValueError when there is none."""
        if text is None:
            raise ValueError("OMOIOS_ENVELOPE_KEY is needed: it protects the signing keys")
        return cls(base64.b64decode(text, validate=True))

    def seal(self, value: bytes, purpose: str) -> bytes:
        """The sealed form of `value`; two calls never give the same bytes."""
        data_key = AESGCM.generate_key(bit_length=256)
        context = purpose.encode()
        wrap_nonce, nonce = secrets.token_bytes(_NONCE), secrets.token_bytes(_NONCE)
        wrapped = self._wrap.encrypt(wrap_nonce, data_key, context)
        return _FORMAT + wrap_nonce + wrapped + nonce + AESGCM(data_key).encrypt(nonce, value, context)

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """The value inside. Raises SealBroken."""
        header = 1 + _NONCE + _WRAPPED
        if len(sealed) < header + _NONCE + 16 or sealed[:1] != _FORMAT:
            raise SealBroken("this is not a sealed value")
        context = purpose.encode()
        try:
            data_key = self._wrap.decrypt(sealed[1 : 1 + _NONCE], sealed[1 + _NONCE : header], context)
            return AESGCM(data_key).decrypt(sealed[header : header + _NONCE], sealed[header + _NONCE :], context)
        except InvalidTag as error:
            raise SealBroken("the value was sealed with another key or purpose") from error

    def derive(self, purpose: str, salt: bytes) -> bytes:
        """32 bytes that belong to this key, purpose and salt: for keyed digests that need no storing."""
        return HKDF(algorithm=SHA256(), length=32, salt=salt, info=purpose.encode()).derive(self._key)
