"""A study in an SQLite file: stop it, resume it, and let a second process help. The total of trials stays exact."""

import multiprocessing
import tempfile

from sklearn.datasets import load_wine

from inna_tune import InnaClassifier, InnaSearchCV


def work(storage, n_trials, refit=True):
    """Create the study "wine" or join it; return when it has its trials, whoever ran them."""
    table, target = load_wine(return_X_y=True, as_frame=True)
    search = InnaSearchCV(
        InnaClassifier(hidden_layer_sizes=(32,), max_epochs=20),
        n_trials=n_trials,
        cv=3,
        population=1,  # draw trials one by one, so that two processes can share eight
        storage=storage,
        study_name="wine",
        resume=True,
        refit=refit,
        random_state=0,
    )
    return search.fit(table, target)


def main():
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/studies.db"
        work(storage, n_trials=3, refit=False)  # as far as you got yesterday

        # From a shell a second worker is: inna-tune worker STUDY TABLE, for studies that inna-tune fit began.
        second = multiprocessing.get_context("spawn").Process(target=work, args=(storage, 8, False))
        second.start()
        search = work(storage, n_trials=8)
        second.join()

        print(f"found {search.resumed_.finished} finished trials, now {len(search.study_.trials)}")
        print(f"best: trial {search.study_.best_trial.number}, log-loss {-search.best_score_:.4f}")
        return search.trials_dataframe()


if __name__ == "__main__":
    main()
