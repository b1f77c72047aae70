"""The plan format: markdown to requirements, design and tasks. No tables."""
