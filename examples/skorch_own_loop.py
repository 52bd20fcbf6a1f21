"""INNA inside skorch: a scikit-learn pipeline around a torch module, the step size falling with the epochs."""

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler

from inna_tune.optim import INNA, PowerDecay


def main():
    torch.manual_seed(0)
    features, target = load_breast_cancer(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        features.astype("float32"), target, stratify=target, random_state=0
    )
    net = NeuralNetClassifier(
        torch.nn.Sequential(torch.nn.Linear(30, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2)),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=INNA,
        lr=0.1,
        optimizer__alpha=0.5,
        optimizer__beta=0.1,
        max_epochs=15,
        batch_size=32,
        callbacks=[LRScheduler(PowerDecay)],
        verbose=0,
    )
    model = make_pipeline(StandardScaler(), net)
    model.fit(train_x, train_y)
    accuracy = model.score(test_x, test_y)
    print(f"accuracy on held-out rows: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
