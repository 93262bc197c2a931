"""Stage 6, part 22: fits in the background use one core: receivers and the state thread need the others.

scikit-learn's trees (OpenMP) and linear algebra (BLAS) take every core by default. threadpoolctl, which scikit-learn
brings, limits what is loaded; libraries that the work needs are therefore loaded before. Without it nothing is limited.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TypeVar

T = TypeVar("T")


def one_thread(work: Callable[[], T], needs: tuple[str, ...] = ()) -> T:
    """Do the work, whose modules `needs` are loaded first, on this thread alone."""
    try:
        for name in needs:
            import_module(name)
        from threadpoolctl import threadpool_limits  # noqa: PLC0415 comes with scikit-learn
    except ImportError:
        return work()
    with threadpool_limits(limits=1):
        return work()
