"""PriorSampler in the hands of several threads, of several studies, and copied while it is at work."""

import copy
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler

from inna_tune.space import Categorical, LogNormal, PriorSampler, SearchSpace, Uniform, When

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

# No natural value of a number lies in [0, 1]: a place that is none shows.
SPACE = SearchSpace(
    {
        "lr": LogNormal(100.0, 0.5, low=10.0, high=1000.0),
        "law": Categorical(("power", "cosine", "none"), (0.5, 0.3, 0.2)),
        "power": When("law", ("power",), Uniform(2.0, 3.0)),
        "width": Uniform(5.0, 9.0),
    }
)
BASES = {
    "tpe": lambda seed: TPESampler(n_startup_trials=3, seed=seed),
    "tpe, constant liar": lambda seed: TPESampler(n_startup_trials=3, constant_liar=True, seed=seed),
    "tpe by parameter": lambda seed: TPESampler(n_startup_trials=3, multivariate=False, seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    "qmc": lambda seed: QMCSampler(seed=seed),
    "cma-es": lambda seed: CmaEsSampler(n_startup_trials=3, seed=seed),
    "gp": lambda seed: GPSampler(n_startup_trials=8, seed=seed),
}


class Watching(BaseSampler):
    """Passes on to another sampler, and writes down what it is shown that it should not see."""

    def __init__(self, inner):
        self.inner, self.wrong = inner, []

    def _look(self, study, trial):
        for shown in (*study.get_trials(deepcopy=False), trial):
            for name, value in shown.params.items():
                if name in SPACE and not (isinstance(value, float) and 0.0 <= value <= 1.0):
                    self.wrong.append((shown.number, name, value))
                if name == "study" and value != study.study_name:
                    self.wrong.append((shown.number, name, value))
            if shown.params.keys() != shown.distributions.keys():
                self.wrong.append((shown.number, shown.params.keys(), shown.distributions.keys()))

    def reseed_rng(self):
        self.inner.reseed_rng()

    def infer_relative_search_space(self, study, trial):
        self._look(study, trial)
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study, trial, search_space):
        self._look(study, trial)
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study, trial, param_name, param_distribution):
        self._look(study, trial)
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study, trial):
        self._look(study, trial)
        self.inner.before_trial(study, trial)

    def after_trial(self, study, trial, state, values):
        self._look(study, trial)
        self.inner.after_trial(study, trial, state, values)


@pytest.fixture
def threads_take_turns_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def objective(trial):
    config = SPACE.suggest(trial)
    trial.suggest_categorical("study", [trial.study.study_name])
    if trial.number % 7 == 3:
        raise optuna.TrialPruned
    return config["lr"] / 100.0 + config["width"]


def assert_natural(study, n_trials):
    assert [t.number for t in study.trials] == list(range(n_trials))
    for trial in study.trials:
        assert trial.state.is_finished()
        for name in trial.params.keys() & set(SPACE):
            distribution = SPACE.distribution(name)
            assert distribution._contains(distribution.to_internal_repr(trial.params[name]))


@pytest.mark.usefixtures("threads_take_turns_often")
@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("base", BASES)
def test_threads_of_one_study(base, seed):
    n_trials = 14 if base == "gp" else 40
    watching = Watching(BASES[base](seed))
    study = optuna.create_study(sampler=PriorSampler(watching, SPACE, seed=seed))
    study.optimize(objective, n_trials=n_trials, n_jobs=4)
    assert watching.wrong == []
    assert_natural(study, n_trials)


@pytest.mark.usefixtures("threads_take_turns_often")
@pytest.mark.parametrize("base", ["tpe", "cma-es"])
@pytest.mark.parametrize("n_studies", [2, 6])
def test_studies_in_threads_that_share_a_sampler_see_their_own_trials(base, n_studies):
    watching = Watching(BASES[base](0))
    sampler = PriorSampler(watching, SPACE)
    studies = [optuna.create_study(sampler=sampler) for _ in range(n_studies)]
    with ThreadPoolExecutor(n_studies) as pool:
        for done in [pool.submit(s.optimize, objective, n_trials=15, n_jobs=2) for s in studies]:
            done.result()
    assert watching.wrong == []
    for study in studies:
        assert_natural(study, 15)


@pytest.mark.usefixtures("threads_take_turns_often")
@pytest.mark.parametrize(
    "copier", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))], ids=["deepcopy", "pickle"]
)
def test_copies_made_while_threads_sample_work_alone(copier):
    sampler = PriorSampler(TPESampler(n_startup_trials=3), SPACE)
    study = optuna.create_study(sampler=sampler)
    ended = threading.Event()

    def work():
        try:
            study.optimize(objective, n_trials=40, n_jobs=2)
        finally:
            ended.set()

    copies = []
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        while not ended.is_set() or not copies:
            copies = [*copies, copier(sampler)][-3:]
        done.result()
    assert_natural(study, 40)
    for twin in copies:
        assert twin._lock is not sampler._lock
        other = optuna.create_study(sampler=twin)
        other.optimize(objective, n_trials=8, n_jobs=2)
        assert_natural(other, 8)


def test_a_constraints_function_may_ask_for_another_trial():
    asked = []

    def constraints(trial):
        if not asked:
            asked.append(SPACE.suggest(study.ask()))
        return (0.0,)

    with pytest.warns(FutureWarning, match="constraints_func"):
        sampler = PriorSampler(TPESampler(constraints_func=constraints), SPACE)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=1)
    assert asked[0].keys() >= {"lr", "law", "width"}


def test_a_trial_may_take_a_parameter_while_it_is_looked_at(monkeypatch):
    study = optuna.create_study(sampler=PriorSampler(TPESampler(n_startup_trials=1, seed=0), SPACE))
    first = study.ask()
    SPACE.suggest(first)
    under_way = study.get_trials(deepcopy=False)[0]
    is_placeable = SearchSpace.is_placeable

    def meanwhile(space, name, params):
        # What another thread does to the trial, between any two steps of this one.
        under_way.params[f"other {len(under_way.params)}"] = 1.0
        return is_placeable(space, name, params)

    monkeypatch.setattr(SearchSpace, "is_placeable", meanwhile)
    assert SPACE.suggest(study.ask())
    assert len(under_way.params) > len(SPACE)
