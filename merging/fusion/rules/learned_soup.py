"""The learned soup: coefficients of the models that make the validation loss least."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import BatchesLike
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule, type_of_examples, weighted_mean
from merging.schema.cards.fusion.soups import LearnedSoupOptions
from merging.schema.cards.fusion.table import find_card
from merging.schema.progress import Progress

_EXAMPLES = 500  # per step


def learn(
    problem: FusionProblem, options: LearnedSoupOptions, on_progress: Progress
) -> FusionProblem:
    """Learn coefficients on the simplex, and a temperature, by Adam (Wortsman et al. 2022).

    All models are held in memory at once. Notes: `coefficients`; `temperature`, by which logits
    are multiplied and which is not part of the weights; `losses`, per pass.
    """
    stacks, rest = _stacked(problem)
    chunks = _chunks(problem.batches or ())
    scores = torch.zeros(len(problem.models), requires_grad=True)
    log_temperature = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([scores, log_temperature], lr=options.lr)
    losses = []
    for epoch in range(options.epochs):
        total = 0.0
        for k, (x, y) in enumerate(chunks):
            optimizer.zero_grad()
            logits = _logits(problem, stacks, rest, scores.softmax(0), x)
            loss = F.cross_entropy(logits * log_temperature.exp(), y)
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(y)
            on_progress(epoch + (k + 1) / len(chunks), options.epochs, "coefficients learned")
        losses.append(total / sum(len(y) for _, y in chunks))
    shares = scores.detach().double().softmax(0).tolist()
    temperature = float(log_temperature.detach().exp())
    return problem.reweighted(shares, coefficients=shares, temperature=temperature, losses=losses)


def _stacked(problem: FusionProblem) -> tuple[Params, Params]:
    first = problem.models[0]
    names = [name for name in first if problem.is_floating(name)]
    dtype = type_of_examples(problem.batches or ())
    stacks = {n: torch.stack([t.tensor(dtype) for t in problem.tensors(n)]) for n in names}
    return stacks, {name: first[name] for name in first if name not in stacks}


def _logits(
    problem: FusionProblem, stacks: Params, rest: Params, shares: Tensor, x: Tensor
) -> Tensor:
    model = problem.model
    assert model is not None  # the problem was checked against the card
    fixed = shares.detach()  # statistics are not differentiated
    mixed = {
        n: torch.tensordot((fixed if n in problem.statistics else shares).to(stack), stack, dims=1)
        for n, stack in stacks.items()
    }
    was_training = model.training
    model.eval()
    try:
        logits: Tensor = functional_call(model, {**mixed, **rest}, (x,), tie_weights=False)
    finally:
        model.train(was_training)
    return logits


def _chunks(batches: BatchesLike) -> list[tuple[Tensor, Tensor]]:
    return [
        pair
        for x, y in batches
        for pair in zip(x.split(_EXAMPLES), y.split(_EXAMPLES), strict=True)
    ]


RULE = Rule(find_card("learned_soup"), weighted_mean, learn)
