"""What trials are scored on where nobody says it: rows that nets leave out, where a fit's leave out parts; else folds."""

from dataclasses import replace

import numpy as np
import optuna
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sklearn.base import clone

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV
from inna_tune.estimators import recipe
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.member_plan import parts_left_out
from inna_tune.jobs.joining import join, read_job
from inna_tune.jobs.settings import make_estimator
from inna_tune.jobs.tuning import tune
from inna_tune.jobs.validation import choose_validation, is_cv, read_cv, splitter_of
from inna_tune.records.attributes import FINGERPRINT, JOB
from inna_tune.records.fingerprint import MismatchError
from inna_tune.records.overview import describe_study
from inna_tune.report import render_report
from inna_tune.space import Categorical, Prior, SearchSpace
from inna_tune.study.question import Question
from inna_tune.study.splits import NoRowsLeftOutError, default_splitter
from inna_tune.tables import split_rows
from inna_tune.tables.problem import make_problem

SMALL = ("hidden_layer_sizes=4", "max_epochs=2")


def people(n_rows=100, seed=0, *, of=10**6):
    """A table whose rows are of so many kinds at most."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"age": rng.normal(40, 10, of if of < n_rows else n_rows), "job": "clerk"})
    X.loc[::3, "job"] = "smith"
    X = X.iloc[np.arange(n_rows) % len(X)].reset_index(drop=True)
    return X.assign(label=np.where(X["job"] == "smith", "yes", "no"), money=10 * X["age"])


def problem(target="label", **options):
    return make_problem(people(**options), target)


def really_left_out(found, settings, seed=0):
    """By a second way, what each net of a fit on the rows that are tuned on leaves out."""
    tuning, _ = split_rows(found, held_out=0.2, seed=seed)
    estimator = make_estimator(found.task, settings).set_params(random_state=seed)
    table = estimator._encode_for_fit(found.X.iloc[tuning], found.y.iloc[tuning], None)
    plan = estimator._plan_for(len(tuning))
    first, *_ = estimator._seeds(plan.n_members)
    return [
        rows for _, rows in parts_left_out(plan, table.x, table.target, first) if estimator.early_stopping
    ]


@examples(max_examples=25, deadline=None)
@given(
    n_rows=st.sampled_from([30, 49, 51, 300, 6_000]),
    kinds=st.sampled_from([12, 45, 10**6]),
    target=st.sampled_from(["label", "money"]),
    given=st.sets(st.sampled_from(["early_stopping=False", "n_members=1", "validation_fraction=0.3"])),
)
def test_it_is_the_rows_that_nets_leave_out_just_where_they_leave_out_parts(n_rows, kinds, target, given):
    found, settings = problem(target, n_rows=n_rows, of=kinds), (*SMALL, *sorted(given))
    left_out = really_left_out(found, settings)
    chosen = choose_validation(found, settings=settings)
    assert (chosen.cv == "members") == bool(left_out), chosen.words
    assert ("folds" in chosen.words.partition(";")[0]) == (not left_out)
    if left_out:
        assert f"its {len(left_out)} nets" in chosen.words
    # What was chosen is never refused afterwards.
    estimator = make_estimator(found.task, settings)
    tuning, _ = split_rows(found, held_out=0.2, seed=0)
    X, y = found.X.iloc[tuning], found.y.iloc[tuning]
    asked = Question.of(clone(estimator), estimator, X, y, cv=splitter_of(chosen.cv, y, task=found.task))
    assert asked.is_by_members == bool(left_out)
    asked.folded()


@pytest.mark.parametrize(
    ("options", "settings", "reason"),
    [
        ({}, ("early_stopping=False",), "5 folds, since with early_stopping=False nets leave out no rows"),
        ({}, ("n_members=2",), "5 folds, since with n_members=2 nets leave out no rows of their own"),
        ({"n_rows": 40}, (), "5 folds, since too few rows differ"),
        ({"n_rows": 400, "of": 9}, (), "5 folds, since too few rows differ"),
        (
            {"n_rows": 32_000},
            (),
            "each is scored on a held-out fifth of the rows, since a fit on 25600 rows is one net",
        ),
    ],
)
def test_folds_are_chosen_for_a_reason(options, settings, reason):
    chosen = choose_validation(problem(**options), settings=settings)
    assert chosen.cv is None
    assert reason in chosen.words


def test_folds_are_chosen_where_a_score_is_not_defined_on_what_single_nets_leave_out():
    frame = people(120)
    frame.loc[:3, "label"] = "rare"
    found = make_problem(frame, "label")
    assert choose_validation(found, metric="balanced_accuracy").cv == "members"
    chosen = choose_validation(found, metric="roc_auc_ovr")
    assert chosen.cv is None
    assert "since roc_auc_ovr is not defined on all of the rows" in chosen.words
    with pytest.raises(ValueError, match="is no scorer of scikit-learn"):
        choose_validation(found, metric="roc")


def test_folds_are_chosen_where_a_prior_draws_what_leaves_out_no_rows():
    prior = Prior(SearchSpace({"n_members": Categorical([1, "auto"])}))
    assert "since the prior draws n_members" in choose_validation(problem(), space=prior).words
    assert choose_validation(problem(), space=Prior.shipped("classification")).cv == "members"


# ---------------------------------------------------------------------- what is said


def test_what_can_be_said_is_one_of_three():
    assert [read_cv(text) for text in ("auto", " members ", "5")] == ["auto", "members", 5]
    for text in ("1", "0", "-3", "2.5", "", "folds", "None", "²"):
        with pytest.raises(ValueError, match="must be 'auto', 'members', or a number of folds of at least 2"):
            read_cv(text)
    for wrong in ("auto", 1, True, 2.0, "5", [2]):
        assert not is_cv(wrong)
        with pytest.raises(ValueError, match="must be 'members', a number of folds"):
            splitter_of(wrong, np.zeros(9), task="regression")


@pytest.mark.parametrize("task", ["binary", "regression"])
@pytest.mark.parametrize("n_folds", [2, 5])
def test_a_number_is_of_folds_as_those_that_nobody_asks_for(task, n_folds):
    y = pd.Series(["no"] * 60 + ["yes"] * 40 if task == "binary" else np.arange(100.0))
    said = splitter_of(n_folds, y, task=task)
    tests = [test for _, test in said.split(np.zeros((100, 1)), y)]
    assert sorted(np.concatenate(tests)) == list(range(100))
    assert len(tests) == n_folds
    assert all((np.diff(test) > 1).any() for test in tests), "shuffled"
    usual = default_splitter(y, 100, classifier=task == "binary")
    assert (repr(said) == repr(usual)) == (n_folds == 5)
    assert splitter_of(None, y, task=task) is None


# ---------------------------------------------------------------------- what was encoded to choose


@pytest.fixture
def encoded(monkeypatch):
    """How many rows each table has that is encoded to train on."""
    found, encode = [], InnaEstimator._encode_for_fit

    def noted(self, X, *args, **options):
        found.append(len(X))
        return encode(self, X, *args, **options)

    monkeypatch.setattr(InnaEstimator, "_encode_for_fit", noted)
    return found


def values(report):
    return [t.value for t in report.search.study_.trials]


@pytest.mark.parametrize("target", ["label", "money"])
def test_what_was_encoded_to_choose_is_what_trials_train_on(target, encoded):
    found = problem(target, n_rows=70)
    plain = tune_in_memory(found, cv="members")
    assert encoded == [56, 56]  # for the trials, and for the untuned default
    encoded.clear()
    chosen = choose_validation(found, settings=SMALL)
    shared = tune_in_memory(found, cv=chosen.cv, encoded=chosen.table)
    assert encoded == [56, 56]
    assert values(shared) == values(plain)


@pytest.mark.parametrize(
    "other",
    [
        {"problem": {"seed": 1}},
        {"problem": {"target": "money"}},
        {"seed": 1},
        {"settings": (*SMALL, "encoder__numeric=quantile")},
        {"cv": 3},
    ],
    ids=str,
)
def test_of_another_question_it_is_not_taken(other, encoded):
    table = choose_validation(problem(n_rows=70), settings=SMALL).table
    encoded.clear()
    asked = {"cv": "members"} | other
    found = problem(**{"n_rows": 70} | asked.pop("problem", {}))
    own = tune_in_memory(found, **asked, encoded=table)
    n_encoded = len(encoded)
    assert values(own) == values(tune_in_memory(found, **asked))
    assert len(encoded) == 2 * n_encoded


def tune_in_memory(found, **options):
    options = {"settings": SMALL} | options
    return tune(found, n_trials=1, storage=None, study_name="s", importances=False, **options)


def test_which_rows_nets_leave_out_is_found_without_linear_models(monkeypatch):
    monkeypatch.setattr(recipe, "linear_starts", lambda *args, **options: pytest.fail("a model was fitted"))
    found, estimator = problem(n_rows=70), InnaClassifier(hidden_layer_sizes=(4,))
    assert choose_validation(found).cv == "members"
    Question.of(clone(estimator), estimator, found.X, found.y, cv="members").folded()


# ---------------------------------------------------------------------- studies that go on


def begin(storage, n_trials=1, **more):
    return tune(
        problem(),
        n_trials=n_trials,
        storage=storage,
        study_name="people",
        importances=False,
        **{"settings": SMALL if more.get("cv") == "members" else (*SMALL, "n_members=1")} | more,
    )


def begun(storage):
    return optuna.load_study(study_name="people", storage=storage)


@pytest.mark.parametrize("cv", [None, "members", 3])
def test_a_study_goes_on_by_what_it_was_begun_with(cv, tmp_path):
    storage = f"sqlite:///{tmp_path}/studies.db"
    begin(storage, cv=cv)
    study = begun(storage)
    assert read_job(storage, "people").cv == cv
    # What a setting comes to in a new study is of no account.
    for settings in (SMALL, ("early_stopping=False",)):
        chosen = choose_validation(problem(), settings=settings, study=study)
        assert chosen.cv == cv
        assert "as the study was begun" in chosen.words
        assert ("folds" in chosen.words) == (cv != "members")
    begin(storage, 2, cv=cv, resume=True)
    study.set_user_attr(JOB, study.user_attrs[JOB] | {"n_trials": 3})
    join(problem(), storage=storage, study_name="people")
    trials = begun(storage).trials
    assert len(trials) == 3
    scores = [len(t.user_attrs["scores"]) for t in trials if t.value is not None and "scores" in t.user_attrs]
    assert scores
    assert set(scores) <= ({4, 8} if cv == "members" else {cv or 5})


def test_one_that_was_begun_in_python_goes_on_by_its_own(tmp_path):
    found, storage = problem(), f"sqlite:///{tmp_path}/studies.db"
    net = InnaClassifier(hidden_layer_sizes=(4,), max_epochs=2)
    InnaSearchCV(
        net, n_trials=1, cv="members", storage=storage, study_name="people", refit=False, random_state=0
    ).fit(found.X, found.y)
    study = begun(storage)
    assert JOB not in study.user_attrs
    assert choose_validation(found, study=study).cv == "members"
    for wrong in ("text", [1], {"cv": "auto"}, {"cv": 1}, {"cv": 5}):
        study.set_user_attr(JOB, wrong)
        assert choose_validation(found, study=study).cv == "members", "the fingerprint is what counts"
    study.set_user_attr(FINGERPRINT, study.user_attrs[FINGERPRINT] | {"cv": "KFold"})
    study.set_user_attr(JOB, {"cv": "members"})
    assert choose_validation(found, study=study).cv is None


def test_one_that_holds_nothing_is_a_new_one():
    study = optuna.create_study()
    assert choose_validation(problem(), study=study) == choose_validation(problem())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((*SMALL, "early_stopping=False"), "now they would leave out none"),
        ((*SMALL, "n_members=1"), "now they would leave out none"),
        ((*SMALL, "batch_size=16"), "batch_size was 128, now it is 16"),
    ],
)
def test_with_other_settings_it_says_what_it_was_begun_with(settings, said, tmp_path):
    storage = f"sqlite:///{tmp_path}/studies.db"
    begin(storage, cv="members")
    with pytest.raises(
        MismatchError, match=f"{said}.* It was begun --set hidden_layer_sizes=4 --set max_epochs=2: give the"
    ):
        begin(storage, 2, cv="members", settings=settings, resume=True)
    assert len(begun(storage).trials) == 1


def test_what_a_study_by_folds_has_no_rows_for_is_not_blamed_on_it(tmp_path):
    storage = f"sqlite:///{tmp_path}/studies.db"
    begin(storage)
    with pytest.raises(NoRowsLeftOutError, match="n_members=1 a fit on 80 rows.* Give folds"):
        begin(storage, 2, cv="members", settings=(*SMALL, "n_members=1"), resume=True)


def test_rows_that_have_gone_are_not_blamed_on_what_trials_are_scored_on(tmp_path):
    storage = f"sqlite:///{tmp_path}/studies.db"
    begin(storage, cv="members", settings=SMALL)
    whole = problem()
    few = replace(whole, X=whole.X.iloc[:45], y=whole.y.iloc[:45])
    with pytest.raises(
        MismatchError, match=r"tuned on 80 rows, and these are 36: give the rows it was begun with"
    ):
        tune(few, n_trials=2, storage=storage, study_name="people", settings=SMALL, cv="members", resume=True)


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (None, "members", "begun by folds, as many as the rows decide: leave --cv out"),
        ("members", 5, "begun with --cv members: leave --cv out"),
        (3, 4, "begun with --cv 3: leave --cv out"),
    ],
)
def test_by_something_else_it_is_refused(before, now, said, tmp_path):
    storage = f"sqlite:///{tmp_path}/studies.db"
    begin(storage, cv=before, settings=SMALL)
    with pytest.raises(MismatchError, match=f"the study's cross-validation is .*{said}"):
        begin(storage, 2, cv=now, settings=SMALL, resume=True)


def test_five_folds_are_those_of_a_small_table(tmp_path):
    storage = f"sqlite:///{tmp_path}/studies.db"
    begin(storage)
    assert len(begin(storage, 2, cv=5, resume=True).search.study_.trials) == 2


# ---------------------------------------------------------------------- what is told of a study


@pytest.mark.parametrize("cv", ["members", None])
def test_words_are_of_what_there_is(cv, tmp_path):
    storage = f"sqlite:///{tmp_path}/studies.db"
    found = begin(storage, 1, cv=cv, refit="ensemble")
    shown = " ".join(describe_study(storage, "people").lines)
    for text in (render_report(found.search.study_), shown, str(found.summary())):
        assert ("fold" in text.lower()) == (cv is None)
        assert ("the rows that their nets left out" in text) == (cv == "members")


@pytest.mark.parametrize("estimator", [InnaClassifier, InnaRegressor])
def test_a_search_in_python_is_by_folds(estimator):
    """Its trials' values are what `cross_val_score` gives."""
    assert InnaSearchCV(estimator()).cv is None
