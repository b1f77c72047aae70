"""Engines: what does the work inside a sandbox, and the confinement it runs in."""
