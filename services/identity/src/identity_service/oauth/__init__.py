"""Signing in with, and connecting, accounts of other providers (OAuth 2.0 and OpenID Connect)."""
