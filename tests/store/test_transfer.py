"""Studies leave a storage as a file of their own, and come in again as they were."""

import math
import os
import shutil
import sqlite3
import time
from contextlib import closing

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from sqlalchemy.engine import URL

from inna_tune.store import sqlite, transfer
from inna_tune.store.asking import ask, tell
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import open_storage, store_of
from inna_tune.store.store import OWNER
from inna_tune.store.transfer import export_study, import_studies
from inna_tune.store.workers import Worker, resume_summary


def url(folder, name):
    return URL.create("sqlite", database=str(folder / name)).render_as_string()


def close(study):
    study._storage._backend.engine.dispose()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file with one trial of each state, with reports and attributes, which each test copies."""
    folder = tmp_path_factory.mktemp("made")
    storage = open_storage(url(folder, "studies.db"))
    study = optuna.create_study(storage=storage, study_name="work", direction="maximize")
    study.set_user_attr("inna_tune:seed", 7)
    with Worker(storage) as worker:
        for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, None):
            trial = ask(study, worker, 10)
            trial.suggest_float("lr", 1e-3, 1.0, log=True)
            trial.suggest_categorical("decay", ["power", None, 3])
            trial.report(0.5, 2)
            trial.set_user_attr("scores", [0.25, 0.75])
            if state is not None:
                tell(study, worker, trial, 1.0 if state == TrialState.COMPLETE else None, state)
    study.enqueue_trial({"lr": 0.1})
    close(study)
    [file] = folder.glob("studies.db*")
    return file


@pytest.fixture
def study(made, tmp_path):
    shutil.copy(made, tmp_path)
    return load(tmp_path, "studies.db", "work")


def described(study):
    return [
        (
            t.number,
            t.state,
            t.values,
            t.params,
            t.distributions,
            t.intermediate_values,
            t.user_attrs,
            without_worker(t) if t.state == TrialState.RUNNING else t.system_attrs,
            t.datetime_start,
            t.datetime_complete,
        )
        for t in study.get_trials()
    ]


def without_worker(trial):
    owner = {key: value for key, value in trial.system_attrs[OWNER].items() if key != "id"}
    return trial.system_attrs | {OWNER: owner}


def load(folder, file, name):
    return optuna.load_study(study_name=name, storage=open_storage(url(folder, file)))


def test_a_study_comes_back_as_it_was(study, tmp_path):
    done = export_study(url(tmp_path, "studies.db"), "work", tmp_path / "work.db")
    assert (done.name, done.n_trials) == ("work", 5)
    assert sum(done.states.values()) == 5
    assert done.states["waiting"] == sum(t.state == TrialState.WAITING for t in study.trials) == 1
    assert "1 waiting" in done.words
    assert sorted(p.name for p in tmp_path.glob("*work*")) == ["work.db"]
    assert [d.name for d in import_studies(url(tmp_path, "other.db"), tmp_path / "work.db")] == ["work"]
    for file in ("work.db", "other.db"):
        copy = load(tmp_path, file, "work")
        assert described(copy) == described(study)
        assert copy.user_attrs == study.user_attrs
        assert copy.direction == study.direction
    plain = optuna.load_study(study_name="work", storage=url(tmp_path, "work.db"))
    assert plain.best_value == 1.0


def test_what_ran_when_it_was_exported_is_taken_up_again(study, tmp_path):
    export_study(url(tmp_path, "studies.db"), "work", tmp_path / "work.db")
    copy = load(tmp_path, "work.db", "work")
    assert resume_summary(copy, 10).left_behind == 1
    with Worker(copy._storage) as worker:
        trial = ask(copy, worker, 10)
        assert trial.number == 3
        assert trial.params == study.trials[3].params


def test_nothing_is_overwritten_unless_told(study, tmp_path):
    file = tmp_path / "work.db"
    file.write_text("mine")
    with pytest.raises(StorageError, match="there already"):
        export_study(url(tmp_path, "studies.db"), "work", file)
    assert file.read_text() == "mine"
    export_study(url(tmp_path, "studies.db"), "work", file, replace=True)
    assert described(load(tmp_path, "work.db", "work")) == described(study)


def test_a_name_that_is_taken_is_said_and_another_can_be_given(study, tmp_path):
    export_study(url(tmp_path, "studies.db"), "work", tmp_path / "work.db")
    with pytest.raises(StorageError, match="--as NAME"):
        import_studies(url(tmp_path, "studies.db"), tmp_path / "work.db")
    import_studies(url(tmp_path, "studies.db"), tmp_path / "work.db", rename="again")
    assert described(load(tmp_path, "studies.db", "again")) == described(study)


@pytest.mark.parametrize("existing", [None, "mine"])
def test_an_export_that_breaks_leaves_the_file_as_it_was(study, tmp_path, monkeypatch, existing):
    file = tmp_path / "work.db"
    if existing:
        file.write_text(existing)
    before = sorted(p.name for p in tmp_path.iterdir())
    monkeypatch.setattr(transfer.os, "replace", lambda *names: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        export_study(url(tmp_path, "studies.db"), "work", file, replace=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert not existing or file.read_text() == existing


def test_an_import_that_breaks_takes_nothing_in(study, tmp_path, monkeypatch):
    optuna.copy_study(
        from_study_name="work", from_storage=study._storage, to_storage=study._storage, to_study_name="work 2"
    )
    real, calls = transfer._copy, []

    def second_breaks(source, target, name):
        calls.append(name)
        if len(calls) == 2:
            raise OSError("disk full")
        return real(source, target, name)

    monkeypatch.setattr(transfer, "_copy", second_breaks)
    with pytest.raises(OSError, match="disk full"):
        import_studies(url(tmp_path, "other.db"), tmp_path / "studies.db")
    assert optuna.get_all_study_names(url(tmp_path, "other.db")) == []


def test_a_copy_that_breaks_in_the_middle_is_removed(study, tmp_path, monkeypatch):
    export_study(url(tmp_path, "studies.db"), "work", tmp_path / "work.db")
    target = open_storage(url(tmp_path, "other.db"))
    create, calls = type(target).create_new_trial, []

    def third_breaks(self, *arguments, **named):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return create(self, *arguments, **named)

    monkeypatch.setattr(type(target), "create_new_trial", third_breaks)
    with pytest.raises(KeyboardInterrupt):
        import_studies(url(tmp_path, "other.db"), tmp_path / "work.db")
    assert optuna.get_all_study_names(url(tmp_path, "other.db")) == []


def test_wrong_files_are_named(study, tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n1,2\n" * 100)
    with pytest.raises(StorageError, match="table.csv"):
        import_studies(url(tmp_path, "other.db"), tmp_path / "table.csv")
    with pytest.raises(StorageError, match="missing.db"):
        import_studies(url(tmp_path, "other.db"), tmp_path / "missing.db")
    with pytest.raises(StorageError, match="no study 'play'"):
        import_studies(url(tmp_path, "other.db"), tmp_path / "studies.db", only="play")
    with pytest.raises(StorageError, match="no study 'play'"):
        export_study(url(tmp_path, "studies.db"), "play", tmp_path / "play.db")
    with pytest.raises(StorageError, match="no folder"):
        export_study(url(tmp_path, "studies.db"), "work", tmp_path / "no" / "work.db")
    with pytest.raises(StorageError, match="is a folder"):
        export_study(url(tmp_path, "studies.db"), "work", tmp_path)
    assert not (tmp_path / "other.db").exists()


def test_several_studies_come_all_or_one_of_them(study, tmp_path):
    optuna.create_study(storage=study._storage, study_name="play")
    with pytest.raises(StorageError, match="several studies"):
        import_studies(url(tmp_path, "other.db"), tmp_path / "studies.db", rename="one")
    import_studies(url(tmp_path, "one.db"), tmp_path / "studies.db", only="play", rename="one")
    assert optuna.get_all_study_names(url(tmp_path, "one.db")) == ["one"]
    import_studies(url(tmp_path, "other.db"), tmp_path / "studies.db")
    assert sorted(optuna.get_all_study_names(url(tmp_path, "other.db"))) == ["play", "work"]


def test_an_export_is_one_file_without_a_log(study, tmp_path):
    export_study(url(tmp_path, "studies.db"), "work", tmp_path / "work.db")
    connection = sqlite3.connect(f"file:{tmp_path / 'work.db'}?mode=ro&immutable=1", uri=True)
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal"
    assert connection.execute("SELECT count(*) FROM trials").fetchone()[0] == 5
    connection.close()


def closed_copy(study, folder, name="work.db"):
    """An export, and no other file beside it."""
    folder.mkdir(exist_ok=True)
    export_study(url(study_folder(study), "studies.db"), "work", folder / name)
    return folder / name


def study_folder(study):
    return store_of(study).path.parent


@pytest.mark.parametrize("name", ["a b.db", "{a} ü%20?x=1#.db"])
def test_odd_file_names(study, tmp_path, name):
    file = closed_copy(study, tmp_path / "kept", name)
    assert os.listdir(file.parent) == [name]
    import_studies(url(tmp_path, name), file)
    assert described(load(tmp_path, name, "work")) == described(study)


def test_a_kept_file_is_only_read(study, tmp_path):
    file = closed_copy(study, tmp_path / "kept")
    logging = shutil.copy(file, file.parent / "log.db")
    with closing(sqlite3.connect(logging)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    before = {path.name: path.read_bytes() for path in file.parent.iterdir()}
    for name in ("work.db", "log.db"):
        import_studies(url(tmp_path, "other.db"), file.parent / name, rename=name)
    assert {path.name: path.read_bytes() for path in file.parent.iterdir()} == before


def test_values_that_are_not_finite_and_attributes_of_all_kinds_come_too(study, tmp_path):
    study.add_trial(
        optuna.create_trial(
            value=math.inf,
            params={"x": 0.1 + 0.2},
            distributions={"x": FloatDistribution(1e-5, 10.0, log=True)},
            intermediate_values={1: math.nan, 2: -math.inf, 3: 1e-300},
            user_attrs={"text": "ü\n", "none": None, "nested": {"a": [1, 2.5]}},
            system_attrs={"completed_rung_0": 0.5},
        )
    )
    study._storage.set_study_system_attr(study._study_id, "noted", [1, None, "ü"])
    file = closed_copy(study, tmp_path / "kept")
    copy = load(tmp_path / "kept", "work.db", "work")
    assert repr(described(copy)[-1]) == repr(described(study)[-1])
    assert copy._storage.get_study_system_attrs(copy._study_id) == {"noted": [1, None, "ü"]}
    close(copy)
    assert os.listdir(file.parent) == ["work.db"]


def test_what_still_runs_goes_on_and_is_in_the_copy_left_behind(study, tmp_path):
    with Worker(study._storage) as worker:
        running = ask(study, worker, 10)
        copy = load(tmp_path / "kept", closed_copy(study, tmp_path / "kept").name, "work")
        assert resume_summary(copy, 10).left_behind == 1
        with Worker(copy._storage) as other:
            # As on a server, where copy and original share the folder of locks.
            assert other.is_alive(copy.trials[running.number].system_attrs[OWNER]) is False
            assert copy.trials[running.number].system_attrs[OWNER]["attempt"] == 2
        assert tell(study, worker, running, 2.0)


def test_a_file_or_name_that_appears_meanwhile_is_not_replaced(study, tmp_path, monkeypatch):
    file = closed_copy(study, tmp_path / "kept")
    fsync, copy_study = os.fsync, optuna.copy_study

    def appear(number):
        fsync(number)
        (tmp_path / "late.db").write_text("mine")

    monkeypatch.setattr(os, "fsync", appear)
    with pytest.raises(StorageError, match="late.db is there already"):
        export_study(url(tmp_path, "studies.db"), "work", tmp_path / "late.db")
    assert (tmp_path / "late.db").read_text() == "mine"

    def begin(**named):
        copy_study(**named)
        optuna.create_study(storage=named["to_storage"], study_name="late")

    monkeypatch.setattr(optuna, "copy_study", begin)
    with pytest.raises(StorageError, match="has a study 'late' already"):
        import_studies(url(tmp_path, "other.db"), file, rename="late")
    assert optuna.get_all_study_names(url(tmp_path, "other.db")) == ["late"]
    assert load(tmp_path, "other.db", "late").trials == []


def test_without_links_a_file_appears_whole_too(study, tmp_path, monkeypatch):
    def impossible(*names):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", impossible)
    closed_copy(study, tmp_path / "kept")
    assert os.listdir(tmp_path / "kept") == ["work.db"]
    assert described(load(tmp_path / "kept", "work.db", "work")) == described(study)


def test_nobody_sees_a_half(study, tmp_path, monkeypatch):
    """Not even after a kill, when nothing can be cleaned up."""
    file = closed_copy(study, tmp_path / "kept")
    monkeypatch.setattr(sqlite.SQLiteFile, "rename", lambda *arguments: (_ for _ in ()).throw(SystemExit))
    monkeypatch.setattr(optuna, "delete_study", lambda **named: None)
    with pytest.raises(SystemExit):
        import_studies(url(tmp_path, "other.db"), file)
    [half] = optuna.get_all_study_names(url(tmp_path, "other.db"))
    assert half.startswith("work (importing ")
    monkeypatch.undo()
    import_studies(url(tmp_path, "other.db"), file)
    assert described(load(tmp_path, "other.db", "work")) == described(study)


@pytest.mark.parametrize("pages", [8, 60])
def test_a_full_disk_is_told_in_one_line_and_nothing_is_left(study, tmp_path, monkeypatch, pages):
    """Full while the tables are made, or while trials are copied."""

    class Full(sqlite._Connection):
        def __init__(self, path, *arguments, **named):
            super().__init__(path, *arguments, **named)
            if "studies.db" not in str(path):
                self.execute(f"PRAGMA max_page_count={pages}")

    study._storage.set_trial_user_attr(study.trials[3]._trial_id, "large", "x" * 500_000)
    file, folder = closed_copy(study, tmp_path / "kept"), tmp_path / "new"
    folder.mkdir()
    monkeypatch.setattr(sqlite, "_Connection", Full)
    monkeypatch.setattr(
        time, "sleep", lambda seconds: None
    )  # Optuna tries again, after up to two seconds each
    with pytest.raises(StorageError, match="copy.db: the disk is full") as raised:
        export_study(url(tmp_path, "studies.db"), "work", folder / "copy.db")
    assert "\n" not in str(raised.value)
    assert ".inna-tune-" not in str(raised.value)
    assert os.listdir(folder) == []
    with pytest.raises(StorageError, match="copy.db: the disk is full"):
        import_studies(url(folder, "copy.db"), file)
    if pages > 8:
        assert optuna.get_all_study_names(url(folder, "copy.db")) == []
    else:
        assert os.listdir(folder) == []


@pytest.mark.parametrize("name", ["", "x" * 513])
def test_names_that_cannot_be(study, tmp_path, name):
    with pytest.raises(StorageError, match="use 1 to 512"):
        import_studies(url(tmp_path, "other.db"), closed_copy(study, tmp_path / "kept"), rename=name)
    assert not (tmp_path / "other.db").exists()
    long = "x" * 512
    assert import_studies(url(tmp_path, "o.db"), tmp_path / "kept" / "work.db", rename=long)[0].name == long


def test_memory_keeps_nothing(study, tmp_path):
    with pytest.raises(StorageError, match="is memory"):
        import_studies("sqlite://", closed_copy(study, tmp_path / "kept"))
