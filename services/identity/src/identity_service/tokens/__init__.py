"""Signing keys, access tokens, refresh families and revocations (back room)."""
