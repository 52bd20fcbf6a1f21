"""The examples run, and do what they say."""

import ast
import functools
import importlib.util
import os
import sys
import warnings
from pathlib import Path

import optuna
import pytest

from inna_tune.store.opening import open_storage
from inna_tune.store.store import OWNER
from tests.store.test_postgres import server, url  # noqa: F401  (fixtures)
from tests.warm import Program

EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))

# What `main` returns, and the least of it that shows that something was learned.
LEAST_ACCURACY = {
    "quick_start": 0.9,
    "torch_own_loop": 0.9,
    "own_module": 0.9,
    "skorch_own_loop": 0.9,
    "lightning_own_loop": 0.2,  # share of the variance explained
}
MOST_LOG_LOSS = {"calibrated_pipeline": 0.3, "nested_cross_validation": 0.5}
# Run by tests/plugins/test_examples.py, where their frameworks are.
FOREIGN = {"autogluon_model", "flaml_learner", "optunahub_sampler", "ray_tune"}
OTHERS = {"sqlite_workers", "learn_a_prior", "postgres_workers", "dask_workers"}


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run an example's main in an empty folder, as a person's first script, but for names that are changed in it."""

    folder = tmp_path / "empty"
    folder.mkdir()

    def run(name, *arguments, **changes):
        monkeypatch.chdir(folder)
        # A process that the example starts has to find its functions by name.
        monkeypatch.syspath_prepend(EXAMPLES)
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        with warnings.catch_warnings():
            if name in {"skorch_own_loop", "lightning_own_loop"}:
                # What these libraries warn of is theirs to mend.
                warnings.simplefilter("ignore")
            else:
                warnings.simplefilter("error", UserWarning)
            spec.loader.exec_module(module)
            for changed, value in changes.items():
                monkeypatch.setattr(module, changed, value(getattr(module, changed)))
            result = module.main(*arguments)
        assert not list(folder.iterdir()), "an example leaves nothing behind"
        return result

    return run


def cheaper(kind):
    """An estimator that trains shorter, and fewer nets, than its example says."""

    @functools.wraps(kind, updated=())
    def make(**settings):
        shorter = {"max_epochs": 16, "hidden_layer_sizes": (8,)}
        return kind(
            **{"n_members": 1} | settings | {n: value for n, value in shorter.items() if n in settings}
        )

    return make


def test_every_example_is_run():
    assert {path.stem for path in FILES} == LEAST_ACCURACY.keys() | MOST_LOG_LOSS.keys() | OTHERS | FOREIGN


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_is(path):
    text = path.read_text()
    assert len(text.splitlines()) < 60
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("name", LEAST_ACCURACY)
def test_what_it_trains_learns(name, run):
    changes = {"InnaClassifier": cheaper} if name == "quick_start" else {}
    assert run(name, **changes) > LEAST_ACCURACY[name]


@pytest.mark.parametrize("name", MOST_LOG_LOSS)
def test_what_it_trains_knows_the_odds(name, run):
    assert run(name, InnaClassifier=cheaper) < MOST_LOG_LOSS[name]


def test_two_processes_share_a_resumed_study(run):
    trials = run("sqlite_workers")
    assert list(trials["number"]) == list(range(8))
    assert set(trials["state"]) <= {"complete", "pruned"}


@pytest.mark.slow  # starts a cluster of Dask's, as tests/study/test_parallel.py does in the suite
def test_workers_share_a_study_on_a_cluster(run):
    study = run("dask_workers", InnaClassifier=cheaper).study_
    assert [trial.number for trial in study.trials] == list(range(6))
    assert os.getpid() not in {trial.system_attrs[OWNER]["pid"] for trial in study.trials}


def test_a_learned_prior_is_tried_first(run):
    search = run(
        "learn_a_prior", NET=lambda net: net.set_params(hidden_layer_sizes=(4,), n_members=1, max_epochs=4)
    )
    portfolio = search.space.at(search.study_.user_attrs["inna_tune:curvature"])[1]
    untuned, *tried = [pytest.approx(trial.params["alpha"]) for trial in search.study_.trials]
    learned = [settings["alpha"] for settings in portfolio if settings["alpha"] != untuned]
    assert learned, "past studies found nothing better than the untuned setting"
    assert learned == tried[: len(learned)]


# From a process without threads, whose workers may be forks and load nothing; sqlite_workers starts its own as it says.
FORKING = """
import multiprocessing, sys
fork = multiprocessing.get_context("fork")
multiprocessing.get_context = lambda method: fork
sys.path.insert(0, sys.argv[1])
import postgres_workers
postgres_workers.main(sys.argv[2], 6)
"""


def test_workers_share_a_study_on_a_server(url, tmp_path):  # noqa: F811
    folder = tmp_path / "empty"
    folder.mkdir()
    with Program(FORKING, EXAMPLES, url, cwd=folder) as program:
        out, said = program.communicate()
    assert program.returncode == 0, said
    assert out.count("worker ") == 2
    assert not list(folder.iterdir()), "an example leaves nothing behind"
    study = optuna.load_study(study_name="wine", storage=open_storage(url))
    assert [trial.number for trial in study.trials] == list(range(6))
    assert {trial.state.name for trial in study.trials} <= {"COMPLETE", "PRUNED"}
