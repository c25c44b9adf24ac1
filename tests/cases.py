"""Small networks, written out: what tests look at.

`NETWORKS` holds one network per way in which tensors are joined, cut and mixed, with the sizes of
the permutation groups that it has by hand. `CONFIGS` holds every bundled architecture, tiny.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, settings
from torch import Tensor, nn

from merging.files.data.batches import Batches
from merging.models.architectures.registry import ARCHITECTURES, build_model
from merging.models.graph.export import trace
from merging.symmetry import Derivation, derive_certified

few = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Net(nn.Module):
    """A network from its parts and a forward function `(parts, x)`."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], /, **parts: Any) -> None:
        super().__init__()
        self.written = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.written(self, x)


class Constant(nn.Module):
    """A tensor that is not part of the state dict."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value.clone(), persistent=False)


@dataclass(frozen=True)
class Network:
    """A network by hand.

    Attributes:
        build: Makes it.
        shape: Shape of one example.
        sizes: Sizes of its permutation groups, ascending.
        tokens: Number of different tokens, where the inputs are tokens.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    sizes: tuple[int, ...]
    tokens: int = 0


def conv(n_in: int, n_out: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1, **options)


def conv1d(n_in: int, n_out: int, **options: Any) -> nn.Conv1d:
    return nn.Conv1d(n_in, n_out, 3, padding=1, **options)


linear = nn.Linear


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def pooled(x: Tensor) -> Tensor:
    return x.flatten(2).mean(2)


def heads_of(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _conv_flatten(m: Any, x: Tensor) -> Tensor:
    x = F.max_pool2d(F.relu(m.conv(x)), 2)
    return m.head(F.relu(m.fc(x.flatten(1))))


def _dense(m: Any, x: Tensor) -> Tensor:
    one = F.relu(m.one(x))
    two = F.relu(m.two(torch.cat([x, one], 1)))
    three = F.relu(m.three(torch.cat([x, one, two], 1)))
    return m.head(pooled(three))


def _concat_flatten(m: Any, x: Tensor) -> Tensor:
    both = torch.cat([m.left(x), m.right(x)], 1)
    return m.head(F.relu(m.fc(F.relu(m.norm(both)).flatten(1))))


def _channels_last(m: Any, x: Tensor) -> Tensor:
    both = torch.cat([m.left(x), m.right(x)], -1)
    return m.head(F.relu(both).flatten(1))


def _gate(m: Any, x: Tensor) -> Tensor:
    value, gate = m.both(x).chunk(2, dim=1)
    return m.head(pooled(value * torch.sigmoid(gate)))


def _uneven_split(m: Any, x: Tensor) -> Tensor:
    left, right = torch.split(F.relu(m.both(x)), [3, 4], dim=1)
    return m.head(pooled(m.left(left) + m.right(right)))


def _slices(m: Any, x: Tensor) -> Tensor:
    y = F.relu(m.both(x))
    return m.left(y[:, :3]) + m.right(y[:, 3:])


def _tied(m: Any, x: Tensor) -> Tensor:
    return m.unembed(F.relu(m.fc(m.embed(x).mean(1))))


def _build_tied() -> nn.Module:
    net = Net(_tied, embed=nn.Embedding(7, 6), fc=linear(6, 6), unembed=linear(6, 7, bias=False))
    net.unembed.weight = net.embed.weight
    return net


def _fused_chunk(m: Any, x: Tensor) -> Tensor:
    x = m.embed(x)
    q, k, v = (heads_of(part, 2) for part in m.qkv(x).chunk(3, dim=-1))
    return m.head((x + m.out(joined(F.scaled_dot_product_attention(q, k, v)))).mean(1))


def _fused_split(m: Any, x: Tensor) -> Tensor:
    x = m.embed(x)
    q, k, v = (heads_of(part, 2) for part in m.qkv(x).split([6, 6, 6], dim=-1))
    return m.head((x + m.out(joined(F.scaled_dot_product_attention(q, k, v)))).mean(1))


def _fused_view(m: Any, x: Tensor) -> Tensor:
    x = m.embed(x)
    n, tokens, _ = x.shape
    q, k, v = m.qkv(x).view(n, tokens, 3, 2, 3).permute(2, 0, 3, 1, 4).unbind(0)
    return m.head((x + m.out(joined(F.scaled_dot_product_attention(q, k, v)))).mean(1))


def _grouped_query(m: Any, x: Tensor) -> Tensor:
    q, k, v = heads_of(m.q(x), 4), heads_of(m.k(x), 2), heads_of(m.v(x), 2)
    return m.out(joined(F.scaled_dot_product_attention(q, k, v, enable_gqa=True))).mean(1)


def _grouped_query_expanded(m: Any, x: Tensor) -> Tensor:
    q, k, v = heads_of(m.q(x), 4), heads_of(m.k(x), 2), heads_of(m.v(x), 2)
    n, _, tokens, d = k.shape
    k, v = (t[:, :, None].expand(n, 2, 2, tokens, d).reshape(n, 4, tokens, d) for t in (k, v))
    return m.out(joined(F.scaled_dot_product_attention(q, k, v))).mean(1)


def _causal(m: Any, x: Tensor) -> Tensor:
    q, k, v = (heads_of(part(x), 2) for part in (m.q, m.k, m.v))
    return m.out(joined(F.scaled_dot_product_attention(q, k, v, is_causal=True))).mean(1)


def _einsum_attention(m: Any, x: Tensor) -> Tensor:
    q, k, v = (part(x).unflatten(-1, (2, -1)) for part in (m.q, m.k, m.v))
    scores = torch.softmax(torch.einsum("bihd,bjhd->bhij", q, k) / 2, -1)
    return m.out(torch.einsum("bhij,bjhd->bihd", scores, v).flatten(2)).mean(1)


def _matmul_attention(m: Any, x: Tensor) -> Tensor:
    q, k, v = (heads_of(part(x), 2) for part in (m.q, m.k, m.v))
    scores = torch.softmax(q @ k.transpose(-1, -2) / 2, -1)
    return m.out(joined(scores @ v)).mean(1)


def _bmm_attention(m: Any, x: Tensor) -> Tensor:
    n, tokens, _ = x.shape
    q, k, v = (heads_of(part(x), 2).reshape(n * 2, tokens, -1) for part in (m.q, m.k, m.v))
    scores = torch.softmax(torch.bmm(q, k.transpose(1, 2)), -1)
    y = torch.bmm(scores, v).view(n, 2, tokens, -1)
    return m.out(joined(y)).mean(1)


def _module_attention(m: Any, x: Tensor) -> Tensor:
    x = m.embed(x)
    return m.head((x + m.attention(x, x, x, need_weights=False)[0]).mean(1))


def _padded_shortcut(m: Any, x: Tensor) -> Tensor:
    x = F.relu(m.stem(x))
    shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2))
    return m.head(pooled(F.relu(m.conv(x) + shortcut)))


