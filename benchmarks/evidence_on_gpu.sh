#!/usr/bin/env bash
# usage: DATA=FOLDER bash benchmarks/evidence_on_gpu.sh
# Trains the units of benchmarks/evidence.py on one GPU, JOBS (10) at a time, for at most BUDGET seconds (3,600): a
# small student leaves most of a card idle. It may be cut off at any moment: each unit leaves its own file, and the
# same command goes on. DATA: folder of the sets; those that are absent are left out. WEIGHTS=FOLDER: of ImageNet
# (DATA/weights). OUT=FOLDER: for the results (work_dirs/evidence). ROWS='chess|neudet all': units to choose, a
# regular expression. PYTHON=FILE: one that has torch.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
DATA=${DATA:-${DISTILL_DATA:-}} OUT=${OUT:-work_dirs/evidence} JOBS=${JOBS:-10} BUDGET=${BUDGET:-3600}
PYTHON=${PYTHON:-python} WEIGHTS=${WEIGHTS:-$DATA/weights}
export OMP_NUM_THREADS=1 DATA OUT PYTHON WEIGHTS
[ -d "$DATA" ] || { echo 'evidence_on_gpu.sh: set DATA=FOLDER, the folder of the data sets' >&2; exit 2; }
mkdir -p "$OUT/logs" || exit 2

unit() {  # set row seed
  local log=$OUT/logs/$1_$2_$3.txt start=$SECONDS status=0
  "$PYTHON" -m benchmarks.evidence run "$@" --data "$DATA" --weights "$WEIGHTS" --out "$OUT" > "$log" 2>&1 || status=$?
  printf '%-24s exit status %s, %s s\n' "$*" "$status" "$((SECONDS - start))" | tee -a "$OUT/summary.txt"
}
export -f unit
"$PYTHON" -m benchmarks.evidence list --data "$DATA" | grep -E "${ROWS:-.}" \
  | timeout --kill-after=20 "$BUDGET" xargs -P "$JOBS" -L 1 bash -c 'unit "$@"' unit
"$PYTHON" -m benchmarks.evidence table --out "$OUT" | tee "$OUT/table.md"
