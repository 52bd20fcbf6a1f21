"""What a script defines is known again in another process, and missed where another script defines something else."""

import runpy
import sys

import pytest

from inna_tune.study import MismatchError
from tests.warm import RUN_FILE, Program

SCRIPT = """
import sys
import numpy as np
import optuna
import pandas as pd
import torch
from sklearn.model_selection import KFold
from inna_tune import InnaClassifier, InnaSearchCV
from inna_tune.space import LogUniform, SearchSpace

COST = {0: 1.0, 1: CHANGED_COST}
KNOWN = set("rstuvwxyz")

class Net(torch.nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.own = torch.nn.Linear(i, o)

    def forward(self, x):
        return torch.CHANGED_FUNCTION(self.own(x))

class Folds:
    def split(self, X, y=None, groups=None):
        return KFold(2, shuffle=True, random_state=CHANGED_SEED).split(X)

    def get_n_splits(self, *rows):
        return 2

def score(estimator, X, y):
    return float(np.mean([COST[v] for v in estimator.predict(X)])) if "x" in KNOWN else 0.0

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=40), "b": rng.choice(list("uvw"), 40)})
    search = InnaSearchCV(
        InnaClassifier(module=Net, n_members=1, max_epochs=1, early_stopping=False, class_weight={0: 1, 1: 2}),
        SearchSpace({"lr": LogUniform(1e-3, 0.1)}), n_trials=int(sys.argv[2]), cv=Folds(),
        scoring=lambda e, X, y: score(e, X, y), storage=sys.argv[1], study_name="s", resume=True,
    )
    print(len(search.fit(X, np.arange(40) % 2, sample_weight=np.arange(1, 41)).study_.trials))
"""


@pytest.mark.filterwarnings("ignore:The scorer .* takes no sample_weight")
def test_the_same_script_goes_on_in_another_process_and_another_script_does_not(
    tmp_path, monkeypatch, capsys
):
    storage = f"sqlite:///{tmp_path}/studies.db"
    plain = {"CHANGED_COST": "2.0", "CHANGED_FUNCTION": "tanh", "CHANGED_SEED": "0"}

    def script(n_trials, above="", **changes):
        text = above + SCRIPT
        for name, value in (plain | changes).items():
            text = text.replace(name, value)
        path = tmp_path / f"script_{n_trials}.py"
        path.write_text(text)
        return [str(path), storage, str(n_trials)]

    def run_here(words):
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_path(words[0], run_name="__main__")

    run_here(script(1))
    assert capsys.readouterr().out == "1\n"
    # Its sets have another order there.
    words = script(2, above="# A remark.\nimport os\n")
    with Program(RUN_FILE, *words, cwd=tmp_path) as program:
        printed, said = program.communicate()
    assert program.returncode == 0, said
    assert printed == "2\n"
    with pytest.raises(MismatchError) as refused:
        run_here(script(3, CHANGED_COST="3", CHANGED_FUNCTION="relu", CHANGED_SEED="1"))
    for words in (
        "(around it: score: around it: COST: 1) was 2.0, now it is 3",
        "the estimator's module (forward: compiled code) differs",
        "the folds of Folds",
    ):
        assert words in str(refused.value)
