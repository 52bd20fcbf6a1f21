"""Ray Tune draws settings from INNA's priors: PriorSampler inside Ray's OptunaSearch, a worker a trial."""

import os
import tempfile

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import optuna
import ray
from ray import tune
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import cross_val_score

from inna_tune import InnaClassifier, PriorSampler, SearchSpace


def train(config):
    table, target = load_breast_cancer(return_X_y=True, as_frame=True)
    net = InnaClassifier(hidden_layer_sizes=(16,), max_epochs=10, n_members=1, random_state=0)
    scores = cross_val_score(net.set_params(**config), table, target, cv=3, scoring="neg_log_loss")
    tune.report({"score": scores.mean()})


def main(n_trials=4):
    space = SearchSpace.inna(pure=True)  # numbers that mean the same on every table
    # A space suggests to Optuna's trials, which is what OptunaSearch hands to a function that defines its space.
    sampler = PriorSampler(optuna.samplers.TPESampler(), space, seed=0)
    search = OptunaSearch(space=space.suggest, metric="score", mode="max", sampler=sampler)
    with tempfile.TemporaryDirectory() as folder:
        # One process a trial, one trial at a time, on this machine alone.
        ray.init(num_cpus=1, include_dashboard=False, _node_ip_address="127.0.0.1", _temp_dir=f"{folder}/ray")
        try:
            tuner = tune.Tuner(
                tune.with_resources(train, {"cpu": 1}),
                tune_config=tune.TuneConfig(
                    search_alg=ConcurrencyLimiter(search, max_concurrent=1), num_samples=n_trials
                ),
                run_config=tune.RunConfig(storage_path=f"{folder}/results", verbose=0),
            )
            best = tuner.fit().get_best_result(metric="score", mode="max")
        finally:
            ray.shutdown()
    print(f"best of {n_trials} trials: log-loss {-best.metrics['score']:.3f} with {best.config}")
    return best


if __name__ == "__main__":
    main()
