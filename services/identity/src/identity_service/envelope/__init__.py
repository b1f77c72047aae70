"""Encryption of secrets at rest (back room)."""
