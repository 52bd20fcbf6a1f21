"""A search that is not asked to speak says nothing, and Optuna's logging stays as it was."""

import logging
import threading

import joblib
import optuna
import pytest
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier, InnaSearchCV
from inna_tune.store.opening import create_study, open_storage
from inna_tune.store.quiet import without_messages
from tests.warm import OTHERS, Program

NET = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2)

ALONE = """
import sys
from sklearn.datasets import load_iris
from inna_tune import InnaClassifier, InnaSearchCV
net = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2)
for storage in (None, f"sqlite:///{sys.argv[1]}/s.db"):
    for n_trials in (1, 2):
        InnaSearchCV(net, n_trials=n_trials, cv=2, storage=storage, study_name="s", resume=True, verbose=0).fit(
            *load_iris(return_X_y=True)
        )
"""


def levels():
    optuna.logging.get_verbosity()
    loggers = [logging.getLogger(), logging.getLogger("optuna")]
    loggers += [
        logger
        for name, logger in logging.Logger.manager.loggerDict.items()
        if name.startswith("optuna") and isinstance(logger, logging.Logger)
    ]
    return {
        logger.name: (logger.level, logger.propagate, logger.disabled, list(logger.filters))
        for logger in loggers
    }


@pytest.fixture
def said():
    """What reaches the handlers of Optuna's root logger, whatever the tests have set of it."""
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record.getMessage())

    logger, handler = logging.getLogger("optuna"), Keep()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield records
    logger.setLevel(before)
    logger.removeHandler(handler)


def test_a_process_of_its_own_prints_nothing(tmp_path):
    with Program(ALONE, tmp_path, loaded=OTHERS) as program:
        said = program.communicate()
    assert (*said, program.returncode) == ("", "", 0)


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("storage", ["memory", "SQLite"])
def test_a_search_says_nothing_and_changes_nothing(storage, n_jobs, tmp_path, said, capfd):
    before = levels()
    url = None if storage == "memory" else f"sqlite:///{tmp_path}/s.db"
    with joblib.parallel_config("threading"):
        for n_trials in (2, 3):
            InnaSearchCV(
                NET, n_trials=n_trials, cv=2, storage=url, study_name="s", resume=True, n_jobs=n_jobs
            ).fit(*load_iris(return_X_y=True))
    assert said == []
    assert levels() == before
    assert capfd.readouterr() == ("", "")


def test_also_after_an_error(said):
    before = levels()
    storage = open_storage(None)
    create_study(storage, "s", "maximize", resume=False)
    for name in ("s", "x" * 1000):
        with pytest.raises(ValueError, match="study"):
            create_study(storage, name, "maximize", resume=False)
    assert levels() == before
    assert said == []


def test_other_threads_are_heard_meanwhile(said):
    inside, spoken = threading.Event(), threading.Event()
    before = levels()

    def speak():
        assert inside.wait(60)
        optuna.create_study(study_name="of another thread")
        spoken.set()

    thread = threading.Thread(target=speak)
    thread.start()
    with without_messages():
        with without_messages():
            optuna.create_study(study_name="kept back")
        inside.set()
        assert spoken.wait(60)
        optuna.create_study(study_name="kept back, too")
        logging.getLogger("optuna.study.study").warning("a warning is heard")
    thread.join()
    optuna.create_study(study_name="of this thread, later")
    assert [text.split(": ")[-1] for text in said] == [
        "of another thread",
        "a warning is heard",
        "of this thread, later",
    ]
    assert levels() == before
