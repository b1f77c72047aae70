"""The public keys, for every verifier."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from identity_service.tokens.service import TokenService


def router(tokens: TokenService) -> APIRouter:
    """`/.well-known/jwks.json`."""
    routes = APIRouter(tags=["tokens"])

    @routes.get("/.well-known/jwks.json")
    async def jwks(response: Response) -> dict[str, Any]:
        """The keys that verify tokens (RFC 7517): the one that signs, the next one, and those that signed before."""
        response.headers["Cache-Control"] = "public, max-age=60"
        return await tokens.jwks()

    return routes
