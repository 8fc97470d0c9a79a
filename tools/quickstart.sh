#!/usr/bin/env bash
# The main job on generated photos: a teacher, a plain student, a distilled one, and a comparison.
# usage: bash tools/quickstart.sh
# QUICKSTART_STEPS=N shortens every training to N steps, QUICKSTART_DIR changes the folder.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
install_requirements runtime

DIR=${QUICKSTART_DIR:-work_dirs/quickstart}
TEACHER=$DIR/teacher/model_best.pth.tar
SHORT=()
PHOTOS=(--train 1000 --val 200)
if [ -n "${QUICKSTART_STEPS:-}" ]; then
  SHORT=("train_cfg.max_iters=$QUICKSTART_STEPS")
  PHOTOS=(--train 64 --val 16)
fi
STUDENT=configs/ssd/ssd_tiny.py
DISTILLED=configs_dev/ssd/ssd_tiny_cls_loc.py

say() { printf '\n=== %s (%d s)\n' "$1" "$SECONDS"; }
train() {  # name config [option ...]
  local name=$1 config=$2
  shift 2
  "$PYTHON" tools/train.py "$config" --work-dir "$DIR/$name" --data-root "$DIR/data" \
    --cfg-options "$@" "${SHORT[@]}" > "$DIR/$name.log" 2>&1 || { tail -n 30 "$DIR/$name.log"; exit 1; }
  grep -E 'Epoch\((train|val)\)' "$DIR/$name.log" | tail -n 2 | sed 's/.* INFO - //; s/ *data_time.*//'
}
evaluate() {  # name
  "$PYTHON" tools/test.py "$STUDENT" "$DIR/$1/latest.pth" --eval bbox --work-dir "$DIR/$1_test" \
    --data-root "$DIR/data" --show-dir "$DIR/$1_pictures" > "$DIR/$1_test.log" 2>&1 \
    || { tail -n 30 "$DIR/$1_test.log"; exit 1; }
}

mkdir -p "$DIR"
say "Drawing photos into $DIR/data"
"$PYTHON" tools/misc/make_synthetic.py "$DIR/data" --size 192 "${PHOTOS[@]}"
say 'Training the teacher, an image classifier, on their objects'
train teacher configs_dev/teachers/resnet18_tiny.py randomness.seed=0
say 'Training the plain student'
train plain "$STUDENT" randomness.seed=0
say 'Training the distilled student: same steps, same seed'
train distilled "$DISTILLED" randomness.seed=0 "model.distiller.teacher.checkpoint=$TEACHER"
say 'Testing both with the plain config'
evaluate plain
evaluate distilled
say 'Result'
"$PYTHON" tools/misc/quickstart_report.py "$DIR"
printf '\nNext:\n'
[ -z "$ACTIVATE" ] || echo "  $ACTIVATE"
echo "  python tools/image_demo.py $DIR/data/val2017 $STUDENT $DIR/distilled/latest.pth --out-dir $DIR/demo"
