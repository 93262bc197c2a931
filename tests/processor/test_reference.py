"""References: learnt from the first rows, read from files, kept over restarts, matched by name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlspan.payload import SCORE_RAW, category_code
from mlspan.profile import Profile, build_profile, from_json, to_json
from mlspan_processor.model_spans import ModelSpans
from mlspan_processor.reference import ReferenceBook, file_name, write
from tests.processor.helpers import Rig, calls, normal_rows


def profile(name: str = "fraud", version: str = "7", seed: int = 0, **options: Any) -> Profile:
    """A profile of two normal features."""
    return build_profile(
        normal_rows(1000, seed), ["a", "b"], ["numeric"] * 2, model_name=name, model_version=version, **options
    )


def reference_of(rig: Rig, model: str = "fraud") -> Any:
    """The profile that a model is measured against, or None."""
    found = next(one for one in rig.connector._state.models.values() if one.name == model)
    return None if found.reference is None else found.reference.profile


def drift_rows(rig: Rig) -> dict[str, dict[str, Any]]:
    """The report's drift rows by feature."""
    return {row["name"]: row for row in rig.connector.report("fraud")["drift"]["features"]}


def test_learns_from_the_first_rows_then_freezes() -> None:
    """The first learn_rows rows are the reference; later ones are measured against it and do not change it."""
    with Rig(reference={"learn_rows": 500}) as rig:
        spans = ModelSpans()
        rig.send(calls(spans, normal_rows(499, 0)))
        assert reference_of(rig) is None
        status = rig.connector.status()["models"][0]["reference"]
        assert (status["state"], status["rows"]) == ("learning", 499)
        rig.send(calls(spans, normal_rows(1, 1)))
        learnt = reference_of(rig)
        assert (learnt.rows, learnt.source, learnt.classes) == (500, "first 500 rows", ("no", "yes"))
        rig.send(calls(spans, normal_rows(500, 2, shift=3)))
        assert reference_of(rig) is learnt
        assert drift_rows(rig)["a"]["ks"] > 0.8


def test_learnt_reference_equals_one_built_from_the_same_rows() -> None:
    """Learning from spans gives the cells that build_profile gives for the rows."""
    rows = normal_rows(600, 0)
    with Rig(reference={"learn_rows": 600}) as rig:
        spans = ModelSpans()
        for start in range(0, 600, 40):
            spans.add(rows[start : start + 40], (rows[start : start + 40, 0] > 0).astype(int))
        rig.send(spans.chunk())
        built = build_profile(rows, ["a", "b"], ["numeric"] * 2)
        for one, other in zip(reference_of(rig).features, built.features, strict=True):
            assert other.edges is not None
            assert one.edges.tolist() == other.edges.tolist()
            assert one.counts.tolist() == other.counts.tolist()
        assert reference_of(rig).prediction.counts[:2].sum() == 600


def test_mixed_operations_are_learnt_apart() -> None:
    """Rows without a score or answer do not look like missing ones; raw scores are not mixed with probabilities."""
    with Rig(reference={"learn_rows": 200}) as rig:
        spans, rows = ModelSpans(), normal_rows(200, 0)
        spans.add(rows[:80], None, np.full((80, 2), 0.5, "<f4"), operation="predict_proba")
        spans.add(rows[80:150], np.ones(70))
        spans.add(rows[150:], None, rows[150:, :1], operation="decision_function", score_kind=SCORE_RAW)
        rig.send(spans.chunk())
        learnt = reference_of(rig)
        assert learnt.score.counts.sum() == 80
        assert learnt.prediction.counts.tolist() == [0, 70, 0, 0, 0]


def test_profiles_from_files_reload_when_they_change(tmp_path: Path) -> None:
    """A file that appears ends learning; one that changes starts new drift panes; one that breaks changes nothing."""
    with Rig(reference={"path": str(tmp_path)}) as rig:
        spans = ModelSpans()
        rig.send(calls(spans, normal_rows(50, 0)))
        assert reference_of(rig) is None
        file = tmp_path / "fraud.json"
        file.write_text(to_json(profile(source="one")))
        rig.flush()
        assert reference_of(rig).source == "one"
        rig.send(calls(spans, normal_rows(50, 1)))
        assert drift_rows(rig)["a"]["rows"] == 50
        file.write_text(to_json(profile(seed=5, source="another one")))
        rig.flush()
        assert reference_of(rig).source == "another one"
        assert drift_rows(rig) == {}
        file.write_text("{")
        rig.flush()
        assert reference_of(rig).source == "another one"
        assert rig.counters()["unreadable_profiles"] == 1
        rig.flush()
        assert rig.counters()["unreadable_profiles"] == 1


def test_learnt_references_survive_a_restart(tmp_path: Path) -> None:
    """What was learnt is in save_dir, is found again, and is not read as a change."""
    settings = {"reference": {"learn_rows": 100, "save_dir": str(tmp_path / "learnt")}}
    with Rig(**settings) as rig:
        spans = ModelSpans()
        rig.send(calls(spans, normal_rows(120, 0)))
        learnt = reference_of(rig)
        rig.flush()
        assert reference_of(rig) is learnt
    with Rig(**settings) as rig:
        rig.send(calls(ModelSpans(seed=5), normal_rows(1, 1)))
        assert to_json(reference_of(rig)) == to_json(learnt)
        assert drift_rows(rig)["a"]["rows"] == 1


