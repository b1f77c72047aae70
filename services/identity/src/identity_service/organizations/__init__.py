"""`/organizations`: organizations, members and roles."""
