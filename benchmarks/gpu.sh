#!/usr/bin/env bash
# Everything that wants a GPU, in one go: every Triton kernel against its reference, parity and timings against the kernels of others,
# a hybrid's prefill, decoding and training step. Needs torch, triton and numpy alone; prints JSON lines, and keeps them in $OUT.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-gpu-figures}
mkdir -p "$out"
link=$(mktemp -d)
ln -s "$PWD" "$link/swannery"
export PYTHONPATH="$link${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}
failed=0

step() {
    name=$1
    shift
    echo "== $name"
    "$@" >"$out/$name.txt" 2>"$out/$name.err" || { failed=1; echo "$name failed:"; tail -n 20 "$out/$name.err"; }
    tail -n 1 "$out/$name.txt"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
"$python" -c 'import torch, triton; print("torch", torch.__version__, "triton", triton.__version__)'
step compile "$python" tests/kernels/triton_checks.py compile
step reference "$python" tests/kernels/triton_checks.py reference cuda
step parity "$python" benchmarks/kernels.py --parity
step policy "$python" benchmarks/gpu_policy.py
exit $failed