def test_profile_for_every_version_and_precedence(tmp_path: Path) -> None:
    """A profile without a version serves versions without their own; a user's file goes before a learnt one."""
    given, learnt = tmp_path / "given", tmp_path / "learnt"
    given.mkdir()
    learnt.mkdir()
    write(profile(version="", source="any"), given / "any.json")
    write(profile(version="8", source="eight"), given / "eight.json")
    write(profile(version="8", source="learnt"), learnt / "eight.json")
    book = ReferenceBook(given, learnt)
    assert book.rescan()
    assert not book.rescan()
    found = {version: book.find("fraud", version) for version in ("7", "8")}
    assert {version: one.source for version, one in found.items() if one} == {"7": "any", "8": "eight"}
    assert book.find("churn", "1") is None
    (given / "any.json").unlink()
    assert book.rescan()
    assert book.find("fraud", "7") is None


def test_files_are_written_whole_under_safe_names(tmp_path: Path) -> None:
    """Names of models may hold anything; a failed write leaves nothing behind."""
    names = {file_name(name, version) for name, version in (("a/b", "1"), ("a_b", "1"), ("..", ""), ("ä" * 300, "x"))}
    assert len(names) == 4
    for name in names:
        (tmp_path / name).write_text("x")
        assert not name.startswith(".")
    before = set(tmp_path.iterdir())
    with pytest.raises(AttributeError):
        write(None, tmp_path / "x.json")  # type: ignore[arg-type]  # the point of the test
    assert set(tmp_path.iterdir()) == before


def test_features_are_matched_by_name(tmp_path: Path) -> None:
    """Another order is no drift; a new column is counted; an absent one has no data, which is not missing values."""
    (tmp_path / "x.json").write_text(to_json(profile()))
    with Rig(reference={"path": str(tmp_path)}) as rig:
        spans = ModelSpans(columns=("new", "b"), types=("numeric", "numeric"))
        rig.send(calls(spans, normal_rows(300, 1)))
        rows = drift_rows(rig)
        assert rows["b"]["rows"] == 300
        assert rows["b"]["ks"] < 0.15
        assert rows["a"]["rows"] == 0
        assert rows["a"]["missing"] is None
        assert rows["a"]["psi"] is None
        assert rig.connector.report("fraud")["unknown_features"] == 1


def test_columns_that_change_their_type_are_left_out(tmp_path: Path) -> None:
    """A numeric feature that comes as categories is counted and has no drift."""
    (tmp_path / "x.json").write_text(to_json(profile()))
    with Rig(reference={"path": str(tmp_path)}) as rig:
        spans = ModelSpans(types=("categorical", "numeric"))
        spans.add(np.array([[5, 0]], "<u4"), [1])
        rig.send(spans.chunk())
        assert drift_rows(rig)["a"]["rows"] == 0
        assert rig.connector.report("fraud")["retyped_features"] == 1


def test_classes_are_matched_by_text(tmp_path: Path) -> None:
    """Classes in another order count in their own cells; a class that the reference lacks is unseen."""
    reference = profile(
        predictions=np.arange(1000, dtype=np.int32) % 2, prediction_kind=1, classes=("no", "yes"), task="classification"
    )
    (tmp_path / "x.json").write_text(to_json(reference))
    with Rig(reference={"path": str(tmp_path)}) as rig:
        spans = ModelSpans(classes=("yes", "maybe", "no"))
        spans.add(normal_rows(10, 0), [0] * 6 + [1] * 3 + [2])
        rig.send(spans.chunk())
        (model,) = rig.connector._state.models.values()
        assert model.reference is not None
        counts = model.drift.sum(0, 1 << 62).counts[model.reference.layout.starts[2] :]
        assert counts.tolist() == [1, 6, 0, 3, 0]


def test_readable_categories_come_from_the_profile(tmp_path: Path) -> None:
    """Texts of the profile appear in the summary; the profile's JSON keeps them."""
    code = category_code("UA", b"mlspan")
    cells = np.array([[code]] * 20, np.uint32)
    built = build_profile(cells, ["carrier"], ["categorical"], labels={"carrier": {code: "UA"}}, model_name="fraud")
    file = tmp_path / "x.json"
    file.write_text(to_json(replace(built, model_version="7")))
    assert json.loads(file.read_text())["features"][0]["labels"] == ["UA"]
    with Rig(reference={"path": str(file)}) as rig:
        spans = ModelSpans(columns=("carrier",), types=("categorical",))
        spans.add(cells[:1], [1])
        (span,) = rig.send(spans.chunk())
        assert next(a.value.string_value for a in span.attributes if a.key == "ml.input.summary") == "carrier=UA"
    assert from_json(file.read_text()).features[0].labels == ("UA",)


def test_answers_that_a_profile_lacks_are_learnt(tmp_path: Path) -> None:
    """A profile of the features alone is measured against at once; answers join it after learn_rows rows."""
    given = profile(source="fit")
    assert given.prediction is None
    (tmp_path / "fraud.json").write_text(to_json(given))
    with Rig(reference={"path": str(tmp_path), "learn_rows": 500}) as rig:
        spans = ModelSpans()
        rig.send(calls(spans, normal_rows(400, 0)))
        assert set(drift_rows(rig)) == {"a", "b"}
        rig.send(calls(spans, normal_rows(200, 1)))
        learnt = reference_of(rig)
        assert (learnt.source, learnt.rows, learnt.classes) == ("fit", 1000, ("no", "yes"))
        assert learnt.features is given.features or learnt.features[0].mean == given.features[0].mean
        rig.send(calls(spans, normal_rows(500, 2, shift=3)))
        rows = drift_rows(rig)
        assert set(rows) == {"a", "b", "prediction", "score"}
        assert rows["prediction"]["psi"] > 1
        # Looking at the files again must not undo it.
        (tmp_path / "other.json").write_text(to_json(profile(name="other")))
        rig.flush()
        assert set(drift_rows(rig)) == {"a", "b", "prediction", "score"}
