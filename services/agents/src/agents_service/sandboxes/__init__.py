"""Sandboxes: one per attempt at a task, with its messages, trajectory and end."""
