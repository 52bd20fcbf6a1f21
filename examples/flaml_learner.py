"""INNA inside FLAML: a learner beside FLAML's own, tuned by its cost-frugal search within its budget of time."""

from flaml import AutoML
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from inna_tune.plugins.flaml import InnaLearner


def main(seconds=20, learners=("inna", "rf")):
    table, target = load_breast_cancer(return_X_y=True, as_frame=True)
    train_x, test_x, train_y, test_y = train_test_split(table, target, stratify=target, random_state=0)

    automl = AutoML()
    automl.add_learner("inna", InnaLearner)
    automl.fit(
        train_x,
        train_y,
        task="classification",
        metric="log_loss",
        estimator_list=list(learners),
        time_budget=seconds,
        verbose=0,
        n_jobs=1,
        # Any parameter of InnaClassifier goes in here, to be tuned or fixed.
        custom_hp={"inna": {"hidden_layer_sizes": {"domain": "64-64"}}},
    )
    print(f"best learner: {automl.best_estimator} with {automl.best_config}")
    for name, loss in automl.best_loss_per_estimator.items():
        print(f"validation log-loss of {name}: {loss:.4f}")
    accuracy = (automl.predict(test_x) == test_y).mean()
    print(f"accuracy on held-out rows: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
