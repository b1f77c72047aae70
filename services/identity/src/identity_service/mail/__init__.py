"""Mail: an intent in the caller's transaction, sent by the worker (back room)."""
