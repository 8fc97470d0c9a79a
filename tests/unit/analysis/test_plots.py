from pathlib import Path

import cv2
import pytest

from mmdet.analysis.plots import plot_rows


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('rows', [1, 5])
def test_pictures_of_few_and_of_many_rows(tmp_path: Path, rows: int) -> None:
    numbers = {
        f'row {row}': {'AP': [20.0 + seed + row for seed in range(rows)], 'AP_s': []} for row in range(rows)
    }
    picture = cv2.imread(str(plot_rows(numbers, 'AP, %', tmp_path / 'new' / 'ap.png')))
    assert min(picture.shape[:2]) > 400 and picture.std() > 10
