"""Accounts, reservations and the double-entry ledger behind them (back room)."""
