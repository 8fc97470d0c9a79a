#!/usr/bin/env bash
# The main job on generated photos, by the commands that serve for any set: a teacher, a plain and a distilled
# student, a comparison.
# usage: bash tools/quickstart.sh
# QUICKSTART_STEPS=N shortens every training to N steps, QUICKSTART_DIR changes the folder.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
install_requirements runtime

DIR=${QUICKSTART_DIR:-work_dirs/quickstart}
TEACHER=$DIR/teacher/model_best.pth.tar
DISTILLED=configs_dev/ssd/ssd_tiny_cls_loc.py
SHORT=()  # macOS has a Bash to which an empty list is an unset variable
PHOTOS=(--train 1000 --val 200)
if [ -n "${QUICKSTART_STEPS:-}" ]; then
  SHORT=(--cfg-options "train_cfg.max_iters=$QUICKSTART_STEPS")
  PHOTOS=(--train 64 --val 16)
fi
say() { printf '\n=== %s (%d s)\n' "$1" "$SECONDS"; }

mkdir -p "$DIR"
say "Drawing photos into $DIR/data"
"$PYTHON" tools/misc/make_synthetic.py "$DIR/data" --size 192 "${PHOTOS[@]}"

say 'Training the teacher, an image classifier, on their objects'
"$PYTHON" tools/train.py configs_dev/teachers/resnet18_tiny.py --work-dir "$DIR/teacher" --data-root "$DIR/data" \
  ${SHORT[@]+"${SHORT[@]}"} > "$DIR/teacher.log" 2>&1 || { tail -n 30 "$DIR/teacher.log"; exit 1; }
"$PYTHON" tools/analysis/browse_teacher.py "$DISTILLED" --teacher "$TEACHER" --data-root "$DIR/data" \
  --out "$DIR/teacher_sees.png"

say 'Training and testing a plain and a distilled student: same steps, same seed'
"$PYTHON" tools/analysis/run_rows.py "$DISTILLED" --rows plain all --seeds 0 --teacher "$TEACHER" \
  --data-root "$DIR/data" --out-dir "$DIR/rows" ${SHORT[@]+"${SHORT[@]}"}

say 'Comparing them: one run of each decides little'
"$PYTHON" tools/analysis/compare.py "$DIR/rows" | sed '/^### AP by/,/^### Runs/d'

printf '\nNext:\n'
[ -z "$ACTIVATE" ] || echo "  $ACTIVATE"
echo "  python tools/image_demo.py $DIR/data/val2017 configs/ssd/ssd_tiny.py $DIR/rows/work/all_seed0/latest.pth \\"
echo "    --out-dir $DIR/detections"
