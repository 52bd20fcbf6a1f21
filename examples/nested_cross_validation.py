"""Nested cross-validation: an honest score of tuning itself, since no outer fold is seen by the search inside."""

from sklearn.datasets import load_wine
from sklearn.model_selection import StratifiedKFold, cross_validate

from inna_tune import InnaClassifier, InnaSearchCV


def main():
    table, target = load_wine(return_X_y=True, as_frame=True)
    net = InnaClassifier(hidden_layer_sizes=(32,), max_epochs=20)
    search = InnaSearchCV(
        net, n_trials=5, cv=StratifiedKFold(3, shuffle=True, random_state=0), random_state=0
    )
    outer = StratifiedKFold(3, shuffle=True, random_state=1)

    # The study lives in memory: each outer fold has one of its own.
    scores = cross_validate(search, table, target, cv=outer, scoring="neg_log_loss", return_estimator=True)
    inner = [fold.best_score_ for fold in scores["estimator"]]
    for fold, (inside, outside) in enumerate(zip(inner, scores["test_score"], strict=True)):
        print(f"fold {fold}: log-loss {-inside:.4f} in the search, {-outside:.4f} on rows it never saw")
    print(f"expect {-scores['test_score'].mean():.4f} of a tuned net on new rows")
    return -scores["test_score"].mean()


if __name__ == "__main__":
    main()
