"""Joining and splitting chunks for the sending queue.

Joining is joining bytes: repeated fields of concatenated protobuf messages append. Splitting parses, and is
done only to chunks above the limit. A single item is never split, so a chunk of one item may exceed a limit
in bytes; the data points of one metric stay together likewise.
"""

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from mlspan_processor.records import Chunk
from mlspan_processor.signals import SIGNALS, count_points

Sizer = Callable[[Chunk], int]

SIZERS: dict[str, Sizer] = {
    "requests": lambda _: 1,
    "items": lambda chunk: chunk.items,
    "bytes": lambda chunk: len(chunk.data),
}


def join(chunks: Sequence[Chunk]) -> Chunk:
    """Return one chunk with everything in `chunks`, which are of one signal and at least one."""
    if len(chunks) == 1:
        return chunks[0]
    return Chunk(chunks[0].signal, b"".join(chunk.data for chunk in chunks), sum(chunk.items for chunk in chunks))


def split(chunk: Chunk, size: Sizer, max_size: int) -> list[Chunk]:
    """Return chunks of at most `max_size` each, in order, with the same items between them."""
    if size(chunk) <= max_size:
        return [chunk]
    one = SIGNALS[chunk.signal]
    try:
        request = one.request.FromString(chunk.data)
    except DecodeError:
        return [chunk]  # the backend will say what is wrong with it
    flat = list(flat_items(request, one.containers))
    if len(flat) < 2:
        return [chunk]
    middle = len(flat) // 2
    return [part for half in (flat[:middle], flat[middle:]) for part in split(rebuilt(chunk, half), size, max_size)]


Item = tuple[Any, Any, Any]
"""Resource container, scope container, item."""


def flat_items(request: Any, containers: tuple[str, str, str]) -> list[Item]:
    """All items with what they stand in.

    Args:
        request: parsed.
        containers: as `SignalType` has them.
    """
    outer, inner, items = containers
    return [
        (resource, scope, item)
        for resource in getattr(request, outer)
        for scope in getattr(resource, inner)
        for item in getattr(scope, items)
    ]


def rebuilt(chunk: Chunk, flat: Sequence[Item]) -> Chunk:
    """Serialise some of a request's items under copies of their resources and scopes."""
    one = SIGNALS[chunk.signal]
    outer, inner, items = one.containers
    request: Any = one.request()
    last_resource = last_scope = None
    target_resource = target_scope = None
    count = 0
    for resource, scope, item in flat:
        if resource is not last_resource:
            target_resource = getattr(request, outer).add(schema_url=resource.schema_url)
            target_resource.resource.CopyFrom(resource.resource)
            last_resource, last_scope = resource, None
        if scope is not last_scope:
            target_scope = getattr(target_resource, inner).add(schema_url=scope.schema_url)
            target_scope.scope.CopyFrom(scope.scope)
            last_scope = scope
        getattr(target_scope, items).append(item)
        count += count_points(item) if items == "metrics" else 1
    return Chunk(chunk.signal, request.SerializeToString(), count)
