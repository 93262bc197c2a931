"""Predictions in workers of the kinds that the arguments name, like ``pool:fork``, each below a span of its caller."""

import concurrent.futures
import multiprocessing
import sys
from collections.abc import Callable
from typing import Any

from opentelemetry import context, propagate, trace


def work(headers: dict[str, str], row: int) -> int:
    """One task: in a process of its own, below the caller's span."""
    from tests.instrumentation.apps.model import predict

    token = context.attach(propagate.extract(headers))
    try:
        return predict(row)
    finally:
        context.detach(token)


def _pool(method: str, headers: dict[str, str]) -> list[int]:
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.starmap(work, [(headers, row) for row in range(4)])


def _executor(method: str, headers: dict[str, str]) -> list[int]:
    processes = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=processes) as executor:
        return list(executor.map(work, [headers] * 4, range(4)))


def _process(method: str, headers: dict[str, str]) -> None:
    for row in range(2):
        processes: Any = multiprocessing.get_context(method)
        process = processes.Process(target=work, args=(headers, row))
        process.start()
        process.join()


def _joblib(backend: str, _: dict[str, str]) -> list[Any]:
    # No headers: the hook carries the context.
    from joblib import Parallel, delayed

    from tests.instrumentation.apps.model import MODEL, X

    return list(Parallel(2, backend=backend)(delayed(MODEL.predict)(X[row : row + 1]) for row in range(4)))


_WAYS: dict[str, Callable[[str, dict[str, str]], Any]] = {
    "pool": _pool,
    "executor": _executor,
    "process": _process,
    "joblib": _joblib,
}


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        way, _, kind = argument.partition(":")
        with trace.get_tracer("app").start_as_current_span(f"caller {argument}"):
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            _WAYS[way](kind, carrier)
