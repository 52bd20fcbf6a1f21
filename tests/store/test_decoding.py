"""A database whose cells hold what nobody writes: one error of the storage, and the other studies are still there."""

import contextlib
import json
import sqlite3

import optuna
import pytest
from optuna.study import StudyDirection

from inna_tune.records.overview import UNREADABLE, describe_study, list_studies
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import open_storage
from inna_tune.store.transfer import export_study, import_studies
from inna_tune.strangers_json import loads
from tests.plots.studies import make_study

DEEP = "[" * 100_000 + "]" * 100_000
BAD = {
    "a deep attribute of a study": ("UPDATE study_user_attributes SET value_json=? WHERE study_id=1", DEEP),
    "a less deep one": (
        "UPDATE study_user_attributes SET value_json=? WHERE study_id=1",
        "[" * 300 + "]" * 300,
    ),
    "no JSON in a study": ("UPDATE study_user_attributes SET value_json=? WHERE study_id=1", "{"),
    "a direction": ("UPDATE study_directions SET direction=? WHERE study_id=1", "SIDEWAYS"),
    "a state": ("UPDATE trials SET state=? WHERE study_id=1", "LOST"),
    "a time": ("UPDATE trials SET datetime_start=? WHERE study_id=1", "yesterday"),
    "a deep attribute of a trial": ("UPDATE trial_user_attributes SET value_json=? WHERE trial_id=1", DEEP),
    "a distribution": ("UPDATE trial_params SET distribution_json=? WHERE trial_id=1", '{"name": "X"}'),
    "a distribution without bounds": (
        "UPDATE trial_params SET distribution_json=? WHERE trial_id=1",
        '{"name": "FloatDistribution", "attributes": {}}',
    ),
    "a number that overflows": ("UPDATE trial_user_attributes SET value_json=? WHERE trial_id=1", "9" * 5000),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "studies.db"
    for name in ("broken", "whole"):
        make_study(2, name=name, failures=False, storage=f"sqlite:///{path}")
    return path.read_bytes()


@pytest.mark.parametrize("what", BAD)
def test_one_study_that_cannot_be_read_leaves_the_others(what, made, tmp_path):
    path = tmp_path / "studies.db"
    path.write_bytes(made)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(BAD[what][0], BAD[what][1:])
        connection.commit()
    url = f"sqlite:///{path}"
    rows = {row.name: row for row in list_studies(url)}
    assert (rows["broken"].metric, rows["broken"].complete) == (UNREADABLE, 0)
    assert rows["whole"].complete == 2
    with pytest.raises(StorageError, match="holds what no version writes") as told:
        describe_study(url, "broken")
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 500
    with pytest.raises(StorageError):
        export_study(url, "broken", tmp_path / "sent.db")
    assert describe_study(url, "whole").row.complete == 2
    assert export_study(url, "whole", tmp_path / "sent.db").n_trials == 2


def test_a_study_whose_name_is_no_text_hides_no_other(made, tmp_path):
    path = tmp_path / "studies.db"
    path.write_bytes(made)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE studies SET study_name=? WHERE study_id=1", (b"\xff\x00b",))
        connection.commit()
    url = f"sqlite:///{path}"
    rows = {row.name: row for row in list_studies(url)}
    odd = next(name for name in rows if name != "whole")
    assert isinstance(odd, str)
    assert rows[odd].metric == UNREADABLE
    assert rows["whole"].complete == 2
    with pytest.raises(StorageError, match="no study"):
        describe_study(url, odd)
    with pytest.raises(StorageError, match="no text"):
        import_studies(f"sqlite:///{tmp_path}/other.db", path)
    assert import_studies(f"sqlite:///{tmp_path}/other.db", path, only="whole")


def test_a_study_that_cannot_be_read_is_listed_by_its_name(made, tmp_path):
    path = tmp_path / "studies.db"
    path.write_bytes(made)
    storage = open_storage(f"sqlite:///{path}")
    before = storage.get_all_studies()
    plain = optuna.storages.RDBStorage(f"sqlite:///{path}").get_all_studies()
    assert [vars(study) for study in before] == [vars(study) for study in plain]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE study_directions SET direction='SIDEWAYS' WHERE study_id=1")
        connection.commit()
    broken, whole = open_storage(f"sqlite:///{path}").get_all_studies()
    assert (broken.study_name, broken.directions) == ("broken", [StudyDirection.NOT_SET])
    assert vars(whole) == vars(before[1])
    with pytest.raises(StorageError):
        open_storage(f"sqlite:///{path}").get_study_directions(1)


def test_how_deep_it_is_does_not_depend_on_brackets_in_texts():
    texts = {"a": "[" * 500, 'b"\\': '\\"' + "{" * 500}
    assert loads(json.dumps(texts)) == texts
    assert loads(json.dumps([[0]] * 500)) == [[0]] * 500
    with pytest.raises(ValueError, match="over 100 deep"):
        loads(json.dumps(texts)[:-1] + ', "c": ' + "[" * 101 + "]" * 101 + "}")
