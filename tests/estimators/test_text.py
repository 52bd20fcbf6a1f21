import warnings

import numpy as np
import pandas as pd
import pytest

from inna_tune import InnaClassifier
from inna_tune.estimators import DroppedColumnWarning, TableEncoder
from inna_tune.estimators.levels import count_levels
from inna_tune.estimators.text import is_text, plan_text

NOUNS = ["garden", "cellar", "balcony", "garage", "kitchen", "window", "chimney", "terrace", "pool", "roof"]
ADJECTIVES = ["old", "sunny", "quiet", "large", "new", "dark", "renovated", "tiny"]


def notes(n=500, seed=0):
    rng = np.random.default_rng(seed)
    return pd.Series(
        [
            f"{a} {b} with {c} {d} no {k}"
            for a, b, c, d, k in zip(
                rng.choice(ADJECTIVES, n),
                rng.choice(NOUNS, n),
                rng.choice(ADJECTIVES, n),
                rng.choice(NOUNS, n),
                rng.integers(100, 999, n),
                strict=True,
            )
        ]
    )


def fit(column, **settings):
    return TableEncoder(**settings).fit(pd.DataFrame({"t": column}))


def transform(encoder, column):
    return encoder.transform(pd.DataFrame({"t": column}))


# ---------------------------------------------------------------------- what is text


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (notes(), True),
        (notes().astype("string"), True),
        (notes().astype(object), True),
        (notes().astype("category"), False),
        ([f"word{i}" for i in range(500)], False),
        ([f"https://example.org/{'abcdefghij'[i % 10]}/page-{i}" for i in range(500)], True),
        ([f"{i * 7919:08d}-{i * 104729:012d}" for i in range(500)], False),
        ([f"New York {i % 50}" for i in range(500)], False),
        ([f"PC {i}" if i % 4 == 0 else str(i) for i in range(500)], True),
        (list(notes(60)), False),
    ],
)
def test_text_has_many_values_of_several_words_or_long_ones(column, expected):
    counted = count_levels(pd.Series(column), "t", None)
    if not isinstance(getattr(column, "dtype", None), pd.CategoricalDtype):
        assert is_text(counted, max_levels=64) == expected
    frame = pd.DataFrame({"t": column, "n": np.arange(len(column))})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (TableEncoder().fit(frame).plan_[0].kind == "text") == expected


def test_repeated_rows_do_not_turn_text_into_levels():
    assert fit(pd.concat([notes()] * 20)).plan_[0].kind == "text"


def test_columns_named_as_text_are_text_and_never_means_never():
    few = pd.Series(["red wine", "white wine", "red beer"] * 20)
    assert fit(few).plan_[0].kind == "categorical"
    assert fit(few, text=["t"]).plan_[0].kind == "text"
    assert fit(few.astype("category"), text=["t"]).plan_[0].kind == "text"
    for text in ("never", []):
        with pytest.warns(DroppedColumnWarning):
            assert fit(notes(), text=text).plan_[0].kind == "dropped"


def test_texts_without_anything_in_common_are_levels():
    counted = count_levels(pd.Series(["abc", "def"]), "t", None)
    assert plan_text("t", counted, n_components=4) is None
    assert fit(["abc", "def", "abc"], text=["t"]).plan_[0].kind == "categorical"


# ---------------------------------------------------------------------- vectors


def test_the_vectors_are_skrub_s():
    from skrub import StringEncoder

    texts = pd.Series(sorted(set(notes())), name="t")
    plan = fit(texts, n_components=10).plan_[0]
    theirs = StringEncoder(n_components=10, vocabulary=plan.vocabulary, random_state=0).fit(texts)
    expected = theirs.transform(texts).to_numpy() * theirs.scaling_factor_
    np.testing.assert_allclose(plan.vectors(list(texts)), expected, atol=1e-5)


def test_together_the_components_have_mean_zero_and_variance_a_quarter():
    column = notes()
    encoder = fit(column)
    encoded = transform(encoder, column)
    assert encoder.sections == (0, 30, 0)
    assert list(encoder.get_feature_names_out()[:2]) == ["t_text_0", "t_text_1"]
    np.testing.assert_allclose(encoded.mean(axis=0), 0, atol=0.01)
    assert encoded.var(axis=0).sum() == pytest.approx(0.25, abs=0.01)


def test_similar_texts_are_near():
    encoder = fit(notes())
    a, b, c = transform(
        encoder, ["sunny garden with old pool no 1", "Sunny gardens, old pools", "dark cellar, tiny roof"]
    )
    assert np.linalg.norm(a - b) < 0.5 * np.linalg.norm(a - c)


def test_missing_text_is_the_mean_with_an_indicator_and_is_not_the_empty_text():
    column = notes().where(np.arange(500) % 10 > 0)
    encoder = fit(column)
    missing, empty, unknown = transform(encoder, [None, "", "qqq"])
    assert encoder.sections == (0, 31, 0)
    np.testing.assert_allclose(missing, [0.0] * 30 + [0.9], rtol=1e-6)
    assert np.abs(empty[:30]).max() > 0.01
    np.testing.assert_array_equal(empty, unknown)


def test_numbers_in_a_column_of_text_are_read_as_their_texts():
    tickets = pd.Series([f"PC {i}" if i % 4 == 0 else str(i) for i in range(1000, 1500)])
    encoder = fit(tickets)
    np.testing.assert_array_equal(transform(encoder, [1001, 1002]), transform(encoder, ["1001", "1002"]))
    np.testing.assert_array_equal(transform(encoder, [1001.0, None])[0], transform(encoder, ["1001"])[0])


def test_components_are_the_same_every_time_whatever_the_rows():
    column = notes()
    one, arrays = fit(column).to_plain()
    np.random.seed(7)  # noqa: NPY002
    other, others = fit(pd.concat([column] * 3).sample(frac=1, random_state=0)).to_plain()
    assert one["columns"][0]["vocabulary"] == other["columns"][0]["vocabulary"]
    np.testing.assert_array_equal(arrays["0.components"], others["0.components"])


def test_long_columns_are_learned_from_a_part(monkeypatch):
    column = notes(2000)
    whole = fit(column)
    monkeypatch.setattr("inna_tune.estimators.text._MAX_CHARACTERS", 20_000)
    part = fit(column)
    assert len(part.plan_[0].vocabulary) <= len(whole.plan_[0].vocabulary)
    encoded = transform(part, column)
    assert np.isfinite(encoded).all()
    assert encoded.var(axis=0).sum() == pytest.approx(0.25, abs=0.02)
    monkeypatch.undo()
    # It is encoded in parts, too, without a seam.
    np.testing.assert_array_equal(transform(part, column), encoded)


def test_strange_characters_and_one_very_long_text():
    column = pd.concat(
        [
            notes(),
            pd.Series(
                ["日本 の 庭 " * 3, "\ud800 lone", "a" * 10_000, "\0 null", "İstanbul ev"] * 2, dtype=object
            ),
        ]
    )
    encoded = transform(fit(column), column)
    assert np.isfinite(encoded).all()


def test_a_model_learns_from_text():
    column = notes(600)
    y = column.str.contains("garden") | column.str.contains("pool")
    X = pd.DataFrame({"t": column})
    model = InnaClassifier(hidden_layer_sizes=(32,), n_members=1, max_epochs=60, random_state=0).fit(
        X[:400], y[:400]
    )
    assert model.score(X[400:], y[400:]) > max(0.8, y[400:].mean(), 1 - y[400:].mean())
