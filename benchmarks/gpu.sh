#!/usr/bin/env bash
# Run all checks and timings on a GPU, in less than 8 minutes. The CSV files are written to benchmarks/results/gpu/.
#   benchmarks/gpu.sh              on one NVIDIA GPU, with PyTorch, Triton and transformers installed
#   benchmarks/gpu.sh --dry-run    the same scripts at tiny sizes with the interpreter of Triton: without a GPU and without measuring
# The exit code is 1 if a check fails, and 2 if there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"
status=0
"$python" benchmarks/gpu_hf.py "$@" || status=$?
"$python" benchmarks/gpu_step.py "$@" || status=$?
exit "$status"
