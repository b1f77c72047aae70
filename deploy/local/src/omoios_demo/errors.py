"""What ends the demo early."""

from __future__ import annotations


class DemoError(Exception):
    """Something did not end well; the message says what, in words for the person who called the demo."""
