"""Studies leave a storage as a file of their own, and come in again as they were."""

import sqlite3

import optuna
import pytest
from optuna.trial import TrialState

from inna_tune.study import transfer
from inna_tune.study.storage import StorageError, open_storage
from inna_tune.study.transfer import export_study, import_studies
from inna_tune.study.workers import Worker, ask, resume_summary, tell


def url(folder, name):
    return f"sqlite:///{folder / name}"


@pytest.fixture
def study(tmp_path):
    """One trial of each state, with reports and attributes."""
    storage = open_storage(url(tmp_path, "studies.db"))
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
    return study


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
            t.system_attrs,
            t.datetime_start,
            t.datetime_complete,
        )
        for t in study.get_trials()
    ]


def load(folder, file, name):
    return optuna.load_study(study_name=name, storage=open_storage(url(folder, file)))


def test_a_study_comes_back_as_it_was(study, tmp_path):
    done = export_study(url(tmp_path, "studies.db"), "work", tmp_path / "work.db")
    assert (done.name, done.n_trials) == ("work", 5)
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
