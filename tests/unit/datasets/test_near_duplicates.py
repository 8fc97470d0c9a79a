import cv2
import numpy as np

from mmdet.datasets.near_duplicates import group_near_duplicates, photo_hash


def test_a_chain_is_one_group():
    bits = np.zeros((4, 256), bool)
    bits[1, :20] = bits[2, :40] = bits[3, 61:] = True  # each 20 bits from the one before; the last far away
    assert group_near_duplicates(np.packbits(bits, axis=1)[[3, 0, 2, 1]]).tolist() == [0, 1, 1, 1]


def test_other_sizes_and_qualities_are_alike_and_other_photos_are_not(shared_data, tmp_path):
    files = sorted((shared_data('coco-mini') / 'val2017').glob('*.jpg'))[:12]
    copies = []
    for file in files:
        copies.append(tmp_path / file.name)
        cv2.imwrite(
            str(copies[-1]), cv2.resize(cv2.imread(str(file)), (200, 150)), [cv2.IMWRITE_JPEG_QUALITY, 60]
        )
    group = group_near_duplicates(np.array([photo_hash(file) for file in (*files, *copies)]))
    assert group.tolist() == [*range(12), *range(12)]
