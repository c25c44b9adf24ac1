"""What a local worker has loaded before its first piece, libraries that load late included.

Where workers are forked, they share the memory of what is loaded here.
"""

import gc

import torch

from merging.models.graph.export import trace
from merging.results import tasks  # noqa: F401

trace(torch.nn.Linear(1, 1), (torch.zeros(2, 1),))  # the exporter loads most of itself when used
gc.collect()
gc.freeze()  # a collection that marks objects would give every worker a copy of its own
