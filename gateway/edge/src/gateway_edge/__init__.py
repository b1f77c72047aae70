"""The edge of the system: what the gateway's rules are, and the pages that belong to no single service."""

__version__ = "0.1.0"
