"""Agents, the sandboxes they work in, what those report, and the runner that joins over the public API."""
