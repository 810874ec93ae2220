"""Each operation of kernels/ as one case: its inputs, a run that gives outputs and gradients, and what it must read, write and compute.

`kernels.py --parity` runs a case in every form that there is (SWANNERY_KERNELS) and compares it with the torch form in float64.
"""

# Shapes: as in the operations' own files.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swannery.kernels.attention import packed_attention
from swannery.kernels.conv1d import causal_conv1d_chunks, causal_conv1d_step
from swannery.kernels.experts import experts
from swannery.kernels.linear import linear
from swannery.kernels.linear_logprobs import linear_logprobs, weighted_logprobs
from swannery.kernels.norm import gated_rms_norm, rms_norm
from swannery.kernels.packing import Packing
from swannery.kernels.relu_squared import relu_squared
from swannery.kernels.router import route
from swannery.kernels.sliding_window import ring_decode_attention
from swannery.kernels.ssd import ssd_chunks, ssd_step


@dataclass(frozen=True)
class Size:
    """Of the model that the cases are cut from."""

    tokens: int
    rows: int
    """Of a decode step."""
    hidden: int
    heads: int
    head_dim: int
    groups: int
    state: int
    chunk: int
    experts: int
    top_k: int
    expert_size: int
    vocab: int
    window: int


SMALL = Size(48, 5, 32, 4, 16, 2, 16, 16, 6, 2, 24, 97, 9)
NANO = Size(8192, 256, 2688, 64, 64, 8, 128, 128, 128, 6, 1856, 131072, 512)
"""The dimensions of Nemotron 3 Nano."""


