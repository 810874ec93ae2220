"""The scan of ssd.py in Triton: no [Q, Q] scores and no second copy of the states go through memory.

    decays -> what each chunk adds to its state -> states passed on from parents -> outputs

Run from the end to the start the same kernels give the gradient (ssd_chunks_backward_triton.py): a token's output is a sum over
tokens before it and the state before its chunk, its input's gradient one over tokens after it and the gradient of the state after.

A state is kept once, after its chunk: whoever needs the one before reads its parent's. Each sum is taken by one program in a fixed
order, so two runs give the same bits, and a token's bits do not depend on the other chunks or on the tokens after it. Decays, states and
sums are fp32; products of bf16 inputs run on tensor cores, those of fp32 inputs in full fp32.
"""

# Shapes: C chunks, Q tokens of a chunk, H heads, P head size, G groups (R = H/G heads each), N state size, S segments.
# In kernels t are a program's own tokens, s those that they see, p and n as above.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

HEAD_BLOCK = 8
STATE_BLOCK = 512
"""Numbers of a head's state that one program passes through the forest."""


@triton.jit
def chunk_decays(dt_p, a_p, step_p, decay_p, Q, H, BLOCK_Q: tl.constexpr, BLOCK_H: tl.constexpr):
    """dt [C, Q, H] to [C, H, Q], and the log of the decay since the chunk's start."""
    chunk = tl.program_id(0).to(tl.int64)
    q, h = tl.arange(0, BLOCK_Q)[:, None], tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)[None, :]
    here = (q < Q) & (h < H)
    dt = tl.load(dt_p + (chunk * Q + q) * H + h, here, 0.0).to(tl.float32)
    decay = tl.cumsum(dt * tl.load(a_p + h, h < H, 0.0).to(tl.float32), 0)
    at = (chunk * H + h) * Q + q
    tl.store(step_p + at, dt, here)
    tl.store(decay_p + at, decay, here)


