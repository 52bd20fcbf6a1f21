"""A device that is not there, or that torch cannot use: one clear message before anything is trained, and nothing lost."""

import pickle

import numpy as np
import optuna
import pytest
import torch
from sklearn.base import clone

from inna_tune import INNA, InnaClassifier, InnaSearchCV, cross_validate, load
from inna_tune.optim import calibrate

QUICK = {"hidden_layer_sizes": (4,), "max_epochs": 2, "random_state": 0}
X = np.random.default_rng(0).normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many CUDA devices, or with none and an error of torch's."""

    def of(devices, error=None, *, built=True):
        ones = torch.ones

        def made(*size, device=None, **options):
            if error is not None and torch.device(device or "cpu").type == "cuda":
                raise error
            return ones(*size, device=device, **options)

        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
        monkeypatch.setattr(torch, "ones", made)

    return of


TOO_OLD = RuntimeError(
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver.\nMore lines."
)
CASES = {
    "none": ("cuda", (0, RuntimeError("No CUDA GPUs are available")), "(No CUDA GPUs are available)"),
    "not built": ("cuda", (0, AssertionError("never asked")), f"(torch {torch.__version__} is built without CUDA)"),
    "seventh": ("cuda:7", (2, RuntimeError("CUDA error")), "(the CUDA devices here are cuda:0 to cuda:1)"),
    "driver": ("cuda", (0, TOO_OLD), "too old (found version 11040). Please update your GPU driver.)"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_in_one_line_that_says_what_to_do(case, machine):
    device, there, words = CASES[case]
    machine(*there, built=case != "not built")
    model = InnaClassifier(device=device, **QUICK)
    with pytest.raises(ValueError, match="set device='auto' or 'cpu'.$") as raised:
        model.fit(X, Y)
    assert words in str(raised.value)
    assert f"device={device!r}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not hasattr(model, "weights_")


def test_a_model_that_was_fitted_before_still_predicts(machine):
    model = InnaClassifier(**QUICK).fit(X, Y)
    before = model.predict_proba(X)
    machine(2, RuntimeError("CUDA error: invalid device ordinal"))
    with pytest.raises(ValueError, match="cuda:7"):
        model.set_params(device="cuda:7").fit(X, Y)
    assert np.array_equal(model.predict_proba(X), before)


def test_a_study_keeps_its_trials_and_goes_on(machine, tmp_path):
    storage = f"sqlite:///{tmp_path}/study.db"
    settings = {"cv": 2, "storage": storage, "study_name": "own", "random_state": 0}
    InnaSearchCV(InnaClassifier(**QUICK), n_trials=1, **settings).fit(X, Y)
    machine(1, RuntimeError("CUDA error: invalid device ordinal"))
    with pytest.raises(ValueError, match="device='cuda:7'"):
        InnaSearchCV(InnaClassifier(device="cuda:7", **QUICK), n_trials=2, resume=True, **settings).fit(X, Y)
    (trial,) = optuna.load_study(study_name="own", storage=storage).trials
    assert trial.state == optuna.trial.TrialState.COMPLETE
    search = InnaSearchCV(InnaClassifier(**QUICK), n_trials=2, resume=True, **settings).fit(X, Y)
    assert len(search.study_.trials) == 2


@pytest.mark.parametrize("optimizer", ["inna", "innaprop", "muon"])
def test_what_torch_makes_tensors_on_by_default_changes_nothing(optimizer, tmp_path):
    # Who says torch.set_default_device("cuda") means tensors of their own; the parameter device says where nets train.
    net = InnaClassifier(device="cpu", n_members=2, optimizer=optimizer, **QUICK)
    expected = clone(net).fit(X, Y).predict_proba(X)
    with torch.device("meta"):
        model = clone(net).fit(X, Y)
        model.save(tmp_path / "m.inna")
        np.testing.assert_array_equal(load(tmp_path / "m.inna").predict_proba(X), expected)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), expected)
        assert np.isfinite(model.partial_fit(X, Y).predict_proba(X)).all()


def test_a_search_goes_on_whatever_torch_makes_tensors_on():
    search = InnaSearchCV(
        InnaClassifier(device="cpu", n_members=1, **QUICK), n_trials=3, cv=2, random_state=0
    )
    expected = clone(search).set_params(refit="ensemble").fit(X, Y).predict_proba(X)
    with torch.device("meta"):
        found = clone(search).set_params(refit="ensemble").fit(X, Y).predict_proba(X)
    np.testing.assert_array_equal(found, expected)


def test_a_loop_of_ones_own_is_calibrated_whatever_torch_makes_tensors_on():
    weight, row = torch.ones(2, 3, requires_grad=True), torch.arange(6.0).view(2, 3)
    expected = calibrate(lambda: ((weight * row) ** 2).sum(), [weight], step_factors=[0.5])
    with torch.device("meta"):
        found = calibrate(lambda: ((weight * row) ** 2).sum(), [weight], step_factors=[0.5])
        optimizer = INNA([weight], lr=0.01)
        ((weight * row) ** 2).sum().backward()
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
    assert found == expected
    assert weight.isfinite().all()


def test_within_inference_mode_nets_train_all_the_same(tmp_path):
    # What is made there can be trained on outside, too.
    net = InnaClassifier(device="cpu", n_members=2, **QUICK)
    search = InnaSearchCV(clone(net).set_params(n_members=1), n_trials=2, cv=2, random_state=0)
    expected, tuned = clone(net).fit(X, Y), clone(search).fit(X, Y)
    scores = cross_validate(net, X, Y, cv=2)["test_score"]
    expected.save(tmp_path / "m.inna")
    with torch.inference_mode():
        fitted, found = clone(net).fit(X, Y), clone(search).fit(X, Y)
        models = {
            "fitted": fitted,
            "loaded": load(tmp_path / "m.inna"),
            "unpickled": pickle.loads(pickle.dumps(expected)),
        }
        np.testing.assert_array_equal(cross_validate(net, X, Y, cv=2)["test_score"], scores)
        np.testing.assert_array_equal(fitted.stationarity(X, Y), expected.stationarity(X, Y))
        assert torch.is_inference_mode_enabled()
    np.testing.assert_array_equal(found.predict_proba(X), tuned.predict_proba(X))
    for name, model in models.items():
        np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(X), err_msg=name)
        assert np.isfinite(model.partial_fit(X, Y).predict_proba(X)).all(), name