def _pools(m: Any, x: Tensor) -> Tensor:
    x = F.relu(m.one(F.max_pool2d(x, 2)))
    x = F.avg_pool2d(x, 2, stride=1) + F.adaptive_avg_pool2d(x, 3)
    x = F.adaptive_max_pool2d(m.two(x), 2)
    return m.head(F.interpolate(x, scale_factor=2).flatten(1))


def _class_token(m: Any, x: Tensor) -> Tensor:
    token = m.token.expand(x.shape[0], -1, -1)
    x = m.norm(torch.cat([token, m.embed(x)], dim=1) + m.positions)
    q, k, v = (part(x)[:, None] for part in (m.q, m.k, m.v))
    x = F.scaled_dot_product_attention(q, k, v).squeeze(1)
    return m.head(x[:, 0])


def _stacked(m: Any, x: Tensor) -> Tensor:
    both = torch.stack([F.relu(m.left(x)), torch.tanh(m.right(x))], dim=2)
    return m.head(both.select(2, 0).unsqueeze(1).squeeze(1) + m.side(both).squeeze(2))


def _excitation(m: Any, x: Tensor) -> Tensor:
    x = F.relu(m.conv(x))
    scale = torch.sigmoid(m.up(F.relu(m.down(pooled(x)))))
    return m.head(pooled(x * scale[:, :, None, None] + x.sum(1, keepdim=True)))


def _recurrent(m: Any, x: Tensor) -> Tensor:
    hidden = torch.tanh(m.inward(x[:, 0]))
    for step in (1, 2):
        hidden = torch.tanh(m.inward(x[:, step]) + m.again(hidden))
    return m.head(hidden)


def _outer(m: Any, x: Tensor) -> Tensor:
    x = F.relu(m.fc(x))
    return m.head((x[:, :, None] * x[:, None, :]).flatten(1))


def _norms(m: Any, x: Tensor) -> Tensor:
    x = F.relu(m.batch(m.conv(x)))
    x = m.slopes(m.instance(m.deep(x)))
    return m.head(m.rms(m.layer(pooled(x))))


