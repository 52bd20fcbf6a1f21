"""Epochs into TensorBoard, MLflow and Weights & Biases by their own protocols, and into a line that shows progress."""

from typing import Any

from tqdm.auto import tqdm

from inna_tune.estimators import Epoch


class ProgressBar:
    """A bar of the epochs of a fit, with the losses of the last.

    Parameters
    ----------
    **options
        Of `tqdm.tqdm`, such as ``file`` or ``disable``.

    Examples
    --------
    >>> import io
    >>> from sklearn.datasets import load_iris
    >>> from inna_tune import InnaClassifier
    >>> from inna_tune.loggers import ProgressBar
    >>> X, y = load_iris(return_X_y=True)
    >>> text = io.StringIO()
    >>> net = InnaClassifier(hidden_layer_sizes=(4,), max_epochs=3, callbacks=[ProgressBar(file=text)]).fit(X, y)
    >>> "train_loss" in text.getvalue()
    True
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._bar: Any = None

    def __call__(self, epoch: Epoch) -> None:
        if self._bar is None or epoch.number == 1:
            self.close()
            self._bar = tqdm(total=epoch.n_epochs, unit="epoch", **self._options)
        self._bar.update(epoch.number - self._bar.n)
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in epoch.losses.items()})
        if epoch.number == epoch.n_epochs:
            self.close()

    def close(self) -> None:
        """Leave the bar as it is; a fit that ends early does not say so by itself."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_options": self._options, "_bar": None}


class TensorBoardLogger:
    """Scalars for TensorBoard.

    Parameters
    ----------
    writer : torch.utils.tensorboard.SummaryWriter
        Or what has its ``add_scalar`` and ``flush``. Who made it closes it.
    prefix : str, default="fit/"
        Before the scalars' names.
    """

    def __init__(self, writer: Any, *, prefix: str = "fit/") -> None:
        self.writer, self.prefix = writer, prefix

    def __call__(self, epoch: Epoch) -> None:
        for name, value in epoch.losses.items():
            self.writer.add_scalar(f"{self.prefix}{name}", value, epoch.number)
        self.writer.flush()


class MLflowLogger:
    """Metrics of MLflow's run, the active one unless another is named.

    Parameters
    ----------
    run_id : str, optional
    prefix : str, default=""
        Before the metrics' names.
    """

    def __init__(self, *, run_id: str | None = None, prefix: str = "") -> None:
        self.run_id, self.prefix = run_id, prefix

    def __call__(self, epoch: Epoch) -> None:
        import mlflow

        named = {f"{self.prefix}{name}": value for name, value in epoch.losses.items()}
        mlflow.log_metrics(named, step=epoch.number, run_id=self.run_id)


class WandbLogger:
    """History of a run of Weights & Biases.

    Parameters
    ----------
    run : wandb.Run
        As ``wandb.init`` gives it. Who began it finishes it.
    prefix : str, default=""
        Before the names.
    """

    def __init__(self, run: Any, *, prefix: str = "") -> None:
        self.run, self.prefix = run, prefix

    def __call__(self, epoch: Epoch) -> None:
        named = {f"{self.prefix}{name}": value for name, value in epoch.losses.items()}
        self.run.log(named, step=epoch.number)
