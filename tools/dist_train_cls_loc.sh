#!/usr/bin/env bash
# dist_train.sh under the name under which the method was published: it trains a distilled student.
# usage: dist_train_cls_loc.sh CONFIG [N] [options of tools/train.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_dist_launch.sh"
"$PYTHON" - "${1:-}" << 'END' || true
import sys
from pathlib import Path

from mmdet.config.resolve import merge_config

if Path(sys.argv[1]).is_file() and not merge_config(sys.argv[1]).model.get('distiller'):
    print(f'warning: {sys.argv[1]} has no model.distiller: this trains a plain student', file=sys.stderr)
END
exec bash "$ROOT/tools/dist_train.sh" "$@"
