"""Measure vLLM's own beam search with the films' model, under the closed loops of `serve.py`.

vLLM is in an environment of its own. On a CPU, it is started with:

    VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=0-1 python -m vllm.entrypoints.openai.api_server \
        --model src/hedgerow/demo/data --served-model-name films --port 8199 --dtype float32 \
        --max-model-len 128 --max-logprobs 50 --enforce-eager

    python benchmarks/serve_vllm.py http://127.0.0.1:8199

Its beams are not constrained. The table says how many of them are items of the catalog.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

import hedgerow as hr
from hedgerow.bench.machine import conditions
from hedgerow.bench.records import Report, Row
from hedgerow.bench.serving import PROMPTS
from hedgerow.bench.tables import console_for_tables, show_footer, show_rows
from hedgerow.demo.films import load_catalog, load_retriever

RESULTS = Path(__file__).parent / "results"
HEADINGS = {
    "load": "load",
    "requests_per_second": "requests/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "requests": "requests",
    "valid": "beams that are items",
}


class Films:
    """The prompts as token ids, and the check of the answers."""

    def __init__(self) -> None:
        self.index = hr.build_index(load_catalog())
        retriever = load_retriever(self.index)
        self.prompts = [retriever.encode([prompt])[0] for prompt in PROMPTS]
        self.tokens = hr.TokenMap.detect(retriever.tokenizer)

    def num_valid(self, answer: dict[str, Any]) -> tuple[int, int]:
        """The number of choices that are items, and of all choices."""
        ids = np.array([choice["token_ids"] for choice in answer["choices"]])
        codes = self.tokens.decode(ids)
        known = (codes >= 0).all(axis=1)
        return int(self.index.contains(codes[known]).sum()), len(ids)


async def drive(url: str, films: Films, clients: int, seconds: float, beam_width: int) -> Row:
    """One closed loop."""
    fixed = {"model": "films", "use_beam_search": True, "n": beam_width, "max_tokens": films.index.num_levels}
    fixed |= {"temperature": 0, "ignore_eos": True, "return_token_ids": True}
    times: list[float] = []
    valid = total = 0
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal valid, total
        while time.perf_counter() < end:
            started = time.perf_counter()
            prompt = films.prompts[(number + len(times)) % len(films.prompts)]
            async with session.post(f"{url}/v1/completions", json=fixed | {"prompt": prompt}) as response:
                response.raise_for_status()
                answer = await response.json()
            times.append(time.perf_counter() - started)
            found, of = films.num_valid(answer)
            valid, total = valid + found, total + of

    async with aiohttp.ClientSession() as session:
        started = time.perf_counter()
        await asyncio.gather(*map(client, range(clients)))
        elapsed = time.perf_counter() - started
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    return {
        "load": f"{clients} clients",
        "requests_per_second": len(times) / elapsed,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "requests": len(times),
        "valid": f"{valid:,} of {total:,}",
    }


def main() -> None:
    """Run the measurements, print the table and save the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--beam-width", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    films, rows = Films(), []
    for clients, seconds in ((1, 2.0), (1, arguments.seconds), (32, arguments.seconds)):
        row = asyncio.run(drive(arguments.url, films, clients, seconds, arguments.beam_width))
        # The first one warms up.
        rows += [row] if seconds == arguments.seconds else []
    report = Report("serve-vllm", conditions() | {"beam_width": arguments.beam_width}, rows)
    console = console_for_tables()
    show_rows("vLLM's beam search, films", HEADINGS, rows, console)
    show_footer(report, console)
    for path in report.save(arguments.out):
        print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
