"""The demo: a real repository from a spec to merged commits, through the public API of the embedded stack."""
