"""Kernels that fuse the small kernels of Qwen3, to compare with a `Retriever(compile=True)`.

At a level, transformers runs 52 small kernels per layer of Qwen3. With its norms, rotary angles and SwiGLU as one
kernel each, 13 are left. In a CUDA graph, each takes two microseconds, or the time of its bytes.
"""

# Triton's language is typed at compile time, which type checkers cannot follow.
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# ruff: noqa: N803

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import transformers.models.qwen3.modeling_qwen3 as qwen3
import triton
import triton.language as tl
from torch import Tensor

SWIGLU_BLOCK = 2048


@triton.jit
def _swiglu(gate, up, out, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(gate + at, mask=at < size, other=0.0).to(tl.float32)
    y = tl.load(up + at, mask=at < size, other=0.0).to(tl.float32)
    # Rounded where the model rounds.
    swish = (x / (1 + tl.exp(-x))).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + at, (swish * y).to(out.dtype.element_ty), mask=at < size)


@triton.jit
def _rotate(x, out, cos, sin, heads, batch_stride, head_stride, token_stride, tokens, HALF: tl.constexpr):
    """One program per head of a token: x [B, heads, T, D] of any strides, out contiguous, cos and sin [B, T, D]."""
    row = tl.program_id(0).to(tl.int64)
    token = row % tokens
    head = (row // tokens) % heads
    batch = row // (tokens * heads)
    at = tl.arange(0, HALF)
    x += batch * batch_stride + head * head_stride + token * token_stride
    angle = (batch * tokens + token) * 2 * HALF + at
    low = tl.load(x + at).to(tl.float32)
    high = tl.load(x + HALF + at).to(tl.float32)
    type_ = out.dtype.element_ty
    new_low = low * tl.load(cos + angle).to(tl.float32) - high * tl.load(sin + angle).to(tl.float32)
    new_high = high * tl.load(cos + angle + HALF).to(tl.float32) + low * tl.load(sin + angle + HALF).to(tl.float32)
    tl.store(out + row * 2 * HALF + at, new_low.to(type_))
    tl.store(out + row * 2 * HALF + HALF + at, new_high.to(type_))


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, heads, T, D], turned by the angles of its positions."""
    batch, heads, tokens, size = x.shape
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    strides = x.stride(0), x.stride(1), x.stride(2)
    _rotate[(batch * heads * tokens,)](x, out, cos, sin, heads, *strides, tokens, HALF=size // 2, num_warps=2)
    return out


def _apply_rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    cos, sin = (angles.expand(q.shape[0], -1, -1).contiguous() for angles in (cos, sin))
    return _rotated(q, cos, sin), _rotated(k, cos, sin)


def _norm(self: Any, x: Tensor) -> Tensor:
    return torch.nn.functional.rms_norm(x, self.weight.shape, self.weight, self.variance_epsilon)


def _mlp(self: Any, x: Tensor) -> Tensor:
    gate, up = self.gate_proj(x), self.up_proj(x)
    out = torch.empty_like(gate)
    grid = (triton.cdiv(gate.numel(), SWIGLU_BLOCK),)
    _swiglu[grid](gate, up, out, gate.numel(), BLOCK=SWIGLU_BLOCK, num_warps=8)
    return self.down_proj(out)


@contextmanager
def fused_kernels() -> Iterator[None]:
    """Within it, all Qwen3 models run with these kernels."""
    with (
        mock.patch.object(qwen3.Qwen3RMSNorm, "forward", _norm),
        mock.patch.object(qwen3.Qwen3MLP, "forward", _mlp),
        mock.patch.object(qwen3, "apply_rotary_pos_emb", _apply_rotary),
    ):
        yield
