"""Modules of many kinds: those that stack, those that train one by one, and those that write their buffers."""

import torch
from torch import nn

IN, OUT = 4, 3


def mlp(in_features, out_features):
    return nn.Sequential(nn.Linear(in_features, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, out_features))


def convolution(in_features, out_features):
    return nn.Sequential(
        nn.Unflatten(1, (1, in_features)),
        nn.Conv1d(1, 3, 2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(3 * (in_features - 1), out_features),
    )


class Attention(nn.Module):
    """Columns attend to each other; a code of each row is embedded."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.embedding = nn.Embedding(2, 8)
        self.columns = nn.Parameter(torch.randn(in_features, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, out_features)
        self.register_buffer("last", torch.tensor([in_features - 1]))
        self.register_buffer("visible", torch.ones(in_features, in_features, dtype=torch.bool).tril())

    def forward(self, x):
        tokens = x[..., None] * self.columns + self.embedding((x > 0.5).long())
        attended, _ = self.attention(tokens, tokens, tokens, attn_mask=~self.visible, need_weights=False)
        return self.head(attended[:, self.last].squeeze(1))


class Tied(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.down, self.up = nn.Linear(in_features, 5), nn.Linear(5, in_features, bias=False)
        self.head = nn.Linear(in_features, out_features)
        self.up.weight = nn.Parameter(self.down.weight.detach().T.clone())
        self.again = nn.Linear(5, in_features, bias=False)
        self.again.weight = self.up.weight

    def forward(self, x):
        return self.head(self.up(torch.tanh(self.down(x))) + self.again(self.down(x).sin()))


def frozen_features(in_features, out_features):
    module = nn.Sequential(nn.Linear(in_features, 7), nn.Sigmoid(), nn.Linear(7, out_features))
    module[0].requires_grad_(False)
    return module


def inplace(in_features, out_features):
    return nn.Sequential(nn.ReLU(inplace=True), nn.Linear(in_features, out_features))


class Recurrent(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.recurrent, self.head = nn.GRU(1, 5, batch_first=True), nn.Linear(5, out_features)

    def forward(self, x):
        return self.head(self.recurrent(x[..., None])[0][:, -1])


class Branching(nn.Module):
    """Looks at values, which ``vmap`` cannot, in batches larger than a probe."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, x):
        if len(x) > 5 and x.sum() > 0:
            return 2 * self.linear(x)
        return self.linear(x)


def normalized(in_features, out_features, momentum=0.1):
    return nn.Sequential(
        nn.Linear(in_features, 8), nn.BatchNorm1d(8, momentum=momentum), nn.ReLU(), nn.Linear(8, out_features)
    )


def cumulative(in_features, out_features):
    return normalized(in_features, out_features, momentum=None)


class OwnStatistics(nn.Module):
    """Puts a new tensor in its buffer's place."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.register_buffer("mean", torch.zeros(in_features))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.linear(x - self.mean)


def dropping(in_features, out_features):
    return nn.Sequential(nn.Linear(in_features, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, out_features))


STACKED = [mlp, convolution, Attention, Tied, frozen_features, inplace]
ALONE = [Recurrent, Branching]
WRITING = [normalized, cumulative, OwnStatistics]
