"""Write the weights of a checkpoint to a file of their own, to be shared or read safely.

python tools/misc/publish_model.py work_dirs/student/latest.pth student.pth   # writes student-1A2B3C4D.pth

Keeps weights, classes and input size, of a teacher also what `FrozenTeacher` reads. The state of the
training, its config and the paths in it are left out. The name ends with the first digits of the file's
SHA-256.
"""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

from mmdet.cli import add_trust_argument, make_parser, parse

OF_TEACHER = ('arch', 'classes', 'mean', 'std', 'crop_size', 'focal_weight', 'best_acc1')


def main(argv: Sequence[str] | None = None) -> None:
    """Read, and write."""
    parser = make_parser(__doc__)
    parser.add_argument('checkpoint', help='of a detector or a teacher')
    parser.add_argument('out', type=Path, help='file to write; digits are added to its name')
    add_trust_argument(parser)
    args = parse(parser, argv)
    import torch

    from mmdet.checkpoint.io import (
        atomic_write,
        check_writable,
        checkpoint_classes,
        load_checkpoint,
        to_serializable,
    )

    checkpoint = load_checkpoint(args.checkpoint, args.trust_checkpoint)
    meta = checkpoint['meta']
    of_set = meta.get('dataset_meta') or {}
    ids = {'category_ids': of_set['category_ids']} if 'category_ids' in of_set else {}
    content = {
        'meta': {
            'dataset_meta': {'classes': checkpoint_classes(checkpoint) or (), **ids},
            'input_size': meta.get('input_size'),
        },
        'state_dict': checkpoint['state_dict'],
        **{key: checkpoint[key] for key in OF_TEACHER if key in checkpoint},
    }
    check_writable(args.out.parent)
    buffer = io.BytesIO()
    torch.save(to_serializable(content), buffer)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    file = args.out.with_stem(f'{args.out.stem}-{digest[:8]}')
    atomic_write(file, lambda out: out.write(buffer.getbuffer()))
    print(f'{file}: {buffer.tell() / 1e6:.1f} MB, sha256 {digest}')
