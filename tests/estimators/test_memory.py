"""estimate_memory: what a fit takes, beside what one took."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, SearchSpace
from inna_tune.space import LogUniform
from tests.warm import Program

MEASURED = """
import numpy as np
import pandas as pd
from inna_tune import InnaClassifier


def status(name):
    line = next(each for each in open("/proc/self/status") if each.startswith(name))
    return int(line.split()[1]) * 1024


rng = np.random.default_rng(0)
n = {rows}
X = pd.DataFrame(rng.normal(size=(n, {columns})))
X.columns = X.columns.astype(str)
if {mixed}:
    X["kind"] = pd.Categorical(rng.choice(["a", "b", "c"], n))
    X["place"] = pd.Series([f"street {{i}}" for i in rng.integers(0, 400, n)], dtype="str")
    X["when"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 9999, n), unit="h")
y = rng.integers(0, 2, n)
net = InnaClassifier(max_epochs=1, max_time=2.0, random_state=0, **{settings})
before = status("VmRSS")
net.fit(X, y)
peak = status("VmHWM") - before
print(peak, net.estimate_memory(X, y))
"""

# That nothing has to be measured for.
FLAT = SearchSpace({"lr": LogUniform(0.01, 1.0)})

TABLES = {
    "long": (300_000, 6, False, {"hidden_layer_sizes": (16,)}),
    "wide": (400, 1200, False, {"hidden_layer_sizes": (32,), "n_members": 2}),
    "mixed": (20_000, 2, True, {"hidden_layer_sizes": (256, 256)}),
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read where Linux tells it")
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.filterwarnings("ignore")
def test_the_estimate_is_within_a_factor_of_two_of_the_peak(table):
    rows, columns, mixed, own = TABLES[table]
    # NOTE: not ru_maxrss, which begins in a new process with the peak of the one that started it.
    code = MEASURED.format(rows=rows, columns=columns, mixed=mixed, settings=own)
    with Program(code) as program:
        printed, said = program.communicate()
    assert program.returncode == 0, said
    peak, estimate = map(int, printed.split())
    assert 0.5 < estimate / peak < 2, (estimate, peak)


NETS = st.sampled_from([InnaClassifier(), InnaRegressor()])


@settings(max_examples=30, deadline=None)
# Of more columns than 256 members are measured one by one from some rows on, which saves a little.
@given(NETS, st.integers(1, 100_000), st.integers(1, 255), st.integers(1, 512))
def test_more_of_anything_takes_no_less(net, rows, columns, units):
    net = net.set_params(hidden_layer_sizes=(units,), n_members=2)
    found = net.estimate_memory((rows, columns))
    assert isinstance(found, int)
    if rows > 256:  # fewer train in double precision
        assert net.estimate_memory((2 * rows, columns)) >= found
    assert net.estimate_memory((rows, columns + 1)) >= found
    assert net.set_params(hidden_layer_sizes=(units, units)).estimate_memory((rows, columns)) >= found
    assert net.set_params(n_members=4).estimate_memory((rows, columns)) >= found


@pytest.mark.parametrize("net", [InnaClassifier(), InnaRegressor()])
def test_a_table_of_numbers_takes_what_its_shape_does(net):
    X = np.random.default_rng(0).normal(size=(500, 7))
    y = np.arange(500) % 2
    of_shape = net.estimate_memory((500, 7))
    for table in (X, pd.DataFrame(X)):
        assert net.estimate_memory(table) == net.estimate_memory(table, y) == of_shape
    assert net.estimate_memory(X, np.arange(500) % 9) > of_shape if hasattr(net, "class_weight") else True
    assert not hasattr(net, "n_features_in_")


def test_several_targets_count():
    X = np.random.default_rng(0).normal(size=(500, 7))
    assert InnaRegressor().estimate_memory(X, X[:, :3]) > InnaRegressor().estimate_memory(X, X[:, 0])


@pytest.mark.parametrize(
    ("X", "words"),
    [
        ((5,), "a shape must be two whole numbers"),
        ((5, 0), "a shape must be two"),
        ((2.5, 3), "a shape must be two"),
        ((True, 3), "a shape must be two"),
        (np.empty((0, 3)), "minimum of 1 is required"),
        (np.ones(3), "2D array"),
    ],
)
def test_what_is_no_table_is_refused(X, words):
    with pytest.raises(ValueError, match=words):
        InnaClassifier().estimate_memory(X)
    with pytest.raises(ValueError, match="batch_size=0"):
        InnaClassifier(batch_size=0).estimate_memory((5, 5))


@pytest.mark.parametrize(
    "settings",
    [{"n_members": 99_999}, {"hidden_layer_sizes": (10**8,)}, {"hidden_layer_sizes": (10**6, 10**6)}],
    ids=str,
)
def test_nets_that_no_memory_holds_are_refused_before_one_is_made(settings):
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = np.arange(60) % 2
    [(name, value)] = settings.items()
    words = rf"{name}={re.escape(repr(value))}.* GB of memory, and there are .* GB in all. What takes less: "
    with pytest.raises(ValueError, match=words):
        InnaClassifier(**settings).fit(X, y)
    with pytest.raises(ValueError, match=words):
        InnaSearchCV(InnaClassifier(**settings), FLAT, n_trials=1, cv=2).fit(X, y)
    assert InnaClassifier(**settings).estimate_memory(X, y) > 1e11


@pytest.mark.parametrize("name", ["max_epochs", "n_members", "batch_size", "patience", "hidden_layer_sizes"])
@pytest.mark.parametrize("value", [1e23, 10**23, 2**31])
def test_numbers_that_nothing_counts_to_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name}={re.escape(repr(value))}"):
        InnaClassifier(**{name: value})._check_parameters()


def test_a_batch_longer_than_the_table_takes_no_more_than_the_table():
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = np.arange(60) % 2
    net = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2, random_state=0)
    longest = net.set_params(batch_size=2**31 - 1).fit(X, y).predict_proba(X)
    assert np.array_equal(longest, net.set_params(batch_size=60).fit(X, y).predict_proba(X))
