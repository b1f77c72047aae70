"""`/auth`: register, login, refresh, logout, the own account, API keys."""
