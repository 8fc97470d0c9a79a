#!/usr/bin/env bash
# The main job on generated photos, by the commands that serve for any set: a teacher, a plain and a distilled
# student, a comparison.
# usage: bash tools/quickstart.sh [--student CONFIG [KEY=VALUE ...]]
# CONFIG: the distilled one of another student, from the root of this clone, with keys of it to change. It trains from
# scratch, for 350 steps. One that is made for large photos needs a small input on a CPU: input_size=192.
# QUICKSTART_STEPS=N: every training takes N steps, of fewer photos; QUICKSTART_DIR changes the folder.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
# What suits a CPU: another layout in memory, one kernel for the optimizer, and freed memory that is kept for the next
# step. The last batch of an epoch would be one photo, too little for batch norm.
FAST=(channels_last=True optim_wrapper.optimizer.fused=True train_dataloader.drop_last=True)
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_ARENA_MAX=1  # glibc's
OF_TEACHER=("${FAST[@]}" train_cfg.val_interval=10)
if [ "$#" = 0 ]; then
  STUDENT=configs_dev/ssd/ssd_tiny_cls_loc.py
  # Localization compares four predicted boxes of each object, on crops of half the side, at a quarter of its weight:
  # in so short a training the whole one costs more than it brings (docs/experiments.md).
  OF_STUDENT=(iters=350 "${FAST[@]}" model.distiller.kd_loc.crop_size=16 model.distiller.kd_loc.max_per_object=4
    'model.distiller.kd_loc.loss_weight=[0.00065,0.0375]')
elif [ "$1" = --student ] && [ "$#" -gt 1 ]; then
  STUDENT=$2
  OF_STUDENT=(iters=350 "${@:3}")
  for option in "${@:3}"; do  # the teacher sees the same
    case $option in input_size=* | classes=*) OF_TEACHER+=("$option") ;; esac
  done
else
  echo 'usage: bash tools/quickstart.sh [--student CONFIG [KEY=VALUE ...]]' >&2; exit 2
fi
install_requirements runtime

DIR=${QUICKSTART_DIR:-work_dirs/quickstart}
TEACHER=$DIR/teacher/model_best.pth.tar
PHOTOS=(--train 1000 --val 200)
if [ -n "${QUICKSTART_STEPS:-}" ]; then
  OF_TEACHER+=("iters=$QUICKSTART_STEPS") OF_STUDENT+=("iters=$QUICKSTART_STEPS") PHOTOS=(--train 64 --val 16)
fi
trap 'kill $(jobs -p) 2> /dev/null || :' EXIT  # Ctrl-C ends what runs in the background, too
say() { printf '\n=== %s (%d s)\n' "$1" "$SECONDS"; }

mkdir -p "$DIR"
say "Drawing photos into $DIR/data"
"$PYTHON" tools/misc/make_synthetic.py "$DIR/data" --size 192 "${PHOTOS[@]}" & DRAWING=$!
# The teacher has the layers and the crops that the student's config names. Nothing is downloaded: what a config
# starts from ImageNet weights, or freezes, starts at random here and learns.
OPTIONS=$("$PYTHON" - "$STUDENT" << 'EOF'
import sys
from mmdet.cli import usable_cores
from mmdet.config.resolve import merge_config

model = merge_config(sys.argv[1]).model
print(f'model.arch={model.distiller.teacher.arch} model.crop_size={model.distiller.crop_size}')
free = {'weights': None, 'frozen_levels': 0, 'frozen_stages': -1, 'norm_eval': False}
print(*(f'model.backbone.{key}={value}' for key, value in free.items() if key in model.backbone))
print(max(usable_cores() // 2, 1))
EOF
)
{ read -ra NETWORK; read -ra FREE; read -r THREADS; } <<< "$OPTIONS"
OF_TEACHER+=("${NETWORK[@]}") OF_STUDENT=("${FREE[@]}" "${OF_STUDENT[@]}")
wait "$DRAWING"

say 'Training the teacher, an image classifier, on their objects'
"$PYTHON" tools/train.py configs_dev/teachers/resnet18_tiny.py --work-dir "$DIR/teacher" --data-root "$DIR/data" \
  --cfg-options "${OF_TEACHER[@]}" > "$DIR/teacher.log" 2>&1 || { tail -n 30 "$DIR/teacher.log"; exit 1; }

say 'Training and testing a plain and a distilled student side by side: same steps, same seed'
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$THREADS}
ROWS=("$PYTHON" tools/analysis/run_rows.py "$STUDENT" --seeds 0 --teacher "$TEACHER" --data-root "$DIR/data"
  --out-dir "$DIR/rows" --cfg-options "${OF_STUDENT[@]}")
"${ROWS[@]}" --rows all & DISTILLED=$!
"${ROWS[@]}" --rows plain
"$PYTHON" tools/analysis/browse_teacher.py "$STUDENT" --teacher "$TEACHER" --data-root "$DIR/data" \
  --out "$DIR/teacher_sees.png" --cfg-options "${OF_STUDENT[@]}"
wait "$DISTILLED"

say 'Comparing them: one run of each decides little, and times taken side by side say nothing'
"$PYTHON" tools/analysis/compare.py "$DIR/rows" | sed '/^### AP by/,/^### Runs/d'

printf '\nNext:\n'
[ -z "$ACTIVATE" ] || echo "  $ACTIVATE"
echo "  python tools/image_demo.py $DIR/data/val2017 $DIR/rows/work/all_seed0.py \\"
echo "    $DIR/rows/work/all_seed0/latest.pth --out-dir $DIR/detections"
