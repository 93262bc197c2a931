"""What is there after a restart: everything after an orderly end; the last save and every label after a kill."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlspan.profile import to_json
from mlspan_processor.model_spans import ModelSpans, feedback_logs, feedback_spans, prediction_id
from mlspan_processor.records import Chunk
from mlspan_processor.reference import write
from tests.processor.helpers import Rig, normal_rows, spans_of, values_of
from tests.processor.store.kept import as_killed, calls_of, counted, kept, report, save, submit


def test_an_orderly_restart_changes_nothing(tmp_path: Path) -> None:
    """Drift, quality, reference and counts are exactly those from before, and labels go on joining."""
    spans = ModelSpans()
    with kept(tmp_path) as rig:
        for seed in range(5):
            chunk, ids = calls_of(spans, 100, seed, shift=seed / 10)
            spans.next_end += 20 * 10**9
            rig.clock.advance(20)
            rig.send(chunk)
            submit(rig, ids[::2], "yes")
        before, status = report(rig), rig.connector.status()["labels"]["pending_predictions"]
        assert before["quality"]["labels"] == 250
        assert before["drift"]["rows"] == 400
    with kept(tmp_path) as rig:
        assert report(rig) == before
        assert rig.connector.status()["labels"]["pending_predictions"] == status == 500
        assert submit(rig, ids) == {"joined": 50, "duplicate": 50}
        assert submit(rig, ids, "no") == {"conflicting": 100}


def test_a_killed_processor_goes_on_as_one_that_was_not(tmp_path: Path) -> None:
    """Saved statistics, and all labels: with what is sent again, the reports of both are the same."""
    first, second = ModelSpans(), ModelSpans()
    with kept(tmp_path) as rig, Rig(reference={"learn_rows": 100}) as whole:
        saved, ids = calls_of(first, 300, 0)
        lost, lost_ids = calls_of(first, 100, 1)
        for one in (rig, whole):
            one.send(saved)
            submit(one, ids[:50])
        assert save(rig)
        rig.send(lost)
        for one in (rig, whole):
            submit(one, ids[50:100], "no")
            one.send(feedback_logs([(text, "yes") for text in ids[100:150]]))
            one.send(feedback_spans([(text, "no") for text in ids[150:200]]))
        submit(rig, lost_ids[:10])
        left = as_killed(tmp_path, tmp_path / "killed")
        with kept(left) as again:
            assert report(again) == report(whole)
            assert submit(again, [*ids[:200]]) == {"duplicate": 100, "conflicting": 100}
            # What was predicted after the save is not known; labels that came for it wait.
            assert again.connector.status()["labels"]["waiting_now"] == 10
            for one in (again, whole):
                one.send(lost)
            assert submit(whole, lost_ids[:10]) == {"joined": 10}
            chunk, more = calls_of(second, 50, 2)
            for one in (again, whole):
                one.send(chunk)
                submit(one, more)
            assert report(again) == report(whole)


def test_labels_count_once_however_often_it_is_killed(tmp_path: Path) -> None:
    """The journal is applied again after each kill, ends with the save that holds its effect, and counts once."""
    spans = ModelSpans()
    with kept(tmp_path) as rig:
        chunk, ids = calls_of(spans, 100, 0)
        rig.send(chunk)
        save(rig)
        submit(rig, ids)
        assert rig.counters()["store_journal_requests"] == 1
        place = as_killed(tmp_path, tmp_path / "0")
    for number in range(1, 4):
        with kept(place) as rig:
            assert report(rig)["quality"]["labels"] == 100
            assert rig.counters()["store_journal_requests"] == 1
            place = as_killed(place, tmp_path / str(number))
            save(rig)
            assert rig.counters()["store_journal_requests"] == 0


def test_counts_of_labels_go_on(tmp_path: Path) -> None:
    """They are those of all processes: after an end as they were, after a kill as saved and with the journal, once."""
    spans = ModelSpans()
    with kept(tmp_path) as rig:
        chunk, ids = calls_of(spans, 100, 0)
        rig.send(chunk)
        submit(rig, ids[:40])
        submit(rig, ids[:5])
        submit(rig, ids[:3], "no")
        submit(rig, ["never"])
        before = counted(rig)
        assert before == {"joined": 40, "waiting": 1, "duplicate": 5, "conflicting": 3}
    with kept(tmp_path) as rig:
        assert counted(rig) == before
        # A counter with a new start time begins anew.
        assert rig.counters()["labels_joined"] == 0
        submit(rig, ids[40:50])
        place = as_killed(tmp_path, tmp_path / "0")
    for number in range(1, 3):
        with kept(place) as rig:
            assert counted(rig) == {**before, "joined": 50}
            if number == 2:
                assert save(rig)
            place = as_killed(place, tmp_path / str(number))
    with kept(place) as rig:
        assert counted(rig) == {**before, "joined": 50}


@pytest.mark.parametrize("how", ["spans", "logs"])
def test_feedback_is_written_down_before_it_is_acknowledged(tmp_path: Path, how: str) -> None:
    """When `consume` has returned, the label survives, though nobody has looked at it yet."""
    spans = ModelSpans()
    chunk, ids = calls_of(spans, 10, 0)
    with kept(tmp_path) as rig:
        rig.send(chunk)
        save(rig)
        pairs = [(text, "yes") for text in ids]
        rig.connector.consume(feedback_spans(pairs) if how == "spans" else feedback_logs(pairs))
        with kept(as_killed(tmp_path, tmp_path / "killed")) as again:
            assert submit(again, ids) == {"duplicate": 10}


def test_predictions_beside_labels_in_one_request_are_not_lost(tmp_path: Path) -> None:
    """A request in the journal is applied as a whole: its model spans count too, once."""
    chunk, ids = calls_of(ModelSpans(), 150, 0)
    with kept(tmp_path) as rig:
        both = Chunk(chunk.signal, chunk.data + feedback_spans([(ids[0], "yes")]).data, 151)
        rig.send(both)
        with kept(as_killed(tmp_path, tmp_path / "killed")) as again:
            assert report(again) == report(rig)
            again.send(chunk)  # a sender that has got no answer sends again
            assert report(again)["spans"] == 150


def test_requests_with_labels_are_handed_on_again_after_a_kill(tmp_path: Path) -> None:
    """Those whose effect was not saved go on again, enriched and once for each kill; those that were saved do not."""
    chunk, ids = calls_of(ModelSpans(), 20, 0)
    labels = feedback_spans([(ids[0], "yes")])
    with kept(tmp_path) as rig:
        rig.send(Chunk(chunk.signal, chunk.data + labels.data, 21))
        rig.send(feedback_logs([(ids[1], "no")]))
        left = as_killed(tmp_path, tmp_path / "killed")
        assert save(rig)
        saved = as_killed(tmp_path, tmp_path / "saved")
    with kept(left) as again:
        [first] = again.traces.chunks
        assert first.items == 21
        assert not any("ml.payload" in values_of(span) for span in spans_of(first))
        assert [one.items for one in again.logs.chunks] == [1]
        assert submit(again, ids[:2]) == {"duplicate": 1, "conflicting": 1}
    with kept(saved) as again:
        assert again.traces.chunks == []


def test_spans_that_come_again_after_a_restart_count_once(tmp_path: Path) -> None:
    """Those with predictions are known again."""
    chunk, _ = calls_of(ModelSpans(), 200, 0)
    with kept(tmp_path) as rig:
        rig.send(chunk)
    with kept(tmp_path) as rig:
        rig.send(chunk)
        assert rig.counters()["duplicate_spans"] == 200
        assert report(rig)["rows"] == 200


def test_learning_goes_on(tmp_path: Path) -> None:
    """The rows of a reference that is not complete survive; the reference is that of an uninterrupted run."""
    spans = ModelSpans()
    with Rig(reference={"learn_rows": 100}) as whole:
        for seed in range(4):
            chunk, _ = calls_of(spans, 30, seed)
            whole.send(chunk)
            with kept(tmp_path) as rig:
                rig.send(chunk)
                if seed < 3:
                    assert report(rig)["reference"]["rows"] == 30 * (seed + 1)
                else:
                    assert profile_of(rig) == profile_of(whole)


def profile_of(rig: Rig) -> str:
    """The reference of fraud@7."""
    reference = rig.connector._state.models["fraud", "7"].reference
    assert reference is not None
    return to_json(reference.profile)


def test_a_reference_from_a_file(tmp_path: Path) -> None:
    """Panes against the same file are kept; against another one they are not, quality stays."""
    spans, file = ModelSpans(), tmp_path / "fraud.json"
    with Rig(reference={"learn_rows": 100}) as learner:
        learner.send(calls_of(ModelSpans(seed=9), 100, 7)[0])
        profile = learner.connector._state.models["fraud", "7"].given
        assert profile is not None
        write(profile, file)
    settings = {"reference": {"path": str(file), "learn_rows": 100}}
    with kept(tmp_path, **settings) as rig:
        chunk, ids = calls_of(spans, 50, 0)
        rig.send(chunk)
        submit(rig, ids)
        before = report(rig)
        assert before["drift"]["rows"] == 50
    with kept(tmp_path, **settings) as rig:
        assert report(rig) == before
    with Rig(reference={"learn_rows": 100}) as learner:
        learner.send(calls_of(ModelSpans(seed=8), 100, 8)[0])
        other = learner.connector._state.models["fraud", "7"].given
        assert other is not None
        write(other, file)
    for _ in range(2):
        with kept(tmp_path, **settings) as rig:
            assert report(rig)["drift"]["rows"] == 0
            assert report(rig)["quality"] == before["quality"]


def test_answers_that_are_learnt_leave_the_features_counts(tmp_path: Path) -> None:
    """When a file's profile lacks the answers, the drift of the features goes on while they are learnt, and after."""
    file = tmp_path / "fraud.json"
    with Rig(reference={"learn_rows": 100}) as learner:
        learner.send(calls_of(ModelSpans(seed=9), 100, 7)[0])
        profile = learner.connector._state.models["fraud", "7"].given
        assert profile is not None
        write(replace(profile, prediction=None, score=None), file)
    settings = {"reference": {"path": str(file), "learn_rows": 100}}
    spans = ModelSpans()
    with kept(tmp_path, **settings) as rig:
        rig.send(calls_of(spans, 60, 0)[0])
    with kept(tmp_path, **settings) as rig:
        rig.send(calls_of(spans, 60, 1)[0])
        rig.send(calls_of(spans, 30, 2)[0])
        before = report(rig)["drift"]
        rows = {row["name"]: row["rows"] for row in before["features"]}
        assert (rows["a"], rows["b"], rows["prediction"], rows["score"]) == (150, 150, 30, 30)
        place = as_killed(tmp_path, tmp_path / "killed") if save(rig) else tmp_path
    with kept(place, **settings) as rig:
        assert report(rig)["drift"] == before


