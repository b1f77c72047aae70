"""Registered agents: their capabilities, status, heartbeats and health."""
