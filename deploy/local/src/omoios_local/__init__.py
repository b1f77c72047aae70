"""The embedded stack: PostgreSQL, NATS, Redis, Traefik and the six services on one machine, without containers."""
