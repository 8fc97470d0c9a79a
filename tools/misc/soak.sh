#!/usr/bin/env bash
# The long part of the tests: a training that is watched for an hour, the long tests, the fuzz targets.
# usage: bash tools/misc/soak.sh [SECONDS of the training, 3600]
# PARTS='soak tests fuzz' chooses; SOAK_DIR changes the folder, FUZZ_SECONDS the time of each fuzz target (60).
set -euo pipefail
SECONDS_OF_SOAK=${1:-3600}
source "$(dirname "${BASH_SOURCE[0]}")/../_environment.sh"
install_requirements runtime tests
for part in ${PARTS:-soak tests fuzz}; do
  echo "=== $part"
  case $part in
    soak) "$PYTHON" tools/misc/soak.py "$SECONDS_OF_SOAK" --work-dir "${SOAK_DIR:-work_dirs/soak}" ;;
    tests) DISTILL_LONG=1 "$PYTHON" -m pytest ;;
    fuzz)
      install_requirements fuzz
      for target in annotations checkpoint; do
        "$PYTHON" -m "tests.fuzz.fuzz_$target" "-max_total_time=${FUZZ_SECONDS:-60}" -print_final_stats=1
      done
      ;;
    *)
      echo "error: PARTS are soak, tests and fuzz; got $part" >&2
      exit 2
      ;;
  esac
done
