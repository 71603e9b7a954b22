"""The baseline of benchmarks/serve.py: the same service, whose searches are `generate` with a prefix function.

python benchmarks/serve_generate.py INDEX BEAM_WIDTH
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

import hedgerow as hr
from hedgerow.cli.main import main
from hedgerow.demo.films import DATA
from hedgerow.hf.searcher import Searcher
from hedgerow.hf.tasks import Task

ALLOWED: dict[tuple[int, ...], list[int]] = {}


def fill(searcher: Searcher) -> None:
    """Collect the tokens that may follow each prefix."""
    allowed: dict[tuple[int, ...], set[int]] = {}
    for row in searcher.tokens.encode(searcher.index.sids()).tolist():
        for level in range(len(row)):
            allowed.setdefault(tuple(row[:level]), set()).add(row[level])
    ALLOWED.update({prefix: sorted(tokens) for prefix, tokens in allowed.items()})


@torch.inference_mode()
def results(searcher: Searcher, tasks: Sequence[Task], _: Sequence[int]) -> list[hr.Results]:
    """The items of `generate` for the tasks of a batch, in place of the search."""
    if not ALLOWED:
        fill(searcher)
    length, width = max(len(task.ids) for task in tasks), max(task.beam_width for task in tasks)
    ids = torch.tensor([[0] * (length - len(task.ids)) + task.ids for task in tasks])
    mask = torch.tensor([[0] * (length - len(task.ids)) + [1] * len(task.ids) for task in tasks])
    output = searcher.search.model.model.generate(
        ids,
        attention_mask=mask,
        num_beams=width,
        num_return_sequences=width,
        max_new_tokens=searcher.index.num_levels,
        do_sample=False,
        length_penalty=0.0,
        prefix_allowed_tokens_fn=lambda _, row: ALLOWED[tuple(row[length:].tolist())],
        return_dict_in_generate=True,
        output_scores=True,
        pad_token_id=0,
        eos_token_id=None,
    )
    found = hr.results_of(searcher.index, searcher.tokens, output, prompt_length=length, num_return_sequences=width)
    return [items.head(task.picking.k or len(items)) for items, task in zip(found, tasks, strict=True)]


if __name__ == "__main__":
    index, beam_width = sys.argv[1:]
    Searcher.results = results
    sys.argv = ["hedgerow", "serve", str(DATA), index, "--beam-width", beam_width, "--port", "0", "--quiet"]
    sys.argv += ["--deadline-ms", "60000"]
    main()
