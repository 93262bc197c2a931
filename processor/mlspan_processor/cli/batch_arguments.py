"""The arguments of ``mlspan analyze`` and ``mlspan check``, apart from what they run: building them imports nothing."""

import argparse
from collections.abc import Callable

Add = Callable[..., argparse.ArgumentParser]
_COLUMNS = "columns (names as in the files; a wrong one is answered with the nearest)"


def add_analyze(add: Add, commands: object) -> None:
    """``mlspan analyze``."""
    parser = add(
        commands,
        "analyze",
        "analyze:analyze",
        "judge a file of predictions against a reference, without a service",
        [
            "mlspan analyze --reference train.parquet --current week.parquet --label late --probability p_late",
            "mlspan analyze --reference r.csv --current c.csv --prediction said --label truth --time at --every 1d",
            "mlspan analyze --reference r.parquet --current c.parquet --segment origin --json out.json --quiet",
            "mlspan analyze --reference r.csv --current c.csv --label ad=y_ad rude=y_r --probability ad=p_ad rude=p_r",
        ],
        epilog="exit status: 0 every window is quiet, 1 a window raised an alert (see --fail-on),\n"
        "2 wrong arguments, columns that do not fit, or a file that cannot be read",
    )
    files = "a .parquet, .csv or .tsv file (also .gz), or spans as lines of OTLP JSON (.jsonl)"
    parser.add_argument("--reference", required=True, metavar="FILE", help=f"what is normal: {files}")
    parser.add_argument("--current", required=True, metavar="FILE", help="what is to be judged, in the same forms")
    add_columns(parser)
    parser.add_argument(
        "--every", metavar="1000rows|1d", help='windows: so many rows, or a duration ("30m", "6h", "1d"; needs --time)'
    )
    parser.add_argument("--json", metavar="FILE", help="write the whole result as JSON; - for standard output")
    parser.add_argument(
        "--fail-on",
        choices=["alert", "never"],
        default="alert",
        help="what makes the exit status 1 (default: %(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="no table and no progress")


def add_check(add: Add, commands: object) -> None:
    """``mlspan check``."""
    parser = add(
        commands,
        "check",
        "check:check",
        "compare a challenger with the champion: a gate for CI",
        [
            "mlspan check --champion v7.parquet --challenger v8.parquet --label truth --probability p",
            "mlspan check --champion v7.csv --challenger v8.csv --label y --prediction said --id order --margin 0.005",
            "mlspan check --data both.parquet --version model --champion 7 --challenger 8 --label y --prediction said",
        ],
        epilog="exit status: 0 the challenger is not worse, 1 it is, or the rows do not tell (see --undecided),\n"
        "2 wrong arguments, columns that do not fit, or a file that cannot be read",
    )
    parser.add_argument("--champion", required=True, metavar="FILE", help="its predictions; with --data its version")
    parser.add_argument("--challenger", required=True, metavar="FILE", help="the same of the candidate")
    parser.add_argument("--data", metavar="FILE", help="one file with both, told apart by --version")
    add_columns(parser, features=False)
    parser.add_argument("--version", metavar="COL", help="column of the model's version, with --data")
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="metric that decides; repeatable, each must hold (default: the task's first)",
    )
    parser.add_argument(
        "--margin",
        type=float,
        help="how much worse is still good enough, in the metric's units (default: 0.02, or 5 %% of the error)",
    )
    parser.add_argument(
        "--undecided",
        choices=["fail", "pass"],
        default="fail",
        help="what to make of rows that are too few to tell (default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the comparison as JSON; - for standard output")
    parser.add_argument("--quiet", action="store_true", help="no table and no progress")


def add_columns(parser: argparse.ArgumentParser, features: bool = True) -> None:
    """The columns' roles."""
    group = parser.add_argument_group(_COLUMNS)
    group.add_argument(
        "--task", metavar="binary|multiclass|multilabel|regression", help="what the model is for (default: inferred)"
    )
    group.add_argument(
        "--prediction",
        action="extend",
        nargs="+",
        metavar="[OUTPUT=]COL",
        help="what the model said (default: from the probabilities); of a multilabel model 0 and 1 for each output",
    )
    group.add_argument(
        "--probability",
        action="extend",
        nargs="+",
        default=[],
        metavar="[CLASS=]COL",
        help="probability of the positive class, or one of each class or output by name; repeatable",
    )
    group.add_argument(
        "--label",
        action="extend",
        nargs="+",
        metavar="[OUTPUT=]COL",
        help="what was true, empty where it is not known yet; of a multilabel model 0 and 1 for each output",
    )
    group.add_argument("--id", metavar="COL", help="names a prediction: repetitions count once")
    if not features:
        return
    group.add_argument("--time", metavar="COL", help="when the prediction was made")
    group.add_argument(
        "--segment", action="extend", nargs="+", default=[], metavar="COL", help="also judge by this; repeatable"
    )
    group.add_argument(
        "--features",
        action="append",
        metavar="COL,COL,…",
        help="the model's inputs (default: every column without another role)",
    )
