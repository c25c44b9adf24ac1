"""Every way to upload two models and examples, as files with random weights."""

from __future__ import annotations

import importlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import transformers
from PIL import Image
from torch import Tensor, nn

from merging.models.architectures.registry import build_model
from tests.models.exported.test_pt2_archive import Small, exported

OWN_MODEL = "given_by_server:small"
OWN_DATA = "given_by_server:examples"
OWN_CODE = """
import numpy
import torch
def examples():
    x = numpy.random.default_rng(0).standard_normal((30, 8)).astype("float32")
    return (x[:20], x[:20].argmax(1) % 3), (torch.tensor(x[20:]), torch.arange(10) % 3)
def small():
    net = torch.nn.Sequential(torch.nn.Linear(8, 12), torch.nn.Tanh(), torch.nn.Linear(12, 3))
    return net, (torch.zeros(2, 8),)
"""
STEPS = 30


class Under(nn.Module):
    """A model inside another module, as wrappers and training frameworks save it."""

    def __init__(self, name: str, model: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, model)

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule(self.name)(x)


@dataclass(frozen=True)
class Route:
    """One way to upload a model.

    Attributes:
        make: A fresh module whose names are those of the files.
        write: Writes a module into a folder; the file's path.
        inputs: A batch for it.
        examples: Writes examples into a folder, and returns their path; None for no examples.
        data: What is chosen on the page in place of a file of examples.
        dtype: Of the weights in the file.
        architecture: What is chosen on the page; empty for what the files say.
        by_name: The architecture's name in a package, which the test needs.
        on_server: Whether the files are opened in the server's folder.
    """

    make: Callable[[], nn.Module]
    write: Callable[[nn.Module, Path], Path]
    inputs: Tensor
    examples: Callable[[Path], Path] | None = None
    data: str = "No examples"
    dtype: torch.dtype = torch.float32
    architecture: str = ""
    by_name: str = ""
    on_server: bool = False


def trained(route: Route, seed: int) -> nn.Module:
    """A model that has taken some steps from its own start."""
    torch.manual_seed(seed)
    model = route.make()
    optimiser = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(STEPS):
        optimiser.zero_grad()
        outputs(model, route.inputs).square().mean().backward()
        optimiser.step()
    return model.eval()


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    """What a model says, whatever it wraps that in."""
    found = model(x)
    return found if isinstance(found, Tensor) else found.logits


def _perceptron(prefix: str = "") -> nn.Module:
    seed = int(torch.randint(2**31, (1,)))
    model = build_model({"architecture": "mlp", "widths": [64, 16, 12, 3]}, seed=seed)
    return Under(prefix, model) if prefix else model


def _safetensors(model: nn.Module, folder: Path) -> Path:
    path = folder / "model.safetensors"
    safetensors.torch.save_file(dict(model.state_dict()), path)
    return path


def _half(model: nn.Module, folder: Path) -> Path:
    path = folder / "model.pt"
    torch.save({name: value.half() for name, value in model.state_dict().items()}, path)
    return path


def _lightning(model: nn.Module, folder: Path) -> Path:
    path = folder / "last.ckpt"
    checkpoint = {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": model.state_dict(),
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.05, "params": [0, 1]}]}],
        "hyper_parameters": {"width": 16, "name": "net"},
    }
    torch.save(checkpoint, path)
    return path


def _shards(model: nn.Module, folder: Path) -> Path:
    state = model.state_dict()
    names = list(state)
    parts = {"model-1-of-2.safetensors": names[:3], "model-2-of-2.safetensors": names[3:]}
    index = {"metadata": {}, "weight_map": {n: file for file, own in parts.items() for n in own}}
    path = folder / "sharded.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file, own in parts.items():
            archive.writestr(f"net/{file}", safetensors.torch.save({n: state[n] for n in own}))
        archive.writestr("net/model.safetensors.index.json", json.dumps(index))
    return path


def _hugging_face(model: transformers.PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder / "gpt")
    path = folder / "gpt.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((folder / "gpt").iterdir()):
            archive.write(file, f"gpt/{file.name}")
    return path


def _gpt() -> nn.Module:
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=12, bos_token_id=0,
        eos_token_id=0, use_cache=False, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def _archive(model: nn.Module, folder: Path) -> Path:
    path = folder / "model.pt2"
    path.write_bytes(exported(model, torch.randn(2, 1, 8, 8)))
    return path


def _own() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 3))


def _arrays(features: int) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        rng = np.random.default_rng(0)
        path = folder / "examples.npz"
        x = rng.standard_normal((30, features)).astype(np.float32)
        np.savez(path, x=x, y=rng.integers(0, 3, 30))
        return path

    return write


def _table(folder: Path) -> Path:
    rng = np.random.default_rng(1)
    rows = [
        ",".join([*(f"{v:.4f}" for v in rng.standard_normal(64)), "abc"[k % 3]]) for k in range(30)
    ]
    path = folder / "table.csv"
    path.write_text("\n".join([",".join([*(f"f{k}" for k in range(64)), "label"]), *rows]))
    return path


def _images(folder: Path) -> Path:
    rng = np.random.default_rng(2)
    path = folder / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(30):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(file, "PNG")
            archive.writestr(f"digits/{'abc'[k % 3]}/{k}.png", file.getvalue())
    return path


def _tokens(folder: Path) -> Path:
    path = folder / "text.npz"
    np.savez(path, tokens=np.random.default_rng(3).integers(0, 20, (12, 10)))
    return path


def _torchvision() -> nn.Module:
    return importlib.import_module("torchvision.models").resnet18(num_classes=3)


def _timm() -> nn.Module:
    return importlib.import_module("timm").create_model("resnet10t", num_classes=3)


def _pictures(folder: Path) -> Path:
    rng = np.random.default_rng(4)
    path = folder / "pictures.npz"
    x = rng.standard_normal((30, 3, 32, 32)).astype(np.float32)
    np.savez(path, x=x, y=rng.integers(0, 3, 30))
    return path


_X = torch.randn(6, 64, generator=torch.Generator().manual_seed(9))
_PICTURES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(8))
ROUTES = {
    "safetensors": Route(_perceptron, _safetensors, _X, _arrays(64)),
    "PyTorch file": Route(lambda: _perceptron("module"), _half, _X, _table, dtype=torch.float16),
    "Lightning": Route(lambda: _perceptron("net"), _lightning, _X),
    "shards in a zip file": Route(_perceptron, _shards, _X, _images),
    "Hugging Face folder": Route(_gpt, _hugging_face, torch.randint(0, 20, (2, 10)), _tokens),
    "exported archive": Route(Small, _archive, _X.reshape(6, 1, 8, 8)),
    "the server's functions": Route(
        _own, _safetensors, _X[:, :8], architecture=OWN_MODEL, data=OWN_DATA
    ),
    "a name of torchvision": Route(
        _torchvision, _safetensors, _PICTURES, _pictures, by_name="torchvision:resnet18"
    ),
    "a name of timm": Route(_timm, _safetensors, _PICTURES, _pictures, by_name="timm:resnet10t"),
    "the server's folder": Route(_perceptron, _safetensors, _X, _arrays(64), on_server=True),
}
