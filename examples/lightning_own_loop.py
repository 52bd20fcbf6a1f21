"""INNA inside Lightning: settings from the loss's curvature, the step size falling with the epochs."""

import lightning
import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

from inna_tune.optim import INNA, PowerDecay, calibrate


class Regressor(lightning.LightningModule):
    def __init__(self, first_batch):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(10, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
        self.settings = calibrate(lambda: self.loss(first_batch), list(self.net.parameters()))

    def loss(self, batch):
        features, target = batch
        return torch.nn.functional.mse_loss(self.net(features).squeeze(-1), target)

    def training_step(self, batch, _):
        return self.loss(batch)

    def validation_step(self, batch, _):
        self.log("validation_loss", self.loss(batch))

    def configure_optimizers(self):
        lr, alpha, beta = self.settings.lr, self.settings.alpha, self.settings.beta
        optimizer = INNA(self.parameters(), lr, alpha, beta, weight_decay=0.03)
        return [optimizer], [PowerDecay(optimizer)]


def main():
    lightning.seed_everything(0, verbose=False)
    features, target = (torch.as_tensor(array).float() for array in load_diabetes(return_X_y=True))
    features = (features - features.mean(0)) / features.std(0)
    target = (target - target.mean()) / target.std()
    train_x, test_x, train_y, test_y = train_test_split(features, target, random_state=0)
    rows = DataLoader(TensorDataset(train_x, train_y), batch_size=64, shuffle=True)
    trainer = lightning.Trainer(
        max_epochs=15, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    model = Regressor((train_x, train_y))
    trainer.fit(model, rows, DataLoader(TensorDataset(test_x, test_y), batch_size=256))
    explained = 1 - trainer.callback_metrics["validation_loss"].item() / test_y.var().item()
    print(f"share of the variance explained on held-out rows: {explained:.3f}")
    return explained


if __name__ == "__main__":
    main()
