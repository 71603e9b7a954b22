"""The processor time of batches of 32 requests without HTTP, for benchmarks/serve.py.

python benchmarks/serve_in_process.py INDEX BEAM_WIDTH
"""

from __future__ import annotations

import json
import os
import sys
import time

# As the command line does, before PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

import hedgerow as hr
from hedgerow.bench.serving import PROMPTS
from hedgerow.demo.films import DATA
from hedgerow.hf import Shapes
from hedgerow.hf.loading import load_retriever

BATCH, RUNS = 32, 30


def main() -> None:
    """Print the measurement as JSON."""
    index, beam_width = sys.argv[1], int(sys.argv[2])
    retriever = load_retriever(DATA, hr.load_index(index, mmap=True))
    retriever.warm_up(Shapes(beam_widths=(beam_width,), batch_size=BATCH))
    requests = [hr.Request(PROMPTS[number % len(PROMPTS)], beam_width=beam_width) for number in range(BATCH)]
    seconds, cpu_seconds = [], []
    for _ in range(RUNS):
        started, cpu_started = time.perf_counter(), time.process_time()
        answers = retriever.answer(requests)
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
        assert all(isinstance(answer, hr.Results) for answer in answers)
    facts = {
        "requests_per_second": BATCH / float(np.median(seconds)),
        "cpu_ms": float(np.mean(cpu_seconds)) / BATCH * 1e3,
        "requests": BATCH * RUNS,
        "mean_batch": BATCH,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
