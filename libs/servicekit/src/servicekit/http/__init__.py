"""The HTTP edge: application, problems, idempotency, lists, rate limits and probes."""

from servicekit.http.hot import HotRequest, HotRoute
from servicekit.http.operations import answer_not_kept, body_limit
from servicekit.http.paging import Keyset, Page, PageParams, decode_token, encode_token
from servicekit.http.problems import problems
from servicekit.http.ratelimit import RateLimit, client_address

__all__ = [
    "HotRequest",
    "HotRoute",
    "Keyset",
    "Page",
    "PageParams",
    "RateLimit",
    "answer_not_kept",
    "body_limit",
    "client_address",
    "decode_token",
    "encode_token",
    "problems",
]
