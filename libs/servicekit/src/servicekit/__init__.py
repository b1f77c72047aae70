"""Mechanisms shared by the services. Import by module: ``from servicekit.errors import ErrorSpec``."""