def _residual(m: Any, x: Tensor) -> Tensor:
    x = F.relu(m.stem(x))
    x = F.relu(x + m.norm2(m.conv2(F.relu(m.norm1(m.conv1(x))))))
    return m.head(pooled(x))


def _means(m: Any, x: Tensor) -> Tensor:
    x = F.gelu(m.conv(x))
    spread = x.var(1) + x.amax(1) + torch.logsumexp(x, 1) + x.mean(1)
    return m.head(spread.flatten(1))


def _repeats(m: Any, x: Tensor) -> Tensor:
    return m.head(F.relu(m.fc(x)).repeat(1, 2))


def _swapped(m: Any, x: Tensor) -> Tensor:
    x = F.relu(m.fc(m.conv(x).swapaxes(1, 3)))
    return m.head(pooled(x.swapdims(1, 3)))


def _constants(m: Any, x: Tensor) -> Tensor:
    x = F.conv2d(F.relu(m.conv(x)), m.blur.value, groups=3)
    bias = torch.cat([m.bias, m.zeros.value, m.bias])
    a, b, c = (m.fc(pooled(x)) + bias).tensor_split(3, dim=-1)
    return m.head(F.relu(a * b + c))


def _windows(m: Any, x: Tensor) -> Tensor:
    x = m.fc(x)
    bias = m.bias.clone()
    bias[3:].zero_()
    x = F.relu((x + bias).unsqueeze(0).reshape_as(x))
    return m.head(x.unfold(1, 2, 1).sum(-1).mean(1))


def _overwritten(m: Any, x: Tensor) -> Tensor:
    x = m.fc(x)
    x.relu_()
    mask = torch.zeros(3, 3, dtype=x.dtype)
    mask[0, 1:] = 1.0
    mask[1].add_(m.scale)
    x[:, 2].mul_(2.0)
    return m.head(F.gelu(m.deep(mask @ x)).sum(1))


