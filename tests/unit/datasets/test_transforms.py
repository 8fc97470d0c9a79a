"""The transforms: against a plain float32 pipeline, and each by itself."""

from functools import cache

import cv2
import numpy as np
import pytest
import torch

from benchmarks.reference.augmentation import PIPELINE, reference_sample
from mmdet.datasets.transforms import ColorJitter, Window, read_image
from mmdet.datasets.transforms.color import distort
from mmdet.datasets.transforms.formatting import render
from mmdet.registry import DATASETS, TRANSFORMS

TRANSFORM = dict(
    zip(('load', 'boxes', 'expand', 'crop', 'resize', 'flip', 'color', 'pack'), PIPELINE, strict=True)
)


def build(name, **changes):
    return TRANSFORMS.build({**TRANSFORM[name], **changes})


def rng_of(draw):
    return np.random.Generator(np.random.Philox(key=[0, draw]))


@cache
def photo_of(seed, height=240, width=320):
    """Photo-like: structure of all sizes, most of it large."""
    rng = np.random.default_rng(seed)
    photo = np.zeros((height, width, 3), np.float32)
    for cells, strength in ((3, 160), (12, 60), (60, 20), (height, 8)):
        noise = rng.uniform(-strength, strength, (cells, cells, 3)).astype(np.float32)
        photo += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return (photo + 120).clip(0, 255).astype(np.uint8)


def boxes_of(seed, height=240, width=320):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 6))
    corners = rng.uniform(0, 0.7, (count, 2))
    sides = rng.uniform(0.05, 1, (count, 2)) * (1 - corners)
    bboxes = np.concatenate([corners, corners + sides], 1) * [width, height, width, height]
    return bboxes.astype(np.float32), rng.integers(0, 80, count)


def results_of(photo, bboxes, labels, draw):
    given = (bboxes, labels, 10 + np.arange(len(labels)))
    return {'img': photo, 'img_id': 1, 'annotations': given, 'rng': rng_of(draw)}


def run(results, *transforms):
    for transform in transforms:
        results = transform(results)
    return results


# Against the plain pipeline


def compare(sample, reference, photo):
    """Boxes within a thousandth of a pixel; returns the mean difference of the photo, away from its edge."""
    assert sample['labels'].tolist() == list(reference.labels)
    assert np.allclose(sample['bboxes'].numpy().reshape(-1, 4), reference.bboxes, rtol=0, atol=1e-3)
    of_canvas, of_photo = reference.differences(sample['img'].numpy().transpose(1, 2, 0), photo.shape[:2])
    assert of_canvas <= 0.5
    return of_photo


def test_equals_the_plain_pipeline_on_generated_photos():
    transforms = [TRANSFORMS.build(cfg) for cfg in PIPELINE]
    differences, steps = [], []
    for draw in range(80):
        photo, (bboxes, labels) = photo_of(draw % 10), boxes_of(draw)
        sample = run(results_of(photo, bboxes, labels, draw), *transforms)
        reference = reference_sample(photo, bboxes, labels, rng_of(draw), contrast_first=bool(draw % 2))
        differences.append(compare(sample, reference, photo))
        steps.append(reference.steps)
    assert np.mean(differences) < 0.45  # rounding twice costs 0.25 to 0.35
    assert np.max(differences) < 1.2
    drawn = {name: sum(step[name] is not None for step in steps) for name in ('brightness', 'hue', 'canvas')}
    assert all(25 < count < 55 for count in drawn.values())
    assert {step['min_iou'] for step in steps} == {0, 0.1, 0.3, 0.5, 0.7, 0.9, 1}


def test_equals_the_plain_pipeline_on_photos(shared_data):
    dataset = DATASETS.build(
        {
            'type': 'CocoDataset',
            'data_root': str(shared_data('coco-mini')),
            'ann_file': 'annotations/instances_train2017.json',
            'data_prefix': {'img': 'train2017/'},
            'pipeline': PIPELINE,
        }
    )
    differences = []
    for row in range(0, 80, 4):
        results = dataset._results(row, 500 + row)
        photo = read_image(results['img_path'], results['ori_shape'])
        reference = reference_sample(
            photo, *results['annotations'][:2], results['rng'], contrast_first=bool(row % 8)
        )
        differences.append(compare(dataset[row, 500 + row], reference, photo))
    assert np.mean(differences) < 0.45
    assert np.max(differences) < 1.2


# Window and rendering


def test_windows_compose():
    photo = photo_of(1)
    window = Window.whole(240, 320).cut(-40, -30, 360, 250).cut(100, 40, 300, 200)
    assert window == Window(60, 10, 260, 170, 160, 200)
    flipped = window._replace(flip=True).cut(10, 0, 60, 160)
    assert flipped == Window(200, 10, 250, 170, 160, 50, flip=True)
    drawn = render(photo, flipped, ColorJitter(), (0, 0, 0))
    assert (drawn.transpose(1, 2, 0) == photo[10:170, 200:250][:, ::-1]).all()
    with pytest.raises(ValueError, match='before Resize'):
        window._replace(height=300, width=300).cut(0, 0, 10, 10)


