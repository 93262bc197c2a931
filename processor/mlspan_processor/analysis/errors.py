"""Batch: what keeps an analysis from being made.

::

    AnalysisError         a column, an option or a file that does not fit; the message says what would; exit code 2

Odd data is no error: what cannot be decided is None with a reason in the result.
"""


class AnalysisError(ValueError):
    """The analysis cannot be made; the message is for the person who asked for it."""
