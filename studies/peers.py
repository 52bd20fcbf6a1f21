"""What the studies compare the product with: methods with fit and predict that take a table as it comes."""

import importlib.util

import numpy as np
import pandas as pd
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NUMBERS = "regression"


def boosting(task, seed, name, studies):
    """Histogram gradient boosting with early stopping; categories as its own."""
    kind = HistGradientBoostingRegressor if task == NUMBERS else HistGradientBoostingClassifier
    model = kind(categorical_features="from_dtype", early_stopping=True, max_iter=1000, random_state=seed)

    class Categorical:
        def fit(self, X, y):
            self.levels = {
                c: X[c].value_counts().index[:250] for c in X if not pd.api.types.is_numeric_dtype(X[c])
            }
            model.fit(self.encode(X), y)
            return self

        def encode(self, X):
            return X.assign(**{c: pd.Categorical(X[c], categories=v) for c, v in self.levels.items()})

        def predict(self, X):
            return model.predict(self.encode(X))

        def predict_proba(self, X):
            return model.predict_proba(self.encode(X))

    return Categorical()


def scaled_columns():
    """Scaled numbers, and levels one-hot."""

    def numeric(frame):
        return [c for c in frame if pd.api.types.is_numeric_dtype(frame[c])]

    def other(frame):
        return [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]

    levels = OneHotEncoder(handle_unknown="ignore", min_frequency=10, sparse_output=False)
    return make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), numeric), (levels, other)
    )


def perceptron(task, seed, name, studies):
    """scikit-learn's MLP on scaled numbers and one-hot levels."""
    columns = scaled_columns()
    options = {"hidden_layer_sizes": (256, 256), "early_stopping": True, "random_state": seed}
    if task != NUMBERS:
        return make_pipeline(columns, MLPClassifier(**options))
    return TransformedTargetRegressor(
        make_pipeline(columns, MLPRegressor(**options)), transformer=StandardScaler()
    )


def linear(task, seed, name, studies):
    """Ridge or logistic regression on scaled numbers and one-hot levels, the penalty by cross-validation."""
    columns = scaled_columns()
    if task != NUMBERS:
        return make_pipeline(columns, LogisticRegressionCV(scoring="neg_log_loss", max_iter=500))
    ridge = RidgeCV(np.logspace(-3, 4, 15))
    return TransformedTargetRegressor(make_pipeline(columns, ridge), transformer=StandardScaler())


def catboost(task, seed, name, studies):
    """Stopped early by a fifth of the rows, as the shared protocol has it; levels are its own, missing ones a level."""
    from catboost import CatBoostClassifier, CatBoostRegressor

    kind = CatBoostRegressor if task == NUMBERS else CatBoostClassifier

    class Levels:
        def fit(self, X, y):
            self.levels = [c for c in X if not pd.api.types.is_numeric_dtype(X[c])]
            options = {"verbose": False, "random_seed": seed, "allow_writing_files": False, "thread_count": 1}
            model = kind(cat_features=self.levels, early_stopping_rounds=50, **options)
            strata = None if task == NUMBERS else y
            X, X_val, y, y_val = train_test_split(X, y, test_size=0.2, random_state=seed, stratify=strata)
            self.model = model.fit(self.encode(X), y, eval_set=(self.encode(X_val), y_val))
            return self

        def encode(self, X):
            return X.assign(**{c: X[c].fillna("missing").astype(str) for c in self.levels})

        def predict(self, X):
            return self.model.predict(self.encode(X))

        def predict_proba(self, X):
            return self.model.predict_proba(self.encode(X))

    return Levels()


def of_pytabkit(name, task, seed, **of_classes):
    """A model of pytabkit's as it comes: missing numbers are medians, missing levels a level."""
    import pytabkit

    options = {"random_state": seed, "device": "cpu", "n_threads": 1, "verbosity": 0}
    if task != NUMBERS:
        options |= {"val_metric_name": "cross_entropy", **of_classes}
    kind = "Regressor" if task == NUMBERS else "Classifier"
    model = getattr(pytabkit, f"{name}_{kind}")(**options)

    class Filled:
        def fit(self, X, y):
            self.levels = [c for c in X if not pd.api.types.is_numeric_dtype(X[c])]
            self.medians = X.drop(columns=self.levels).astype(float).median()
            model.fit(self.encode(X), y, cat_col_names=self.levels)
            return self

        def encode(self, X):
            numbers = {c: X[c].astype(float).fillna(median) for c, median in self.medians.items()}
            levels = {c: X[c].fillna("missing").astype(str) for c in self.levels}
            return X.assign(**numbers, **levels).reset_index(drop=True)

        def predict(self, X):
            return model.predict(self.encode(X))

        def predict_proba(self, X):
            return model.predict_proba(self.encode(X))

    return Filled()


def realmlp(task, seed, name, studies):
    """RealMLP-TD (Holzmüller et al., NeurIPS 2024); for classes as its authors advise where log-loss counts."""
    return of_pytabkit("RealMLP_TD", task, seed, use_ls=False)


def tabm(task, seed, name, studies):
    """TabM (Gorishniy et al., ICLR 2025)."""
    return of_pytabkit("TabM_D", task, seed)


PEERS = {"boosting": boosting, "perceptron": perceptron, "linear": linear}
if importlib.util.find_spec("catboost"):
    PEERS["catboost"] = catboost
if importlib.util.find_spec("pytabkit"):
    PEERS |= {"realmlp": realmlp, "tabm": tabm}
