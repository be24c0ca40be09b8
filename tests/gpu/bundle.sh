#!/usr/bin/env bash
# Makes the folder that tests/gpu/run.sh takes to a machine with a GPU: alexrun, and artifacts with conformance cases.
#
#   tests/gpu/bundle.sh FOLDER [TARGET]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

folder=${1:?usage: bundle.sh FOLDER [TARGET]}
target=${2:-sm_90a}
cargo build --release --workspace
bin=${CARGO_TARGET_DIR:-target}/release
mkdir -p "$folder"
cp "$bin/alexrun" "$folder/"
git describe --always --dirty >"$folder/commit"
"$bin/alexc" peaks --target "$target" -o "$folder/peaks.alx"
compile() {
  "$bin/alexc" compile "models/$1.ir" --target "$target" --mode "$2" --batch "$3" --precision "$4" --with-cases \
    -o "$folder/$1-$2-$3-$4.alx"
}
for precision in f32 tf32 bf16; do
  compile alexnet-cifar train 64 "$precision"
done
for precision in tf32 bf16; do
  compile alexnet train 128 "$precision"
  compile alexnet-owt train 128 "$precision"
  compile alexnet-owt infer 64 "$precision"
done
compile alexnet-owt infer 1 tf32
du -sh "$folder"