def test_scores_and_late_answers_survive(tmp_path: Path) -> None:
    """Rows of several widths of scores, and a row whose probability came after it was saved."""
    two, three = ModelSpans(), ModelSpans(model="three", classes=("a", "b", "c"), seed=3)
    with kept(tmp_path) as rig, Rig(reference={"learn_rows": 100}) as whole:
        row = normal_rows(1, 0)
        ids = [prediction_id(three.add(row, [2], np.array([[0.1, 0.3, 0.6]], np.float32))) for _ in range(3)]
        two.add(row, [1], ids=["order-1"])
        chunks = [three.chunk(), two.chunk(), *(calls_of(two, 5, 1)[0],)]
        for one in (rig, whole):
            one.send(*chunks)
        save(rig)
        two.add(row, None, np.array([[0.25, 0.75]], np.float32), operation="predict_proba", ids=["order-1"])
        late = two.chunk()
        for one in (rig, whole):
            one.send(late)
        save(rig)
        with kept(as_killed(tmp_path, tmp_path / "killed")) as again:
            for one in (again, whole):
                assert submit(one, [*ids, "order-1"], "c") == {"joined": 4}
            for model in ("fraud", "three"):
                assert report(again, model) == report(whole, model)
            assert report(again)["quality"]["realised"]["brier"]["value"] == pytest.approx(0.0625 * 9)


