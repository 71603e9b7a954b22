"""Search with the programs of export_jax.py. It needs JAX and safetensors, but not hedgerow.

python search_jax.py exported
"""

import sys
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
from safetensors.numpy import load_file


def load_steps(folder):
    """The program of each level, and the arrays of the index that it takes."""
    saved, steps = load_file(folder / "index.safetensors"), []
    while (program := folder / f"step-{len(steps)}.bin").exists():
        prefix = f"{len(steps)}."
        arrays = {name.removeprefix(prefix): saved[name] for name in saved if name.startswith(prefix)}
        steps.append((jax.export.deserialize(bytearray(program.read_bytes())).call, jax.device_put(arrays)))
    return steps


def search(steps, logits_fn, batch_size):
    """Codes [B, M, L] and scores [B, M]. `logits_fn(codes, parents)` returns the logits [B, m, C] of the next codes."""
    codes = jnp.zeros((batch_size, 1, 0), jnp.int32)
    scores, states, parents = (jnp.zeros((batch_size, 1), dtype) for dtype in (jnp.float32, jnp.int32, jnp.int32))
    for step, arrays in steps:
        logits = logits_fn(codes, parents)
        codes, scores, states, parents = step(arrays, logits, codes, scores, states, parents)
    return codes, scores


def logits_of_no_model(codes, parents):  # noqa: ARG001
    """Replace it with your model, here of 64 codes. `parents` [B, m] reorder its cache. Dead beams have codes -1."""
    return jnp.zeros((*codes.shape[:2], 64))


if __name__ == "__main__":
    found, its_scores = search(load_steps(Path(sys.argv[1])), logits_of_no_model, batch_size=1)
    for sid, score in zip(found[0].tolist(), its_scores[0].tolist(), strict=True):
        print(*sid, f"{score:.3f}")
