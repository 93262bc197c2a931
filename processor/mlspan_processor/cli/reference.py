"""``mlspan reference build``: a table of past inputs to a profile of what is normal, with labels beside it to a sample
that estimates are fitted on."""

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mlspan.profile import to_json
from mlspan_processor import reference_build
from mlspan_processor.cli.console import fail, say
from mlspan_processor.reference_sample import sample_path, write_sample
from mlspan_processor.tables import Table

_HASH_KEY_VARIABLE = "OTEL_INSTRUMENTATION_ML_HASH_KEY"
_DEFAULT_HASH_KEY = "mlspan"


def build(options: argparse.Namespace) -> int:
    """Build, write, and tell what is in it."""
    progress = Progress(
        TextColumn("building"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    source = Path(options.data)
    model = options.model or source.name.partition(".")[0]
    output = Path(options.output or f"{model}.json")
    try:
        with progress:
            task = progress.add_task("building", total=None)
            profile, sample = reference_build.build(
                source,
                features=_features(source, options),
                label=options.label_column,
                prediction=options.prediction_column,
                probabilities=options.probability_column,
                model=model,
                version=options.model_version or "",
                hash_key=os.environ.get(_HASH_KEY_VARIABLE, _DEFAULT_HASH_KEY).encode(),
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        # The rows first: a processor takes them over together with the profile.
        if sample is not None:
            write_sample(sample, sample_path(output))
        else:
            sample_path(output).unlink(missing_ok=True)
        _write(output, to_json(profile))
        left_out = _left_out(source, options, {feature.name for feature in profile.features})
    except (OSError, ValueError) as error:
        return fail(str(error))
    version = f" {options.model_version}" if options.model_version else ""
    say(f'wrote "{output}": {model}{version}, {len(profile.features)} features, {profile.rows:,.0f} rows')
    if left_out:
        say(f"left out, since their values are no numbers, texts or times: {', '.join(left_out)}")
    if sample is not None:
        say(f'wrote "{sample_path(output)}": {len(sample):,} labelled rows, for estimated performance')
    elif options.label_column:
        sys.stderr.write(f"mlspan: {_why_no_sample(options)}\n")
    return 0


def _why_no_sample(options: argparse.Namespace) -> str:
    """Why the labels have made no sample, and what to add."""
    label = f'the labels of "{options.label_column}" are not used to estimate performance'
    if options.prediction_column or options.probability_column:
        return f"{label}: no row has one"
    return f"{label}: the model's answers are missing; add --probability-column or --prediction-column"


def _features(source: Path, options: argparse.Namespace) -> list[str] | None:
    """Return the columns that are the model's input; None leaves it to the builder."""
    if options.feature:
        return list(options.feature)
    if not options.exclude:
        return None
    roles = {options.label_column, options.prediction_column, *options.probability_column}
    table = Table(source)
    table.check(options.exclude)
    return [name for name in table.names if name not in roles and name not in options.exclude]


def _left_out(source: Path, options: argparse.Namespace, kept: set[str]) -> list[str]:
    """Return the inputs that the profile does not have: lists, structs and other containers."""
    no_inputs = {*options.exclude, options.label_column, options.prediction_column, *options.probability_column}
    asked = options.feature or [name for name in Table(source).names if name not in no_inputs]
    return [name for name in asked if name not in kept]


def _write(path: Path, text: str) -> None:
    """Write whole or not at all: a processor may read the folder at any time."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, "utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ValueError(f'cannot write "{path}": {error.strerror}') from None
    finally:
        temporary.unlink(missing_ok=True)
