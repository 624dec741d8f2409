"""Reading the body of a request, up to a limit.

In: a request and limits. Out: the bytes of its body, decompressed. Not here: what they mean (request_schema.py).

The limit holds for the bytes as sent and as decompressed. A compressed body is decompressed piece by piece as it
arrives, and only up to the limit, so that a small body never takes much memory (a decompression bomb).
"""

import asyncio
import zlib

from starlette.requests import Request

from textcls.serving.refusals import Refusal

_GZIP = ("gzip", "x-gzip")  # the same (RFC 9110, section 8.4.1.3)


async def read_body(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """The body, decompressed if its Content-Encoding says gzip.

    Raises:
        Refusal: it is too long or too slow, has another encoding, or is not gzip.
        ClientDisconnect: the client closed the connection.
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
        max_bytes: most decompressed bytes.
    """

    def __init__(self, max_bytes: int) -> None:
        self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._max_bytes, self._size = max_bytes, 0

    def inflated(self, part: bytes) -> bytes:
        """The decompressed content of the next bytes.

        Raises:
            Refusal: it is more than `max_bytes` in all, or not gzip.
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
        """Checks that the member is complete.

        Raises:
            Refusal: it is cut off.
        """
        if not self._zlib.eof:
            raise Refusal("not_gzip", "the compressed body is cut off")


def _too_large(found: str, max_bytes: int) -> Refusal:
    return _closing(Refusal("body_too_large", f"the body has {found}; at most {max_bytes} bytes are accepted"))


def _closing(refusal: Refusal) -> Refusal:
    """The same refusal, which also closes the connection: the rest of the body is not read."""
    refusal.headers["connection"] = "close"
    return refusal
