"""Checks over the source tree: each module has `check(root) -> list[Finding]`, and a test with a planted violation."""
