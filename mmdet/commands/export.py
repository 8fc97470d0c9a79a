"""Export a detector as an ONNX file that runs without torch: network, decoding and NMS.

python tools/export.py configs/ssd/ssd300.py work_dirs/ssd300/latest.pth

Writes the file only if onnxruntime and the detector agree on some photos: the same boxes and classes, scores
that differ by at most 1e-4. docs/deployment.md describes inputs and outputs.
"""

import argparse
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmdet.cli import add_config_arguments, add_trust_argument, make_parser, parse

if TYPE_CHECKING:
    from mmdet.datasets.transforms.window import Image
    from mmdet.models.postprocess import Detections

NUM_PHOTOS = 8


class Limits(NamedTuple):
    """How far what the file finds may lie from what the detector finds."""

    score: float
    box: float  # pixels of the input, of any side
    missing: float  # share of detections without a counterpart: NMS decides by rounding at its threshold


FLOAT, HALF = Limits(1e-4, 0.1, 0.001), Limits(0.02, 3, 0.05)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', type=Path, help='checkpoint file')
    parser.add_argument('--format', choices=['onnx'], default='onnx', help='default: onnx')
    parser.add_argument('--out', type=Path, help='file, or folder for it; default: beside the checkpoint')
    parser.add_argument(
        '--opset', type=int, choices=range(15, 21), default=17, help='ONNX opset; default: 17'
    )
    parser.add_argument('--dynamic-batch', action='store_true', help='any number of images; default: one')
    parser.add_argument('--no-nms', action='store_true', help='decoded boxes and scores of all anchors')
    parser.add_argument('--half', action='store_true', help='float16 weights and features')
    parser.add_argument(
        '--photos',
        type=Path,
        help=f'folder to compare on; default: {NUM_PHOTOS} validation photos of the config',
    )
    add_trust_argument(parser)
    return parse(parser, argv)


