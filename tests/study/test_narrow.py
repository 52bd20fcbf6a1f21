"""Where memory is scarce fewer trials train side by side, and learn the same; where it is too little that is said."""

import re
import warnings

import numpy as np
import pytest
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier, InnaSearchCV
from inna_tune.estimators import MemoryWarning, memory
from inna_tune.study import narrow
from inna_tune.study.group import Group

NET = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=8, numeric_embedding="none")
IRIS = tuple(part.iloc[::2].reset_index(drop=True) for part in load_iris(return_X_y=True, as_frame=True))


def searched(monkeypatch, free, **more):
    """A study of eight trials that are drawn together, and the numbers of those that trained side by side."""
    together, train = [], Group.train

    def noting(self):
        together.append([c.trial.number for c in self.candidates])
        train(self)

    monkeypatch.setattr(Group, "train", noting)
    for room in (narrow, memory):
        monkeypatch.setattr(room, "free_bytes", lambda device: free)
    found = InnaSearchCV(NET, n_trials=8, population=8, cv=2, random_state=0, refit=False, **more).fit(*IRIS)
    monkeypatch.setattr(Group, "train", train)
    trials = [(t.number, t.params, t.value, t.state, t.intermediate_values) for t in found.study_.trials]
    return trials, together


def test_trials_by_parts_are_those_of_all_at_once(monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error", MemoryWarning)
        expected, together = searched(monkeypatch, 1e9)
        whole = max(map(len, together))
        held, passing = narrow_bytes(monkeypatch)
        # A trial that races holds half of what it may, and half of the memory is taken.
        parted, fewer = searched(monkeypatch, 2 * (passing + 2.5 * held / 2))
    assert whole > 2
    assert max(map(len, fewer)) == 2
    assert sorted(n for own in fewer for n in own) == sorted(n for own in together for n in own)
    assert parted == expected


def narrow_bytes(monkeypatch):
    """By the estimate: what is held of one trial on both folds, and what passes."""
    seen, on_folds = [], narrow._needed_on_folds

    def noting(candidate):
        seen.append(on_folds(candidate))
        return seen[-1]

    monkeypatch.setattr(narrow, "_needed_on_folds", noting)
    searched(monkeypatch, 1e9)
    monkeypatch.setattr(narrow, "_needed_on_folds", on_folds)
    return sum(n.held for n in seen[0]), max(max(n.measuring, n.stepping) for n in seen[0])


def test_a_trial_that_is_too_large_alone_is_told_of_in_one_line_with_the_remedy(monkeypatch):
    with pytest.warns(MemoryWarning) as told:
        _, together = searched(monkeypatch, 1000.0)
    assert max(map(len, together)) == 1
    for words in {str(each.message) for each in told if each.category is MemoryWarning}:
        assert re.match(
            r"a trial on all its folds takes about \d+\.\d GB of memory, and 0\.0 GB are free", words
        )
        assert "n_members" not in words  # it has one
        assert "hidden_layer_sizes" in words
        assert "--drop" in words
        assert "\n" not in words


def test_a_fit_that_is_too_large_is_told_of_before_it_begins(monkeypatch):
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = np.arange(60) % 2
    net = InnaClassifier(hidden_layer_sizes=(4,), n_members=2, max_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MemoryWarning)
        net.fit(X, y)
        monkeypatch.setattr(memory, "free_bytes", lambda device: 1e3)
        with pytest.raises(
            MemoryWarning, match=r"training takes about .* n_members=1, a smaller hidden_layer_sizes"
        ):
            net.fit(X, y)
