"""Matching a batch at once against a slow loop, and its corner cases."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmdet.models.task_modules import MaxIoUAssigner, SampledAssigner, assigner
from mmdet.structures import BACKGROUND, IGNORED, Anchors, GroundTruth, bbox_overlaps
from tests.unit.structures.test_boxes import random_boxes

SIDE = 600


def match(anchors: Tensor, bboxes: Tensor, valid: Tensor, *thresholds: float) -> Tensor:
    """matched (N, A) in images of side `SIDE`. anchors (A, 4) or (N, A, 4) · bboxes (N, Gmax, 4)."""
    ids, shape, labels = torch.arange(len(valid)), torch.full((len(valid), 2), SIDE), valid.long()
    gt = GroundTruth(ids, shape, shape, bboxes, labels, valid, torch.zeros_like(labels))
    return MaxIoUAssigner(*thresholds)(Anchors(anchors, [anchors.shape[-2]]), gt)


def match_one_image(
    anchors: Tensor, bboxes: Tensor, pos: float, neg: float, min_pos: float, every_tie: bool
) -> list[int]:
    """The rule in words, one anchor and one object at a time."""
    iou = bbox_overlaps(bboxes, anchors)
    matched = []
    for column in iou.T:
        best = float(column.max()) if len(column) else -1.0
        row = int(column.argmax()) if len(column) else 0
        matched.append(row if best >= pos else BACKGROUND if best < neg else IGNORED)
    for row, overlaps in enumerate(iou):
        best = float(overlaps.max())
        if best >= min_pos:
            claimed = (overlaps == best).nonzero()[:, 0].tolist() if every_tie else [int(overlaps.argmax())]
            for anchor in claimed:
                matched[anchor] = row
    areas = (anchors[:, 2:] - anchors[:, :2]).prod(1)
    return [row if area else IGNORED for row, area in zip(matched, areas, strict=True)]


@pytest.mark.parametrize('every_tie', [False, True])
@pytest.mark.parametrize(('pos', 'neg', 'min_pos'), [(0.5, 0.5, 0.0), (0.5, 0.4, 0.0), (0.7, 0.3, 0.3)])
@pytest.mark.parametrize('max_elements', [1, assigner.MAX_ELEMENTS])
def test_batch_equals_single(
    monkeypatch: pytest.MonkeyPatch,
    pos: float,
    neg: float,
    min_pos: float,
    every_tie: bool,
    max_elements: int,
) -> None:
    monkeypatch.setattr(assigner, 'MAX_ELEMENTS', max_elements)  # 1: image by image
    anchors = torch.cat([random_boxes(0, 60), random_boxes(0, 5)])  # the last five are doubles: ties
    bboxes, valid = torch.zeros(4, 8, 4), torch.zeros(4, 8, dtype=torch.bool)
    for i, count in enumerate([8, 3, 0, 1]):
        bboxes[i, :count], valid[i, :count] = random_boxes(10 + i, count), True
    bboxes[0, 1] = bboxes[0, 0]  # two objects in one place: the first is matched, the last claims
    bboxes[1, 2] = torch.tensor([500.0, 500.0, 510.0, 510.0])  # overlaps no anchor
    matched = match(anchors, bboxes, valid, pos, neg, min_pos, every_tie)
    assert matched.shape == (4, 65)
    for i in range(4):
        expected = match_one_image(anchors, bboxes[i, valid[i]], pos, neg, min_pos, every_tie)
        assert matched[i].tolist() == expected
    moved = torch.stack([anchors.roll(i, 0) for i in range(4)])  # anchors of each image's own
    rolled = match(moved, bboxes, valid, pos, neg, min_pos, False)
    for i in range(4):
        expected = match_one_image(moved[i], bboxes[i, valid[i]], pos, neg, min_pos, False)
        assert rolled[i].tolist() == expected


def test_an_object_that_overlaps_nothing_still_claims_an_anchor() -> None:
    far = torch.tensor([[[500.0, 500.0, 510.0, 510.0]]])
    matched = match(random_boxes(0, 9), far, torch.ones(1, 1, dtype=torch.bool), 0.5, 0.5, 0.0, False)
    assert matched[0].tolist() == [0] + [BACKGROUND] * 8


def test_padding_claims_nothing() -> None:
    matched = match(
        random_boxes(0, 9), torch.zeros(2, 16, 4), torch.zeros(2, 16, dtype=torch.bool), 0.5, 0.5, 0.0, False
    )
    assert (matched == BACKGROUND).all()


def test_an_anchor_outside_of_the_true_image_is_ignored() -> None:
    beside = torch.tensor([[SIDE, 0, SIDE + 9, 9], [-9, -9, 0, 9], [SIDE - 1, 0, SIDE + 9, 9], [0, 0, 0, 0]])
    boxes = torch.tensor([[[0.0, 0.0, 9.0, 9.0]]])
    matched = match(beside.float(), boxes, torch.tensor([[False]]), 0.5, 0.5)
    assert matched.tolist() == [[IGNORED, IGNORED, BACKGROUND, IGNORED]]


def test_objects_claim_no_anchor_without_low_quality_matches() -> None:
    far = torch.tensor([[[500.0, 500.0, 510.0, 510.0]]])
    matched = match(random_boxes(0, 9), far, torch.tensor([[True]]), 0.5, 0.5, 0.0, True, False)
    assert matched.tolist() == [[BACKGROUND] * 9]


coordinate = st.integers(0, 12).map(lambda value: value * 4.0)  # few values: ties, doubles, empty boxes
box = st.tuples(coordinate, coordinate, coordinate, coordinate).map(
    lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])]
)


@settings(deadline=None, max_examples=80)
@given(
    anchors=st.lists(box, min_size=1, max_size=9),
    images=st.lists(st.lists(box, max_size=5), min_size=1, max_size=3),
    thresholds=st.sampled_from([(0.5, 0.5, 0.0), (0.5, 0.4, 0.0), (0.7, 0.3, 0.3), (0.2, 0.1, 0.6)]),
    every_tie=st.booleans(),
)
def test_any_batch_is_matched_as_its_images_one_by_one(
    anchors: list[list[float]],
    images: list[list[list[float]]],
    thresholds: tuple[float, float, float],
    every_tie: bool,
) -> None:
    grid = torch.tensor(anchors)
    bboxes, valid = torch.zeros(len(images), 6, 4), torch.zeros(len(images), 6, dtype=torch.bool)
    for i, boxes in enumerate(images):
        bboxes[i, : len(boxes)], valid[i, : len(boxes)] = torch.tensor(boxes).reshape(-1, 4), True
    matched = match(grid, bboxes, valid, *thresholds, every_tie)
    for i in range(len(images)):
        assert matched[i].tolist() == match_one_image(grid, bboxes[i, valid[i]], *thresholds, every_tie)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.lists(st.sampled_from([0, 1, BACKGROUND, IGNORED]), min_size=7, max_size=7), min_size=1),
    num=st.integers(1, 8),
    fraction=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    random=st.booleans(),
)
def test_a_sample_has_so_many_and_ignores_the_surplus(
    rows: list[list[int]], num: int, fraction: float, random: bool
) -> None:
    matched = torch.tensor(rows)
    sampled = SampledAssigner(lambda anchors, gt: matched, num, fraction, random)(None, None)
    assert ((sampled == matched) | (sampled == IGNORED)).all()
    for row, kept in zip(matched.tolist(), sampled.tolist(), strict=True):
        positives = min(sum(x >= 0 for x in row), int(num * fraction))
        background = min(row.count(BACKGROUND), num - positives)
        assert sum(x >= 0 for x in kept) == positives
        assert kept.count(BACKGROUND) == background
        if not random:
            first = [i for i, x in enumerate(row) if x >= 0][:positives]
            first += [i for i, x in enumerate(row) if x == BACKGROUND][:background]
            assert [i for i, x in enumerate(kept) if x != IGNORED] == sorted(first)


def test_a_random_sample_is_another_each_time_and_reaches_every_anchor() -> None:
    matched = torch.full((1, 9), BACKGROUND)
    sample = SampledAssigner(lambda anchors, gt: matched, num=3, pos_fraction=0.5)
    seen = torch.stack([sample(None, None)[0] == BACKGROUND for _ in range(60)])
    assert (seen.sum(1) == 3).all()
    assert seen.any(0).all()
