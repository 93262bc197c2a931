"""When the disk does not do its part: full, damaged, unreadable, too small; and that what goes wrong is told."""

import logging
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlspan_processor.errors import StartError
from mlspan_processor.model_spans import ModelSpans, feedback_logs
from mlspan_processor.settings import MlspanSettings
from mlspan_processor.store.opening import open_keeper, state_file, user_state_dir
from tests.processor.helpers import Rig
from tests.processor.store.kept import NAME, as_killed, calls_of, kept, report, save, submit


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """No file may grow beyond what the log has now."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(file.stat().st_size for file in folder.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def problems(rig: Rig) -> list[str]:
    """What the connector tells health."""
    return rig.connector.problems()


def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It runs on, says once what is not durable, and writes everything once there is room."""
    spans = ModelSpans()
    with kept(tmp_path) as rig:
        chunk, ids = calls_of(spans, 200, 0)
        rig.send(chunk)
        assert save(rig)
        assert problems(rig) == []
        with full_disk(tmp_path):
            for seed in range(1, 4):
                chunk, more = calls_of(spans, 200, seed)
                rig.send(chunk)
                ids += more
                assert not save(rig)
            receipts = [rig.connector.submit_labels([]).durable for _ in range(2)]
            assert receipts == [False, False]
            assert submit(rig, ids[:700]) == {"joined": 700}
            rig.send(feedback_logs([(text, "yes") for text in ids[700:]]))
            (problem,) = problems(rig)
            assert "state could not be saved" in problem
            assert str(tmp_path / NAME) in problem
            counters = rig.counters()
            assert (counters["store_failed_saves"], counters["store_requests_not_durable"]) == (3, 4)
        assert len([one for one in caplog.records if one.levelno == logging.ERROR]) == 2  # saves, and labels
        assert save(rig)
        assert problems(rig) == []
        assert "state is on disk again" in caplog.text
        before = report(rig)
        assert before["quality"]["labels"] == 800
        with kept(as_killed(tmp_path, tmp_path / "killed")) as again:
            assert report(again) == before
            assert submit(again, ids) == {"duplicate": 800}


def test_labels_say_whether_they_are_durable(tmp_path: Path) -> None:
    """With a store and room a receipt says so; in memory it does not."""
    with kept(tmp_path) as rig, Rig() as other:
        assert rig.connector.submit_labels([]).durable
        assert not other.connector.submit_labels([]).durable


def test_a_file_that_is_damaged_while_it_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is put aside, and everything is written into a new one, what parts have put included."""
    with kept(tmp_path) as rig:
        chunk, ids = calls_of(ModelSpans(), 300, 0)
        rig.send(chunk)
        rig.connector._state.sections.put("mine", "a", b"x")
        submit(rig, ids[:100])
        submit(rig, ["nobody"])
        save(rig)
        submit(rig, ids[100:150])
        keeper = rig.connector._keeper
        assert keeper is not None
        keeper._rewrite(rig.connector._state, sqlite3.DatabaseError("database disk image is malformed"))
        assert save(rig)
        submit(rig, ids[150:200])
        before = report(rig)
        with kept(as_killed(tmp_path, tmp_path / "killed")) as again:
            assert report(again) == before
            assert submit(again, [*ids[:200], "nobody"]) == {"duplicate": 201}
            assert again.connector._state.sections.load("mine") == {"a": b"x"}
    assert len(list(tmp_path.glob(f"{NAME}.damaged-*"))) == 1
    assert "state begins anew" in caplog.text


@pytest.mark.parametrize("what", ["no database", "no tables", "no blobs"])
def test_a_file_that_cannot_be_read(tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """The processor starts: without the file, or without what cannot be read in it; and the log says so."""
    with kept(tmp_path) as rig:
        rig.send(calls_of(ModelSpans(), 300, 0)[0])
        submit(rig, ["nobody"])
    path = tmp_path / NAME
    if what == "no database":
        path.write_bytes(b"x" * 5000)
    else:
        with sqlite3.connect(path) as db:
            if what == "no tables":
                db.execute("DROP TABLE prediction")
            else:
                for table in ("model", "pane", "prediction", "waiting"):
                    db.execute(f"UPDATE {table} SET data = 'x'")
        db.close()
    with kept(tmp_path) as rig:
        assert rig.connector.status()["models"] == []
        rig.send(calls_of(ModelSpans(), 300, 0)[0])
        assert save(rig)
        before = report(rig)
    with kept(tmp_path) as rig:
        assert report(rig) == before
    assert len(list(tmp_path.glob(f"{NAME}.damaged-*"))) == (what != "no blobs")
    assert "state begins anew" in caplog.text or "cannot be read and is left out" in caplog.text


def test_a_pane_that_cannot_be_read_costs_only_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The other panes, the reference and the predictions are there."""
    spans = ModelSpans()
    with kept(tmp_path, window={"min_rows": 10_000}) as rig:
        for seed in range(3):
            spans.next_end += 20 * 10**9
            rig.clock.advance(20)
            chunk, ids = calls_of(spans, 100, seed)
            rig.send(chunk)
        now = rig.clock.now
    with sqlite3.connect(tmp_path / NAME) as db:
        db.execute("UPDATE pane SET data = x'00' WHERE kind = 'drift' AND start = (SELECT max(start) FROM pane)")
    db.close()
    with kept(tmp_path, window={"min_rows": 10_000}) as rig:
        rig.clock.now = now
        assert report(rig)["drift"]["rows"] == 100
        assert submit(rig, ids) == {"joined": 100}
        assert rig.counters()["store_unreadable"] == 1
    assert "drift of ('fraud', '7') cannot be read and is left out" in caplog.text


