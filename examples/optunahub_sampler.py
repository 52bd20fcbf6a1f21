"""INNA's PriorSampler as OptunaHub loads it, from a folder: priors for a study that has nothing to do with INNA."""

from pathlib import Path

import optuna
import optunahub
from sklearn.datasets import load_wine
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

HUB = Path(__file__).parents[1] / "hub"


def main(n_trials=15):
    module = optunahub.load_local_module("samplers/inna_prior", registry_root=str(HUB))
    # What is known of support vector machines on standardised tables, before the first trial.
    space = module.SearchSpace(
        {
            "C": module.LogNormal(3.0, 1.5, low=1e-3, high=1e4),
            "gamma": module.LogNormal(0.05, 1.0, low=1e-5, high=10.0),
        }
    )
    table, target = load_wine(return_X_y=True, as_frame=True)

    def accuracy(trial):
        model = make_pipeline(StandardScaler(), SVC(**space.suggest(trial)))
        return cross_val_score(model, table, target, cv=3).mean()

    sampler = module.PriorSampler(optuna.samplers.TPESampler(), space, seed=0)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    study.optimize(accuracy, n_trials=n_trials)
    print(f"accuracy {study.best_value:.3f} with {study.best_params}")
    return study.best_value


if __name__ == "__main__":
    main()
