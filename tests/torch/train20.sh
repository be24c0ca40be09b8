#!/usr/bin/env bash
# Twenty training steps of alexnet-owt in alexc against PyTorch, from the same weights on the same batches.
# Needs `make build` and `make peers`. Usage: tests/torch/train20.sh [BATCH]
#   ALEXC, PYTHON     the programs, if they are elsewhere
#   DEVICES           passed to --devices, for example cpu:0 or cuda:0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

batch=${1:-8}
steps=20
alexc=${ALEXC:-${CARGO_TARGET_DIR:-target}/release/alexc}
python=${PYTHON:-.venv/bin/python}
[ -x "$alexc" ] || { echo "train20.sh: no $alexc: run \`make build\`, or set ALEXC" >&2; exit 2; }
[ -x "$python" ] || { echo "train20.sh: no $python: run \`make peers\`, or set PYTHON" >&2; exit 2; }

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
devices=()
[ -z "${DEVICES:-}" ] || devices=(--devices "$DEVICES")

"$python" tests/torch/train20.py make --dir "$dir" --batch "$batch" --steps "$steps"
"$alexc" train models/alexnet-owt.ir --data "$dir/data.safetensors" --weights "$dir/weights.safetensors" \
  --recipe "$dir/recipe.toml" --steps "$steps" --batch "$batch" --out "$dir/run" "${devices[@]}"
"$python" tests/torch/train20.py compare --dir "$dir" --run "$dir/run"
