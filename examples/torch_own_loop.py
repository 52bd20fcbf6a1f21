"""Your own training loop in an Optuna objective: INNA steps, and its priors say where to search."""

import optuna
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy

from inna_tune import INNA, PriorSampler, SearchSpace
from inna_tune.optim import PowerDecay, calibrate


def make_net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(30, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))


def train(settings, rows, labels, epochs=8, batch_size=64):
    net = make_net()
    optimizer = INNA(net.parameters(), settings["lr"], settings["alpha"], settings["beta"])
    decay = PowerDecay(optimizer)
    for _ in range(epochs):
        for batch in torch.randperm(len(rows)).split(batch_size):
            optimizer.zero_grad()
            cross_entropy(net(rows[batch]), labels[batch]).backward()
            optimizer.step()
        decay.step()
    return net


@torch.no_grad()
def accuracy(net, rows, labels):
    return (net(rows).argmax(1) == labels).double().mean().item()


def main():
    features, labels = (torch.as_tensor(array) for array in load_breast_cancer(return_X_y=True))
    features = ((features - features.mean(0)) / features.std(0)).float()
    train_x, test_x, train_y, test_y = train_test_split(features, labels, random_state=0)

    # The curvature of the loss at the initial weights sets the scale, and settings to begin with.
    net = make_net()
    found = calibrate(lambda: cross_entropy(net(train_x[:256]), train_y[:256]), net.parameters())
    untuned = accuracy(train(found._asdict(), train_x, train_y), test_x, test_y)

    space = SearchSpace.inna(curvature=found.curvature)
    space = SearchSpace({name: space[name] for name in ("alpha", "beta", "lr")})
    sampler = PriorSampler(optuna.samplers.TPESampler(seed=0), space, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    fit_x, check_x, fit_y, check_y = train_test_split(train_x, train_y, random_state=0)
    study.optimize(lambda trial: accuracy(train(space.suggest(trial), fit_x, fit_y), check_x, check_y), 12)
    tuned = accuracy(train(study.best_params, train_x, train_y), test_x, test_y)
    print(f"accuracy on held-out rows: calibrated {untuned:.3f}, tuned {tuned:.3f}")
    return tuned


if __name__ == "__main__":
    main()