def test_fill_is_never_colored_and_the_photo_is_in_its_place():
    photo = np.full((50, 80, 3), 100, np.uint8)
    window = Window.whole(50, 80).cut(-40, -20, 160, 80)._replace(flip=True)
    drawn = render(photo, window, ColorJitter(brightness=32, channels=(2, 1, 0)), (1.4, 2.6, 3))
    assert (drawn[:, 20:70, 80:160] == 132).all()
    drawn[:, 20:70, 80:160] = np.array([1, 3, 3])[:, None, None]
    assert (drawn == np.array([1, 3, 3])[:, None, None]).all()


@pytest.mark.parametrize('window', [Window(90, 0, 200, 50, 30, 30), Window(-999, -999, 1001, 1001, 30, 30)])
def test_nothing_or_less_than_a_pixel_of_the_photo_in_the_window(window):
    photo = np.zeros((10, 10, 3), np.uint8)
    assert (render(photo, window, ColorJitter(hue=9), (7, 8, 9)) == np.array([7, 8, 9])[:, None, None]).all()


# Each transform by itself


def test_images_without_boxes_pass_every_transform():
    transforms = [TRANSFORMS.build(cfg) for cfg in PIPELINE]
    for draw in range(40):
        empty = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        sample = run(results_of(photo_of(0), *empty, draw), *transforms)
        assert sample['bboxes'].shape == (0, 4)
        assert sample['labels'].shape == (0,)
        assert sample['img'].shape == (3, 300, 300)


def test_empty_boxes_are_not_handed_on():
    bboxes = np.array([[10, 10, 50, 50], [320, 20, 320, 60], [5, 9, 40, 9]], np.float32)
    results = results_of(photo_of(0), bboxes, np.array([3, 4, 5]), 0)
    sample = run(results, build('load'), build('boxes'), build('resize'), build('pack'))
    assert sample['labels'].tolist() == [3]


def test_expand():
    expand, done = build('expand'), []
    for draw in range(400):
        bboxes = np.array([[10, 20, 110, 220]], np.float32)
        before = run(results_of(photo_of(0), bboxes, np.array([1]), draw), build('load'), build('boxes'))
        after = expand(before)
        window = after['window']
        assert (window.right - window.left, window.bottom - window.top) == (window.width, window.height)
        assert after['bboxes'].tolist() == [
            [10 - window.left, 20 - window.top, 110 - window.left, 220 - window.top]
        ]
        assert window.left <= 0
        assert window.top <= 0
        assert window.right >= 320
        assert window.bottom >= 240
        if after is not before:
            done.append((window.width / 320, -window.left / (window.width - 319)))
    ratios, places = np.array(done).T
    assert 160 < len(done) < 240
    assert 1 <= ratios.min() < 1.1
    assert 3.9 < ratios.max() <= 4
    assert abs(ratios.mean() - 2.5) < 0.2
    assert abs(places.mean() - 0.5) < 0.06
    with pytest.raises(ValueError, match='ratio_range'):
        build('expand', ratio_range=(0.5, 2))


def test_crops():
    """What a patch guarantees, and how often each IoU is met."""
    crop, modes = build('crop'), []
    bboxes = np.array([[40, 40, 280, 200], [60, 50, 300, 230]], np.float32)
    for draw in range(600):
        before = run(results_of(photo_of(0), bboxes, np.array([1, 2]), draw), build('load'), build('boxes'))
        after = crop(before)
        if after is before:
            modes.append(1)
            continue
        window = after['window']
        height, width = window.height, window.width
        assert 0 <= window.left < window.right <= 320
        assert 0 <= window.top < window.bottom <= 240
        assert width >= 0.3 * 320 - 1
        assert height >= 0.3 * 240 - 1
        assert 0.5 - 0.02 <= height / width <= 2 + 0.05
        assert len(after['bboxes']) >= 1
        assert (after['bboxes'] >= 0).all()
        assert (after['bboxes'] <= [width, height, width, height]).all()
        assert (after['ann_ids'] == after['labels'] + 9).all()
        kept = bboxes[np.isin([1, 2], after['labels'])]
        centers = (kept[:, :2] + kept[:, 2:]) / 2
        assert (centers > [window.left, window.top]).all()
        assert (centers < [window.right, window.bottom]).all()
        corner = [window.left, window.top, window.left, window.top]
        expected = np.clip(kept, corner, [window.right, window.bottom] * 2) - corner
        assert np.allclose(after['bboxes'], expected)
        modes.append(0)
    assert 0.1 < np.mean(modes) < 0.3  # one in seven, and more because 0.9 is seldom met


