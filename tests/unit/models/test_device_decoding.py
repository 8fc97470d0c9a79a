"""What the device decodes and draws is what a data worker would have drawn."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from benchmarks.parity import MEAN_DIFFERENCE, MOST_DIFFERENCE
from benchmarks.reference.augmentation import PIPELINE
from mmdet.datasets import collate_detection
from mmdet.datasets.transforms import ColorJitter, PackDetInputs, Window
from mmdet.datasets.transforms.color import ORDERS, distort
from mmdet.models import DetDataPreprocessor, device_decoding
from mmdet.models.device_decoding import change_colors, draw_images
from mmdet.registry import TRANSFORMS
from mmdet.structures import EncodedImages
from tests.unit.datasets.test_transforms import boxes_of, photo_of, results_of, run

CPU = torch.device('cpu')
SIZE = (240, 320)  # (h, w) of the photos
PLAIN = ColorJitter()
FILL = (103.53, 116.28, 123.675)
ON_DEVICE, IN_WORKER = PackDetInputs('device'), PackDetInputs()


@pytest.fixture(autouse=True)
def no_earlier_warning() -> None:
    device_decoding._warn_once.cache_clear()


def write(folder: Path, kind: str = 'rgb.jpg', seed: int = 0) -> Path:
    """A photo of `SIZE` as a file of a kind."""
    name, ending = kind.split('.')
    file, photo = folder / f'{kind}_{seed}.{ending}', Image.fromarray(photo_of(seed)[..., ::-1])
    exif = Image.Exif()
    if name == 'turned':
        exif[0x0112] = 3  # upside down
    if name == 'turned_by_90':
        exif[0x0112], photo = 6, photo.transpose(Image.Transpose.ROTATE_90)
    mode = {'gray': 'L', 'cmyk': 'CMYK'}.get(name, 'RGB')
    more = {'quality': 92, 'exif': exif, 'progressive': name == 'progressive'} if ending == 'jpg' else {}
    photo.convert(mode).save(file, **more)
    return file


def task(file: Path, window: Window, color: ColorJitter = PLAIN, img_id: int = 7) -> dict[str, Any]:
    """What `PackDetInputs` gets."""
    return {
        'img_path': file,
        'img_id': img_id,
        'ori_shape': SIZE,
        'window': window,
        'bboxes': np.zeros((0, 4), np.float32),
        'labels': np.zeros(0, np.int64),
        'ann_ids': np.zeros(0, np.int64),
        'color': color,
        'fill': FILL,
    }


def both(tasks: list[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """A batch as the workers draw it, as the device does, and the mean difference of each image (N,)."""
    worker, device = (collate_detection([pack(t) for t in tasks]) for pack in (IN_WORKER, ON_DEVICE))
    assert isinstance(device['inputs'], EncodedImages)
    drawn = draw_images(device['inputs'], CPU, device['gt'].img_id.tolist())
    inside = device_decoding.pixels_inside(
        torch.nn.functional.pad(device['gt'].img_shape.flip(1), (2, 0)), drawn.shape[2:]
    )
    difference = (drawn - worker['inputs']).abs() * inside
    return worker['inputs'], drawn, difference.sum((1, 2, 3)) / inside.sum((1, 2, 3)) / 3


def assert_alike(tasks: list[Any], mean: float = MEAN_DIFFERENCE) -> Tensor:
    worker, drawn, differences = both(tasks)
    assert drawn.dtype == torch.float32
    assert drawn.shape == worker.shape
    assert drawn.is_contiguous()  # a network that gets channels_last trains slower on a CPU
    assert drawn.min() >= 0
    assert drawn.max() <= 255
    assert differences.mean() < mean
    assert differences.max() < MOST_DIFFERENCE
    return drawn


# The same draws


def test_equals_the_worker_over_many_draws(tmp_path: Path) -> None:
    transforms = [TRANSFORMS.build(cfg) for cfg in PIPELINE[:-1]]
    files = [write(tmp_path, seed=seed) for seed in range(10)]
    tasks: list[Any] = []
    for draw in range(60):
        drawn = run(results_of(photo_of(draw % 10), *boxes_of(draw), draw), *transforms)
        drawn.pop('img')
        tasks.append({**drawn, 'img_path': files[draw % 10]})
    for start in range(0, 60, 20):
        assert_alike(tasks[start : start + 20], mean=0.35)
    windows, colors = ([t[key] for t in tasks] for key in ('window', 'color'))
    assert 15 < sum(window.flip for window in windows) < 45
    assert 15 < sum(min(window[:2]) < 0 for window in windows) < 45  # beyond the photo
    assert 15 < sum(color.hue != 0 for color in colors) < 45
    assert {color.channels for color in colors} == set(ORDERS)


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize(
    'window',
    [
        Window(0, 0, 320, 240, 240, 320),  # as it is
        Window(0, 0, 320, 240, 24, 31),
        Window(0, 0, 320, 240, 301, 677),
        Window(10, 20, 13, 22, 50, 60),  # six pixels
        Window(319, 239, 320, 240, 7, 7),  # one
        Window(0, 0, 320, 240, 1, 1),
        Window(-37, 100, 91, 251, 80, 90),  # over two edges
        Window(-500, -400, 900, 800, 90, 70),
        Window(-3, -5, 323, 1000, 300, 300),
    ],
)
def test_windows(tmp_path: Path, window: Window, flip: bool) -> None:
    drawn = assert_alike(
        [task(write(tmp_path), window._replace(flip=flip), ColorJitter(brightness=9, hue=12))]
    )
    assert drawn.std() > 1 or drawn[0, 0].numel() < 50


@pytest.mark.parametrize(
    'window', [Window(400, 0, 500, 50, 30, 20), Window(-9999, -9999, 10001, 10001, 30, 20)]
)
def test_nothing_or_less_than_a_pixel_of_the_photo_in_the_window(tmp_path: Path, window: Window) -> None:
    worker, drawn, _ = both(
        [task(write(tmp_path), window, ColorJitter(hue=9)), task(write(tmp_path), window)]
    )
    assert torch.equal(worker.float(), drawn)
    assert drawn[1, :, 4, 5].tolist() == [104, 116, 124]


def test_the_fill_lies_where_the_worker_puts_it(tmp_path: Path) -> None:
    """To the pixel, over windows whose edges fall anywhere inside one; a column would not show in a mean."""
    rng = np.random.default_rng(0)
    file = tmp_path / 'white.jpg'
    Image.new('RGB', SIZE[::-1], 'white').save(file)
    tasks = []
    for _ in range(200):
        left, top = rng.integers(-400, 300, 2).tolist()
        width, height = rng.integers(20, 900, 2).tolist()
        flip = bool(rng.integers(2))
        tasks.append(task(file, Window(left, top, left + width, top + height, 30, 30, flip)))
    worker, drawn, _ = both(tasks)
    assert torch.equal(worker == 255, drawn > 254.9)
    assert (worker == 255).any((1, 2, 3)).sum() > 100


def test_channel_orders_and_the_fill_which_has_none(tmp_path: Path) -> None:
    file, window = write(tmp_path), Window(-30, 0, 290, 240, 60, 80)
    drawn = assert_alike([task(file, window, ColorJitter(channels=order)) for order in ORDERS])
    assert (drawn[:, :, 30, 2] == torch.tensor([104.0, 116, 124])).all()
    for image, order in zip(drawn, ORDERS, strict=True):
        assert torch.equal(image[:, :, 8:], drawn[0][list(order), :, 8:])


@pytest.mark.parametrize(
    ('brightness', 'contrast', 'saturation', 'hue'),
    itertools.product((0, -32, 20), (1, 0.5, 1.5), (1, 0.5, 1.5), (0, 18, -18)),
)
def test_colors(brightness: float, contrast: float, saturation: float, hue: float) -> None:
    """On every kind of pixel: black, gray, full colors, and values that fall below 0 or rise above 255."""
    grid = np.array(list(itertools.product((0, 3, 31, 90, 91, 180, 255), repeat=3)), np.uint8)[None]
    color = ColorJitter(brightness, contrast, saturation, hue)
    images = torch.from_numpy(grid).permute(2, 0, 1)[None].float()
    before = images.clone()
    changed = change_colors(images, torch.tensor([color[:4]]))[0].permute(1, 2, 0)
    assert (changed - torch.from_numpy(distort(grid, color))).abs().max() <= 0.51
    assert torch.equal(images, before)


# Kinds of files


@pytest.mark.parametrize(
    ('kind', 'on_device'),
    [
        ('rgb.jpg', True),
        ('progressive.jpg', True),
        ('gray.jpg', True),
        ('turned.jpg', False),
        ('turned_by_90.jpg', False),
        ('cmyk.jpg', False),
        ('rgb.png', False),
        ('gray.png', False),
    ],
)
def test_files(tmp_path: Path, kind: str, on_device: bool) -> None:
    tasks = [
        task(write(tmp_path, kind, seed), Window(*edges, 60, 80, seed == 1), ColorJitter(hue=5, contrast=1.2))
        for seed, edges in enumerate([(-40, -30, 200, 190), (20, 30, 300, 200)])
    ]
    assert_alike(tasks)
    assert ON_DEVICE(tasks[0])['img'].is_jpeg.item() is on_device


def test_a_mixed_batch_padded(tmp_path: Path) -> None:
    kinds = ['rgb.png', 'rgb.jpg', 'cmyk.jpg', 'gray.jpg', 'turned_by_90.jpg', 'rgb.jpg']
    sizes = [(30, 40), (64, 20), (10, 10), (50, 50), (20, 70), (1, 1)]
    tasks = [
        task(write(tmp_path, kind, seed), Window(-9, 4 * seed, 200, 200, *size))
        for seed, (kind, size) in enumerate(zip(kinds, sizes, strict=True))
    ]
    assert_alike(tasks)
    worker, device = (
        collate_detection([pack(t) for t in tasks], pad_size_divisor=32) for pack in (IN_WORKER, ON_DEVICE)
    )
    assert device['inputs'].is_jpeg.tolist() == [False, True, False, True, False, True]
    preprocessor = DetDataPreprocessor(mean=[123, 116, 103], std=[58, 57, 57])
    ours, theirs = preprocessor(device)['inputs'], preprocessor(worker)['inputs']
    assert ours.shape == theirs.shape == (6, 3, 64, 96)
    assert ours.is_contiguous()
    assert not ours[0, :, 30:].any()
    assert not ours[0, :, :, 40:].any()
    assert (ours - theirs).abs().mean() < MEAN_DIFFERENCE / 57


def test_an_image_as_pixels(tmp_path: Path) -> None:
    """As an application hands it over, or as `LoadImageFromFile` has read it when nobody told the size."""
    tasks = [
        {**task(tmp_path / 'none.jpg', Window(-5, 4, 200, 250, 90, 80, True)), 'img': photo_of(seed)}
        for seed in (3, 4)
    ]
    assert_alike(tasks)


# What happens when


def test_the_device_fails_where_opencv_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [write(tmp_path), write(tmp_path, 'turned.jpg', 1), write(tmp_path, 'gray.jpg', 2)]
    tasks = [task(file, Window.whole(*SIZE)) for file in files]
    good = both(tasks)[1]

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError('unknown chroma subsampling\nin a file')

    monkeypatch.setattr('torchvision.io.decode_jpeg', fail)
    told: list[str] = []
    monkeypatch.setattr(device_decoding, 'print_log', lambda text, logger, level: told.append(text))
    for _ in range(2):
        drawn = both(tasks)[1]
        assert (drawn - good).abs().mean() < 0.1
    (text,) = told  # once
    assert 'could not be decoded on cpu (unknown chroma subsampling). OpenCV decodes' in text
    assert 'check_dataset.py' in text


def test_memory_that_ran_out_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError('no memory')

    monkeypatch.setattr('torchvision.io.decode_jpeg', fail)
    with pytest.raises(torch.OutOfMemoryError):
        both([task(write(tmp_path), Window.whole(*SIZE))])


def test_a_file_that_nothing_decodes_is_named(tmp_path: Path) -> None:
    """Sound header and end, and no table to decode by: only decoding finds it."""
    data = bytearray(write(tmp_path).read_bytes())
    at = data.find(b'\xff\xc4')  # the first Huffman table, made one that no decoder accepts
    data[at + 5 : at + 21] = b'\xff' * 16
    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(data)
    tasks = [
        task(write(tmp_path, seed=1), Window.whole(*SIZE)),
        task(broken, Window.whole(*SIZE), img_id=4711),
    ]
    batch = collate_detection([ON_DEVICE(t) for t in tasks])
    with pytest.raises(ValueError, match=r"image 4711 cannot be decoded.*check_dataset\.py.*decode='worker'"):
        DetDataPreprocessor(mean=[1, 2, 3], std=[1, 1, 1])(batch)


def test_pinning_memory_goes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs a GPU; here each tensor is copied instead."""
    pinned = []
    monkeypatch.setattr(Tensor, 'pin_memory', lambda tensor, device=None: pinned.append(1) or tensor.clone())
    tasks = [task(write(tmp_path, kind), Window(0, 0, 99, 99, 30, 30)) for kind in ('rgb.jpg', 'rgb.png')]
    batch = collate_detection([ON_DEVICE(t) for t in tasks])
    again = pin_memory(batch)
    assert len(pinned) == len(EncodedImages._fields) - 1 + len(batch['gt'])
    assert isinstance(again['inputs'], EncodedImages)
    assert torch.equal(draw_images(again['inputs'], CPU, [1, 2]), draw_images(batch['inputs'], CPU, [1, 2]))


def test_huge_photos_cost_what_is_seen_of_them(tmp_path: Path) -> None:
    """The parts lie behind one another; a canvas of the largest would take 64 times as much here."""
    file = tmp_path / 'huge.jpg'
    cv2.imwrite(str(file), cv2.resize(photo_of(0), (3200, 2400)))
    big = {**task(file, Window(100, 100, 200, 180, 20, 20)), 'ori_shape': (2400, 3200)}
    images = collate_detection([ON_DEVICE(big), ON_DEVICE(task(write(tmp_path), Window.whole(*SIZE)))])[
        'inputs'
    ]
    parts = device_decoding._decode_parts(images, CPU, [1, 2])
    assert [tuple(part.shape) for part in parts] == [(3, 80, 100), (3, 240, 320)]
