"""Identity: accounts, sessions, organizations, roles, and the tokens that prove who someone is."""
