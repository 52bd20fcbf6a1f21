"""A new optimizer, and a new law of decay, is one record: all that knows the others knows it."""

import numpy as np
import optuna
import pandas as pd
import pytest
import torch

from inna_tune import InnaClassifier, InnaSearchCV, SearchSpace, load
from inna_tune.jobs.comparing import compare, space_of
from inna_tune.optim.decay import DECAY_LAWS, DecayLaw
from inna_tune.optim.optimizers import OPTIMIZERS, OptimizerRecord
from inna_tune.plots.training import decay_laws
from inna_tune.records.record import StudyRecord
from inna_tune.records.wording import describe_trial
from inna_tune.space import Categorical
from inna_tune.tables.problem import make_problem
from tests.study.test_search import PruneAll

SMALL = {"hidden_layer_sizes": (4,), "n_members": 1, "max_epochs": 4, "random_state": 0}


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=120) for name in "abc"}
    return pd.DataFrame(columns).assign(y=lambda f: np.where(f["a"] + f["b"] > 0, "yes", "no"))


class Bent(torch.optim.Optimizer):
    """Steps by the gradient, bent so that none is long, with a count a row of what it has stepped."""

    def __init__(self, rows, *, lr, weight_decay, bend):
        super().__init__(rows, {"lr": lr, "weight_decay": weight_decay, "bend": bend})

    def step(self, closure=None):
        (group,) = self.param_groups
        for row in group["params"]:
            if row.grad is not None:
                mean = self.state[row].setdefault("mean", torch.zeros_like(row))
                mean.lerp_(row.grad, 0.5)
                row.sub_(group["lr"] * (mean / group["bend"]).tanh())


@pytest.fixture
def toy_optimizer(monkeypatch):
    record = OptimizerRecord(
        Bent,
        usual={"lr": 0.05},
        options={"bend": 0.1},
        space={
            "lr": {"law": "LogUniform", "low": 0.01, "high": 0.1},
            "optimizer__bend": {"law": "Uniform", "low": 0.05, "high": 0.5},
        },
        describe=lambda lr, alpha, beta, curvature: f"bent steps of {lr:g}",
    )
    monkeypatch.setitem(OPTIMIZERS, "toy", record)
    return record


def test_an_estimator_is_trained_by_a_new_optimizer(toy_optimizer, frame, tmp_path):
    X, y = frame[["a", "b", "c"]], frame["y"]
    model = InnaClassifier(optimizer="toy", **SMALL | {"max_epochs": 20}).fit(X, y)
    assert model.score(X, y) > 0.8
    assert model.members_[0]["lr"] == 0.05
    model.save(tmp_path / "model.inna")
    assert (load(tmp_path / "model.inna").predict_proba(X) == model.predict_proba(X)).all()
    model.set_params(warm_start=True).fit(X, y)
    for _ in range(2):
        model.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"optimizer='toys'.*toy, or another class"):
        InnaClassifier(optimizer="toys").fit(X, y)


def test_a_new_optimizer_is_tuned_compared_and_described(toy_optimizer, frame):
    storage = optuna.storages.InMemoryStorage()
    found = compare(
        make_problem(frame, "y"),
        optimizers=["toy"],
        baselines=(),
        n_trials=3,
        n_fits=1,
        storage=storage,
        study_name="s",
        estimator=InnaClassifier(**SMALL),
    )
    toy = found.contenders[0]
    assert toy.scores["log-loss"] > 0
    assert {"lr", "optimizer__bend", "decay", "weight_decay", "dropout"} <= set(toy.settings)
    assert toy.words.startswith(f"bent steps of {toy.settings['lr']:g}; ")
    untuned = optuna.load_study(study_name="s-toy", storage=storage).trials[0].params
    assert (untuned["lr"], untuned["optimizer__bend"]) == (0.05, 0.1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_saved_with_its_model(name, frame, tmp_path):
    X, y = frame[["a", "b", "c"]], frame["y"]
    model = InnaClassifier(optimizer=name, **SMALL).fit(X, y)
    model.save(tmp_path / "model.inna")
    back = load(tmp_path / "model.inna")
    assert back.optimizer == name
    assert (back.predict_proba(X) == model.predict_proba(X)).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_space_is_of_settings_that_an_estimator_has(name):
    space = space_of(name)
    if space is None:
        return
    record = OPTIMIZERS[name]
    options = {f"optimizer__{option}" for option in record.options}
    for seed in range(5):
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
        setting = space.suggest(trial)
        assert set(setting) - options <= set(InnaClassifier().get_params())
        assert set(record.usual) <= set(setting)
        model = InnaClassifier(optimizer=name).set_params(**setting)
        model._check_parameters()


def test_the_documentation_names_every_optimizer_and_law():
    assert [n for n in (*OPTIMIZERS, *DECAY_LAWS) if f'"{n}"' not in InnaClassifier.__doc__] == []


def test_a_comparison_knows_every_optimizer_and_no_other(frame):
    with pytest.raises(ValueError, match="must be one of " + ", ".join(OPTIMIZERS)):
        compare(make_problem(frame, "y"), optimizers=["adam"], n_trials=1, storage=None, study_name="s")


HALVING = DecayLaw(lambda epoch, power, horizon: 0.5**epoch, words="the step halves every epoch")
# To a tenth at the horizon.
DOWN = DecayLaw(
    lambda epoch, power, horizon: 1 - 0.9 * (epoch / horizon) ** power, power=1.0, needs_horizon=True
)


def test_an_estimator_is_trained_by_a_new_law(monkeypatch, frame):
    monkeypatch.setitem(DECAY_LAWS, "toy", HALVING)
    X, y = frame[["a", "b", "c"]], frame["y"]
    model = InnaClassifier(decay="toy", lr=0.1, alpha=0.5, beta=0.1, **SMALL).fit(X, y)
    assert model.history_["lr"].tolist() == pytest.approx([0.1, 0.05, 0.025, 0.0125])
    with pytest.raises(ValueError, match=r"decay='toys'.*toy"):
        InnaClassifier(decay="toys").fit(X, y)


@pytest.mark.parametrize("law", [HALVING, DOWN])
def test_a_new_law_is_searched_over_pruned_described_and_plotted(monkeypatch, frame, law):
    monkeypatch.setitem(DECAY_LAWS, "toy", law)
    found = InnaSearchCV(
        InnaClassifier(**SMALL | {"max_epochs": 8}),
        SearchSpace({"decay": Categorical(("toy", "cosine", "constant"))}),
        first=[{"decay": "constant"}, {"decay": "toy"}, {"decay": "cosine"}],
        pruner=PruneAll(),  # but for the first
        n_trials=3,
        cv=2,
        random_state=0,
    ).fit(frame[["a", "b", "c"]], frame["y"])
    pruned = {t.params["decay"]: t.state.name == "PRUNED" for t in found.study_.trials}
    assert pruned == {"constant": False, "toy": True, "cosine": True}
    record = StudyRecord(found.study_)
    words = describe_trial(record, found.study_.trials[1])
    assert ("the step halves every epoch" if law is HALVING else "the step falls by the toy law") in words
    assert [axes.get_ylabel() for axes in decay_laws(found.study_).axes] == [
        "step size (share of the first one)"
    ]
