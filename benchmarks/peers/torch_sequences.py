"""The networks of sequences in PyTorch."""

from __future__ import annotations

from typing import Any

from sequences import LAYER_NORM_EPSILON, Gpt, Recurrent


class Held:
    """A weight and a bias as views, as those of a linear layer; an empty bias for none."""

    def __init__(self, weight: Any, bias: Any = None) -> None:
        self.weight = weight.detach()
        self.bias = self.weight.new_zeros(0) if bias is None else bias.detach()


def recurrent(torch: Any, workload: Recurrent) -> tuple[Any, list[Any]]:
    """Return the module, and its weighted layers in the order of the workload."""
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kind = {"lstm": nn.LSTM, "gru": nn.GRU}[workload.kind]
            self.rnn = kind(workload.channels, workload.units, batch_first=True)
            # A second bias would learn what the first one does, once more.
            nn.init.zeros_(self.rnn.bias_hh_l0).requires_grad_(False)
            self.head = nn.Linear(workload.units, 1)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    net = Net()
    rnn = net.rnn
    ours = Held(rnn.weight_ih_l0, rnn.bias_ih_l0)
    return net, [ours, Held(rnn.weight_hh_l0), net.head]


def gpt(torch: Any, workload: Gpt, *, rotary: bool = False) -> tuple[Any, list[Any]]:
    """Return the module, and its weighted layers in the order of the workload.

    With rotary places there is no table of them.
    """
    nn, d, heads = torch.nn, workload.units, workload.heads
    functional = nn.functional
    half = d // heads // 2
    angle = torch.arange(workload.tokens)[:, None] * 10000.0 ** (-torch.arange(half) / half)
    cosines, sines = angle.cos(), angle.sin()

    def turned(x: Any) -> Any:
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cosines - b * sines, b * cosines + a * sines], -1)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.LayerNorm(d, LAYER_NORM_EPSILON) for _ in range(2))
            self.qkv, self.merge = nn.Linear(d, 3 * d), nn.Linear(d, d)
            self.widen, self.narrow = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

        def forward(self, x: Any) -> Any:
            n, t, _ = x.shape
            parts = self.qkv(self.first(x)).split(d, 2)
            q, k, v = (part.view(n, t, heads, -1).transpose(1, 2) for part in parts)
            q, k = (turned(q), turned(k)) if rotary else (q, k)
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.merge(y.transpose(1, 2).reshape(n, t, d))
            return x + self.narrow(functional.gelu(self.widen(self.second(x))))

        def layers(self) -> list[Any]:
            return [self.first, self.qkv, self.merge, self.second, self.widen, self.narrow]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(workload.vocabulary, d)
            if not rotary:
                self.places = nn.Parameter(torch.empty(workload.tokens, d))
            self.blocks = nn.ModuleList(Block() for _ in range(workload.blocks))
            self.norm = nn.LayerNorm(d, LAYER_NORM_EPSILON)
            self.head = nn.Linear(d, workload.vocabulary)

        def forward(self, x: Any) -> Any:
            h = self.table(x) if rotary else self.table(x) + self.places
            for block in self.blocks:
                h = block(h)
            return self.head(self.norm(h))

    net = Net()
    layers = [layer for block in net.blocks for layer in block.layers()]
    tables = [net.table.weight] if rotary else [net.table.weight, net.places]
    return net, [*(Held(table.T) for table in tables), *layers, net.norm, net.head]
