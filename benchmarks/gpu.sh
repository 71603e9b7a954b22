#!/usr/bin/env bash
# Run all checks and timings on a GPU, in about 9 minutes. CSV files are written to benchmarks/results/gpu/, row by row.
#   benchmarks/gpu.sh                  on one NVIDIA GPU, with PyTorch, Triton and transformers installed
#   benchmarks/gpu.sh --dry-run        the same scripts at tiny sizes with the interpreter of Triton: without a GPU and without measuring
#   benchmarks/gpu.sh --out FOLDER     write the results there
#   benchmarks/gpu.sh --seconds N      each of the two scripts starts nothing after N seconds (230)
#   benchmarks/gpu.sh --static FOLDER  time the authors' package static_decoding in FOLDER, too
#   benchmarks/gpu.sh --commit NAME    commit of a copy without its repository
# The exit code is 1 if a check fails, and 2 if there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false
status=0 tables="" before=""
for word in "$@"; do
  if [[ $before == --static && " $* " != *" --dry-run "* ]]; then
    "$python" benchmarks/gpu_rivals.py "$word" &
    tables=$!
  fi
  before=$word
done
trap '[[ -z $tables ]] || kill "$tables" 2>/dev/null || true' EXIT
"$python" benchmarks/gpu_step.py "$@" || status=$?
"$python" benchmarks/gpu_hf.py "$@" || status=$?
exit "$status"
