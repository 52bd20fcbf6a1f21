"""A torch module of your own, tuned as the built-in net is: all trials and folds stacked into one model."""

import torch
from sklearn.datasets import load_breast_cancer

from inna_tune import InnaClassifier, InnaSearchCV, cross_validate


class Gated(torch.nn.Module):
    """Two streams, one of which opens and closes the other."""

    def __init__(self, in_features, out_features, width=48):
        super().__init__()
        self.content = torch.nn.Linear(in_features, width)
        self.gate = torch.nn.Linear(in_features, width)
        self.out = torch.nn.Linear(width, out_features)

    def forward(self, rows):  # [B, in_features], already encoded
        return self.out(torch.relu(self.content(rows)) * torch.sigmoid(self.gate(rows)))


def main():
    table, target = load_breast_cancer(return_X_y=True, as_frame=True)
    net = InnaClassifier(module=Gated, numeric_embedding="none", max_epochs=20, random_state=0)

    untuned = cross_validate(net, table, target, cv=3, scoring="accuracy")["test_score"].mean()
    search = InnaSearchCV(net, n_trials=6, cv=3, scoring="accuracy", random_state=0).fit(table, target)
    print(f"accuracy on held-out folds: {untuned:.3f} by itself, {search.best_score_:.3f} tuned")
    print("the tuned net:", type(search.best_estimator_).__name__, search.best_params_)
    return search.best_score_


if __name__ == "__main__":
    main()
