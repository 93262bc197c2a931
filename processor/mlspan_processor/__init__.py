"""The processor: OTLP in, enriched spans, quality and drift out; `analyze` does it for files."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlspan_processor.analysis import Analysis, analyze

__all__ = ["Analysis", "analyze"]


def __getattr__(name: str) -> Any:
    """Import the analysis when it is asked for: the processor starts without pyarrow."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlspan_processor import analysis  # noqa: PLC0415  # see above

    return getattr(analysis, name)
