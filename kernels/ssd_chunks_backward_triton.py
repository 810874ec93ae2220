"""The gradient of ssd_chunks_triton.py: its kernels run from the end to the start, and what B, C and the decays need besides.

A token's decay scales all that passes by it, from tokens and states before to tokens and states after. Inside a chunk that is a sum over
the tokens from it on of what reaches each less what each sends on, C . dC - x . dx without its effect on itself. B and C are shared by
the heads of a group: one program adds up the group's heads in their order.
"""

# Shapes: C chunks, Q tokens of a chunk, H heads, P head size, G groups (R = H/G heads each), N state size, T blocks of a head's state,
# U blocks of N. In kernels t are a program's own tokens, s those that they see.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .ssd_chunks_triton import (
    HEAD_BLOCK,
    STATE_BLOCK,
    Blocks,
    between,
    chunk_states,
    compiled_both_ways,
    inner_contiguous,
    load_before,
    mix_tokens,
    strides_of,
)


@triton.jit
def pass_back(
    dbefore_p, dafter_p, state_p, initial_p, parent_p, decay_p, child_p, first_child_p, dkept_p, num_chunks, Q, H, size,
    INITIAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A state's gradient is the sum of its children's, whose own states come first: a program walks all chunks, children first.
    `dkept` [T, C, H] becomes the product of that gradient with what a chunk keeps of the state before it."""
    head, lane = tl.program_id(0), tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here, own = lane < size, head * size + lane
    final = tl.cast(num_chunks - 1, tl.int64)
    at, decay_at = final * H * size + own, (final * H + head) * Q + Q - 1
    dkept_at = dkept_p + (tl.program_id(1).to(tl.int64) * num_chunks + final) * H + head
    for back in range(num_chunks):
        chunk = num_chunks - 1 - back
        total = tl.zeros([BLOCK], tl.float32)
        for k in range(tl.load(first_child_p + chunk), tl.load(first_child_p + chunk + 1)):
            total += tl.load(dbefore_p + tl.load(child_p + k) * (H * size) + own, here, 0.0)
        tl.store(dafter_p + at, total, here)
        total *= tl.exp(tl.load(decay_p + decay_at))
        before = load_before(state_p, initial_p, tl.load(parent_p + chunk), H * size, own, here, INITIAL)
        tl.store(dkept_at, tl.sum(total * before))
        tl.store(dbefore_p + at, tl.load(dbefore_p + at, here, 0.0) + total, here)
        tl.debug_barrier()  # a parent's load may be another thread's
        at -= H * size
        decay_at -= H * Q
        dkept_at -= H


@triton.jit
def share_group(
    left_p, right_p, key_p, own_p, step_p, decay_p, state_p, initial_p, parent_p, out_p, along_p,
    Q, H, left_chunk, left_token, right_chunk, right_token, key_chunk, key_token, own_chunk, own_token,
    R: tl.constexpr, P: tl.constexpr, N: tl.constexpr, BACKWARD: tl.constexpr, INITIAL: tl.constexpr, DOT: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The gradient of C (left dy, right x, keys B, the states before), summed over the heads of a group; `along` [U, C, H, Q] becomes
    each head's part of C . dC. Backward in time that of B (left x, right dy, keys C, the gradients of the states after)."""
    G = H // R
    chunk, group = (tl.program_id(0) // G).to(tl.int64), tl.program_id(0) % G
    t, p = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_P)
    n = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    here_tp, here_tn = (t < Q)[:, None] & (p < P)[None, :], (t < Q)[:, None] & (n < N)[None, :]
    parent = chunk
    if not BACKWARD:
        parent = tl.load(parent_p + chunk)
        own_at = own_p + chunk * own_chunk + t[:, None] * own_token + group * N + n[None, :]
        own = tl.load(own_at, here_tn, 0.0).to(tl.float32)
    total = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32)
    for r in range(R):
        head = group * R + r
        line = (chunk * H + head) * Q
        decay_t = tl.load(decay_p + line + t, t < Q, 0.0)
        left_at = left_p + chunk * left_chunk + t[:, None] * left_token + head * P + p[None, :]
        left = tl.load(left_at, here_tp, 0.0).to(tl.float32)
        if BACKWARD:
            left *= tl.load(step_p + line + t, t < Q, 0.0)[:, None]
            weight = tl.exp(tl.load(decay_p + line + Q - 1) - decay_t)
        else:
            weight = tl.exp(decay_t)
        weight = tl.where(t < Q, weight, 0.0)
        state_at, here_pn = head * (P * N) + p[:, None] * N + n[None, :], (p < P)[:, None] & (n < N)[None, :]
        state = load_before(state_p, initial_p, parent, H * P * N, state_at, here_pn, INITIAL).to(DOT)
        part = tl.dot((left * weight[:, None]).to(DOT), state, input_precision="ieee")
        first = tl.program_id(1) * BLOCK_Q if BACKWARD else 0
        end = Q if BACKWARD else tl.minimum(Q, (tl.program_id(1) + 1) * BLOCK_Q)
        for start in range(first, end, BLOCK_Q):
            s = start + tl.arange(0, BLOCK_Q)
            right_at = right_p + chunk * right_chunk + s[None, :] * right_token + head * P + p[:, None]
            right = tl.load(right_at, (s < Q)[None, :] & (p < P)[:, None], 0.0).to(DOT)
            products = tl.dot(left.to(DOT), right, input_precision="ieee")
            products *= between(decay_p + line, decay_t, t, s, Q, BACKWARD, ITSELF=False)
            if not BACKWARD:
                products *= tl.load(step_p + line + s, s < Q, 0.0)[None, :]
            key_at = key_p + chunk * key_chunk + s[:, None] * key_token + group * N + n[None, :]
            key = tl.load(key_at, (s < Q)[:, None] & (n < N)[None, :], 0.0).to(DOT)
            part = tl.dot(products.to(DOT), key, part, input_precision="ieee")
        # What a token does to itself, without its part in `along`: see mix_tokens.
        right_at = right_p + chunk * right_chunk + t[:, None] * right_token + head * P + p[None, :]
        alone = tl.sum(left * tl.load(right_at, here_tp, 0.0).to(tl.float32), 1)
        if not BACKWARD:
            alone *= tl.load(step_p + line + t, t < Q, 0.0)
            block = tl.program_id(2).to(tl.int64) * (tl.num_programs(0) // G)  # of N, over all chunks
            along_at = along_p + ((block + chunk) * H + head) * Q + t
            tl.store(along_at, tl.sum(part * own, 1), t < Q)
        key_at = key_p + chunk * key_chunk + t[:, None] * key_token + group * N + n[None, :]
        total += part + alone[:, None] * tl.load(key_at, here_tn, 0.0).to(tl.float32)
    out_at = out_p + ((chunk * Q + t[:, None]) * G + group) * N + n[None, :]
    tl.store(out_at, total.to(out_p.dtype.element_ty), here_tn)


@triton.jit
def step_gradients(
    row_p, along_p, step_p, dkept_p, a_p, ddt_p, da_p, Q, H, BLOCK_Q: tl.constexpr, BLOCK_H: tl.constexpr
):
    """Of dt [C, Q, H], and a chunk's part of that of A [C, H], from what passes by each token."""
    chunk = tl.program_id(0).to(tl.int64)
    q, lane = tl.arange(0, BLOCK_Q)[:, None], tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    h = lane[None, :]
    here, at = (q < Q) & (h < H), (chunk * H + h) * Q + q
    along_at = along_p + (chunk * H + h) * 3 * Q + q
    step = tl.load(step_p + at, here, 0.0)
    inside = tl.load(row_p + at, here, 0.0) - step * tl.load(along_at, here, 0.0)
    dlog = tl.cumsum(inside, 0, reverse=True) + tl.load(dkept_p + chunk * H + h, h < H, 0.0)
    # What the tokens before each one send to the chunk's end.
    earlier = here & (q > 0)
    sent = tl.load(step_p + at - 1, earlier, 0.0) * tl.load(along_at + Q - 1, earlier, 0.0)
    dlog += tl.cumsum(sent, 0)
    ddt = tl.load(along_at + 2 * Q, here, 0.0) + dlog * tl.load(a_p + h, h < H, 0.0).to(tl.float32)
    tl.store(ddt_p + (chunk * Q + q) * H + h, ddt.to(ddt_p.dtype.element_ty), here)
    tl.store(da_p + chunk * H + lane, tl.sum(dlog * step, 0), lane < H)


def scan_backward(
    grad: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    step: Tensor,
    decay: Tensor,
    parents: Tensor,
    initial: Tensor | None,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, dt, A, B and C."""
    (num_chunks, Q, H, P), (G, N) = x.shape, B.shape[2:]
    cut, sizes = Blocks.of(x, Q, P, N), {"R": H // G, "P": P, "N": N}
    constants = {**sizes, **cut.constants()}
    dy = inner_contiguous(grad)
    blocks_q, blocks_n, blocks_state = triton.cdiv(Q, cut.Q), triton.cdiv(N, cut.N), triton.cdiv(P * N, STATE_BLOCK)

    dbefore, dafter = torch.empty_like(states), torch.empty_like(states)
    chunk_states[(num_chunks * H, blocks_n)](
        dy, step, decay, C, dbefore, Q, H, *strides_of(dy, C), **constants, BACKWARD=True
    )
    dkept, first = step.new_empty(blocks_state, num_chunks, H), states if initial is None else initial
    pass_back[(H, blocks_state)](
        dbefore, dafter, states, first, parents, decay, *_children(parents), dkept, num_chunks, Q, H, P * N, INITIAL=initial is not None,
        BLOCK=STATE_BLOCK, num_stages=1,
    )  # fmt: skip

    dx, along = torch.empty(x.shape, dtype=x.dtype, device=x.device), step.new_empty(num_chunks, H, 3, Q)
    mix_tokens[(num_chunks * H, blocks_q)](
        B, C, dy, step, decay, dafter, dafter, parents, x, dx, along, Q, H, *strides_of(B, C, dy, x), **constants,
        BACKWARD=True, INITIAL=False,
    )  # fmt: skip

    dB, dC = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (B, C))
    row = step.new_empty(blocks_n, num_chunks, H, Q)
    grid = (num_chunks * G, blocks_q, blocks_n)
    share_group[grid](
        dy, x, B, C, step, decay, states, first, parents, dC, row, Q, H, *strides_of(dy, x, B, C), **constants,
        BACKWARD=False, INITIAL=initial is not None,
    )  # fmt: skip
    share_group[grid](
        x, dy, C, B, step, decay, dafter, dafter, parents, dB, row, Q, H, *strides_of(x, dy, C, B), **constants,
        BACKWARD=True, INITIAL=False,
    )  # fmt: skip

    ddt, dA = torch.empty_like(dt), step.new_empty(num_chunks, H)
    step_gradients[(num_chunks, triton.cdiv(H, HEAD_BLOCK))](
        row.sum(0), along, step, dkept.sum(0), A, ddt, dA, Q, H, BLOCK_Q=triton.next_power_of_2(Q), BLOCK_H=HEAD_BLOCK
    )
    return dx, ddt, dA.sum(0).to(A.dtype), dB, dC


def _children(parents: Tensor) -> tuple[Tensor, Tensor]:
    """Chunks sorted by parent, and where each chunk's children begin among them (and, last, end)."""
    by_parent, order = parents.sort(stable=True)
    return order, torch.searchsorted(by_parent, torch.arange(len(parents) + 1, device=parents.device))


COMPILED = [
    (
        pass_back,
        {**dict.fromkeys(("dbefore_p", "dafter_p", "state_p", "initial_p", "decay_p", "dkept_p"), "*fp32"),
         **dict.fromkeys(("parent_p", "child_p", "first_child_p"), "*i64"), "num_chunks": "i32", "Q": "i32", "H": "i32", "size": "i32"},
        {"INITIAL": True, "BLOCK": STATE_BLOCK, "num_stages": 1},
    ),
    (
        step_gradients,
        {**dict.fromkeys(("row_p", "along_p", "step_p", "dkept_p", "a_p", "ddt_p", "da_p"), "*fp32"), "Q": "i32", "H": "i32"},
        {"BLOCK_Q": 128, "BLOCK_H": HEAD_BLOCK},
    ),
    *compiled_both_ways(share_group, "left right key own out", "step decay state initial along"),
]  # fmt: skip
"""Signatures and constants of each, by which it is compiled ahead of time in a test."""
