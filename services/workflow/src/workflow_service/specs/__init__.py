"""Specs: requirements, design, plan, execution."""
