"""Where good step sizes lie is known roughly before the first trial; TPE begins there, and the prior fades with the trials."""

import math

import optuna
import optunahub

test_local = True

if test_local:
    module = optunahub.load_local_module(package="samplers/inna_prior", registry_root="./hub/")
else:
    module = optunahub.load_module(package="samplers/inna_prior")


def objective(trial: optuna.Trial) -> float:
    values = space.suggest(trial)
    return math.log(values["lr"] / 0.05) ** 2 + (values["momentum"] - 0.9) ** 2


space = module.SearchSpace(
    {
        "lr": module.LogNormal(0.1, 1.0, low=1e-5, high=10.0),
        "momentum": module.Beta(9.0, 1.0, low=0.0, high=1.0),
    }
)
sampler = module.PriorSampler(optuna.samplers.TPESampler(), space, seed=0)
study = optuna.create_study(sampler=sampler)
study.optimize(objective, n_trials=30)
print(study.best_trial)