@triton.jit
def chunk_states(
    value_p, step_p, decay_p, key_p, state_p, Q, H, value_chunk, value_token, key_chunk, key_token,
    R: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    BACKWARD: tl.constexpr, DOT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """What a chunk's tokens add to the state after it (x and B), or to the gradient of the state before it (dy and C)."""
    chunk, head = (tl.program_id(0) // H).to(tl.int64), tl.program_id(0) % H
    p, n = tl.arange(0, BLOCK_P)[:, None], tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    line = (chunk * H + head) * Q
    last = tl.load(decay_p + line + Q - 1)
    total = tl.zeros([BLOCK_P, BLOCK_N], tl.float32)
    for start in range(0, Q, BLOCK_Q):
        q = start + tl.arange(0, BLOCK_Q)
        decay = tl.load(decay_p + line + q, q < Q, 0.0)
        if BACKWARD:
            weight = tl.exp(decay)
        else:
            weight = tl.exp(last - decay) * tl.load(step_p + line + q, q < Q, 0.0)
        weight = tl.where(q < Q, weight, 0.0)
        value_at = value_p + chunk * value_chunk + q[None, :] * value_token + head * P + p
        value = tl.load(value_at, (p < P) & (q < Q)[None, :], 0.0).to(tl.float32) * weight[None, :]
        key_at = key_p + chunk * key_chunk + q[:, None] * key_token + (head // R) * N + n
        key = tl.load(key_at, (q < Q)[:, None] & (n < N), 0.0).to(DOT)
        total = tl.dot(value.to(DOT), key, total, input_precision="ieee")
    tl.store(state_p + (chunk * H + head) * (P * N) + p * N + n, total, (p < P) & (n < N))


@triton.jit
def pass_states(
    state_p, initial_p, decay_p, parent_p, num_chunks, Q, H, size, INITIAL: tl.constexpr, BLOCK: tl.constexpr
):
    """What chunks add becomes the state after them, in place. A program walks all chunks, parents first."""
    head, lane = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = lane < size
    own = head * size + lane
    at, kept_at = state_p + own, decay_p + head * Q + Q - 1
    for chunk in range(num_chunks):
        before = load_before(state_p, initial_p, tl.load(parent_p + chunk), H * size, own, here, INITIAL)
        tl.store(at, tl.load(at, here, 0.0) + before * tl.exp(tl.load(kept_at)), here)
        tl.debug_barrier()  # a child's load may be another thread's
        at += H * size
        kept_at += H * Q


@triton.jit
def load_before(state_p, initial_p, parent, stride, at, here, INITIAL: tl.constexpr):
    """The state before a chunk: after its parent, from row -1 - parent of the initial ones, or zeros."""
    state = tl.load(state_p + parent * stride + at, here & (parent >= 0), 0.0)
    if INITIAL:
        state += tl.load(initial_p + (-1 - parent) * stride + at, here & (parent < 0), 0.0)
    return state


@triton.jit
def mix_tokens(
    query_p, key_p, value_p, step_p, decay_p, state_p, initial_p, parent_p, x_p, out_p, along_p,
    Q, H, query_chunk, query_token, key_chunk, key_token, value_chunk, value_token, x_chunk, x_token,
    R: tl.constexpr, P: tl.constexpr, N: tl.constexpr, BACKWARD: tl.constexpr, INITIAL: tl.constexpr, DOT: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """y of a block of tokens of one head. Backward the gradient of x: queries are B, keys C, values dy, `state_p` holds the gradients
    of the states after the chunks, and `along` [C, H, 3, Q] becomes x times the gradient of dt x by way of later tokens, of the chunk's
    end, and in all."""
    chunk, head = (tl.program_id(0) // H).to(tl.int64), tl.program_id(0) % H
    group, line = head // R, (chunk * H + head) * Q
    t, p = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_P)
    here_t, here_p = (t < Q)[:, None], (p < P)[None, :]
    decay_t = tl.load(decay_p + line + t, t < Q, 0.0)
    query_at = query_p + chunk * query_chunk + t[:, None] * query_token + group * N
    value_at = value_p + chunk * value_chunk + head * P + p[None, :]
    # Tokens before these and they themselves; backward those after.
    total = tl.zeros([BLOCK_Q, BLOCK_P], tl.float32)
    first = tl.program_id(1) * BLOCK_Q if BACKWARD else 0
    end = Q if BACKWARD else tl.minimum(Q, (tl.program_id(1) + 1) * BLOCK_Q)
    for start in range(first, end, BLOCK_Q):
        s = start + tl.arange(0, BLOCK_Q)
        scores = tl.zeros([BLOCK_Q, BLOCK_Q], tl.float32)
        for n_start in tl.static_range(0, N, BLOCK_N):
            n = n_start + tl.arange(0, BLOCK_N)
            query = tl.load(query_at + n[None, :], here_t & (n < N)[None, :], 0.0).to(DOT)
            key_at = key_p + chunk * key_chunk + s[None, :] * key_token + group * N + n[:, None]
            key = tl.load(key_at, (s < Q)[None, :] & (n < N)[:, None], 0.0).to(DOT)
            scores = tl.dot(query, key, scores, input_precision="ieee")
        scores *= between(decay_p + line, decay_t, t, s, Q, BACKWARD, ITSELF=not BACKWARD)
        if not BACKWARD:
            scores *= tl.load(step_p + line + s, s < Q, 0.0)[None, :]
        value = tl.load(value_at + s[:, None] * value_token, (s < Q)[:, None] & here_p, 0.0).to(DOT)
        total = tl.dot(scores.to(DOT), value, total, input_precision="ieee")
    # The state before the chunk; backward the one after it.
    parent = chunk
    if not BACKWARD:
        parent = tl.load(parent_p + chunk)
    through = tl.zeros([BLOCK_Q, BLOCK_P], tl.float32)
    for n_start in tl.static_range(0, N, BLOCK_N):
        n = n_start + tl.arange(0, BLOCK_N)
        query = tl.load(query_at + n[None, :], here_t & (n < N)[None, :], 0.0).to(DOT)
        state_at = head * (P * N) + p[None, :] * N + n[:, None]
        state = load_before(state_p, initial_p, parent, H * P * N, state_at, here_p & (n < N)[:, None], INITIAL)
        through = tl.dot(query, state.to(DOT), through, input_precision="ieee")
    if BACKWARD:
        weight = tl.exp(tl.load(decay_p + line + Q - 1) - decay_t)
    else:
        weight = tl.exp(decay_t)
    through *= tl.where(t < Q, weight, 0.0)[:, None]
    if BACKWARD:
        # The parts are kept apart: a token's effect on itself meets no decay, and would leave its rounding errors behind.
        x_at = x_p + chunk * x_chunk + t[:, None] * x_token + head * P + p[None, :]
        x = tl.load(x_at, here_t & here_p, 0.0).to(tl.float32)
        alone = tl.zeros([BLOCK_Q], tl.float32)
        for n_start in tl.static_range(0, N, BLOCK_N):
            n = n_start + tl.arange(0, BLOCK_N)
            query = tl.load(query_at + n[None, :], here_t & (n < N)[None, :], 0.0).to(tl.float32)
            key_at = key_p + chunk * key_chunk + t[:, None] * key_token + group * N + n[None, :]
            alone += tl.sum(query * tl.load(key_at, here_t & (n < N)[None, :], 0.0).to(tl.float32), 1)
        along_at = along_p + line * 3 + t
        tl.store(along_at, tl.sum(total * x, 1), t < Q)
        tl.store(along_at + Q, tl.sum(through * x, 1), t < Q)
        value = tl.load(value_at + t[:, None] * value_token, here_t & here_p, 0.0).to(tl.float32)
        total += through + alone[:, None] * value
        tl.store(along_at + 2 * Q, tl.sum(total * x, 1), t < Q)
        total *= tl.load(step_p + line + t, t < Q, 0.0)[:, None]
    else:
        total += through
    out_at = out_p + ((chunk * Q + t[:, None]) * H + head) * P + p[None, :]
    tl.store(out_at, total.to(out_p.dtype.element_ty), here_t & here_p)


@triton.jit
def between(decay_p, decay_t, t, s, Q, BACKWARD: tl.constexpr, ITSELF: tl.constexpr):
    """The decay from tokens s to later tokens t, backward from t to later s, [t, s]; 0 the other way. `ITSELF`: 1 where they are one."""
    decay_s = tl.load(decay_p + s, s < Q, 0.0)
    difference = decay_t[:, None] - decay_s[None, :]
    order = t[:, None] - s[None, :]
    if BACKWARD:
        difference, order = -difference, -order
    seen = (t < Q)[:, None] & (s < Q)[None, :] & ((order > 0) | (ITSELF & (order == 0)))
    return tl.exp(tl.where(seen, difference, float("-inf")))


class Blocks(NamedTuple):
    """How a chunk is cut, and in which type its products are taken."""

    Q: int
    P: int
    N: int
    DOT: Any

    @staticmethod
    def of(x: Tensor, Q: int, P: int, N: int) -> Blocks:
        # The interpreter is wrong about products of bf16.
        half = x.dtype is torch.bfloat16 and x.is_cuda
        cut = lambda size, most: min(max(triton.next_power_of_2(size), 16), most)  # noqa: E731
        return Blocks(cut(Q, 64 if half else 32), cut(P, 128), cut(N, 64), tl.bfloat16 if half else tl.float32)

    def constants(self) -> dict[str, Any]:
        """For four warps the larger blocks' sums do not fit into registers."""
        launch = {"num_warps": 8 if self.Q * self.P >= 2048 else 4, "num_stages": 2 if self.P > 64 else 3}
        return {"DOT": self.DOT, "BLOCK_Q": self.Q, "BLOCK_P": self.P, "BLOCK_N": self.N, **launch}


def parents_of(levels: Sequence[Tensor], has_initial: bool) -> Tensor:
    """Each chunk's parent among all chunks; -1 - row of the initial states for those of depth 0."""
    sizes = [len(level) for level in levels]
    roots = -1 - levels[0] if has_initial else torch.full_like(levels[0], -1)
    if len(levels) == 1:
        return roots
    above = np.repeat(np.cumsum([0, *sizes[:-2]]), sizes[1:])
    shift = torch.from_numpy(above).to(roots.device, non_blocking=True)
    return torch.cat([roots, torch.cat(list(levels[1:])).add_(shift)])


def strides_of(*tensors: Tensor) -> tuple[int, ...]:
    """Of chunks and of tokens."""
    return tuple(stride for t in tensors for stride in t.stride()[:2])


def inner_contiguous(t: Tensor) -> Tensor:
    """With heads side by side, as they come out of one row of channels; chunks and tokens may lie apart."""
    return t if t.stride(3) == 1 and t.stride(2) == t.shape[3] else t.contiguous()


def decays_of(dt_CQH: Tensor, A_H: Tensor) -> tuple[Tensor, Tensor]:
    C, Q, H = dt_CQH.shape
    step, decay = dt_CQH.new_empty(2, C, H, Q, dtype=torch.float32)
    grid = (C, triton.cdiv(H, HEAD_BLOCK))
    chunk_decays[grid](dt_CQH, A_H, step, decay, Q, H, BLOCK_Q=triton.next_power_of_2(Q), BLOCK_H=HEAD_BLOCK)
    return step, decay


def scan_forward(
    x: Tensor, step: Tensor, decay: Tensor, B: Tensor, C: Tensor, parents: Tensor, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """y [C, Q, H, P] in x's type, and the states after the chunks [C, H, P, N]."""
    (num_chunks, Q, H, P), (G, N) = x.shape, B.shape[2:]
    cut, sizes = Blocks.of(x, Q, P, N), {"R": H // G, "P": P, "N": N}
    states = torch.empty(num_chunks, H, P, N, dtype=torch.float32, device=x.device)
    chunk_states[(num_chunks * H, triton.cdiv(N, cut.N))](
        x, step, decay, B, states, Q, H, *strides_of(x, B), **sizes, BACKWARD=False, **cut.constants()
    )
    first, has_initial = states if initial is None else initial, initial is not None
    pass_states[(H, triton.cdiv(P * N, STATE_BLOCK))](
        states, first, decay, parents, num_chunks, Q, H, P * N, INITIAL=has_initial, BLOCK=STATE_BLOCK, num_stages=1
    )
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    mix_tokens[(num_chunks * H, triton.cdiv(Q, cut.Q))](
        C, B, x, step, decay, states, first, parents, x, y, step, Q, H, *strides_of(C, B, x, x), **sizes,
        BACKWARD=False, INITIAL=has_initial, **cut.constants(),
    )  # fmt: skip
    return y, states


_SIZES = {"Q": "i32", "H": "i32"}
_MODEL = {"R": 8, "P": 64, "N": 128}
"""Of Nemotron 3 Nano."""


def _pointers(names: str, kind: str) -> dict[str, str]:
    return {f"{name}_p": f"*{kind}" for name in names.split()}


def _strides(names: str) -> dict[str, str]:
    return {f"{name}_{axis}": "i32" for name in names.split() for axis in ("chunk", "token")}


def compiled_both_ways(kernel: Any, inputs: str, floats: str) -> list[tuple[Any, Any, Any]]:
    """A kernel's signatures for bf16 and fp32 inputs, forward and backward."""
    found = []
    for kind, dot, size in (("bf16", tl.bfloat16, 64), ("fp32", tl.float32, 32)):
        given = [name for name in inputs.split() if f"{name}_chunk" in kernel.arg_names]
        signature = {**_pointers(inputs, kind), **_pointers(floats, "fp32"), **_strides(" ".join(given)), **_SIZES}
        signature = {name: kind for name, kind in signature.items() if name in kernel.arg_names}
        if "parent_p" in kernel.arg_names:
            signature["parent_p"] = "*i64"
        blocks = {"DOT": dot, "BLOCK_Q": size, "BLOCK_P": 64, "BLOCK_N": 64, "num_warps": 8}
        for backward in (False, True):
            flags = {"BACKWARD": backward, **({"INITIAL": not backward} if "INITIAL" in kernel.arg_names else {})}
            found.append((kernel, signature, {**_MODEL, **flags, **blocks}))
    return found


COMPILED = [
    (
        chunk_decays,
        {**_pointers("dt a step decay", "fp32"), **_SIZES},
        {"BLOCK_Q": 128, "BLOCK_H": HEAD_BLOCK},
    ),
    (
        pass_states,
        {**_pointers("state initial decay", "fp32"), "parent_p": "*i64", "num_chunks": "i32", **_SIZES, "size": "i32"},
        {"INITIAL": True, "BLOCK": STATE_BLOCK, "num_stages": 1},
    ),
    *compiled_both_ways(chunk_states, "value key", "step decay state"),
    *compiled_both_ways(mix_tokens, "query key value x out", "step decay state initial along"),
]
"""Signatures and constants of each, by which it is compiled ahead of time in a test."""
