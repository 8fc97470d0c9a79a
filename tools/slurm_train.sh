#!/usr/bin/env bash
# Train under Slurm. Checked with a stand-in for srun; not run on a cluster.
# usage: GPUS=8 slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]
# Also: GPUS_PER_NODE CPUS_PER_TASK SRUN_ARGS PORT.
set -euo pipefail
if [ $# -lt 4 ]; then
  grep -m1 -o 'usage: .*' "$0" >&2
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/_dist_launch.sh"
slurm_launch "$1" "$2" train.py "$3" --work-dir "$4" "${@:5}"
