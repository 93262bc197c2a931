"""Stage 1: the bytes of an HTTP body, decompressed within a bound.

Guarantee: never more than `limit` bytes and one block are produced, whatever the compression ratio.
"""

import zlib
from collections.abc import Callable
from typing import Any

_BLOCK = 1 << 20


class BodyTooLargeError(Exception):
    """More than the limit after decompression."""


class BodyCodingError(Exception):
    """Compressed in a way that is not understood here."""


class BodyCorruptError(Exception):
    """Not compressed the way its header says."""


def _inflate(data: bytes, limit: int, window_bits: int) -> bytes:
    parts: list[bytes] = []
    total = 0
    while data:
        # A gzip body may consist of several members.
        decoder = zlib.decompressobj(window_bits)
        while not decoder.eof:
            part = decoder.decompress(data, min(_BLOCK, limit + 1 - total))
            if not part and not decoder.unconsumed_tail and not decoder.eof:
                raise BodyCorruptError("the body ends too early")
            total += len(part)
            if total > limit:
                raise BodyTooLargeError
            parts.append(part)
            data = decoder.unconsumed_tail
        data = decoder.unused_data
    return b"".join(parts)


def _zstd_decoder() -> Callable[[bytes, int], bytes] | None:
    """Return a bounded decoder: the standard library's (3.14), or zstandard's; None without."""
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415  # from 3.14
    except ImportError:
        pass
    else:

        def from_stdlib(data: bytes, size: int) -> bytes:
            return bytes(zstd.ZstdDecompressor().decompress(data, max_length=size))

        return from_stdlib
    try:
        import zstandard  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415  # an optional package
    except ImportError:
        return None

    def from_package(data: bytes, size: int) -> bytes:
        reader: Any = zstandard.ZstdDecompressor().stream_reader(data)
        return bytes(reader.read(size))

    return from_package


_zstd = _zstd_decoder()


def _unzstd(data: bytes, limit: int) -> bytes:
    assert _zstd is not None
    try:
        result = _zstd(data, limit + 1)
    except Exception as error:  # noqa: BLE001  # each library has its own
        raise BodyCorruptError(str(error)) from None
    if len(result) > limit:
        raise BodyTooLargeError
    return result


DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": lambda data, limit: _inflate(data, limit, 31),
    "deflate": lambda data, limit: _inflate(data, limit, 15),
    **({"zstd": _unzstd} if _zstd else {}),
}
"""Content-Encoding to decoder; "identity" and none need none."""


def decompressed(data: bytes, coding: str, limit: int) -> bytes:
    """Return the body.

    Raises:
        BodyTooLargeError: it would exceed `limit` bytes.
        BodyCodingError: naming the codings that are understood.
        BodyCorruptError: it cannot be decompressed.
    """
    coding = coding.strip().lower()
    if coding in {"", "identity"}:
        if len(data) > limit:
            raise BodyTooLargeError
        return data
    decoder = DECODERS.get(coding)
    if decoder is None:
        raise BodyCodingError(
            f'Content-Encoding "{coding}" is not supported; valid are {", ".join(DECODERS)}, identity'
        )
    try:
        return decoder(data, limit)
    except zlib.error as error:
        raise BodyCorruptError(f"the body is not {coding}: {error}") from None
