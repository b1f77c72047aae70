"""Encryption of secrets at rest, and the keys that users bring for other services."""
