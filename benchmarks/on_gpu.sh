#!/usr/bin/env bash
# usage: bash benchmarks/on_gpu.sh [options of every benchmark, for instance --batch-size 16]
# Measures on a GPU for at most BUDGET seconds (480), the most important first. It may be cut off at any
# moment: each part writes its results as soon as it has them, and a part that fails stops no other.
# DATA=FOLDER: photos in COCO's layout, else coco-mini where the tests look for it; without photos only the
# tests run. OUT=FOLDER: for the results (work_dirs/on_gpu). PYTHON=FILE: one that has torch. What else is
# missing pip installs; without a network from wheels: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER.
# A trial without a GPU: QUICK=1 DEVICE=cpu bash benchmarks/on_gpu.sh
# It writes no more than eight files, because some remote runners bring back no more: one log for all parts.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
BUDGET=${BUDGET:-480} DEVICE=${DEVICE:-cuda} OUT=${OUT:-work_dirs/on_gpu} LEAST=15
export PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1
stop() { echo "on_gpu.sh: $1" >&2; exit 2; }
has() {  # python module ...
  "$1" -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))' "${@:2}"
}

for candidate in "${PYTHON:-}" python .venv/bin/python python3 ''; do
  if has "$candidate" torch 2> /dev/null; then break; fi
done
PYTHON=$candidate
[ -n "$PYTHON" ] || stop 'no Python here has torch: activate an environment, or set PYTHON'
CARD=CPU NAME_OF='import sys, torch; print(torch.cuda.get_device_name(sys.argv[1]))'
[ "$DEVICE" = cpu ] || CARD=$("$PYTHON" -c "$NAME_OF" "$DEVICE" 2> /dev/null) \
  || stop "$PYTHON finds no GPU; for a trial: QUICK=1 DEVICE=cpu bash benchmarks/on_gpu.sh"
command -v git > /dev/null || stop 'git is missing: every result names its commit'
mkdir -p "$OUT" || stop "cannot write to $OUT"
OLD=$OUT/before_$(date +%Y%m%d_%H%M%S)  # for the files of an earlier run
if [ -e "$OUT/summary.txt" ]; then mkdir "$OLD" && mv "$OUT"/*.csv "$OUT"/*.txt "$OLD" 2> /dev/null; fi
NEEDED=(torchvision mmengine timm safetensors cv2 pycocotools msgspec terminaltables matplotlib rich pytest hypothesis)
if ! has "$PYTHON" "${NEEDED[@]}"; then
  echo "Installing requirements/runtime.txt, pytest and hypothesis into $PYTHON"
  INSTALL=(-m pip install -q --retries 1 --timeout 10 -r requirements/runtime.txt pytest hypothesis)
  timeout 150 "$PYTHON" "${INSTALL[@]}" >> "$OUT/log.txt" 2>&1 && has "$PYTHON" "${NEEDED[@]}" \
    || stop "pip cannot install them (no network?): see $OUT/log.txt"
fi
for folder in "${DATA:-}" "${DISTILL_DATA:-/nowhere}/coco-mini" {shared/,../shared/,}data/coco-mini; do
  if [ -d "$folder/annotations" ]; then break; else folder=''; fi
done
DATA=${DATA:-$folder}
OPTIONS=(--device "$DEVICE" --channels-last --data-root "$DATA")
[ "$DEVICE" = cpu ] || OPTIONS+=(--amp)  # most CPUs compute bfloat16 slowly
[ -z "${QUICK:-}" ] || OPTIONS+=(--quick --batch-size 2 --repeats 1)
OPTIONS+=("$@")

note() { printf '%-14s %s\n' "$1" "$2" | tee -a "$OUT/summary.txt"; }
NAME='' CHILD='' FAILED=0
cut_off() { trap '' INT TERM HUP; note "$NAME" 'cut off'; kill "$CHILD"; wait; exit 143; }
trap cut_off INT TERM HUP
part() {  # name, 'photos' where it needs them, most seconds (more where BUDGET is), command ...
  NAME=$1
  local needs=$2 limit=$(($3 * (BUDGET > 480 ? BUDGET : 480) / 480))
  local left=$((BUDGET - SECONDS)) start=$SECONDS status=0
  shift 3
  if [ "$needs" = photos ] && [ -z "$DATA" ]; then note "$NAME" 'skipped: needs photos, set DATA'; return; fi
  if [ "$left" -lt "$LEAST" ]; then note "$NAME" 'skipped for want of time'; return; fi
  if [ "$limit" -gt "$left" ]; then limit=$left; fi
  printf '\n=== %s: %s\n' "$NAME" "$*" >> "$OUT/log.txt"
  timeout --kill-after=5 "$((limit - 5))" "$@" >> "$OUT/log.txt" 2>&1 &
  CHILD=$!
  wait "$CHILD" || status=$?
  local spent=$((SECONDS - start))
  if [ "$status" = 0 ]; then note "$NAME" "ok, $spent s"; return; fi
  FAILED=1
  if [ "$spent" -ge "$((limit - 5))" ]; then note "$NAME" "timed out, $spent s"; return; fi
  note "$NAME" "failed, exit status $status, $spent s: see log.txt"
  tail -n 5 "$OUT/log.txt"
}
benchmark() {  # name of the part: FILE or FILE-VARIANT; most seconds, arguments of tools/benchmark.py
  local new=$SCRATCH/$1.csv file=$OUT/${1%%-*}.csv
  part "$1" photos "$2" "$PYTHON" tools/benchmark.py "${@:3}" "${OPTIONS[@]}" --out "$new"
  if [ -e "$file" ] && [ -e "$new" ]; then tail -n +2 "$new" >> "$file"
  elif [ -e "$new" ]; then cp "$new" "$file"; fi
}

SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
export TORCHINDUCTOR_CACHE_DIR=$SCRATCH  # of this run alone: a compilation that is cut off leaves half a file
COMMIT=$(git describe --always --dirty 2> /dev/null || echo unknown)
note device "$CARD, commit $COMMIT, $(date -u +%FT%TZ), budget $BUDGET s"
benchmark distill 130 distill
benchmark distill-stored 80 distill --teacher stored
MMDET_KERNELS=1 benchmark kernels 80 distill
benchmark step 80 step
benchmark infer 110 infer --repeats 3
benchmark step-lite 30 step --student ssdlite
benchmark infer-lite 30 infer --student ssdlite
benchmark distill-tiny 50 distill --student ssd_tiny --teacher stored
benchmark distill-lite 70 distill --student ssdlite_small --teacher stored
benchmark profile 70 profile
benchmark step-compiled 170 step --compile
benchmark distill-compiled 170 distill --compile
benchmark end_to_end 90 end_to_end --repeats 3
part tests - 200 "$PYTHON" -m pytest -vv -p no:cacheprovider tests/integration/test_gpu.py
echo "Results: $OUT"
exit "$FAILED"
