"""Merges of finished branches, in the order that was asked for (back room)."""
