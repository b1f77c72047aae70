"""Billing: accounts, reservations, usage and costs. Money is integer micro-USD."""
