"""The four real infrastructure programs, each started from its wheel and bound to 127.0.0.1."""
