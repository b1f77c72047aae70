"""Repositories of projects as bare mirrors, the branches of task attempts, and git over smart HTTP (back room)."""
