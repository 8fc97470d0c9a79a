"""tools/misc/subset_coco.py as a process."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.helpers.golden_model import ROOT


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / 'tools' / 'misc' / 'subset_coco.py'), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_some_images_with_their_boxes_and_all_categories(
    tiny_coco: Callable[..., Path], tmp_path: Path
) -> None:
    source = tiny_coco(images=6) / 'annotations' / 'train.json'
    whole = json.loads(source.read_text())
    for name in ('a', 'b'):
        assert run(source, tmp_path / name / 'out.json', '--number', 2, '--seed', 3).returncode == 0
    part = json.loads((tmp_path / 'a' / 'out.json').read_text())
    assert part == json.loads((tmp_path / 'b' / 'out.json').read_text())
    ids = {image['id'] for image in part['images']}
    assert len(ids) == 2
    assert part['annotations'] == [one for one in whole['annotations'] if one['image_id'] in ids]
    assert part['categories'] == whole['categories']


def test_ids_that_are_not_there_and_the_source_itself_are_refused(
    tiny_coco: Callable[..., Path], tmp_path: Path
) -> None:
    source = tiny_coco(images=3) / 'annotations' / 'train.json'
    missing = run(source, tmp_path / 'out.json', '--ids', 1, 77)
    assert missing.returncode == 1
    assert '[77]' in missing.stderr
    assert run(source, source, '--ids', 1).returncode == 1
    assert len(json.loads(source.read_text())['images']) == 3


def test_a_file_that_is_no_annotation_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / 'some.json'
    for text, words in (('{', 'is not a JSON file'), ('{"images": [7]}', "entry 0 of 'images' has no 'id'")):
        file.write_text(text)
        said = run(file, tmp_path / 'out.json', '--number', 1).stderr
        assert f'error: {file}' in said
        assert words in said
