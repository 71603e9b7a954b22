"""Search with the packages of export_torch.py. It needs PyTorch and safetensors, but not hedgerow.

python search_torch.py exported
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file


def load_steps(folder):
    """The package of each level, and the arrays of the index that it takes."""
    tensors, steps = load_file(folder / "index.safetensors"), []
    while (package := folder / f"step-{len(steps)}.pt2").exists():
        prefix = f"{len(steps)}."
        names = sorted(name for name in tensors if name.startswith(prefix))
        arrays = {name.removeprefix(prefix): tensors[name] for name in names}
        steps.append((torch._inductor.aoti_load_package(str(package)), arrays))
    return steps


def search(steps, logits_fn, batch_size):
    """Codes [B, M, L] and scores [B, M]. `logits_fn(codes, parents)` returns the logits [B, m, C] of the next codes."""
    codes = torch.zeros(batch_size, 1, 0, dtype=torch.int32)
    scores = torch.zeros(batch_size, 1)
    states, parents = torch.zeros(2, batch_size, 1, dtype=torch.int32)
    for step, arrays in steps:
        logits = logits_fn(codes, parents)
        codes, scores, states, parents = step(arrays, logits, codes, scores, states, parents)
    return codes, scores


def logits_of_no_model(codes, parents):  # noqa: ARG001
    """Replace it with your model, here of 64 codes. `parents` [B, m] reorder its cache. Dead beams have codes -1."""
    return torch.zeros(*codes.shape[:2], 64)


if __name__ == "__main__":
    found, its_scores = search(load_steps(Path(sys.argv[1])), logits_of_no_model, batch_size=1)
    for sid, score in zip(found[0].tolist(), its_scores[0].tolist(), strict=True):
        print(*sid, f"{score:.3f}")
