"""The configuration, in the Collector's schema: sources → schema → components → check."""

from collections.abc import Sequence

from mlspan_processor.config.check import Component, Configuration, check
from mlspan_processor.config.components import Components, ComponentType, Kind
from mlspan_processor.config.sources import read

__all__ = ["Component", "ComponentType", "Components", "Configuration", "Kind", "check", "load", "read"]


def load(
    sources: Sequence[str] = (), settings: Sequence[str] = (), components: Components | None = None
) -> Configuration:
    """Read and check; see `sources.read` and `check.check`.

    Raises:
        ConfigError: with every problem found.
    """
    return check(read(sources, settings), components)