def _regions(m: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        x = F.relu(m.fc(x))
    with torch.no_grad():
        scale, largest = x.mean(1, keepdim=True), x.amax(1, keepdim=True)
    return m.head(F.relu(m.fc2(x - scale))) * largest


def _unfused(forward: Callable[[Any, Tensor], Any], kv: int = 6) -> nn.Module:
    q = linear(5, 12 if kv == 6 and forward in _GROUPED else 6)
    return Net(forward, q=q, k=linear(5, kv), v=linear(5, kv), out=linear(q.out_features, 2))


_GROUPED = (_grouped_query, _grouped_query_expanded)


def _fused(forward: Callable[[Any, Tensor], Any]) -> nn.Module:
    parts = {"qkv": linear(5, 18), "out": linear(6, 5)}
    return Net(forward, embed=linear(4, 5), **parts, head=linear(5, 2))


NETWORKS: Mapping[str, Network] = {
    "perceptron": Network(
        lambda: nn.Sequential(linear(4, 5), nn.ReLU(), linear(5, 3), nn.GELU(), linear(3, 2)),
        (4,),
        (3, 5),
    ),
    "swapped axes": Network(
        lambda: Net(_swapped, conv=conv(1, 3), fc=linear(3, 5), head=linear(5, 2)),
        (1, 4, 4),
        (3, 5),
    ),
    "constants that are equal along an axis": Network(
        lambda: Net(
            _constants,
            conv=conv(1, 3),
            blur=Constant(torch.tensor([[1.0, 2.0], [3.0, 1.0]]).expand(3, 1, 2, 2)),
            fc=linear(3, 12),
            bias=weight(4),
            zeros=Constant(torch.zeros(4)),
            head=linear(4, 2),
        ),
        (1, 4, 4),
        (3, 4),
    ),
    "windows and a slice of zeros": Network(
        lambda: Net(_windows, fc=linear(4, 6), bias=weight(6), head=linear(6, 2)),
        (3, 4),
        (3, 3),
    ),
    "what is written into in passing": Network(
        lambda: Net(
            _overwritten,
            fc=linear(40, 5),
            scale=weight(1),
            deep=linear(5, 4),
            head=linear(4, 2),
        ),
        (3, 40),
        (4, 5),
    ),
    "regions without gradients and autocast": Network(
        lambda: Net(_regions, fc=linear(4, 5), fc2=linear(5, 3), head=linear(3, 2)),
        (4,),
        (3, 5),
    ),
    "convolution then flatten": Network(
        lambda: Net(_conv_flatten, conv=conv(1, 3), fc=linear(12, 5), head=linear(5, 2)),
        (1, 4, 4),
        (3, 5),
    ),
    "group norm": Network(
        lambda: nn.Sequential(
            conv(1, 6), nn.GroupNorm(2, 6), nn.ReLU(), nn.Flatten(), linear(24, 2)
        ),
        (1, 2, 2),
        (2, 3),
    ),
    "group norm of one group": Network(
        lambda: nn.Sequential(conv(1, 5), nn.GroupNorm(1, 5), nn.Flatten(), linear(20, 2)),
        (1, 2, 2),
        (5,),
    ),
    "grouped convolution": Network(
        lambda: nn.Sequential(
            conv(2, 4), nn.ReLU(), conv(4, 6, groups=2), nn.ReLU(), nn.Flatten(), linear(54, 2)
        ),
        (2, 3, 3),
        (2, 2, 3),
    ),
    "grouped convolution 1d": Network(
        lambda: nn.Sequential(
            conv1d(2, 4), nn.ReLU(), conv1d(4, 6, groups=2), nn.ReLU(), nn.Flatten(), linear(18, 2)
        ),
        (2, 3),
        (2, 2, 3),
    ),
    "depthwise convolution": Network(
        lambda: nn.Sequential(
            conv(1, 4),
            nn.ReLU(),
            conv(4, 4, groups=4),
            nn.ReLU(),
            nn.Conv2d(4, 5, 1),
            nn.ReLU(),
            nn.Flatten(),
            linear(45, 2),
        ),
        (1, 3, 3),
        (4, 5),
    ),
    "depthwise convolution 1d": Network(
        lambda: nn.Sequential(
            conv1d(1, 4), nn.ReLU(), conv1d(4, 4, groups=4), nn.ReLU(), nn.Flatten(), linear(12, 2)
        ),
        (1, 3),
        (4,),
    ),
    "depthwise convolution with two outputs each": Network(
        lambda: nn.Sequential(
            conv(1, 3), nn.ReLU(), conv(3, 6, groups=3), nn.ReLU(), nn.Flatten(), linear(54, 2)
        ),
        (1, 3, 3),
        (2, 3),
    ),
    "transposed convolution": Network(
        lambda: nn.Sequential(
            conv(1, 4, stride=2),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 3, 2, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            linear(48, 2),
        ),
        (1, 4, 4),
        (3, 4),
    ),
    "grouped transposed convolution": Network(
        lambda: nn.Sequential(
            conv1d(1, 4),
            nn.ReLU(),
            nn.ConvTranspose1d(4, 6, 2, groups=2),
            nn.ReLU(),
            nn.Flatten(),
            linear(24, 2),
        ),
        (1, 3),
        (2, 2, 3),
    ),
    "dense concatenation": Network(
        lambda: Net(_dense, one=conv(1, 3), two=conv(4, 4), three=conv(8, 5), head=linear(5, 2)),
        (1, 3, 3),
        (3, 4, 5),
    ),
    "concatenation then norm and flatten": Network(
        lambda: Net(
            _concat_flatten,
            left=conv(1, 3),
            right=conv(1, 4),
            norm=nn.BatchNorm2d(7),
            fc=linear(28, 5),
            head=linear(5, 2),
        ),
        (1, 2, 2),
        (3, 4, 5),
    ),
    "concatenation of last channels then flatten": Network(
        lambda: Net(_channels_last, left=linear(2, 3), right=linear(2, 4), head=linear(21, 2)),
        (3, 2),
        (3, 4),
    ),
    "gate by chunk": Network(
        lambda: Net(_gate, both=conv(1, 6), head=linear(3, 2)), (1, 3, 3), (3,)
    ),
    "uneven split": Network(
        lambda: Net(
            _uneven_split, both=conv(1, 7), left=conv(3, 5), right=conv(4, 5), head=linear(5, 2)
        ),
        (1, 3, 3),
        (3, 4, 5),
    ),
    "slices": Network(
        lambda: Net(_slices, both=linear(4, 7), left=linear(3, 2), right=linear(4, 2)),
        (4,),
        (3, 4),
    ),
    "tied embeddings": Network(_build_tied, (3,), (6,), tokens=7),
    "fused attention by chunk": Network(lambda: _fused(_fused_chunk), (3, 4), (2, 3, 3, 5)),
    "fused attention by split": Network(lambda: _fused(_fused_split), (3, 4), (2, 3, 3, 5)),
    "fused attention by view": Network(lambda: _fused(_fused_view), (3, 4), (2, 3, 3, 5)),
    "grouped-query attention": Network(lambda: _unfused(_grouped_query), (3, 5), (2, 2, 3, 3)),
    "grouped-query attention by expand": Network(
        lambda: _unfused(_grouped_query_expanded), (3, 5), (2, 2, 3, 3)
    ),
    "causal attention": Network(lambda: _unfused(_causal), (3, 5), (2, 3, 3)),
    "attention by einsum": Network(lambda: _unfused(_einsum_attention), (3, 5), (2, 3, 3)),
    "attention by matmul": Network(lambda: _unfused(_matmul_attention), (3, 5), (2, 3, 3)),
    "attention by bmm": Network(lambda: _unfused(_bmm_attention), (3, 5), (2, 3, 3)),
    "attention module": Network(
        lambda: Net(
            _module_attention,
            embed=linear(4, 6),
            attention=nn.MultiheadAttention(6, 2, batch_first=True),
            head=linear(6, 2),
        ),
        (3, 4),
        (2, 3, 3, 6),
    ),
    "encoder layer": Network(
        lambda: nn.Sequential(
            linear(4, 6),
            nn.TransformerEncoderLayer(6, 2, 8, batch_first=True),
            nn.Flatten(),
            linear(18, 2),
        ),
        (3, 4),
        (2, 3, 3, 6, 8),
    ),
    "encoder layer, norm first": Network(
        lambda: nn.Sequential(
            linear(4, 6),
            nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=True),
            nn.Flatten(),
            linear(18, 2),
        ),
        (3, 4),
        (2, 3, 3, 6, 8),
    ),
    "class token": Network(
        lambda: Net(
            _class_token,
            token=weight(1, 1, 5),
            embed=linear(4, 5),
            positions=weight(1, 4, 5),
            norm=nn.LayerNorm(5),
            q=linear(5, 3),
            k=linear(5, 3),
            v=linear(5, 4),
            head=linear(4, 2),
        ),
        (3, 4),
        (3, 4, 5),
    ),
    "norms": Network(
        lambda: Net(
            _norms,
            conv=conv(1, 4),
            batch=nn.BatchNorm2d(4),
            deep=conv(4, 5),
            instance=nn.InstanceNorm2d(5, affine=True, track_running_stats=True),
            slopes=nn.PReLU(5),
            layer=nn.LayerNorm(5),
            rms=nn.RMSNorm(5),
            head=linear(5, 2),
        ),
        (1, 4, 4),
        (4, 5),
    ),
    "batch norm of vectors": Network(
        lambda: nn.Sequential(linear(4, 5), nn.BatchNorm1d(5), nn.PReLU(), linear(5, 2)),
        (4,),
        (5,),
    ),
    "residual stream": Network(
        lambda: Net(
            _residual,
            stem=conv(1, 3),
            conv1=conv(3, 4),
            norm1=nn.BatchNorm2d(4),
            conv2=conv(4, 3),
            norm2=nn.BatchNorm2d(3),
            head=linear(3, 2),
        ),
        (1, 3, 3),
        (3, 4),
    ),
    "zero-padded shortcut": Network(
        lambda: Net(
            _padded_shortcut, stem=conv(1, 3), conv=conv(3, 6, stride=2), head=linear(6, 2)
        ),
        (1, 4, 4),
        (3,),
    ),
    "pools": Network(
        lambda: Net(_pools, one=conv(1, 3), two=conv(3, 4), head=linear(64, 2)), (1, 8, 8), (3, 4)
    ),
    "stacked": Network(
        lambda: Net(
            _stacked, left=linear(4, 5), right=linear(4, 5), side=linear(2, 1), head=linear(5, 2)
        ),
        (4,),
        (5,),
    ),
    "squeeze and excitation": Network(
        lambda: Net(
            _excitation, conv=conv(1, 4), down=linear(4, 3), up=linear(3, 4), head=linear(4, 2)
        ),
        (1, 3, 3),
        (3, 4),
    ),
    "recurrent": Network(
        lambda: Net(_recurrent, inward=linear(4, 5), again=linear(5, 5), head=linear(5, 2)),
        (3, 4),
        (5,),
    ),
    "outer product": Network(lambda: Net(_outer, fc=linear(4, 3), head=linear(9, 2)), (4,), (3,)),
    "means over channels": Network(
        lambda: Net(_means, conv=conv(1, 4), head=linear(9, 2)), (1, 3, 3), (4,)
    ),
    "repeated": Network(lambda: Net(_repeats, fc=linear(4, 3), head=linear(6, 2)), (4,), (2, 3)),
}