def test_the_file_is_bounded(tmp_path: Path) -> None:
    """Beyond max_bytes the oldest predictions go, and are counted; the newest stay, and new ones come."""
    spans = ModelSpans()
    with kept(tmp_path, store={"max_bytes": 1024 * 1024}) as rig:
        everything: list[str] = []
        for seed in range(12):
            chunk, ids = calls_of(spans, 2500, seed)
            everything += ids
            rig.send(chunk)
            assert save(rig)
            assert rig.counters()["store_bytes"] < 1.4 * 1024 * 1024
        assert rig.counters()["store_dropped_predictions"] > 5_000
        assert submit(rig, everything[:10]) == {"joined": 10}  # they are still in memory
    with kept(tmp_path) as rig:
        assert submit(rig, everything[-100:]) == {"joined": 100}
        assert submit(rig, everything[:100]) == {"waiting": 100}


def test_retention(tmp_path: Path) -> None:
    """Panes and predictions that are older than the retention leave the file."""
    with kept(tmp_path, window={"retention": "1h"}) as rig:
        rig.send(calls_of(ModelSpans(), 20_000, 0)[0])
        rig.flush()
        save(rig)
        before = rig.counters()["store_bytes"]
        rig.clock.advance(4000)
        rig.flush()
        save(rig)
        save(rig)
        assert rig.counters()["store_bytes"] < before / 4
        with kept(as_killed(tmp_path, tmp_path / "killed"), window={"retention": "1h"}) as again:
            assert again.connector.status()["labels"]["pending_predictions"] == 0


def test_saves_at_intervals_and_for_a_long_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is due after the interval, or when many labels wait for it."""
    with kept(tmp_path, store={"snapshot_interval": "10s"}) as rig:
        rig.send(calls_of(ModelSpans(), 10, 0)[0])
        assert rig.counters()["store_saves"] == 0
        rig.clock.advance(11)
        rig.connector.flush()
        rig.connector.drain()
        saves = rig.counters()["store_saves"]
        assert saves == 1
        monkeypatch.setattr("mlspan_processor.store.keeper.JOURNAL_BYTES", 10)
        submit(rig, ["a", "b", "c"])
        rig.connector.flush()
        rig.connector.drain()
        assert rig.counters()["store_saves"] > saves
        assert rig.counters()["store_journal_requests"] == 0


def test_a_clock_that_is_set_back(tmp_path: Path) -> None:
    """Saves go on at their interval, not once the clock has caught up."""
    with kept(tmp_path, store={"snapshot_interval": "10s"}) as rig:
        keeper = rig.connector._keeper
        assert keeper is not None
        now = rig.clock.now
        assert not keeper.is_due(now + 5 * 10**9)
        assert keeper.is_due(now + 11 * 10**9)
        assert keeper.is_due(now - 3600 * 10**9)


def test_a_part_that_fails_costs_only_itself(tmp_path: Path) -> None:
    """What cannot be put is told, the rest is saved; what cannot be read back is left out."""
    with kept(tmp_path) as rig:
        rig.send(calls_of(ModelSpans(), 150, 0)[0])
        rig.connector._state.sections.put("mine", "a", b"x")
        rig.connector._state.sections.before_save(lambda: print(1 / 0))
        assert not save(rig)
        assert "division by zero" in problems(rig)[0]
        before = report(rig)
        with kept(as_killed(tmp_path, tmp_path / "killed")) as again:
            assert report(again) == before
            assert again.connector._state.sections.load("mine") == {"a": b"x"}


def test_which_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is named; else one a connector in the folder of the user's state; none without either."""
    settings = MlspanSettings()
    assert state_file(settings, "mlspan", None) is None
    assert state_file(settings, "mlspan", tmp_path) == tmp_path / "mlspan.db"
    assert state_file(settings, "mlspan/eu", tmp_path) == tmp_path / "mlspan_eu.db"
    assert state_file(MlspanSettings.model_validate({"store": {"path": ""}}), "mlspan", tmp_path) is None
    named = MlspanSettings.model_validate({"store": {"path": "~/x.db"}})
    monkeypatch.setenv("HOME", "/home/somebody")
    assert state_file(named, "mlspan", tmp_path) == Path("/home/somebody/x.db")
    monkeypatch.setenv("XDG_STATE_HOME", "/var/states")
    assert user_state_dir() == Path("/var/states/mlspan")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert user_state_dir() == Path("/home/somebody/.local/state/mlspan")


def test_a_file_that_cannot_be_used_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A named one ends the start; without a name state stays in memory, with a warning; a second user is refused."""
    (tmp_path / "file").write_text("")
    named = MlspanSettings.model_validate({"store": {"path": str(tmp_path / "file" / "x.db")}})
    with pytest.raises(
        StartError, match=r'connector "mlspan": the state file ".*x\.db" cannot be written: .*store::path'
    ):
        open_keeper(named, "mlspan", None)
    assert open_keeper(MlspanSettings(), "mlspan", tmp_path / "file") is None
    assert "state is in memory only" in caplog.text
    keeper = open_keeper(MlspanSettings(), "mlspan", tmp_path)
    assert keeper is not None
    with pytest.raises(
        StartError, match=r'connector "mlspan": another processor uses the state file ".*mlspan\.db"; name'
    ):
        open_keeper(MlspanSettings(), "mlspan", tmp_path)
    keeper.close()
