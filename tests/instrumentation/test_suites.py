"""scikit-learn's own tests end as they do without the hooks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sklearn

from tests.instrumentation.programs import ROOT

# Those that look hardest at methods: delegation, routing, cloning, pickling, signatures, set_output, tags, joblib.
MODULES = [
    "tests/test_base.py",
    "tests/test_calibration.py",
    "tests/test_metadata_routing.py",
    "tests/test_metaestimators.py",
    "tests/test_metaestimators_metadata_routing.py",
    "tests/test_multiclass.py",
    "tests/test_pipeline.py",
    "ensemble/tests/test_voting.py",
    "frozen/tests/test_frozen.py",
    "model_selection/tests/test_search.py",
    "utils/tests/test_set_output.py",
    "utils/tests/test_tags.py",
]


def _start(outcomes: Path, hooks: bool) -> "subprocess.Popen[str]":
    folder = Path(sklearn.__file__).parent
    files = [str(folder / module) for module in MODULES if (folder / module).exists()]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTEST_"))},
        "MLSPAN_SUITE_OUTCOMES": str(outcomes),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        **({"MLSPAN_SUITE_HOOKS": "1"} if hooks else {}),
    }
    plugin = ["-p", "tests.instrumentation.suites_plugin", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-c", os.devnull, f"--rootdir={folder.parent}"]
    return subprocess.Popen(
        [*command, *plugin, *files],
        env=environment,
        cwd=outcomes.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.suites
@pytest.mark.timeout(900)
def test_same_outcomes(tmp_path: Path) -> None:
    """Every test passes, fails or is skipped as it is without hooks, while thousands of spans are made."""
    found: dict[bool, dict[str, Any]] = {}
    processes = {hooks: _start(tmp_path / f"{hooks}.json", hooks) for hooks in (False, True)}
    logs = {hooks: process.communicate()[0] for hooks, process in processes.items()}
    for hooks, log in logs.items():
        assert processes[hooks].returncode in {0, 1}, log
        found[hooks] = json.loads((tmp_path / f"{hooks}.json").read_text())
    plain, hooked = found[False]["tests"], found[True]["tests"]
    changed = {
        name: (plain.get(name), hooked.get(name)) for name in plain | hooked if plain.get(name) != hooked.get(name)
    }
    assert changed == {}, logs[True]
    assert len(plain) > 500
    assert found[False]["spans"] == 0
    assert found[True]["spans"] > 2000
