"""The command line: arguments in, an exit code out. Every command is imported when it is called.

Exit codes: 0 success, 1 it could not be done (the reason is on stderr), 2 wrong arguments. The gates, ``analyze`` and
``check``, keep 1 for what they found: 0 all is well, 1 it is not, 2 wrong arguments or files that cannot be judged.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from mlspan_processor.cli.batch_arguments import add_analyze, add_check

_CONFIG_HELP = "configuration file; repeatable, later ones are merged over earlier ones (default: embedded)"
_SET_HELP = "override one key, exporters.zipkin.endpoint=http://zipkin:9411/api/v2/spans; repeatable"
_ENDPOINT_HELP = "the processor's OTLP/HTTP endpoint (default: %(default)s)"
_DEFAULT_ENDPOINT = "http://localhost:4318"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return 2
    try:
        module, _, function = options.run.partition(":")
        command: Callable[[argparse.Namespace], int] = getattr(
            import_module(f"mlspan_processor.cli.{module}"), function
        )
        return command(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has left, `mlspan components | head -1`.
        sys.stderr.close()
        return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="mlspan",
        description="OpenTelemetry for predictive models: model spans in; quality and drift out.",
        epilog="examples:\n"
        "  mlspan run\n"
        "  mlspan run --config collector-config.yaml --set exporters.debug.verbosity=detailed\n"
        "  mlspan validate --config collector-config.yaml\n"
        "  mlspan labels outcomes.csv\n"
        "  mlspan analyze --reference train.parquet --current week.parquet --label late --probability p_late",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    run = _add(
        commands,
        "run",
        "run:run",
        "receive, judge and forward until SIGTERM or SIGINT",
        ["mlspan run", "mlspan run --config a.yaml --config b.yaml --set service.telemetry.logs.level=debug"],
    )
    _add_config(run)

    validate = _add(
        commands,
        "validate",
        "validate:validate",
        "check a configuration and show its pipelines",
        ["mlspan validate --config collector-config.yaml"],
    )
    _add_config(validate)

    _add(
        commands,
        "components",
        "validate:components",
        "list the component types that a configuration can name",
        ["mlspan components"],
    )

    reference = commands.add_parser("reference", help="profiles of what is normal", description="Reference profiles.")
    _add_reference(_subcommands(reference))

    labels = _add(
        commands,
        "labels",
        "labels:labels",
        "send the true outcomes of predictions from a file",
        [
            "mlspan labels outcomes.csv",
            "mlspan labels outcomes.parquet --id-column order --label-column returned --model returns-model",
        ],
    )
    labels.add_argument("file", metavar="FILE", help=".csv, .jsonl (or .ndjson), .json (an array) or .parquet")
    labels.add_argument("--endpoint", default=_DEFAULT_ENDPOINT, help=_ENDPOINT_HELP)
    labels.add_argument("--id-column", default="prediction_id", help="column of the id (default: %(default)s)")
    labels.add_argument("--label-column", default="label", help="column of the outcome (default: %(default)s)")
    labels.add_argument("--model-column", default="model", help="column of the model's name (default: %(default)s)")
    labels.add_argument("--timestamp-column", default="timestamp", help="column of the time (default: %(default)s)")
    labels.add_argument("--model", help="the model's name, for all lines")
    labels.add_argument("--batch-size", type=_positive, default=5000, help="lines a request (default: %(default)s)")
    labels.add_argument("--quiet", action="store_true", help="no progress, only the summary")

    report = _add(
        commands,
        "report",
        "report:report",
        "show models, their quality and their drift",
        [
            "mlspan report",
            "mlspan report --model fraud-model --since 2026-11-22T08:00:00Z",
            "mlspan report --json",
        ],
    )
    report.add_argument("--endpoint", default=_DEFAULT_ENDPOINT, help=_ENDPOINT_HELP)
    report.add_argument("--model", help="one model in detail")
    report.add_argument("--model-version", help="one version of it")
    report.add_argument("--since", help='start: RFC 3339, Unix seconds, or a duration back from now, "2h"')
    report.add_argument("--until", help="end, in the same forms")
    report.add_argument("--json", action="store_true", help="the answer as JSON")

    add_analyze(_add, commands)
    add_check(_add, commands)
    return parser


def _add_reference(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    build = _add(
        commands,
        "build",
        "reference:build",
        "build a model's reference profile from a table of past inputs",
        [
            "mlspan reference build --data train.parquet --model fraud-model --label-column y --probability-column p",
            "mlspan reference build --data past.csv --prediction-column predicted --label-column outcome",
        ],
    )
    build.add_argument("--data", required=True, metavar="FILE", help=".csv or .parquet with one row per prediction")
    build.add_argument("--model", help="the model's name, as its spans carry it (default: the file's name)")
    build.add_argument("--model-version", help="its version; without one the profile is for every version")
    build.add_argument("--output", metavar="PATH", help="where to write the profile (default: MODEL.json)")
    build.add_argument("--prediction-column", help="column of the model's answers")
    build.add_argument(
        "--probability-column",
        action="append",
        default=[],
        metavar="COLUMN",
        help="probability of a class; repeatable, in the order of the classes; one alone is the last of two classes'",
    )
    build.add_argument("--label-column", help="column of the true outcomes")
    build.add_argument(
        "--feature", action="append", default=[], metavar="COLUMN", help="an input; repeatable (default: the rest)"
    )
    build.add_argument("--exclude", action="append", default=[], metavar="COLUMN", help="no input; repeatable")


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: str,
    summary: str,
    examples: Sequence[str],
    epilog: str = "",
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog="examples:\n" + "\n".join(f"  {example}" for example in examples) + (epilog and f"\n\n{epilog}"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _subcommands(parser: argparse.ArgumentParser) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", action="append", default=[], metavar="PATH", help=_CONFIG_HELP)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=_SET_HELP)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is not 1 or more')
    return value


class _Version(argparse.Action):
    """Reads the installed version only when asked: that import is half of the command's start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  # see above

        try:
            text = version("mlspan")
        except PackageNotFoundError:  # run from a source tree that is not installed
            text = "unknown"
        sys.stdout.write(f"mlspan {text}\n")
        parser.exit()
