"""Accounts: the rows that the other rooms authenticate and describe."""
