"""`/users`: the own profile, colleagues, administration of accounts, data export and the end of an account."""
