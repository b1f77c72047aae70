"""What works on the tree as a whole: installation, checks, test phases, code generation.

Run from the root: `python -m tools.NAME`.
"""
