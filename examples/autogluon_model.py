"""INNA inside AutoGluon: bagged beside its own models, on one leaderboard, in one weighted ensemble."""

import tempfile

from autogluon.tabular import TabularPredictor
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from inna_tune.plugins.autogluon import InnaModel


def main(hyperparameters=None, seconds=120):
    features, target = load_breast_cancer(return_X_y=True, as_frame=True)
    table = features.assign(y=target.map({0: "malignant", 1: "benign"}))
    train, test = train_test_split(table, stratify=table["y"], random_state=0)
    # Each model has a dict of its hyperparameters; INNA's are parameters of InnaClassifier.
    models = {
        InnaModel: {"hidden_layer_sizes": (64, 64)} if hyperparameters is None else hyperparameters,
        "RF": {},
    }

    with tempfile.TemporaryDirectory() as folder:
        predictor = TabularPredictor("y", path=f"{folder}/models", eval_metric="log_loss", verbosity=1)
        # Folds one after the other, in this process; with Ray installed AutoGluon trains them side by side.
        one_by_one = {"fold_fitting_strategy": "sequential_local"}
        predictor.fit(
            train, hyperparameters=models, num_bag_folds=2, time_limit=seconds, ag_args_ensemble=one_by_one
        )
        board = predictor.leaderboard(test, extra_metrics=["accuracy"], silent=True)
        again = TabularPredictor.load(f"{folder}/models")
        print(again.predict(test.drop(columns="y").head(3)))
    print(board[["model", "score_test", "accuracy", "score_val", "fit_time"]].to_string(index=False))
    return board.set_index("model")


if __name__ == "__main__":
    main()
