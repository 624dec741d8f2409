"""A request's body, read only as far as it is allowed to be long.

In: a request and limits. Out: the bytes of its body, decompressed. Not here: what they mean (schema.py).

The limit holds for the bytes as sent and as decompressed. A compressed body is decompressed piece by piece as it
arrives, and no further than the limit, so that a few bytes never become much memory.
"""

import asyncio
import zlib

from starlette.requests import Request

from textcls.serving.schema import Refusal

_GZIP = ("gzip", "x-gzip")  # the same (RFC 9110, section 8.4.1.3)


async def read_body(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """The body, decompressed if its Content-Encoding says gzip.

    Raises:
        Refusal: it is too long or too slow, encoded in another way, or no gzip.
        ClientDisconnect: the client left.
    """
    encoding = ", ".join(request.headers.getlist("content-encoding")).strip().lower()
    if encoding not in ("", "identity", *_GZIP):
        refusal = Refusal(
            "unknown_encoding", "send the body as it is, or compressed once with 'content-encoding: gzip'"
        )
        refusal.headers["accept-encoding"] = "gzip"  # RFC 9110, section 12.5.3
        raise refusal
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(f"{declared} bytes", max_bytes)
    inflater = _Inflater(max_bytes) if encoding in _GZIP else None
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for part in request.stream():
                size += len(part)
                if size > max_bytes:
                    raise _too_large("more", max_bytes)
                parts.append(part if inflater is None else inflater.inflated(part))
    except TimeoutError:
        raise _closing(Refusal("body_timeout", f"{size} bytes of the body came in {timeout_s:g} s")) from None
    if inflater is not None:
        inflater.end()
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _Inflater:
    """Decompresses one gzip member.

    Args:
        max_bytes: that may come out of it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._max_bytes, self._size = max_bytes, 0

    def inflated(self, part: bytes) -> bytes:
        """What the next compressed bytes hold.

        Raises:
            Refusal: more than `max_bytes` have come out, or it is no gzip.
        """
        try:
            found = self._zlib.decompress(part, self._max_bytes - self._size + 1)
        except zlib.error as error:
            raise _closing(Refusal("not_gzip", f"the body is no gzip: {error}")) from None
        self._size += len(found)
        if self._size > self._max_bytes:
            raise _too_large("more once decompressed", self._max_bytes)
        if self._zlib.unused_data:
            raise _closing(Refusal("not_gzip", "more bytes follow the end of the compressed body"))
        return found

    def end(self) -> None:
        """Checks that nothing is missing.

        Raises:
            Refusal: the member is cut off.
        """
        if not self._zlib.eof:
            raise Refusal("not_gzip", "the compressed body is cut off")


def _too_large(found: str, most: int) -> Refusal:
    return _closing(Refusal("body_too_large", f"the body has {found}; at most {most} bytes are taken"))


def _closing(refusal: Refusal) -> Refusal:
    """A refusal after which the connection ends: what is still to come is not read."""
    refusal.headers["connection"] = "close"
    return refusal
