"""The trail of security-relevant actions (back room)."""