def describe_input(model: Any) -> dict[str, Any]:
    """Describe what a model's input is made of: the metadata of the file.

    Raises:
        ValueError: The test pipeline does not resize.
    """
    loader, preprocessor = model.cfg.test_dataloader, model.data_preprocessor
    resize = [step for step in loader.dataset.pipeline if step['type'] == 'Resize']
    if not resize:
        raise ValueError('the test pipeline has no Resize: the size of the input is not known')
    keep_ratio = resize[-1].get('keep_ratio', False)
    divisor = loader.collate_fn.get('pad_size_divisor', 1) if keep_ratio else 1
    return {
        'size': [-(-side // divisor) * divisor for side in resize[-1]['scale']],  # W, H
        'keep_ratio': keep_ratio,
        'color': 'RGB' if preprocessor.bgr_to_rgb else 'BGR',
        'mean': preprocessor.mean.tolist(),
        'std': preprocessor.std.tolist(),
        'classes': list(model.dataset_meta['classes']),
    }


def preprocess(photo: 'Image', about: dict[str, Any]) -> 'Image':
    """Make the input of the file from a photo, as docs/deployment.md does it without this package.

    photo uint8 (h, w, 3) BGR · returns float32 (1, 3, H, W)
    """
    import cv2
    import numpy as np

    width, height = about['size']
    scale = np.array([width / photo.shape[1], height / photo.shape[0]])
    if about['keep_ratio']:
        scale[:] = scale.min()
    w, h = (scale * photo.shape[1::-1]).round().astype(int).tolist()
    resized = cv2.resize(photo, (w, h))[..., :: -1 if about['color'] == 'RGB' else 1]
    images = np.zeros((1, 3, height, width), np.float32)  # 0, the mean color, right and below
    images[0, :, :h, :w] = ((resized - np.array(about['mean'])) / about['std']).transpose(2, 0, 1)
    return images


def read_photos(folder: Path | None, cfg: Any, size: Sequence[int]) -> 'tuple[list[Image], str]':
    """Read photos to compare on; returns them, uint8 (h, w, 3) BGR, and what they are.

    Raises:
        ValueError: `folder` holds no photo.
    """
    import cv2
    import numpy as np

    from mmdet.datasets.transforms import BadImageError, read_image

    where = folder or Path(cfg.data_root, cfg.val_img)
    photos: list[Image] = []
    for file in sorted(where.iterdir()) if folder or where.is_dir() else ():
        try:
            photos.append(read_image(file))
        except BadImageError:
            continue
        if len(photos) == NUM_PHOTOS:
            break
    if photos:
        return photos, f'photos of {where}'
    if folder:
        raise ValueError(f'{folder} holds no image')
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (NUM_PHOTOS, 12, 16, 3), dtype=np.uint8)
    told = f'generated pictures ({where} holds no photos; --photos FOLDER says where some are)'
    return [cv2.resize(picture, (size[0], size[1])) for picture in coarse], told


def compare(own: 'Detections', found: 'Detections', limits: Limits, cutoff: float) -> tuple[float, ...]:
    """Compare the detections of an image; one that hardly passes the lowest score may lack a counterpart.

    Returns:
        Detections; those of either way without a counterpart; the largest difference of scores of
        counterparts, and of boxes in pixels of the input.
    """
    score_gaps = (own.scores[:, None] - found.scores).abs()  # (D, D')
    box_gaps = (own.bboxes[:, None] - found.bboxes).abs().amax(2)
    pairs = (box_gaps <= limits.box) & (score_gaps <= limits.score)
    pairs &= own.labels[:, None] == found.labels
    alone = (~pairs.any(1) & (own.scores > cutoff + limits.score)).sum()
    alone += (~pairs.any(0) & (found.scores > cutoff + limits.score)).sum()
    gaps = [max(gap[pairs].tolist(), default=0.0) for gap in (score_gaps, box_gaps)]
    return len(own.scores), int(alone), *gaps


def check(model: Any, onnx_model: bytes, photos: 'list[Image]', about: dict[str, Any], limits: Limits) -> str:
    """Compare what onnxruntime finds in photos with what the detector finds; returns the figures.

    Raises:
        ValueError: They differ by more than the limits; says the figures.
    """
    import onnxruntime
    import torch

    from mmdet.models.postprocess import Detections

    session = onnxruntime.InferenceSession(onnx_model, providers=['CPUExecutionProvider'])
    postprocess, figures = model.head.postprocess, []
    for photo in photos:
        images = preprocess(photo, about)
        with torch.no_grad():
            outputs = model.raw_outputs(torch.from_numpy(images))
            (own,) = model.head.predict(outputs, torch.tensor([images.shape[2:]]))
        bboxes, scores, *labels = map(torch.from_numpy, session.run(None, {'images': images}))
        if labels:
            found = Detections(*(x[0, labels[0][0] >= 0] for x in (bboxes, scores, *labels)))
        else:
            (found,) = postprocess(bboxes, scores, outputs.anchors.num_per_level)
        full = len(own.scores) == postprocess.max_per_img
        cutoff = float(own.scores[-1]) if full else postprocess.score_thr
        figures.append(compare(own, found, limits, cutoff))
    total, missing, score_gap, box_gap = zip(*figures, strict=True)
    if not sum(total):
        return 'nothing was found in them, so nothing was compared; --photos FOLDER names photos with objects'
    told = (
        f'{sum(total)} detections, {sum(missing)} without a counterpart, scores differ by at most '
        f'{max(score_gap):.1e}, boxes by {max(box_gap):.1e} pixels'
    )
    if sum(missing) > limits.missing * sum(total):
        raise ValueError(
            f'onnxruntime does not find what the detector finds: {told}. A counterpart differs by at most '
            f'{limits.score:g} and {limits.box:g} pixels, {limits.missing:.1%} may lack one. No file written'
        )
    return told


def main(argv: Sequence[str] | None = None) -> None:
    """Translate, compare, write.

    Raises:
        ModuleNotFoundError: onnx or onnxruntime is not installed.
        ValueError: An option does not go with two stages, or the file finds something else than the detector.
    """
    args = parse_args(argv)
    if lacking := [name for name in ('onnx', 'onnxruntime') if find_spec(name) is None]:
        raise ModuleNotFoundError(f'export needs {" and ".join(lacking)}: pip install {" ".join(lacking)}')
    from mmdet.apis import init_detector
    from mmdet.checkpoint.io import atomic_write
    from mmdet.models.detectors import TwoStageDetector
    from mmdet.models.export import to_onnx

    options = args.cfg_options | ({} if args.data_root is None else {'data_root': args.data_root})
    model = init_detector(args.config, args.checkpoint, 'cpu', options, args.trust_checkpoint)
    of_one_stage = args.no_nms or args.dynamic_batch or args.half or args.opset < 16
    if of_one_stage and isinstance(model, TwoStageDetector):
        raise ValueError(
            f'{args.config} has two stages: leave out --no-nms, --dynamic-batch and --half, and take --opset '
            'from 16 on'
        )
    about = describe_input(model)
    photos, told = read_photos(args.photos, model.cfg, about['size'])
    onnx_model = to_onnx(model, about['size'], not args.no_nms, args.dynamic_batch, args.half, args.opset)
    for key, value in about.items():
        onnx_model.metadata_props.add(key=key, value=json.dumps(value))
    content = onnx_model.SerializeToString()
    figures = check(model, content, photos, about, HALF if args.half else FLOAT)
    out = args.out or args.checkpoint.with_suffix('.onnx')
    out = out / f'{args.checkpoint.stem}.onnx' if out.is_dir() else out
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, lambda file: file.write(content))
    print(f'{out}: {len(content) / 1e6:.1f} MB, compared on {len(photos)} {told}: {figures}')