def test_many_small_saves_of_labels(tmp_path: Path) -> None:
    """Labels that come a few at a time, over hundreds of saves, are all there in the end."""
    spans = ModelSpans()
    with kept(tmp_path) as rig:
        chunk, ids = calls_of(spans, 200, 0)
        rig.send(chunk)
        save(rig)
        for text in ids:
            submit(rig, [text])
            save(rig)
    with kept(tmp_path) as rig:
        assert submit(rig, ids) == {"duplicate": 200}
        assert report(rig)["quality"]["labels"] == 200


def test_waiting_labels_survive(tmp_path: Path) -> None:
    """Labels without a prediction wait on, for as long as they would have, and join."""
    chunk, ids = calls_of(ModelSpans(), 20, 0)
    with kept(tmp_path, labels={"wait": "1h"}) as rig:
        assert submit(rig, ids[:10]) == {"waiting": 10}
        rig.clock.advance(1800)
        assert submit(rig, ids[10:]) == {"waiting": 10}
        now = rig.clock.now
    with kept(tmp_path, labels={"wait": "1h"}) as rig:
        rig.clock.now = now
        assert submit(rig, ids) == {"duplicate": 20}
        rig.clock.advance(1900)
        rig.flush()
        assert rig.connector.status()["labels"]["waiting_now"] == 10
        rig.send(chunk)
        assert rig.counters()["labels_joined"] == 10
        end = rig.clock.now
    with kept(tmp_path, labels={"wait": "1h"}) as rig:
        rig.clock.now = end
        assert submit(rig, ids[10:]) == {"duplicate": 10}


