"""The keys that users bring for other services."""
