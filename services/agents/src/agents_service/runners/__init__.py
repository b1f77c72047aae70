"""The runner: a separate process that claims tasks over the public API and works on them."""
