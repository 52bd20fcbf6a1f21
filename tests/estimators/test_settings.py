"""No setting of another library changes what is fitted and predicted."""

import contextlib
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone

from inna_tune import InnaClassifier, InnaSearchCV
from tests.estimators.test_encoder import everything

NET = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2, random_state=0)


PANDAS = {
    "future.infer_string": False,
    "future.distinguish_nan_and_na": True,
    "future.no_silent_downcasting": True,
    "mode.copy_on_write": False,
    "mode.chained_assignment": None,
    "mode.string_storage": "python",
    "compute.use_bottleneck": False,
    "compute.use_numexpr": False,
}


def pandas_option(option, value):
    """An option of pandas, or a skip where this version has none of the name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pd.get_option(option)
        except pd.errors.OptionError:
            pytest.skip(f"this pandas has no option {option}")
    return pd.option_context(option, value)


SETTINGS = {
    **{
        f"transform_output={kind}": lambda kind=kind: sklearn.config_context(transform_output=kind)
        for kind in ("pandas", "polars")
    },
    **{
        name: lambda name=name: sklearn.config_context(**{name: True})
        for name in ("enable_metadata_routing", "assume_finite")
    },
    "skip_parameter_validation": lambda: sklearn.config_context(skip_parameter_validation=True),
    "printing": lambda: np.printoptions(precision=2, legacy="1.13"),
    **{
        f"{option}={value}": lambda option=option, value=value: pandas_option(option, value)
        for option, value in PANDAS.items()
    },
}


@pytest.fixture(scope="module")
def expected():
    frame = everything(200)
    y = np.arange(200) % 2
    model = clone(NET).fit(frame, y)
    search = InnaSearchCV(clone(NET), n_trials=1, cv=2, random_state=0).fit(frame, y)
    return frame, y, model, search.best_score_


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*deprecated")
@pytest.mark.parametrize("setting", SETTINGS)
def test_no_setting_changes_what_is_learned(expected, setting):
    frame, y, model, score = expected
    if setting.startswith("transform_output=polars"):
        pytest.importorskip("polars")
    with contextlib.ExitStack() as stack:
        stack.enter_context(SETTINGS[setting]())
        same = frame.assign(**{name: frame[name].tolist() for name in ("town", "code", "note", "seen")})
        np.testing.assert_array_equal(model.predict_proba(same), model.predict_proba(frame))
        np.testing.assert_array_equal(clone(NET).fit(same, y).predict_proba(same), model.predict_proba(frame))
        if setting.startswith(("transform", "enable", "assume")):
            search = InnaSearchCV(clone(NET), n_trials=1, cv=2, random_state=0).fit(same, y)
            assert search.best_score_ == score
