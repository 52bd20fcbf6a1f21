"""Quick start: tune on a DataFrame with words and missing values, score on rows kept aside, save, load, predict."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import inna_tune
from inna_tune import InnaClassifier, InnaSearchCV


def messy_table():
    """The breast cancer table, as tables are: a column of words, gaps in another, the answer in words too."""
    table, target = load_breast_cancer(return_X_y=True, as_frame=True)
    table["mean texture"] = pd.cut(table["mean texture"], 3, labels=["fine", "medium", "coarse"]).astype(str)
    table.loc[::12, "mean area"] = np.nan
    return table, target.map({0: "malignant", 1: "benign"})


def main():
    table, target = messy_table()
    train_x, test_x, train_y, test_y = train_test_split(table, target, stratify=target, random_state=0)

    net = InnaClassifier(hidden_layer_sizes=(64, 64), max_epochs=40)
    search = InnaSearchCV(net, n_trials=6, cv=3, random_state=0)
    search.fit(train_x, train_y)  # tunes, then fits the best settings on all these rows

    print("best settings:", search.best_params_)
    print(search.trials_dataframe()[["number", "state", "score", "epochs", "seconds"]])
    accuracy = search.best_estimator_.score(test_x, test_y)
    print(f"accuracy on held-out rows: {accuracy:.3f}")

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cancer.inna"
        search.best_estimator_.save(file)
        model = inna_tune.load(file)  # runs no code from the file
    print(pd.DataFrame(model.predict_proba(test_x.head(3)), columns=model.classes_).round(3))
    return accuracy


if __name__ == "__main__":
    main()
