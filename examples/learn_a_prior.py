"""Learn from past studies where good settings lie, save that as a prior, and tune a new table with it."""

import tempfile
from pathlib import Path

from sklearn.datasets import load_breast_cancer, load_iris, load_wine

from inna_tune import InnaClassifier, InnaSearchCV
from inna_tune.space import Prior, learn

NET = InnaClassifier(hidden_layer_sizes=(32,), max_epochs=20)


def main():
    past = []
    for load in (load_iris, load_wine):
        search = InnaSearchCV(NET, n_trials=12, cv=2, refit=False, random_state=0)
        past.append(search.fit(*load(return_X_y=True, as_frame=True)).study_)
    # With studies in a database: optuna.load_study(study_name="iris", storage="sqlite:///inna_tune.db")

    prior = learn(past, top=0.25, n_portfolio=2)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prior.json"
        prior.save(file)  # also: inna-tune prior learn iris wine -o prior.json
        prior = Prior.load(file)
    for name, number, quantiles, choices in prior.rows():
        print(f"{name:13} {number:15} {' '.join(quantiles or ())} {choices}")

    # The prior speaks in numbers free of units; the curvature of the new table's loss turns them into settings.
    table, target = load_breast_cancer(return_X_y=True, as_frame=True)
    search = InnaSearchCV(NET, space=prior, n_trials=6, cv=2, random_state=0)
    search.fit(table, target)
    print(f"best log-loss {-search.best_score_:.4f} in trial {search.study_.best_trial.number}")
    return search


if __name__ == "__main__":
    main()
