"""A tuned net inside a scikit-learn pipeline, its probabilities calibrated on folds it was not fitted on."""

from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer

from inna_tune import InnaClassifier, InnaSearchCV


def main():
    table, target = load_breast_cancer(return_X_y=True, as_frame=True)
    train_x, test_x, train_y, test_y = train_test_split(table, target, stratify=target, random_state=0)

    net = InnaClassifier(hidden_layer_sizes=(32,), max_epochs=40)
    search = InnaSearchCV(net, n_trials=5, cv=3, refit=False, random_state=0).fit(train_x, train_y)

    # Scaling and encoding are the net's own; a step of yours goes before it as before any estimator.
    tuned = net.set_params(**search.best_params_, random_state=0)
    pipeline = make_pipeline(PowerTransformer().set_output(transform="pandas"), tuned)
    calibrated = CalibratedClassifierCV(pipeline, method="temperature", cv=5, ensemble=False).fit(
        train_x, train_y
    )

    plain = log_loss(test_y, pipeline.fit(train_x, train_y).predict_proba(test_x))
    mended = log_loss(test_y, calibrated.predict_proba(test_x))
    print(f"log-loss on held-out rows: {plain:.4f}, calibrated {mended:.4f}")
    return mended


if __name__ == "__main__":
    main()
