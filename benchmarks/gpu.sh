#!/usr/bin/env bash
# Every check and every timing on a GPU, in less than 8 minutes; CSVs go to benchmarks/results/gpu/.
#   benchmarks/gpu.sh              on one NVIDIA GPU, with PyTorch, Triton and transformers installed
#   benchmarks/gpu.sh --dry-run    the same scripts at tiny sizes, Triton interpreted: needs no GPU, measures nothing
# It exits with 1 where a check fails, and with 2 where there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"
status=0
"$python" benchmarks/gpu_hf.py "$@" || status=$?
"$python" benchmarks/gpu_step.py "$@" || status=$?
exit "$status"
