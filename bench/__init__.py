"""Measures what the product costs and how fast it is, against an embedded stack of its own; see README.md."""