CONFIGS: Mapping[str, dict[str, Any]] = {
    "mlp": {"architecture": "mlp", "widths": [6, 5, 4, 3]},
    "cnn": {"architecture": "cnn", "channels": [3, 4], "hidden": 5, "classes": 3, "side": 8},
    "vgg": {"architecture": "vgg", "width": 2, "hidden": 5, "classes": 3},
    "resnet-batch": {
        "architecture": "resnet", "width": 3, "blocks": 1, "classes": 3, "norm": "batch",
        "stem_stride": 2,
    },
    "resnet-layer": {
        "architecture": "resnet", "width": 3, "blocks": 1, "classes": 3, "norm": "layer",
        "stem_stride": 2,
    },
    "vit": {
        "architecture": "vit", "dim": 32, "depth": 1, "heads": 2, "hidden": 6, "classes": 3,
        "patch": 4, "side": 8,
    },
    "sequence-cnn": {"architecture": "sequence-cnn", "channels": 3, "classes": 3, "length": 40},
}  # fmt: skip
assert {config["architecture"] for config in CONFIGS.values()} == set(ARCHITECTURES)


def random_state(model: nn.Module, seed: int, *, scale: float = 0.6) -> dict[str, Tensor]:
    """A state dict without special values: generic weights, biases, norms and statistics."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            state[name] = value.clone()
        elif name.endswith("running_var"):
            state[name] = 0.5 + torch.rand(value.shape, generator=generator, dtype=value.dtype)
        else:
            draw = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            state[name] = scale * draw + (0.5 if value.dim() == 1 else 0.0)
    for name, first in trace_aliases(model).items():
        state[name] = state[first]
    return state


def trace_aliases(model: nn.Module) -> dict[str, str]:
    """Names of the state dict that are one tensor with an earlier name, told by identity."""
    seen: dict[int, str] = {}
    aliases = {}
    for name, value in model.state_dict(keep_vars=True).items():
        first = seen.setdefault(id(value), name)
        if first != name:
            aliases[name] = first
    return aliases


@cache
def network(name: str) -> nn.Module:
    """One of `NETWORKS`, in evaluation mode, from a seed; shared, so treat it as read-only."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NETWORKS[name].build().eval()


