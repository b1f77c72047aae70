"""Projects and the repository each is bound to."""
