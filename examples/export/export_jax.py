"""Write the steps of a search as StableHLO for CPU, CUDA and TPU, which runs without hedgerow: search_jax.py.

python export_jax.py films.hedgerow exported --beam-width 50
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

import hedgerow as hr
from hedgerow.export import plain_step, step_arrays


def export(index: hr.TrieIndex, folder: Path, beam_width: int, batch_size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Room for larger versions of the catalog, which run in the same programs.
    device_index = index.to("jax", capacity=hr.Capacity.of(index, headroom=1.5))
    beams, saved = hr.init_beams(device_index, batch_size), {}
    for level, size in enumerate(index.codebook_sizes):
        arrays, logits = step_arrays(device_index, level), jnp.zeros((*beams.states.shape, size))
        step = jax.jit(plain_step(device_index, level, beam_width=beam_width))
        exporter = jax.export.export(step, platforms=["cpu", "cuda", "tpu"])
        program = exporter(arrays, logits, beams.codes, beams.scores, beams.states, beams.parents)
        (folder / f"step-{level}.bin").write_bytes(program.serialize())
        (folder / f"step-{level}.mlir").write_text(program.mlir_module())
        saved |= {f"{level}.{name}": np.asarray(array) for name, array in arrays.items()}
        beams = hr.step(device_index, beams, logits, beam_width=beam_width)
    save_file(saved, folder / "index.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path, help="a folder that hedgerow build wrote")
    parser.add_argument("folder", type=Path, help="the folder to write")
    parser.add_argument("--beam-width", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=1, help="the number of requests at once")
    given = parser.parse_args()
    export(hr.load_index(given.index), given.folder, given.beam_width, given.batch_size)
