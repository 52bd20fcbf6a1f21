"""The linear models that nets of small tables begin as."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from inna_tune import InnaClassifier, InnaRegressor, clock
from inna_tune.estimators import linear_start, recipe
from inna_tune.estimators.encoded import EncodedTable
from inna_tune.estimators.linear_start import _PENALTIES, linear_starts
from inna_tune.nets.linear import SCALE, LinearPath, LinearStart

SECTIONS = (3, 2, 1)
CATEGORIES = (4,)
TRAIN, VALIDATION = np.arange(90), np.arange(90, 120)


def some_table(kind, *, weighted=False, seed=0):
    rng = np.random.default_rng(seed)
    x = np.hstack([rng.normal(size=(120, 5)).clip(-2.9, 2.9), rng.integers(4, size=(120, 1))])
    score = x[:, :2] @ [1.0, -2.0] + (x[:, 5] == 2) + rng.normal(size=120)
    if kind == "values":
        target = np.stack([score, -score + x[:, 3]], 1)
    else:
        target = np.digitize(score, [0.0] if kind == "two classes" else [-1.0, 1.0])
    weight = rng.integers(1, 4, size=120).astype(float) if weighted else None
    return EncodedTable(x, target, weight, sections=SECTIONS, categories=CATEGORIES)


def columns_of(table):
    return LinearPath(3, 2, CATEGORIES, 1).columns(torch.from_numpy(table.x)).numpy()


def told(start, design):
    return design @ start.weight.numpy() + start.bias.numpy()


def probabilities(scores):
    found = np.exp(scores - scores.max(1, keepdims=True))
    return found / found.sum(1, keepdims=True)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["values", "two classes", "three classes"])
def test_it_is_the_model_whose_penalty_the_other_rows_choose(kind, weighted):
    table = some_table(kind, weighted=weighted)
    (found,) = linear_starts(table, [(TRAIN, VALIDATION)])
    design, weight = columns_of(table), np.ones(120) if table.weight is None else table.weight
    total, own, others = weight[TRAIN].sum(), design[TRAIN], design[VALIDATION]
    share = weight[VALIDATION] / weight[VALIDATION].sum()
    losses, models = [], []
    for penalty in _PENALTIES:
        if kind == "values":
            model = Ridge(alpha=penalty * total).fit(own, table.target[TRAIN], weight[TRAIN])
            error = (model.predict(others) - table.target[VALIDATION]) ** 2
            losses.append(error.mean(1))
        else:
            # Its two classes have one column, twice as long as each of ours.
            factor = 2 if kind == "two classes" else 1
            model = LogisticRegression(C=factor / (penalty * total), max_iter=2000, tol=1e-8)
            model.fit(own, table.target[TRAIN], weight[TRAIN])
            losses.append(-np.log(model.predict_proba(others)[np.arange(30), table.target[VALIDATION]]))
        models.append(model)
    means = [share @ of_rows for of_rows in losses]
    least = losses[int(np.argmin(means))]
    errors = [np.sqrt(share**2 @ (of_rows - least - share @ (of_rows - least)) ** 2) for of_rows in losses]
    place = next(k for k in range(len(_PENALTIES)) if means[k] - min(means) <= errors[k] / 2)
    best = models[place]
    scores = told(found, design)
    if kind == "values":
        np.testing.assert_allclose(scores, best.predict(design), rtol=1e-8, atol=1e-8)
        mean = np.average(table.target[TRAIN], axis=0, weights=weight[TRAIN])
        error = (mean - table.target[VALIDATION]) ** 2
        nothing = np.average(error.mean(1), weights=weight[VALIDATION])
        assert found.scale == pytest.approx(np.sqrt(means[place] / nothing))
    else:
        np.testing.assert_allclose(probabilities(scores), best.predict_proba(design), atol=0.02)
        assert 0 < found.scale < 1


@pytest.mark.parametrize("kind", ["values", "two classes", "three classes"])
def test_a_row_of_weight_two_is_two_rows_and_their_order_tells_nothing(kind):
    table = some_table(kind, weighted=True)
    times = table.weight.astype(int)
    order = np.random.default_rng(0).permutation(90)
    rows = np.concatenate([np.repeat(order, times[order]), np.repeat(VALIDATION, times[VALIDATION])])
    n_train = times[:90].sum()
    repeated = EncodedTable(table.x[rows], table.target[rows], None, sections=SECTIONS, categories=CATEGORIES)
    (expected,) = linear_starts(table, [(TRAIN, VALIDATION)])
    (found,) = linear_starts(repeated, [(np.arange(n_train), np.arange(n_train, len(rows)))])
    design = columns_of(table)
    np.testing.assert_allclose(told(found, design), told(expected, design), rtol=1e-4, atol=1e-3)
    assert found.scale == pytest.approx(expected.scale, rel=1e-4)


@pytest.mark.parametrize("kind", ["values", "three classes"])
def test_it_is_fitted_once_and_alike_by_any_number_of_threads(kind):
    parts = [(TRAIN, VALIDATION), (VALIDATION, TRAIN), (TRAIN, VALIDATION)]
    with threadpool_limits(1):
        table = some_table(kind)
        first, other, again = linear_starts(table, parts)
    assert first is again
    assert linear_starts(table, parts)[1] is other
    assert pickle.loads(pickle.dumps(table)).linear_models == {}
    for k in range(20):
        linear_starts(table, [(np.roll(TRAIN, k), VALIDATION)])
    assert len(table.linear_models) <= 8
    with threadpool_limits(2):
        (found, _, _) = linear_starts(some_table(kind), parts)
    assert torch.equal(found.weight, first.weight)
    assert torch.equal(found.bias, first.bias)


class Clock:
    """A second passes whenever somebody looks."""

    def __init__(self):
        self.seconds = 0.0

    def now(self):
        self.seconds += 1.0
        return self.seconds


@pytest.mark.parametrize("kind", ["values", "two classes"])
def test_models_that_take_more_than_their_share_of_the_time_are_none(kind, monkeypatch):
    parts = [(TRAIN, VALIDATION), (VALIDATION, TRAIN)]
    expected = linear_starts(some_table(kind), parts)
    own = Clock()
    monkeypatch.setattr(linear_start, "clock", own)
    in_time = linear_starts(some_table(kind), parts, deadline=1e6)
    taken = own.seconds
    assert taken > 2
    for one, other in zip(in_time, expected, strict=True):
        assert torch.equal(one.weight, other.weight)
        assert torch.equal(one.bias, other.bias)
    for share in (0.0, 0.5, 0.9):
        table, own.seconds = some_table(kind), 0.0
        assert linear_starts(table, parts, deadline=1 + 4 * (share * taken - 1)) == []
        assert own.seconds <= share * taken + 3
        # Another fit of the table may have more time.
        assert len(linear_starts(table, parts)) == 2


def test_a_fit_says_how_much_time_there_is(monkeypatch):
    deadlines = []
    monkeypatch.setattr(
        recipe, "linear_starts", lambda table, parts, *, deadline: deadlines.append(deadline) or []
    )
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), rng.normal(size=60)
    for max_time in (None, 100.0):
        InnaRegressor(hidden_layer_sizes=(4,), max_epochs=1, max_time=max_time).fit(X, y)
    assert deadlines[0] is None
    assert 0 < deadlines[1] - clock.now() < 100


def test_where_there_can_be_none_there_is_none():
    table = some_table("three classes")
    without = TRAIN[table.target[TRAIN] != 1]
    assert linear_starts(table, [(TRAIN, VALIDATION), (without, VALIDATION)]) == []
    unweighted = EncodedTable(
        table.x, table.target, 1.0 * (table.target != 1), sections=SECTIONS, categories=CATEGORIES
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert linear_starts(unweighted, [(TRAIN, VALIDATION)]) == []
    wide = EncodedTable(np.zeros((120, 1001)), table.target, None, sections=(1001, 0, 0))
    assert linear_starts(wide, [(TRAIN, VALIDATION)]) == []
    assert linear_starts(EncodedTable(table.x, table.target, None), [(TRAIN, VALIDATION)]) == []


def begun_as_linear(model):
    """Whether each of its nets began as a linear model."""
    place = list(model.net_.parameter_shapes).index(SCALE)
    sizes = [int(np.prod(shape)) for shape in model.net_.parameter_shapes.values()]
    start = sum(sizes[:place])
    return (model.weights_[:, start] != 1).tolist()


def straight(n_rows, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 12))
    return X, X @ rng.normal(size=12) + 0.3 * rng.normal(size=n_rows)


@pytest.mark.parametrize("kind", [InnaRegressor, InnaClassifier])
def test_the_rows_left_out_tell_which_nets_count(kind):
    small = {"hidden_layer_sizes": (32,), "random_state": 0, "max_epochs": 30}
    X, y = straight(400, 0)
    if kind is InnaClassifier:
        y = y > 0
    X_test, y_test = X[200:], y[200:]
    model = kind(**small).fit(X[:200], y[:200])
    assert begun_as_linear(model) == [True] * 4
    plain = kind(**small, linear_path=False).fit(X[:200], y[:200])
    assert len(plain.weights_) == 8
    assert not plain.net_.linear_path
    assert model.score(X_test, y_test) > plain.score(X_test, y_test)
    assert {m["best_loss"] for m in model.members_} == {model.members_[0]["best_loss"]}


def test_of_models_that_mislead_no_net_counts(monkeypatch):
    def misled(table, parts, **options):
        rng = np.random.default_rng(0)
        wrong = torch.from_numpy(10 * rng.normal(size=(12, 1)))
        return [LinearStart(wrong, torch.zeros(1, dtype=torch.float64), 0.01) for _ in parts]

    monkeypatch.setattr(recipe, "linear_starts", misled)
    X, y = straight(200, 0)
    model = InnaRegressor(hidden_layer_sizes=(8,), random_state=0, max_epochs=5).fit(X, y)
    assert begun_as_linear(model) == [False] * 4


def test_a_line_that_tells_nothing_leaves_all_to_the_net():
    rng = np.random.default_rng(0)
    X, target = rng.uniform(-1, 1, size=(300, 2)), rng.normal(size=(300, 1))
    rows = np.arange(300)
    parts = [(rows[rows % 4 != k], rows[rows % 4 == k]) for k in range(4)]
    found = linear_starts(EncodedTable(X, target, None, sections=(2, 0, 0)), parts)
    assert {start.scale for start in found} == {found[0].scale}, "one penalty for all"
    assert found[0].scale == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    "settings", [{"n_members": 2}, {"early_stopping": False}, {"linear_path": False}], ids=str
)
def test_nets_that_nothing_could_choose_among_begin_as_ever(settings):
    X, y = straight(100, 0)
    model = InnaRegressor(hidden_layer_sizes=(4,), max_epochs=2, random_state=0, **settings).fit(X, y)
    assert len(model.weights_) == settings.get("n_members", 8)
    if model.net_.linear_path:
        assert not any(begun_as_linear(model))
