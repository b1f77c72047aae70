"""Route group `events`: the log of all events and its live streams (`events.py` is what the service itself says)."""
