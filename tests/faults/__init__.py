"""Faults under load, and the checker that judges what is left; see README.md."""