def test_what_was_cropped_does_not_come_back_without_its_box():
    photo = np.full((100, 200, 3), 100, np.uint8)
    photo[30:70, 20:60] = photo[30:70, 140:180] = 255
    bboxes = np.array([[20, 30, 60, 70], [140, 30, 180, 70]], np.float32)
    crop, expand = build('crop', min_ious=()), build('expand', mean=(0, 0, 0), ratio_range=(2, 3), prob=1)
    halves = 0
    for draw in range(40):
        results = run(results_of(photo, bboxes, np.array([0, 1]), draw), build('load'), build('boxes'), crop)
        if len(results['bboxes']) == 1:
            halves += 1
            with pytest.raises(ValueError, match='Expand must stand before MinIoURandomCrop'):
                expand(results)
    assert halves > 5
    expand(expand(run(results_of(photo, bboxes, np.array([0, 1]), 0), build('load'), build('boxes'))))


def test_small_objects_leave_two_ways():
    """Where no patch can reach an IoU, the image stays whole as often as any patch is taken."""
    crop = build('crop')
    whole = []
    for draw in range(400):
        bboxes = np.array([[100, 100, 106, 106]], np.float32)
        before = run(results_of(photo_of(0), bboxes, np.array([1]), draw), build('load'), build('boxes'))
        whole.append(crop(before) is before)
    assert 0.42 < np.mean(whole) < 0.58


@pytest.mark.parametrize(
    ('scale', 'keep_ratio', 'expected'),
    [
        ((300, 200), False, (200, 300)),
        ((1333, 800), True, (800, 1067)),
        ((300, 300), True, (225, 300)),
        ((200, 1000), True, (200, 267)),
    ],
)
def test_resize(scale, keep_ratio, expected):
    bboxes = np.array([[0, 0, 320, 240], [32, 24, 64, 48]], np.float32)
    results = results_of(photo_of(0), bboxes, np.array([1, 2]), 0)
    resize = build('resize', scale=scale, keep_ratio=keep_ratio)
    sample = run(results, build('load'), build('boxes'), resize, build('pack'))
    height, width = expected
    assert sample['img_shape'] == tuple(sample['img'].shape[1:]) == expected
    assert sample['ori_shape'] == (240, 320)
    shares = torch.tensor([[0, 0, 1, 1], [0.1, 0.1, 0.2, 0.2]])
    assert torch.allclose(sample['bboxes'], shares * torch.tensor([width, height] * 2), atol=1e-3)


def test_flip():
    flip, photo, flipped = build('flip'), photo_of(0), 0
    for draw in range(300):
        bboxes = np.array([[10, 20, 110, 220]], np.float32)
        before = run(results_of(photo, bboxes, np.array([1]), draw), build('load'), build('boxes'))
        after = flip(before)
        if after['window'].flip:
            flipped += 1
            assert after['bboxes'].tolist() == [[210, 20, 310, 220]]
    assert 120 < flipped < 180
    assert build('flip', prob=0)(before) is before
    twice = build('flip', prob=1)(build('flip', prob=1)(before))
    assert twice['window'] == before['window']
    assert (twice['bboxes'] == before['bboxes']).all()


def test_colors_that_are_drawn():
    colors = [build('color')({'rng': rng_of(draw)})['color'] for draw in range(1000)]
    for name, low, high in (
        ('brightness', -32, 32),
        ('contrast', 0.5, 1.5),
        ('saturation', 0.5, 1.5),
        ('hue', -18, 18),
    ):
        values = np.array([getattr(color, name) for color in colors])
        changed = values[values != getattr(ColorJitter(), name)]
        assert 440 < len(changed) < 560
        span = high - low
        assert low <= changed.min() < low + 0.02 * span
        assert high - 0.02 * span < changed.max() <= high
        assert abs(changed.mean() - (low + high) / 2) < 0.05 * span
    swapped = [color.channels for color in colors if color.channels != (0, 1, 2)]
    assert 350 < len(swapped) < 480  # one of six orders changes nothing
    assert len(set(swapped)) == 5


@pytest.mark.parametrize(
    'color',
    [
        ColorJitter(),
        ColorJitter(brightness=20),
        ColorJitter(contrast=1.2),
        ColorJitter(brightness=-10, contrast=0.7),
        ColorJitter(saturation=1.4),
        ColorJitter(brightness=8, contrast=0.8, saturation=0.5),
        ColorJitter(hue=17),
        ColorJitter(hue=-17),
        ColorJitter(brightness=12, contrast=1.1, saturation=1.3, hue=-9),
    ],
)
def test_color_equals_hsv_arithmetic_in_float(color):
    pixels = np.random.default_rng(0).integers(40, 180, (90, 70, 3), dtype=np.uint8)
    before = pixels.copy()
    hsv = cv2.cvtColor(pixels.astype(np.float32) + np.float32(color.brightness), cv2.COLOR_BGR2HSV)
    hsv[..., 0] = (hsv[..., 0] + color.hue) % 360
    hsv[..., 1] *= color.saturation
    expected = (cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR) * color.contrast).clip(0, 255)
    assert np.abs(distort(pixels, color) - expected).max() <= 0.51
    assert (pixels == before).all()
