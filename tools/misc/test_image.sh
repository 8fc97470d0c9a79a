#!/usr/bin/env bash
# Build the image and use it as the README says, on the CPU: two steps on two processes as user 12345:12345, data and
# teachers mounted read-only, then a test of the checkpoint. Debian's buildah stands in for Docker.
# usage: sudo bash tools/misc/test_image.sh [BASE]
# BASE: an image; default: Debian made by debootstrap, of user 1000, with this machine's certificates and pip settings.
# Took 26 minutes on a busy machine and, in FOLDER (default: under /tmp), 12 GB, which are removed in the end. MIRROR: of
# Debian. BUILD_OPTIONS: of buildah, such as -v WHEELS:WHEELS:ro where pip's settings name a folder.
# STORAGE_DRIVER=vfs: where overlay is not to be had, as inside a container; 20 GB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
FOLDER=${FOLDER:-$(mktemp -d /tmp/test_image.XXXX)}
OWNER=12345:12345
trap 'rm -rf "$FOLDER"' EXIT
say() { printf '\n=== %s (%d s)\n' "$1" "$SECONDS"; }
buildah() { command buildah --root "$FOLDER/images" --runroot "$FOLDER/run" "$@"; }

BASE=${1:-}
if [ -z "$BASE" ]; then
  BASE=localhost/base ROOT=$FOLDER/root
  say 'Making a base: Debian'
  debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates bookworm "$ROOT" \
    "${MIRROR:-http://deb.debian.org/debian}" > "$FOLDER/debootstrap.log"
  cp /etc/ssl/certs/ca-certificates.crt "$ROOT/etc/ssl/certs/"
  pip config list | sed -n "s/^global\.\([a-z-]*\)='\(.*\)'\$/\1 = \2/p" | sed '1i [global]' > "$ROOT/etc/pip.conf"
  rm -rf "$ROOT"/var/cache/apt/* "$ROOT"/var/lib/apt/lists/*
  container=$(buildah from scratch)
  buildah copy -q "$container" "$ROOT" / > /dev/null
  buildah config --user 1000:1000 "$container"  # as in bases that do not run as root
  buildah commit -q --rm "$container" "$BASE" > /dev/null
  rm -rf "$ROOT"
fi

say 'Building'
buildah bud --isolation chroot ${BUILD_OPTIONS:-} --build-arg BASE="$BASE" -t distill-det . > "$FOLDER/build.log" 2>&1 \
  || { tail -n 30 "$FOLDER/build.log"; exit 1; }
buildah images distill-det

container=$(buildah from distill-det)
mkdir -p "$FOLDER"/{data,cls_teachers/ssd,work_dirs}
chown -R "$OWNER" "$FOLDER"/{data,cls_teachers,work_dirs}
run() {  # ro|rw command ...: how the data and the teachers are mounted
  local how=$1
  shift
  buildah run --isolation chroot --user "$OWNER" -v "$FOLDER/data:/workspace/data/coco2017:$how" \
    -v "$FOLDER/cls_teachers:/workspace/cls_teachers:$how" -v "$FOLDER/work_dirs:/workspace/work_dirs" \
    "$container" -- "$@"
}
say 'Drawing photos, and a teacher of random weights'
run rw python tools/misc/make_synthetic.py data/coco2017 --size 192 --train 16 --val 4
run rw python -c "
import json, torch, torchvision
names = [each['name'] for each in json.load(open('data/coco2017/annotations/instances_train2017.json'))['categories']]
network = torchvision.models.resnet50(num_classes=len(names))
torch.save({'state_dict': network.state_dict(), 'classes': names}, 'cls_teachers/ssd/model_best.pth.tar')"
for folder in data/coco2017 cls_teachers; do
  ! run ro touch "$folder/a" 2> /dev/null || { echo "error: $folder can be written" >&2; exit 1; }
done
say 'Training two steps'
run ro bash tools/dist_train_cls_loc.sh configs_dev/ssd/ssd300_coco_cls_loc.py 2 --no-validate --cfg-options \
  train_cfg.max_iters=2 train_dataloader.batch_size=2 train_dataloader.num_workers=1 model.backbone.weights=None
say 'Testing the checkpoint'
run ro python tools/test.py configs/ssd/ssd300.py work_dirs/ssd300_coco_cls_loc/latest.pth --eval bbox
! find "$FOLDER/work_dirs" ! -uid "${OWNER%:*}" | grep . || { echo 'error: these are of another user' >&2; exit 1; }
say 'The image works'
