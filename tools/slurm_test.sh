#!/usr/bin/env bash
# Evaluate under Slurm. Checked with a stand-in for srun; not run on a cluster.
# usage: GPUS=8 slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]
# Also: GPUS_PER_NODE CPUS_PER_TASK SRUN_ARGS PORT.
set -euo pipefail
if [ $# -lt 4 ]; then
  grep -m1 -o 'usage: .*' "$0" >&2
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/_dist_launch.sh"
slurm_launch "$1" "$2" test.py "$3" "$4" "${@:5}"
