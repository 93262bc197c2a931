"""The command line: exit codes, messages, and the commands against a running processor."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from mlspan.profile import from_json
from mlspan_exporters.testing import FakeOtlpGrpc
from mlspan_processor.cli import main
from mlspan_processor.cli.client import Client, ClientError
from mlspan_processor.cli.run import last_words
from mlspan_processor.records import RetryableError
from tests.processor.running import Running, running

BAD = Path(__file__).parent / "bad_configs"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def processor() -> Iterator[Running]:
    """One processor for all commands."""
    with running() as one:
        yield one


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command; return exit code, stdout and stderr."""
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_importing_the_command_is_light() -> None:
    """Neither grpc nor aiohttp, pydantic, numpy or rich are loaded before a command is chosen."""
    code = (
        "import sys, mlspan_processor.cli as cli; cli.main.__globals__['build_parser']();"
        "print([m for m in ('grpc', 'aiohttp', 'pydantic', 'numpy', 'rich', 'yaml', 'google') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints name and version."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("mlspan 0.")


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the help is shown, with exit code 2."""
    code, out, _ = run(capsys)
    assert code == 2
    assert "examples:" in out


@pytest.mark.parametrize("command", ["run", "validate", "components", "labels", "report", "reference"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help of each command ends well."""
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"mlspan {command}" in capsys.readouterr().out


def test_validate_explains_a_good_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """Pipelines are shown as text, and where it will listen."""
    code, out, err = run(capsys, "validate", "--config", str(ROOT / "collector-config.yaml"))
    assert (code, err) == (0, "")
    assert "  traces/in  otlp → memory_limiter → mlspan\n" in out
    assert "  traces     mlspan → otlp_grpc/jaeger, zipkin\n" in out
    assert "  127.0.0.1:4317         receiver otlp\n" in out


@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_bad_configuration_ends_with_every_problem(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both commands list all problems on stderr and exit with 1."""
    code, out, err = run(capsys, command, "--config", str(BAD / "several_problems.yaml"))
    assert (code, out) == (1, "")
    assert err.startswith("mlspan: the configuration has 5 problems:\n")
    assert '  service::pipelines::traces::processors: references processor "batch"' in err


def test_warnings_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """What is odd but runs is on stderr."""
    code, _, err = run(capsys, "validate", "--set", "exporters.debug/unused.verbosity=basic")
    assert code == 0
    assert err == 'warning: exporter "debug/unused" is configured but not used\n'


def test_components_lists_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """Each kind and its types are listed."""
    code, out, _ = run(capsys, "components")
    assert code == 0
    for word in ("receivers:", "otlp ", "memory_limiter", "mlspan", "otlp_grpc", "zipkin", "health_check"):
        assert word in out


TABLES = {
    "outcomes.csv": b"prediction_id,label,model\na,fraud,m\nb,,m\nc,ok,m\n",
    "outcomes.jsonl": b'{"prediction_id":"a","label":"fraud"}\n{"prediction_id":"b"}\n'
    b'{"prediction_id":"c","label":"ok"}\n',
    "outcomes.json": b'[{"prediction_id":"a","label":"fraud"},{"prediction_id":"b"},'
    b'{"prediction_id":"c","label":"ok"}]',
}


@pytest.mark.parametrize("name", [*TABLES, "outcomes.parquet"])
def test_labels_of_every_format(
    name: str, processor: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CSV, JSON lines, JSON and Parquet are sent; rows without a label are told and left out."""
    path = tmp_path / name
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({"prediction_id": ["a", "b", "c"], "label": ["fraud", None, "ok"]}), path)
    else:
        path.write_bytes(TABLES[name])
    before = len(processor.connector.labels)
    code, out, err = run(capsys, "labels", str(path), "--endpoint", processor.http, "--batch-size", "1", "--model", "m")
    assert (code, err) == (0, "")
    assert out == "2 labels accepted; 1 rows have no label yet\n"
    sent = processor.connector.labels[before:]
    assert [(one.prediction_id, one.label, one.model) for one in sent] == [("a", "fraud", "m"), ("c", "ok", "m")]


def test_labels_from_other_columns(processor: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns may have any name; numbers and times keep their types."""
    path = tmp_path / "a.parquet"
    times = pa.array([1_700_000_000_000_000], pa.timestamp("us", "UTC"))
    parquet.write_table(pa.table({"order": ["o1"], "minutes": [12.5], "at": times}), path)
    arguments = ["--id-column", "order", "--label-column", "minutes", "--timestamp-column", "at"]
    code, _, err = run(capsys, "labels", str(path), "--endpoint", processor.http, *arguments)
    assert (code, err) == (0, "")
    label = processor.connector.labels[-1]
    assert (label.prediction_id, label.label, label.timestamp_ns) == ("o1", 12.5, 1_700_000_000_000_000_000)


def test_rejected_labels_name_their_rows(
    processor: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rejected rows are listed by their number in the file, over all batches; the exit code is 1."""
    path = tmp_path / "a.csv"
    path.write_text("prediction_id,label\na,x\nb,\nunknown,x\nd,x\nunknown,y\n", "utf-8")
    code, out, err = run(capsys, "labels", str(path), "--endpoint", processor.http, "--batch-size", "2")
    assert code == 1
    assert out == "2 labels accepted; 1 rows have no label yet; 2 rejected\n"
    assert err == "  row 3: no such prediction\n  row 5: no such prediction\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id,truth\n1,2\n", 'has no column "prediction_id"; it has "id", "truth"'),
        ("a.xlsx", b"", 'has the suffix ".xlsx"; valid are .csv, .json, .jsonl, .ndjson, .parquet'),
        ("a.parquet", b"PAR1", "is not Parquet"),
        ("a.jsonl", b"{}x\n", 'a.jsonl", line 1: not JSON'),
        ("a.json", b"{}", "is not an array of objects"),
        ("", b"", "there is no file"),
    ],
)
def test_bad_label_files(
    name: str, content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be used is told with what is wrong; nothing is sent."""
    path = tmp_path / (name or "missing.csv")
    if name:
        path.write_bytes(content)
    code, out, err = run(capsys, "labels", str(path), "--endpoint", "http://127.0.0.1:9")
    assert (code, out) == (1, "")
    assert message in err


def test_no_processor_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a processor the message says what to look for."""
    path = tmp_path / "a.csv"
    path.write_bytes(TABLES["outcomes.csv"])
    code, _, err = run(capsys, "labels", str(path), "--endpoint", "http://127.0.0.1:9")
    assert code == 1
    assert 'cannot reach "http://127.0.0.1:9"' in err
    assert 'is "mlspan run" running there?' in err


def test_client_waits_as_long_as_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """503 is tried again after Retry-After, a bounded number of times."""
    waits: list[float] = []
    with running() as one:

        def refuse(_: object) -> Any:
            raise RetryableError("busy", 7.0)

        monkeypatch.setattr(one.connector, "submit_labels", refuse)
        client = Client(one.http, waits.append)
        with pytest.raises(ClientError, match="did not take it in 6 attempts: 503: busy"):
            client.post("/v1/labels", b'{"prediction_id":"a","label":1}', "application/x-ndjson")
    assert waits == [7.0] * 5


@pytest.mark.parametrize("method", ["get", "post"])
def test_client_at_the_port_of_grpc(method: str) -> None:
    """It says at once which port was meant, instead of trying again."""
    waits: list[float] = []
    with FakeOtlpGrpc() as backend:
        client = Client(f"http://{backend.endpoint}", waits.append)
        with pytest.raises(ClientError, match=r"does not speak HTTP/1\.1; gRPC's port \(4317\)\?"):
            client.get("/v1/models") if method == "get" else client.post("/v1/labels", b"{}", "application/json")
    assert not waits


def test_client_needs_a_url() -> None:
    """An endpoint without a scheme is told."""
    with pytest.raises(ClientError, match=r'"localhost:4318" is no URL; try "http://localhost:4318"'):
        Client("localhost:4318")


def test_reference_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A profile is written from a table, without the excluded columns."""
    source, output = tmp_path / "past.csv", tmp_path / "m.json"
    rows = [f"{number},{number % 7},{number % 2},{number % 2}" for number in range(300)]
    source.write_text("row,amount,predicted,truth\n" + "\n".join(rows) + "\n", "utf-8")
    roles = ["--prediction-column", "predicted", "--label-column", "truth", "--exclude", "row"]
    arguments = ["reference", "build", "--data", str(source), "--model", "m", "--output", str(output), *roles]
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    sample = tmp_path / "m.sample.npz"
    assert out == (
        f'wrote "{output}": m, 1 features, 300 rows\nwrote "{sample}": 300 labelled rows, for estimated performance\n'
    )
    profile = from_json(output.read_text("utf-8"))
    assert [feature.name for feature in profile.features] == ["amount"]
    assert sorted(tmp_path.iterdir()) == sorted([source, output, sample])


def test_reference_build_says_that_labels_are_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels without the model's answers, or answers without a label, make no sample: stderr says what is missing."""
    source, output = tmp_path / "past.csv", tmp_path / "m.json"
    source.write_text("amount,p,y,none\n" + "".join(f"{n},0.{n % 10},{n % 2},\n" for n in range(100)), "utf-8")
    arguments = ["reference", "build", "--data", str(source), "--model", "m", "--output", str(output)]
    code, _, err = run(capsys, *arguments, "--label-column", "y", "--exclude", "p", "--exclude", "none")
    assert (code, err) == (
        0,
        'mlspan: the labels of "y" are not used to estimate performance: the model\'s answers are missing;'
        " add --probability-column or --prediction-column\n",
    )
    assert not (tmp_path / "m.sample.npz").exists()
    code, _, err = run(capsys, *arguments, "--label-column", "y", "--probability-column", "p", "--exclude", "none")
    assert (code, err) == (0, "")
    assert (tmp_path / "m.sample.npz").exists()
    code, _, err = run(capsys, *arguments, "--label-column", "none", "--prediction-column", "p")
    assert code == 0
    assert 'the labels of "none" are not used to estimate performance: no row has one' in err
    assert not (tmp_path / "m.sample.npz").exists()


def test_reference_build_of_a_missing_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A column that is not there is named, and nothing is written."""
    source = tmp_path / "past.csv"
    source.write_text("amount\n1\n", "utf-8")
    output = tmp_path / "m.json"
    arguments = ["reference", "build", "--data", str(source), "--model", "m", "--output", str(output)]
    code, _, err = run(capsys, *arguments, "--label-column", "nothing")
    assert code == 1
    assert "nothing" in err
    assert not output.exists()


def test_labels_of_several_outputs(processor: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lists and objects of JSON lines, lists of Parquet, semicolons in CSV; an empty list is a label, a gap is none."""
    table, lines, text = (tmp_path / f"truth.{suffix}" for suffix in ("parquet", "jsonl", "csv"))
    parquet.write_table(pa.table({"prediction_id": ["a", "b", "c"], "label": [["spam"], [], None]}), table)
    lines.write_text('{"prediction_id":"a","label":[1,0]}\n{"prediction_id":"b","label":{"spam":0,"rude":true}}\n')
    text.write_text("prediction_id,label\na,spam;rude\nb,;\nc,\n")
    for file, said in (
        (table, "2 labels accepted; 1 rows have no label yet"),
        (lines, "2 labels accepted"),
        (text, "2 labels accepted; 1 rows have no label yet"),
    ):
        code, out, err = run(capsys, "labels", str(file), "--endpoint", processor.http)
        assert (code, err) == (0, "")
        assert out == said + "\n"
    expected = [("spam",), (), (True, False), ("rude",), "spam;rude", ";"]
    assert [label.label for label in processor.connector.labels[-6:]] == expected


def test_labels_of_odd_types_are_rejected_one_by_one(
    processor: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lists cost their row only; bytes are text, as some writers of Parquet have it."""
    lines = tmp_path / "odd.jsonl"
    lines.write_text(
        '{"prediction_id":"a","label":[1]}\n{"prediction_id":{},"label":1}\n{"prediction_id":"c","label":"x"}\n'
    )
    code, out, err = run(capsys, "labels", str(lines), "--endpoint", processor.http)
    assert code == 1
    assert "1 labels accepted" in out + err
    assert "row 1: label is a list of one number" in err
    table = tmp_path / "odd.parquet"
    parquet.write_table(pa.table({"prediction_id": ["a"], "label": pa.array([b"x"])}), table)
    code, out, err = run(capsys, "labels", str(table), "--endpoint", processor.http)
    assert (code, "1 labels accepted" in out + err) == (0, True)


def test_reference_build_names_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns of lists are no features, and that is said; those that were excluded are not mentioned."""
    source = tmp_path / "past.parquet"
    parquet.write_table(pa.table({"a": [1, 2], "tags": [[1], [2]], "other": [[1], [2]]}), source)
    options = ("--exclude", "other", "--output", str(tmp_path / "m.json"))
    code, out, err = run(capsys, "reference", "build", "--data", str(source), *options)
    assert code == 0
    assert "left out, since their values are no numbers, texts or times: tags\n" in out + err


def test_reference_build_names_the_file_that_it_cannot_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message has the path that was asked for, and a missing table is called missing."""
    table = tmp_path / "past.csv"
    table.write_text("a\n1\n2\n")
    nowhere = tmp_path / "nowhere" / "m.json"
    _, _, err = run(capsys, "reference", "build", "--data", str(table), "--model", "m", "--output", str(nowhere))
    assert err == f'mlspan: cannot write "{nowhere}": No such file or directory\n'
    missing = tmp_path / "missing.csv"
    _, _, err = run(capsys, "reference", "build", "--data", str(missing), "--model", "m", "--output", str(nowhere))
    assert err == f'mlspan: there is no file "{missing}"\n'


def test_last_words_of_run() -> None:
    """Nothing is said to be kept when it was lost, nor lost when it was kept."""
    assert last_words(0, 0, 0) == "nothing was lost while stopping"
    assert last_words(0, 0, 2) == "nothing was lost while stopping; 2 messages are kept and sent after the next start"
    assert last_words(3, 0, 0) == "3 items were not sent"
    assert last_words(3, 1, 0) == "3 items were not sent; 1 messages were not sent"
