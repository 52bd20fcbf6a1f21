"""INNA inside FLAML: a learner beside FLAML's own, tuned by its cost-frugal search within its budget of time."""

from flaml import AutoML
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from inna_tune.plugins.flaml import InnaLearner


def main(seconds=20, **settings):
    table, target = load_breast_cancer(return_X_y=True, as_frame=True)
    train_x, test_x, train_y, test_y = train_test_split(table, target, stratify=target, random_state=0)

    automl = AutoML()
    automl.add_learner("inna", InnaLearner)
    # Any parameter of InnaClassifier goes in by custom_hp, to be tuned or fixed.
    own = {"inna": {"hidden_layer_sizes": {"domain": "64-64"}}}
    words = {
        "estimator_list": ["inna", "rf"],
        "metric": "log_loss",
        "custom_hp": own,
        "n_jobs": 1,
        "verbose": 0,
    }
    automl.fit(train_x, train_y, task="classification", time_budget=seconds, **words | settings)
    print(f"best learner: {automl.best_estimator} with {automl.best_config}")
    for name, loss in automl.best_loss_per_estimator.items():
        print(f"validation log-loss of {name}: {loss:.4f}")
    accuracy = (automl.predict(test_x) == test_y).mean()
    print(f"accuracy on held-out rows: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
