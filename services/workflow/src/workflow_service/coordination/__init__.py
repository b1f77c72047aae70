"""Executions of specs and the order of their merges."""
