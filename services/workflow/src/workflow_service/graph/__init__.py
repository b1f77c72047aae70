"""Dependency graphs with the critical path."""
