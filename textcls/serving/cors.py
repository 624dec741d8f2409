"""Cross-origin requests: which pages of other origins may use the service (Fetch standard, "CORS protocol").

In: the allowed origins, and a request. Out: the headers of its answer, or the answer to a preflight. Not here: the key,
which such a page sends like any client.

A browser asks before it sends JSON or a key to another origin, without either: a preflight needs no key.
"""

from collections.abc import Collection

from starlette.requests import Request
from starlette.responses import Response

_ANSWER_HEADERS = "x-request-id, server-timing, retry-after, x-queue-ms"
_MAX_AGE_S = 600  # for which a browser need not ask again


class Cors:
    """The rules for pages of other origins.

    Args:
        origins: that are allowed, as browsers spell them; none: no answer has a header of CORS.
    """

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def headers(self, request: Request) -> dict[str, str]:
        """Headers of an answer to this request, whatever its status."""
        if not self._origins:
            return {}
        headers = {"vary": "origin"}
        if self._allows(request):
            headers["access-control-allow-origin"] = request.headers["origin"]
            headers["access-control-expose-headers"] = _ANSWER_HEADERS
        return headers

    def preflight(self, request: Request, method: str) -> Response | None:
        """The answer to a preflight for a path that takes this method; None if the request is none, or not allowed."""
        asks = request.method == "OPTIONS" and "access-control-request-method" in request.headers
        if not asks or not self._allows(request):
            return None
        headers = {
            "access-control-allow-methods": method,
            # Whatever the page's library sends: what the service does not know, it ignores.
            "access-control-allow-headers": request.headers.get("access-control-request-headers", ""),
            "access-control-max-age": str(_MAX_AGE_S),
        }
        return Response(status_code=204, headers=headers)

    def _allows(self, request: Request) -> bool:
        return request.headers.get("origin") in self._origins