def network_inputs(name: str, n: int = 4, *, seed: int = 0) -> tuple[Tensor]:
    """Random inputs of one of `NETWORKS`."""
    generator = torch.Generator().manual_seed(seed)
    written = NETWORKS[name]
    if written.tokens:
        return (torch.randint(0, written.tokens, (n, *written.shape), generator=generator),)
    return (torch.randn(n, *written.shape, generator=generator),)


@cache
def network_symmetry(name: str) -> Derivation:
    """The certified derivation of one of `NETWORKS`."""
    return derive_certified(network(name), network_inputs(name))


@cache
def architecture(name: str) -> nn.Module:
    """One of `CONFIGS`, built; shared, so treat it as read-only."""
    return build_model(CONFIGS[name], seed=1)


def architecture_inputs(name: str, n: int = 4, *, seed: int = 0) -> tuple[Tensor]:
    """Random inputs of one of `CONFIGS`."""
    config = CONFIGS[name]
    shape = ARCHITECTURES[config["architecture"]].input_shape(config)
    return (torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed)),)


@cache
def architecture_symmetry(name: str) -> Derivation:
    """The certified derivation of one of `CONFIGS`."""
    return derive_certified(architecture(name), architecture_inputs(name))


def synthetic_batches(name: str, n: int = 24, *, seed: int = 5, batch_size: int = 10) -> Batches:
    """Random examples with three classes for one of `CONFIGS`, in uneven batches."""
    (inputs,) = architecture_inputs(name, n, seed=seed)
    targets = torch.randint(0, 3, (n,), generator=torch.Generator().manual_seed(seed))
    return Batches(inputs, targets, batch_size, "synthetic")


def perceptron(*widths: int, seed: int = 0) -> nn.Module:
    """An MLP of these widths."""
    return build_model({"architecture": "mlp", "widths": list(widths)}, seed=seed)


def graph_of(name: str):
    """The graph of one of `NETWORKS`."""
    return trace(network(name), network_inputs(name))
