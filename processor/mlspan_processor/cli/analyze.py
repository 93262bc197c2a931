"""``mlspan analyze``: the arguments to `mlspan_processor.analysis`, its result to a table, JSON and an exit status."""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mlspan_processor.analysis import Analysis
from mlspan_processor.analysis import analyze as analyze_files
from mlspan_processor.cli.analysis_table import console_of, show
from mlspan_processor.cli.console import fail

HASH_KEY_VARIABLE = "OTEL_INSTRUMENTATION_ML_HASH_KEY"
_DEFAULT_HASH_KEY = "mlspan"


def analyze(options: argparse.Namespace) -> int:
    """Analyze, write, tell."""
    watch = Watch(options.quiet)
    try:
        writable(options.json)
        with watch.shown():
            result = analyze_files(
                reference=options.reference,
                current=options.current,
                task=options.task,
                prediction=options.prediction,
                probability=options.probability,
                label=options.label,
                time=options.time,
                id=options.id,
                segment=options.segment,
                features=options.features,
                every=options.every,
                hash_key=hash_key(),
                progress=watch.told,
            )
        if options.json:
            write(options.json, result.to_json() + "\n")
    except (OSError, ValueError) as error:
        fail(str(error))
        return 2
    if not options.quiet and options.json != "-":
        show(result, console_of())
    return status(result, options.fail_on)


def status(result: Analysis, fail_on: str) -> int:
    """1 where a window raised an alert, unless nothing is to fail."""
    return int(bool(result.alerted) and fail_on == "alert")


def hash_key() -> bytes:
    """Of the application's category codes."""
    return os.environ.get(HASH_KEY_VARIABLE, _DEFAULT_HASH_KEY).encode()


def writable(path: str | None) -> None:
    """Raise ValueError for a file in a folder that is not there, before hours of work."""
    if path and path != "-" and not Path(path).absolute().parent.is_dir():
        raise ValueError(f'cannot write "{path}": there is no such folder')


def write(path: str, text: str) -> None:
    """Write a file whole or not at all; "-" is standard output."""
    if path == "-":
        sys.stdout.write(text)
        return
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(text, "utf-8")
        temporary.replace(target)
    except OSError as error:
        raise ValueError(f'cannot write "{path}": {error.strerror}') from None
    finally:
        temporary.unlink(missing_ok=True)


class Watch:
    """A progress bar on a terminal's stderr; nothing elsewhere."""

    told: Callable[[str, int, int | None], None] | None

    def __init__(self, quiet: bool) -> None:
        self._progress: Progress | None = None
        self.told = None
        if quiet or not sys.stderr.isatty():
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._tasks: dict[str, Any] = {}
        self.told = self._told

    def shown(self) -> AbstractContextManager[Any]:
        """While it is shown."""
        return nullcontext() if self._progress is None else self._progress

    def _told(self, what: str, done: int, total: int | None) -> None:
        assert self._progress is not None
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)
