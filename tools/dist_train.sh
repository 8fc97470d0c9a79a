#!/usr/bin/env bash
# Train in several processes, one a GPU, or on the CPU where there is none.
# usage: dist_train.sh CONFIG [N] [options of tools/train.py]
# N: by default the visible GPUs, or 1. Several nodes: NNODES NODE_RANK MASTER_ADDR PORT. MAX_RESTARTS=3: when a
# process fails, start them all again from the last checkpoint, up to three times.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_dist_launch.sh"
dist_launch train.py 1 "$@"
