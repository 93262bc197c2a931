"""``mlspan analyze`` and ``mlspan check``: arguments, exit status, what is printed and what is written."""

import json
import sys
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it has no stubs of its own
import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from rich.progress import Progress

from mlspan_processor import analyze
from mlspan_processor.analysis import schema
from mlspan_processor.cli import analyze as command
from mlspan_processor.cli import main
from mlspan_processor.cli.main import build_parser
from tests.processor.analysis.frames import classified


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Parquet files: a reference, a quiet file, and one whose second half has another truth."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    frames = {
        "reference": classified(rng, 1500),
        "quiet": classified(rng, 1000),
        "bad": pd.concat([classified(rng, 500), classified(rng, 500, concept=True)], ignore_index=True),
    }
    for name, frame in frames.items():
        frame["at"] = pd.Timestamp("2024-05-01", tz="UTC") + pd.to_timedelta(np.arange(len(frame)), unit="min")
        frame["id"] = np.arange(len(frame))
        frame.to_parquet(folder / f"{name}.parquet")
    return {name: str(folder / f"{name}.parquet") for name in frames}


COLUMNS = ("--probability", "1=p", "--label", "y", "--time", "at", "--id", "id", "--segment", "kind")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command; return exit code, stdout and stderr."""
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("name", ["analyze", "check"])
def test_help_tells_the_exit_status(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help ends with what 0, 1 and 2 mean, and with examples that parse."""
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "exit status: 0 " in text
    examples = [line.split()[1:] for line in text.splitlines() if line.startswith("  mlspan ")]
    assert len(examples) >= 3
    for example in examples:
        assert build_parser().parse_args(example).run == f"{name}:{name}"


def test_alerts_are_exit_status_one(files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence, a row a window, the worst window; JSON by the schema; the same as in Python."""
    out = tmp_path / "out.json"
    arguments = ["--reference", files["reference"], "--current", files["bad"], *COLUMNS, "--every", "500rows"]
    code, printed, err = run(capsys, "analyze", *arguments, "--json", str(out))
    assert (code, err) == (1, "")
    lines = printed.splitlines()
    assert lines[0] == "1 of 2 windows raised an alert: realised in 1"
    assert lines[1] == "binary model; bad.parquet (1,000 rows) against reference.parquet (1,500 rows)"
    rows = [line for line in lines if line.startswith(" 2024-05-01T")]
    assert rows[0].rstrip().endswith("quiet")
    assert rows[1].rstrip().endswith("realised")
    assert any(line.startswith("the worst window, 2024-05-01T08:20:00Z to 2024-05-01T16:39:00Z") for line in lines)
    assert any(line.startswith("  critical: realised: ") for line in lines)
    assert any(line.startswith("  2024-05-01T08:20:00Z to ") for line in lines)  # the incident
    document = json.loads(out.read_text())
    jsonschema.validate(document, schema())
    assert list(document["windows"][0]) >= ["start", "end", "rows", "metrics", "drift", "alerts"]
    result = analyze(
        reference=files["reference"],
        current=files["bad"],
        probability="1=p",
        label="y",
        time="at",
        id="id",
        segment="kind",
        every="500rows",
    )
    assert result.to_dict() == document
    assert run(capsys, "analyze", *arguments, "--fail-on", "never", "--quiet") == (0, "", "")


def test_quiet_files_are_exit_status_zero(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to tell: 0, and the first line says so; --json - is JSON and nothing else."""
    arguments = ["--reference", files["reference"], "--current", files["quiet"], *COLUMNS]
    code, printed, _ = run(capsys, "analyze", *arguments)
    assert code == 0
    assert printed.startswith("no alert in 1 window\n")
    code, printed, _ = run(capsys, "analyze", *arguments, "--json", "-")
    assert json.loads(printed)["windows"][0]["alerts"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "yy"], 'mlspan: --label "yy": neither file has this column; did you mean "y"?'),
        (["--every", "1d", "--label", "y"], "mlspan: --every with a duration needs the column of times: --time COL"),
        (
            ["--features", "x0,x11"],
            'mlspan: --features "x11": reference.parquet has no such column; did you mean "x1"?',
        ),
        (["--json", "/nowhere/out.json"], 'mlspan: cannot write "/nowhere/out.json"'),
        (["--current", "nothing.csv"], 'mlspan: there is no file "nothing.csv"'),
    ],
)
def test_wrong_use_is_exit_status_two(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Wrong columns, options and files: one line on stderr, nothing on stdout."""
    code, out, err = run(capsys, "analyze", "--reference", files["reference"], "--current", files["quiet"], *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_check(files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 passes, 1 fails, 2 wrong use; a table and why; JSON."""
    columns = ["--probability", "1=p", "--label", "y"]
    better = ["check", "--champion", files["bad"], "--challenger", files["quiet"], *columns]
    out = tmp_path / "gate.json"
    code, printed, _ = run(capsys, *better, "--json", str(out))
    assert code == 0
    assert printed.startswith("pass: the challenger is not worse: accuracy: ")
    assert " accuracy *" in printed
    document = json.loads(out.read_text())
    assert document["outcome"] == "pass"
    assert document["metrics"]["accuracy"]["low"] > 0
    worse = ["check", "--champion", files["quiet"], "--challenger", files["bad"], *columns]
    code, printed, _ = run(capsys, *worse, "--metric", "f1", "--metric", "accuracy")
    assert code == 1
    assert printed.startswith("fail: the challenger is worse: ")
    assert run(capsys, *worse, "--metric", "nothing")[0] == 2
    assert run(capsys, "check", "--champion", files["quiet"], "--challenger", files["bad"])[0] == 2


def test_undecided_is_what_the_user_says(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Equal versions within no margin at all: fails unless --undecided pass."""
    arguments = ["check", "--champion", files["quiet"], "--challenger", files["reference"], "--margin", "0"]
    arguments += ["--probability", "1=p", "--label", "y", "--quiet"]
    assert main(arguments) == 1
    assert main([*arguments, "--undecided", "pass"]) == 0


def test_progress_is_shown_on_a_terminal_only(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar for each pass over a file, on stderr."""
    seen: list[tuple[str, float]] = []

    class Told(Progress):
        def update(self, task_id, *args, **options):  # type: ignore[no-untyped-def]  # rich's own signature is long
            super().update(task_id, *args, **options)
            seen.append((self.tasks[task_id].description, options["completed"]))

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(command, "Progress", Told)
    monkeypatch.setattr(command, "Console", lambda stderr: Console(stderr=stderr, force_terminal=False))
    assert main(["analyze", "--reference", files["reference"], "--current", files["quiet"], *COLUMNS]) == 0
    assert dict(seen) == {
        "reading the reference": 1500,
        "reading the answers": 1000,
        "reading the reference's features": 1500,
        "judging": 1000,
    }
