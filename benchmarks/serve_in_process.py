"""The processor time of batches of requests without HTTP, for benchmarks/serve.py.

python benchmarks/serve_in_process.py INDEX BEAM_WIDTH BATCH
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

REQUESTS = 960


def main() -> None:
    """Print the measurement as JSON."""
    index, beam_width, batch = sys.argv[1], *map(int, sys.argv[2:])
    retriever = load_retriever(DATA, hr.load_index(index, mmap=True))
    retriever.warm_up(Shapes(beam_widths=(beam_width,), batch_size=batch))
    requests = [hr.Request(PROMPTS[number % len(PROMPTS)], beam_width=beam_width) for number in range(batch)]
    seconds, cpu_seconds = [], []
    for _ in range(REQUESTS // batch):
        started, cpu_started = time.perf_counter(), time.process_time()
        answers = retriever.answer(requests)
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
        assert all(isinstance(answer, hr.Results) for answer in answers)
    facts = {
        "requests_per_second": batch / float(np.median(seconds)),
        "cpu_ms": float(np.mean(cpu_seconds)) / batch * 1e3,
        "requests": batch * len(seconds),
        "mean_batch": batch,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