@dataclass(frozen=True)
class Case:
    inputs: dict[str, Tensor]
    operation: Callable[[dict[str, Tensor]], Tensor | Sequence[Tensor]]
    differentiable: tuple[str, ...]
    moved: int
    """Bytes that the forward pass must read and write at least."""
    flops: int
    """Of its matrix products."""

    def clone(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The inputs anew: some are written to."""
        wanted = lambda t: dtype if dtype is not None and t.is_floating_point() else t.dtype  # noqa: E731
        return {name: t.to(wanted(t), copy=True) for name, t in self.inputs.items()}

    def run(self, *, backward: bool = True, dtype: torch.dtype | None = None) -> list[Tensor]:
        """Outputs, then the gradients of a fixed linear function of the first one."""
        inputs = self.clone(dtype)
        for name in self.differentiable if backward else ():
            inputs[name].requires_grad_()
        found = self.operation(inputs)
        outputs = [found] if isinstance(found, Tensor) else list(found)
        if not (backward and self.differentiable):
            return [out.detach() for out in outputs]
        weights = torch.linspace(-1, 1, outputs[0].numel(), dtype=torch.float64, device=outputs[0].device)
        loss = (outputs[0] * weights.to(outputs[0].dtype).view(outputs[0].shape)).sum()
        gradients = torch.autograd.grad(loss, [inputs[name] for name in self.differentiable])
        return [out.detach() for out in outputs] + list(gradients)


def cases(size: Size, device: str, dtype: torch.dtype) -> dict[str, Case]:
    """All of them. Weights and activations are `dtype`, what precision.py keeps in fp32 is fp32."""
    made = torch.Generator(device).manual_seed(0)
    normal = lambda *shape, scale=1.0: (torch.randn(*shape, generator=made, device=device) * scale).to(dtype)  # noqa: E731
    single = lambda *shape: torch.randn(*shape, generator=made, device=device)  # noqa: E731
    uniform = lambda *shape: torch.rand(*shape, generator=made, device=device)  # noqa: E731
    integers = lambda high, *shape: torch.randint(0, high, shape, generator=made, device=device)  # noqa: E731
    s, wide = size, size.heads * size.head_dim
    channels = wide + 2 * s.groups * s.state
    lengths = [s.tokens // 4] * 3 + [s.tokens - 3 * (s.tokens // 4)]
    packing = Packing.build(lengths, chunk_size=s.chunk, conv_kernel=4, device=device)
    C = packing.valid_CQ.shape[0]
    valid = packing.valid_CQ.unsqueeze(2)
    width, item = s.hidden, torch.finfo(dtype).bits // 8
    kv_heads = max(s.heads // 16, 1)
    gates = uniform(s.tokens, s.top_k)
    chosen = torch.stack([torch.randperm(s.experts, generator=made, device=device)[: s.top_k] for _ in range(s.tokens)])
    scan = {
        "x": single(C, s.chunk, s.heads, s.head_dim), "dt": uniform(C, s.chunk, s.heads) * 0.1 * valid,
        "A": -uniform(s.heads) * 8, "B": single(C, s.chunk, s.groups, s.state), "C": single(C, s.chunk, s.groups, s.state),
    }  # fmt: skip
    step = {
        "x": single(s.rows, s.heads, s.head_dim), "dt": uniform(s.rows, s.heads) * 0.1, "A": -uniform(s.heads) * 8,
        "B": single(s.rows, s.groups, s.state), "C": single(s.rows, s.groups, s.state),
        "state": single(s.rows, s.heads, s.head_dim, s.state),
    }  # fmt: skip
    head = {
        "x": normal(s.tokens, width), "weight": normal(s.vocab, width, scale=width**-0.5),
        "targets": integers(s.vocab, s.tokens), "temperature": 0.5 + uniform(s.tokens),
    }  # fmt: skip
    qkv = {
        "q": normal(s.tokens, s.heads, s.head_dim),
        "k": normal(s.tokens, kv_heads, s.head_dim),
        "v": normal(s.tokens, kv_heads, s.head_dim),
    }
    rings = (s.rows, kv_heads, s.head_dim, s.window)
    state_bytes = 4 * s.rows * s.heads * s.head_dim * s.state
    routed = 4 * s.tokens * s.top_k * width * s.expert_size
    return {
        "rms_norm": Case(
            {"x": normal(s.tokens, width), "weight": single(width)},
            lambda i: rms_norm(i["x"], i["weight"], 1e-5), ("x", "weight"), 2 * item * s.tokens * width, 0,
        ),
        "gated_rms_norm": Case(
            {"x": single(s.tokens, wide), "gate": single(s.tokens, wide), "weight": single(wide)},
            lambda i: gated_rms_norm(i["x"], i["gate"], i["weight"], 1e-5, s.groups),
            ("x", "gate", "weight"), 12 * s.tokens * wide, 0,
        ),
        "causal_conv1d_chunks": Case(
            {"x": single(C, s.chunk + 3, channels), "weight": single(channels, 4), "bias": single(channels)},
            lambda i: causal_conv1d_chunks(i["x"], i["weight"], i["bias"]),
            ("x", "weight", "bias"), 8 * C * s.chunk * channels, 0,
        ),
        "causal_conv1d_step": Case(
            {"x": single(s.rows, channels), "weight": single(channels, 4), "bias": single(channels), "inputs": single(s.rows, 3, channels)},
            lambda i: (causal_conv1d_step(i["x"], i["weight"], i["bias"], i["inputs"]), i["inputs"]),
            (), 4 * s.rows * channels * 8, 0,
        ),
        "ssd_chunks": Case(
            scan, lambda i: ssd_chunks(i["x"], i["dt"], i["A"], i["B"], i["C"], packing.levels)[0],
            ("x", "dt", "A", "B", "C"), 4 * C * s.chunk * (2 * wide + 2 * s.groups * s.state),
            2 * C * s.chunk * (s.chunk * (wide + s.groups * s.state) + 2 * wide * s.state),
        ),
        "ssd_step": Case(
            step, lambda i: (ssd_step(i["x"], i["dt"], i["A"], i["B"], i["C"], i["state"]), i["state"]), (), 2 * state_bytes, 0,
        ),
        "route": Case(
            {"x": normal(s.tokens, width), "weight": single(s.experts, width) * width**-0.5, "bias": single(s.experts) * 0.01},
            lambda i: route(i["x"], i["weight"], i["bias"], top_k=s.top_k, scale=2.5)[0].sort(1).values,
            ("x", "weight"), item * s.tokens * width, 2 * s.tokens * width * s.experts,
        ),
        "linear": Case(
            {"x": normal(s.tokens, width), "weight": normal(wide, width, scale=width**-0.5)}, lambda i: linear(i["x"], i["weight"]),
            ("x", "weight"), item * (s.tokens * (width + wide) + wide * width), 2 * s.tokens * wide * width,
        ),
        "relu_squared": Case(
            {"x": normal(s.tokens, s.expert_size)}, lambda i: relu_squared(i["x"]), ("x",), 2 * item * s.tokens * s.expert_size, 0,
        ),
        "experts": Case(
            {"x": normal(s.tokens, width), "gates": gates, "chosen": chosen,
             "up": normal(s.experts, s.expert_size, width, scale=width**-0.5),
             "down": normal(s.experts, width, s.expert_size, scale=s.expert_size**-0.5)},
            lambda i: experts(i["x"], i["gates"], i["chosen"], i["up"], i["down"]),
            ("x", "gates", "up", "down"), 2 * item * (s.tokens * width + s.experts * width * s.expert_size), routed,
        ),
        "linear_logprobs": Case(
            head, lambda i: linear_logprobs(i["x"], i["weight"], i["targets"], i["temperature"].to(i["x"].dtype)),
            ("x", "weight"), item * (s.tokens + s.vocab) * width, 2 * s.tokens * s.vocab * width,
        ),
        "weighted_logprobs": Case(
            {**head, "coefficients": single(s.tokens)},
            lambda i: weighted_logprobs(
                i["x"], i["weight"], i["targets"], i["temperature"].to(i["x"].dtype), i["coefficients"].to(i["x"].dtype)
            ),
            ("x", "weight"), item * (s.tokens + s.vocab) * width, 2 * s.tokens * s.vocab * width,
        ),
        "packed_attention": Case(
            qkv, lambda i: packed_attention(i["q"], i["k"], i["v"], packing, s.window), ("q", "k", "v"),
            item * s.tokens * (2 * wide + 2 * kv_heads * s.head_dim), 4 * s.tokens * min(s.window, lengths[0]) * wide,
        ),
        "ring_decode_attention": Case(
            {"q": normal(s.rows, s.heads, s.head_dim), "keys": normal(*rings), "values": normal(*rings).transpose(2, 3).contiguous(),
             "lengths": 1 + integers(2 * s.window, s.rows)},
            lambda i: ring_decode_attention(i["q"], i["keys"], i["values"], i["lengths"]), (),
            2 * item * s.rows * kv_heads * s.head_dim * s.window, 0,
        ),
    }  # fmt: skip
