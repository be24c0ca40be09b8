#!/usr/bin/env bash
# Everything that a machine with a GPU can say of alexc, with nothing built there: conformance, times of models, and each
# kernel as a share of the GPU's own limits, measured by generated kernels in the same run.
#
#   tests/gpu/run.sh FOLDER [DEVICE]
#
# FOLDER holds `alexrun` and the bundles that tests/gpu/bundle.sh makes: *.alx with cases, and peaks.alx. DEVICE is cuda:0
# if not given; `sim` tries the script itself. Where a python3 with PyTorch is found, tests/gpu/peer.py (beside this script)
# times PyTorch on the same work; PEER=no leaves it out. Results go to stdout, for tests/gpu/RESULTS.md.
set -uo pipefail

folder=${1:?usage: run.sh FOLDER [DEVICE]}
device=${2:-cuda:0}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
alexrun=$folder/alexrun
iterations=${ITERATIONS:-20}
# Seconds that checking or timing one bundle may take: a kernel may hang.
patience=${PATIENCE:-120}
failures=0
checks=()

say() { printf '\n## %s\n\n' "$*"; }

say "Machine"
date -u +'%Y-%m-%d %H:%M UTC'
[ -r "$folder/commit" ] && printf 'commit %s\n' "$(cat "$folder/commit")"
if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader
fi
"$alexrun" --version

# PyTorch compiles while alexc's results are checked, which is not timed.
prepared=
if [ "${PEER:-yes}" != no ] && command -v python3 >/dev/null &&
  python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  python3 "$here/peer.py" --prepare >/dev/null 2>&1 &
  prepared=$!
fi

say "Conformance"
# What failed, or the worst of what passed. The bundles side by side, since most of the time goes into drawing numbers.
logs=$(mktemp -d)
for bundle in "$folder"/*.alx; do
  name=$(basename "$bundle" .alx)
  [ "$name" = peaks ] && continue
  (timeout "$patience" "$alexrun" check "$bundle" --devices "$device" >"$logs/$name" 2>&1 || touch "$logs/$name.failed") &
  checks+=($!)
done
wait "${checks[@]}"
for log in "$logs"/*; do
  name=$(basename "$log")
  case $name in *.failed) continue ;; esac
  if [ -e "$log.failed" ]; then
    failures=$((failures + 1))
    printf '%s: conformance FAILED:\n' "$name"
    grep -v '^ok' "$log"
  else
    printf '%s: %s tensors and kernels as their references; worst: ' "$name" "$(grep -c '^ok' "$log")"
    awk '{for (i = 1; i < NF; i++) if ($i == "error") print $(i + 1), $0}' "$log" | sort -g | tail -n 1 | cut -d' ' -f2-
  fi
done
rm -r "$logs"
[ -n "$prepared" ] && wait "$prepared"

say "Limits, by generated kernels"
# Lines of `bench --launches` are: ms, "ms", GFLOP/s, unit, GB/s, unit, label.
limits=$("$alexrun" bench "$folder/peaks.alx" --devices "$device" --iters 3 --launches) || exit 1
rate() { awk -v label="$1" -v field="$2" '$NF == label && $2 == "ms" {print $field}' <<<"$limits"; }
copy=$(rate copy 5)
printf 'copy %s GB/s; multiply-adds in f32 %s, tensor cores tf32 %s, bf16 %s GFLOP/s\n' \
  "$copy" "$(rate f32 3)" "$(rate tf32 3)" "$(rate bf16 3)"

for bundle in "$folder"/*.alx; do
  name=$(basename "$bundle" .alx)
  [ "$name" = peaks ] && continue
  say "$name"
  case $name in *train*) mode=train ;; *) mode=infer ;; esac
  case $name in *tf32*) peak=$(rate tf32 3) ;; *bf16*) peak=$(rate bf16 3) ;; *) peak=$(rate f32 3) ;; esac
  if ! timed=$(timeout "$patience" "$alexrun" bench "$bundle" --mode "$mode" --devices "$device" --iters "$iterations" --launches 2>&1); then
    failures=$((failures + 1))
    printf 'bench FAILED: %s\n' "$timed"
    continue
  fi
  sed -n 1,2p <<<"$timed"
  printf '\n%10s %12s %10s  share of the limit  kernel\n' ms GFLOP/s GB/s
  awk -v peak="$peak" -v copy="$copy" '$2 == "ms" && $4 == "GFLOP/s" {
    label = ""; for (i = 7; i <= NF; i++) label = label " " $i
    compute = $3 / peak; memory = $5 / copy
    printf "%10s %12s %10s  %5.1f %% of %-8s %s\n", $1, $3, $5, 100 * (compute > memory ? compute : memory),
      (compute > memory ? "compute" : "memory"), label
  }' <<<"$timed"
done

if [ -n "$prepared" ]; then
  say "PyTorch on the same work"
  python3 "$here/peer.py" || failures=$((failures + 1))
fi

if [ "$failures" -gt 0 ]; then
  printf '\n%s FAILURES\n' "$failures"
  exit 1
fi
printf '\nall passed\n'
