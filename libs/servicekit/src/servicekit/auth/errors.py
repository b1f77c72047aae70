"""The refusals of authentication that only this package raises.

A bad credential always gets the same answer (`servicekit.errors.UNAUTHENTICATED`): what exactly was wrong with it would
help only someone forging one.
"""

from __future__ import annotations

from servicekit.errors import UNAUTHENTICATED, AppError, ErrorSpec, Kind

CROSS_ORIGIN = ErrorSpec(
    "auth.cross_origin", Kind.FORBIDDEN, "A change authenticated by cookie must come from an allowed origin."
)
ORGANIZATION_NOT_FOUND = ErrorSpec("auth.organization_not_found", Kind.NOT_FOUND, "This organization does not exist.")
KEYS_UNAVAILABLE = ErrorSpec(
    "auth.keys_unavailable",
    Kind.UNAVAILABLE,
    "Credentials cannot be verified at the moment. Try again shortly.",
    retry_after_s=1.0,
)
MEMBERSHIPS_UNAVAILABLE = ErrorSpec(
    "auth.memberships_unavailable",
    Kind.UNAVAILABLE,
    "Whether you may do this cannot be decided at the moment. Try again shortly.",
    retry_after_s=1.0,
)


def unauthenticated() -> AppError:
    """401 with the constant detail and `WWW-Authenticate: Bearer`."""
    return UNAUTHENTICATED(headers={"WWW-Authenticate": "Bearer"})
