"""Load data sets in COCO's format.

H, W size of a sample in pixels · G boxes of an image · boxes xyxy in pixels
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mmengine.logging import print_log
from numpy.typing import NDArray
from terminaltables import AsciiTable
from torch.utils.data import Dataset

from mmdet.datasets.coco_format import match_classes, read_coco
from mmdet.datasets.collate import BadImage
from mmdet.datasets.training_boxes import select_boxes
from mmdet.datasets.transforms import BadImageError, Results, exif_reading, read_image
from mmdet.files import suggest
from mmdet.registry import DATASETS

REMEDY = 'Set data_root (`--data-root DIR`) and the images in it (`--cfg-options train_img=... val_img=...`).'


@DATASETS.register_module()
class CocoDataset(Dataset[dict[str, Any] | BadImage]):
    """Images with boxes, from a COCO annotation file.

    `dataset[index, draw]` is a function of the seed, the index and the draw: the transforms take their
    random numbers from a generator that is made from (seed, draw), and from no other. `dataset[index]` is
    `dataset[index, index]`.

    Args:
        data_root: Folder of the data set.
        ann_file: Annotation file within it.
        data_prefix: `dict(img=...)`, folder of the images within `data_root`.
        pipeline: Transforms, the last of which makes the sample.
        metainfo: `dict(classes=...)`: names in the order of their labels. None: all in the file, by id.
        filter_empty_gt: Leave out images without a box to train on. Not with `test_mode`.
        on_bad_image: An image file that cannot be used raises an error ('fail'), or gives a `BadImage`
            instead of a sample ('skip').
        test_mode: Every image is kept, and the file may come without annotations.
        seed: Not negative.

    Attributes:
        metainfo: `classes` and `category_ids`, the name of each label and its id in the file, or None.
        img_ids: (M,) id of each image that is left, in the order of the file.
        sizes: (M, 2) their (h, w) in the file.
        faults: Boxes that were dropped or clipped.
        without_boxes: How many images of the file have no box to train on, and why.
        advice: What most boxes look like, where most are faulty, and which photos are listed twice; else ''.

    Raises:
        FileNotFoundError: No annotation file, no image folder, or not one of the images in it.
        ValueError: Annotations that cannot be used; not one box, where not `test_mode`.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        data_prefix: dict[str, str],
        pipeline: Sequence[Callable[[Any], Any]],
        metainfo: dict[str, Any] | None = None,
        filter_empty_gt: bool = False,
        on_bad_image: Literal['fail', 'skip'] = 'fail',
        test_mode: bool = False,
        seed: int = 0,
    ) -> None:
        _check_choice('on_bad_image', on_bad_image, ('fail', 'skip'))
        _check_choice('filter_empty_gt', filter_empty_gt, (True, False))  # a word would be true, even 'no'
        _check_choice('test_mode', test_mode, (True, False))
        if seed < 0:
            raise ValueError(f'seed must not be negative, but is {seed}')
        self.ann_file = _require_dir(Path(data_root)) / ann_file
        self.img_folder = Path(data_root) / data_prefix['img']
        self.pipeline = tuple(pipeline)
        self.on_bad_image = on_bad_image
        self.test_mode = test_mode
        self.seed = seed
        coco = read_coco(self.ann_file, boxes_needed=not test_mode)
        classes = match_classes(coco, (metainfo or {}).get('classes'))
        self._boxes = boxes = select_boxes(coco, classes)
        counts = np.bincount(boxes.image_rows, minlength=len(coco.img_ids))
        rows = np.flatnonzero(counts) if filter_empty_gt and not test_mode else np.arange(len(counts))
        if not test_mode and not len(boxes.labels):
            raise ValueError(f'{boxes.advice} There is nothing to train on.')
        self.metainfo = {'classes': classes, 'category_ids': tuple(map(coco.category_ids.get, classes))}
        self.img_ids = coco.img_ids[rows]
        self.faults, self.without_boxes, self.advice = boxes.faults, boxes.without_boxes, boxes.advice
        # flat arrays, which forked processes share without a copy
        self._file_names, self.sizes = coco.file_names[rows], coco.sizes[rows]
        self._first = np.append(0, counts[rows].cumsum())  # boxes of row i are first[i] : first[i + 1]
        print_log(self._summary(len(counts)), 'current')
        if self.advice and coco.has_annotations:
            print_log(self.advice, 'current', logging.WARNING)
        self._require_images()

    def _summary(self, listed: int) -> str:
        """Sum up what was read in one line; `listed`: images in the file."""
        kinds = Counter(fault.kind for fault in self.faults)
        clipped = kinds.pop('clipped', 0)
        dropped = ', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))
        ignored = f' and {self._boxes.ignored} ignored' if self._boxes.ignored else ''
        return (
            f'{self.ann_file}: {len(self)} images, {len(self._boxes.labels)} boxes of '
            f'{len(self.metainfo["classes"])} classes; dropped {kinds.total()} boxes'
            f'{f" ({dropped})" if dropped else ""}, clipped {clipped}, passed over {self._boxes.crowds} '
            f'crowds{ignored}, left out {listed - len(self)} images without boxes'
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.img_ids)

    def __getitem__(self, index: int | tuple[int, int]) -> Any:
        """Load the sample at (index, draw): what the last transform returns, or a `BadImage`.

        Raises:
            BadImageError: The image file cannot be used and `on_bad_image` is 'fail'.
        """
        row, draw = index if isinstance(index, tuple) else (index, index)
        if not 0 <= row < len(self):  # iterating over a data set ends here
            raise IndexError(f'{self.ann_file} has {len(self)} images, none at {row}')
        results: Any = self._results(row, draw)
        try:
            for transform in self.pipeline:
                results = transform(results)
        except BadImageError as error:
            img_id, file = int(self.img_ids[row]), str(self._file(row))
            if self.on_bad_image == 'skip':
                window = results['window']  # geometry never looks at pixels
                return BadImage(img_id, file, str(error), (window.height, window.width))
            loaders = ('val_dataloader', 'test_dataloader') if self.test_mode else ('train_dataloader',)
            remedy = ' '.join(f'{loader}.dataset.on_bad_image=skip' for loader in loaders)
            raise BadImageError(
                f'{file} (image {img_id} of {self.ann_file}): {error}.{suggest(file, similar=False)} Mend '
                f'the file, or leave such images out: `--cfg-options {remedy}`.'
            ) from error
        return results

    def _results(self, row: int, draw: int) -> Results:
        """Collect what the first transform gets."""
        boxes = slice(self._first[row], self._first[row + 1])
        height, width = self.sizes[row].tolist()
        return {
            'img_path': self._file(row),
            'img_id': int(self.img_ids[row]),
            'ori_shape': (height, width),
            'annotations': (self._boxes.bboxes[boxes], self._boxes.labels[boxes], self._boxes.ann_ids[boxes]),
            'rng': np.random.Generator(np.random.Philox(key=[self.seed, draw])),
        }

    def objects(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the labels (B,) and image rows (B,) of the objects to train on, crowds left out."""
        return self._boxes.labels, np.repeat(np.arange(len(self)), np.diff(self._first))

    @property
    def bboxes(self) -> NDArray[np.float32]:
        """Boxes (B, 4) xyxy of the `objects`, in pixels of their images."""
        return self._boxes.bboxes

    @property
    def ann_ids(self) -> NDArray[np.int64]:
        """Annotation ids (B,) of the `objects`."""
        return self._boxes.ann_ids

    def class_table(self, times_shown: NDArray[np.int64] | None = None) -> str:
        """Count the images that hold each class, and its objects without crowds; a table as text.

        Args:
            times_shown: (M,) how often an epoch shows each image; adds how many objects that makes.
        """
        labels, images = self.objects()
        holders = [(name, images[labels == label]) for label, name in enumerate(self.metainfo['classes'])]
        rows: list[list[Any]] = [['class', 'images', 'objects', 'objects per epoch']]
        for name, held in [*holders, ('all', images)]:
            shown = [] if times_shown is None else [int(times_shown[held].sum())]
            rows.append([name, len(np.unique(held)), len(held), *shown])
        table = AsciiTable([row[: len(rows[-1])] for row in rows]).table
        return f'{self.ann_file}, {self._boxes.crowds} crowds left out:\n{table}'

    def _file(self, row: int) -> Path:
        return self.img_folder / self._file_names[row].decode()

    def _require_images(self) -> None:
        """Look for images until one is found: without any this is another folder."""
        _require_dir(self.img_folder)
        if not any(self._file(row).is_file() for row in range(len(self))):
            first = self._file(0)
            raise FileNotFoundError(
                f'{self.img_folder} holds none of the {len(self)} images of {self.ann_file}, such as '
                f'{first}.{suggest(first, similar=False)} {REMEDY}'
            )

    def _row(self, img_id: int) -> int:
        rows = np.flatnonzero(self.img_ids == img_id)
        if not len(rows):
            raise KeyError(f'{self.ann_file} has no image {img_id}, or it was left out')
        return int(rows[0])

    def image_file(self, img_id: int) -> Path:
        """Return the file of an image."""
        return self._file(self._row(img_id))

    def boxes_of(self, img_id: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the boxes (G, 4) of an image, in its own pixels, and their labels (G,), crowds left out."""
        bboxes, labels, _ = self._results(self._row(img_id), draw=0)['annotations']
        return bboxes, labels

    def read(self, img_id: int) -> NDArray[np.uint8]:
        """Read the pixels (H, W, 3) of an image, BGR.

        Raises:
            BadImageError: Its file cannot be used.
        """
        row = self._row(img_id)
        height, width = self.sizes[row].tolist()
        return read_image(self._file(row), (height, width))

    def read_image_fault(self, img_id: int) -> str | None:
        """Decode the file of an image; return why it cannot be used, or None when it can."""
        try:
            self.read(img_id)
        except BadImageError as error:
            return str(error)
        return None

    def exif_reading(self, img_id: int) -> str:
        """Say how an image is read that its EXIF data turn: 'upright' or 'as stored'; '' without them."""
        row = self._row(img_id)
        height, width = self.sizes[row].tolist()
        return exif_reading(self._file(row).read_bytes(), (height, width))


def _check_choice(name: str, value: Any, choices: tuple[Any, Any]) -> None:
    if value not in choices:
        raise ValueError(f'{name} must be {choices[0]!r} or {choices[1]!r}, but is {value!r}')


def _require_dir(folder: Path) -> Path:
    """Check that a folder exists, and return it.

    Raises:
        FileNotFoundError: There is none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: there is no such folder.{suggest(folder)} {REMEDY}')
    return folder
