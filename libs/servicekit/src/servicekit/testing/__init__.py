"""The pytest plugin: real PostgreSQL, NATS and Redis, tokens, running services, and stubs of peers."""
