"""Recurrent networks: layers and cells of PyTorch, and cells written out from their equations."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from tests.symmetry.networks.convolutional import seeded


class Tagger(nn.Module):
    """Tokens in, one answer per step: embedding, recurrent layers, head."""

    def __init__(self, kind: type[nn.RNNBase], tokens: int, width: int, units: int, **options):
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.cells = kind(width, units, batch_first=True, **options)
        outputs = (options.get("proj_size") or units) * (1 + options.get("bidirectional", False))
        self.head = nn.Linear(outputs, tokens)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(self.embed(x))[0])


class Classifier(nn.Module):
    """The last hidden states of both directions of the last layer, side by side."""

    def __init__(self, kind: type[nn.RNNBase], width: int, units: int, layers: int, classes: int):
        super().__init__()
        self.cells = kind(width, units, layers, bidirectional=True)
        self.lstm = kind is nn.LSTM
        self.head = nn.Linear(2 * units, classes)

    def forward(self, x: Tensor) -> Tensor:
        last = self.cells(x.transpose(0, 1))[1]
        last = last[0] if self.lstm else last
        return self.head(torch.cat([last[-2], last[-1]], -1))


class EncoderDecoder(nn.Module):
    """Cho et al. 2014, Sutskever et al. 2014: all last states of one are the other's first."""

    def __init__(self, kind: type[nn.RNNBase], tokens: int, units: int, layers: int):
        super().__init__()
        self.embed = nn.Embedding(tokens, units)
        self.encoder = kind(units, units, layers, batch_first=True)
        self.decoder = kind(units, units, layers, batch_first=True)
        self.head = nn.Linear(units, tokens)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, state = self.encoder(self.embed(source))
        return self.head(self.decoder(self.embed(target), state)[0])


class Stepped(nn.Module):
    """A cell of PyTorch, called step by step."""

    def __init__(self, kind: type[nn.RNNCellBase], width: int, units: int, classes: int):
        super().__init__()
        self.cell, self.head = kind(width, units), nn.Linear(units, classes)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class WrittenLSTM(nn.Module):
    """Hochreiter and Schmidhuber 1997 with forget gates, from its equations."""

    def __init__(self, width: int, units: int, classes: int):
        super().__init__()
        self.inward, self.back = nn.Linear(width, 4 * units), nn.Linear(units, 4 * units)
        self.head, self.units = nn.Linear(units, classes), units

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], self.units)
        for step in range(x.shape[1]):
            gates = self.inward(x[:, step]) + self.back(h)
            i, f, g, o = gates.chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h)


class WrittenGRU(nn.Module):
    """Cho et al. 2014, from its equations: a matrix per gate."""

    def __init__(self, width: int, units: int, classes: int):
        super().__init__()
        self.inward = nn.ModuleList(nn.Linear(width, units) for _ in range(3))
        self.back = nn.ModuleList(nn.Linear(units, units) for _ in range(3))
        self.head, self.units = nn.Linear(units, classes), units

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], self.units)
        for step in range(x.shape[1]):
            r, z, n = (layer(x[:, step]) for layer in self.inward)
            r, z = torch.sigmoid(r + self.back[0](h)), torch.sigmoid(z + self.back[1](h))
            h = (1 - z) * torch.tanh(n + r * self.back[2](h)) + z * h
        return self.head(h)


def _tokens(build, tokens: int, inputs: int = 1):
    model, _ = seeded(build, 1)
    generator = torch.Generator().manual_seed(0)
    return model, tuple(torch.randint(tokens, (2, 5), generator=generator) for _ in range(inputs))


def _tagger(kind, units: int, *, small: bool = False, **options):
    options = {"num_layers": 2, **options}
    if "proj_size" in options and small:
        options["proj_size"] = 4
    tokens, width, units = (7, 4, 5) if small else (10_000, units, units)
    return _tokens(lambda: Tagger(kind, tokens, width, units, **options), tokens)


def _classifier(kind, *, small: bool = False):
    width, units, classes = (3, 4, 2) if small else (300, 512, 2)
    return seeded(lambda: Classifier(kind, width, units, 2, classes), 5, width)


def _encoder_decoder(kind, *, small: bool = False):
    tokens, units = (7, 4) if small else (10_000, 512)
    return _tokens(lambda: EncoderDecoder(kind, tokens, units, 2), tokens, 2)


def _stepped(kind, *, small: bool = False):
    width, units, classes = (3, 5, 2) if small else (28, 128, 10)
    return seeded(lambda: Stepped(kind, width, units, classes), 4, width)


def _written(kind, *, small: bool = False):
    width, units, classes = (3, 5, 2) if small else (28, 128, 10)
    return seeded(lambda: kind(width, units, classes), 4, width)


CATALOG = {
    "RNN": partial(_tagger, nn.RNN, 650, num_layers=1),
    "LSTM, two layers": partial(_tagger, nn.LSTM, 650, dropout=0.5),
    "LSTM with projection": partial(_tagger, nn.LSTM, 1024, proj_size=512),
    "LSTM, bidirectional": partial(_classifier, nn.LSTM),
    "LSTM encoder-decoder": partial(_encoder_decoder, nn.LSTM),
    "LSTM cell": partial(_stepped, nn.LSTMCell),
    "LSTM written out": partial(_written, WrittenLSTM),
    "GRU, two layers": partial(_tagger, nn.GRU, 650, dropout=0.5),
    "GRU, bidirectional": partial(_classifier, nn.GRU),
    "GRU encoder-decoder": partial(_encoder_decoder, nn.GRU),
    "GRU cell": partial(_stepped, nn.GRUCell),
    "GRU written out": partial(_written, WrittenGRU),
}