def test_what_is_forgotten_stays_forgotten(tmp_path: Path) -> None:
    """A model that was idle is gone from the file; its predictions do not become another model's."""
    with kept(tmp_path, window={"idle": "1h"}) as rig:
        chunk, ids = calls_of(ModelSpans(model="gone"), 150, 0)
        rig.send(chunk)
        save(rig)
        rig.clock.advance(4000)
        rig.flush()
        now = rig.clock.now
    for _ in range(2):
        with kept(tmp_path, window={"idle": "1h"}) as rig:
            rig.clock.now = now
            spans = ModelSpans(model="new", seed=5)
            spans.next_end = now
            rig.send(calls_of(spans, 5, 0)[0])
            assert [model["name"] for model in rig.connector.status()["models"]] == ["new"]
            assert submit(rig, ids[:3]) in ({"waiting": 3}, {"duplicate": 3})


def test_time_away_does_not_make_a_model_idle(tmp_path: Path) -> None:
    """A processor that was down for a week still knows its models' references."""
    with kept(tmp_path) as rig:
        rig.send(calls_of(ModelSpans(), 150, 0)[0])
        now = rig.clock.now
    rig = kept(tmp_path)
    rig.clock.now = now + 30 * 86400 * 10**9
    rig.connector = type(rig.connector)(rig.connector.config, "mlspan", rig.clock)
    with rig:
        rig.connector.flush()
        assert report(rig)["reference"]["state"] == "ready"
        rig.clock.advance(2 * 86400)
        rig.connector.flush()
        assert rig.connector.status()["models"] == []


def test_another_capacity(tmp_path: Path) -> None:
    """A smaller ring keeps the newest predictions, a larger one all that are there."""
    spans = ModelSpans()
    with kept(tmp_path, labels={"capacity": 100}) as rig:
        chunk, ids = calls_of(spans, 250, 0)
        rig.send(chunk)
    with kept(tmp_path, labels={"capacity": 30}) as rig:
        assert rig.connector.status()["labels"]["pending_predictions"] == 30
        assert submit(rig, ids[-31:-10])["joined"] == 20
    with kept(tmp_path, labels={"capacity": 1000}) as rig:
        chunk, more = calls_of(spans, 250, 1)
        rig.send(chunk)
        assert submit(rig, [*ids[-30:], *more]) == {"joined": 260, "duplicate": 20}


def test_panes_of_another_width_and_number(tmp_path: Path) -> None:
    """Settings may change between runs: no row is lost."""
    spans = ModelSpans()
    with kept(tmp_path, window={"pane": "1s", "min_rows": 10_000}) as rig:
        for seed in range(30):
            spans.next_end += 10**9
            rig.clock.advance(1)
            rig.send(calls_of(spans, 10, seed)[0])
        now = rig.clock.now
    with kept(tmp_path, window={"pane": "7s", "max_panes": 4, "min_rows": 10_000}) as rig:
        rig.clock.now = now
        assert report(rig)["drift"]["rows"] == 200
        rig.send(calls_of(spans, 10, 99)[0])
        assert report(rig)["drift"]["rows"] == 210


def test_sections_are_kept_with_the_rest(tmp_path: Path) -> None:
    """What parts put comes back; what they delete does not; `save` writes at once."""
    with kept(tmp_path) as rig:
        sections = rig.connector._state.sections
        sections.before_save(lambda: sections.put("mine", "always", b"1"))
        sections.put("mine", "a", b"x")
        sections.put("mine", "b", b"y")
        save(rig)
        sections.delete("mine", "a")
        sections.put("mine", "b", b"z")
        killed = as_killed(tmp_path, tmp_path / "killed")
    with kept(killed) as rig:
        assert rig.connector._state.sections.load("mine") == {"a": b"x", "b": b"y", "always": b"1"}
    with kept(tmp_path) as rig:
        assert rig.connector._state.sections.load("mine") == {"b": b"z", "always": b"1"}


def test_without_a_store_nothing_is_written(tmp_path: Path) -> None:
    """`path: ""` keeps all in memory, and sections keep nothing."""
    with kept(tmp_path, store={"path": ""}) as rig:
        rig.connector._state.sections.put("mine", "a", b"x")
        assert rig.connector._state.sections.load("mine") == {}
        assert rig.connector.status()["store"] == {"path": None, "problems": []}
    assert list(tmp_path.iterdir()) == []
