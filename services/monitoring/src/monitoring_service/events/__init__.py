"""The log of all events and its live streams."""
