"""Compile the steps of a search to packages of AOTInductor, which run without hedgerow: search_torch.py.

python export_torch.py films.hedgerow exported --beam-width 50
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

import hedgerow as hr
from hedgerow.export import plain_step, step_arrays


class Step(torch.nn.Module):
    """torch.export takes modules."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, arrays, logits, codes, scores, states, parents):
        return self.step(arrays, logits, codes, scores, states, parents)


def export(index: hr.TrieIndex, folder: Path, beam_width: int, max_batch: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Room for larger versions of the catalog, which run in the same packages.
    device_index = index.to("torch", capacity=hr.Capacity.of(index, headroom=1.5))
    beams = hr.init_beams(device_index, batch_size=2)
    batch, tensors = {0: torch.export.Dim("batch", min=1, max=max_batch)}, {}
    for level, size in enumerate(index.codebook_sizes):
        arrays, logits = step_arrays(device_index, level), torch.zeros(*beams.states.shape, size)
        module = Step(plain_step(device_index, level, beam_width=beam_width))
        arguments = (arrays, logits, beams.codes, beams.scores, beams.states, beams.parents)
        shapes = (dict.fromkeys(arrays), *[batch] * 5)
        program = torch.export.export(module, arguments, dynamic_shapes=shapes)
        torch._inductor.aoti_compile_and_package(program, package_path=str(folder / f"step-{level}.pt2"))
        tensors |= {f"{level}.{name}": array.contiguous() for name, array in arrays.items()}
        beams = hr.step(device_index, beams, logits, beam_width=beam_width)
    save_file(tensors, folder / "index.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path, help="a folder that hedgerow build wrote")
    parser.add_argument("folder", type=Path, help="the folder to write")
    parser.add_argument("--beam-width", type=int, default=50)
    parser.add_argument("--max-batch", type=int, default=64, help="the largest number of requests at once")
    given = parser.parse_args()
    export(hr.load_index(given.index), given.folder, given.beam_width, given.max_batch)
