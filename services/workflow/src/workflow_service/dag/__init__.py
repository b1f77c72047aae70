"""Directed acyclic graphs: order, cycles, the longest chain. No tables."""
