"""Cross-origin requests: which pages of other origins may use the service (Fetch standard, "CORS protocol").

In: the allowed origins and a request. Out: the headers of its response, or the response to a preflight. Not here: the
key, which such a page sends like any client.

Before a browser sends JSON or a key to another origin, it sends a preflight, which has no key and needs none.
"""

from collections.abc import Collection

from starlette.requests import Request
from starlette.responses import Response

_ANSWER_HEADERS = "x-request-id, server-timing, retry-after, x-queue-ms"
_MAX_AGE_S = 600  # for which a browser may cache the response to a preflight


class Cors:
    """The rules for pages of other origins.

    Args:
        origins: that are allowed, as browsers spell them. Without any, no response has a CORS header.
    """

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def headers(self, request: Request) -> dict[str, str]:
        """CORS headers of the response to this request, whatever its status."""
        if not self._origins:
            return {}
        headers = {"vary": "origin"}
        if self._allows(request):
            headers["access-control-allow-origin"] = request.headers["origin"]
            headers["access-control-expose-headers"] = _ANSWER_HEADERS
        return headers

    def preflight(self, request: Request, method: str) -> Response | None:
        """The response to a preflight for a path with this method; None if it is no preflight or is not allowed."""
        asks = request.method == "OPTIONS" and "access-control-request-method" in request.headers
        if not asks or not self._allows(request):
            return None
        headers = {
            "access-control-allow-methods": method,
            # All that the page asks for: the service ignores headers that it does not know.
            "access-control-allow-headers": request.headers.get("access-control-request-headers", ""),
            "access-control-max-age": str(_MAX_AGE_S),
        }
        return Response(status_code=204, headers=headers)

    def _allows(self, request: Request) -> bool:
        return request.headers.get("origin") in self._origins
