#!/usr/bin/env bash
# Every check and every timing of the step on a GPU, in less than 8 minutes; CSVs go to benchmarks/results/gpu/.
#   benchmarks/gpu.sh              on one NVIDIA GPU, with PyTorch and Triton installed
#   benchmarks/gpu.sh --dry-run    the same script at tiny sizes in Triton's interpreter: needs no GPU, measures nothing
# It exits with 1 where a check fails, and with 2 where there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" exec "$python" benchmarks/gpu_step.py "$@"
