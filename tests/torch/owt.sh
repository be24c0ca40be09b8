#!/usr/bin/env bash
# alexnet-owt in alexc against torchvision: logits, and then the loss and all gradients.
# Needs `make build` and `make peers`. Usage: tests/torch/owt.sh [BATCH]
#   ALEXC, PYTHON     the programs, if they are elsewhere
#   DEVICES           passed to --devices, for example cpu:0 or cuda:0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

batch=${1:-4}
alexc=${ALEXC:-${CARGO_TARGET_DIR:-target}/release/alexc}
python=${PYTHON:-.venv/bin/python}
model=models/alexnet-owt.ir
[ -x "$alexc" ] || { echo "owt.sh: no $alexc: run \`make build\`, or set ALEXC" >&2; exit 2; }
[ -x "$python" ] || { echo "owt.sh: no $python: run \`make peers\`, or set PYTHON" >&2; exit 2; }

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
devices=()
[ -z "${DEVICES:-}" ] || devices=(--devices "$DEVICES")

say() { printf '== %s\n' "$*" >&2; }

compare_with() { # WEIGHTS
  "$alexc" run "$model" --weights "$1" --inputs "$dir/x.safetensors" --out "$dir/y.safetensors" "${devices[@]}"
  "$alexc" run "$model" --weights "$1" --inputs "$dir/x.safetensors" --out "$dir/g.safetensors" --grads \
    "${devices[@]}"
  "$python" tests/torch/owt.py compare --weights "$1" --inputs "$dir/x.safetensors" \
    --logits "$dir/y.safetensors" --grads "$dir/g.safetensors"
}

status=0
say "with the weights of alexc init"
"$python" tests/torch/owt.py make --inputs "$dir/x.safetensors" --batch "$batch" --seed 2
"$alexc" init "$model" --seed 1 -o "$dir/init.safetensors"
compare_with "$dir/init.safetensors" || status=1
say "with weights that keep the activations large"
"$python" tests/torch/owt.py make --inputs "$dir/x.safetensors" --weights "$dir/random.safetensors" \
  --batch "$batch" --seed 0
compare_with "$dir/random.safetensors" || status=1
exit "$status"
