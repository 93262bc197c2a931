"""Stage 5: a reference profile from a table."""


def build_reference() -> None:
    """To be written."""
