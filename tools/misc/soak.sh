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
    soak)  # a checkpoint every epoch (seconds), new loader workers every epoch, an evaluation every tenth
      DIR=${SOAK_DIR:-work_dirs/soak}
      "$PYTHON" tools/misc/make_synthetic.py "$DIR/data" --train 64 --val 16 --size 96
      "$PYTHON" tools/train.py configs_dev/teachers/resnet18_tiny.py --data-root "$DIR/data" \
        --work-dir "$DIR/teacher" --cfg-options train_cfg.max_iters=20
      mkdir -p "$DIR/run"
      "$PYTHON" -m tests.helpers.soak "$SECONDS_OF_SOAK" "$DIR/run" \
        "$PYTHON" tools/train.py configs_dev/ssd/ssd_tiny_cls_loc.py --data-root "$DIR/data" --work-dir "$DIR/run" \
        --cfg-options "model.distiller.teacher.checkpoint=$DIR/teacher/model_best.pth.tar" \
        train_cfg.max_iters=100000000 train_cfg.val_interval=10 train_dataloader.num_workers=2 \
        train_dataloader.persistent_workers=False default_hooks.checkpoint.max_keep_ckpts=3
      ;;
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
