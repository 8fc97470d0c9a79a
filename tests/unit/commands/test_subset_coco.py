import json

import pytest

from mmdet.commands.subset_coco import main


def run(*arguments):
    main([str(word) for word in arguments])


@pytest.fixture
def source(tiny_coco):
    return tiny_coco(images=6) / 'annotations/train.json'


def test_some_images_with_their_boxes_and_all_categories(source, tmp_path):
    whole = json.loads(source.read_text())
    parts = []
    for name in ('a', 'b'):
        run(source, tmp_path / name / 'out.json', '--number', 2, '--seed', 3)
        parts.append(json.loads((tmp_path / name / 'out.json').read_text()))
    part, again = parts
    assert part == again
    ids = {image['id'] for image in part['images']}
    assert len(ids) == 2
    assert part['annotations'] == [one for one in whole['annotations'] if one['image_id'] in ids]
    assert part['categories'] == whole['categories']


def test_what_cannot_be_chosen_is_refused(source, tmp_path):
    before = source.read_text()
    for out, words, message in (
        (tmp_path / 'out.json', ['--ids', 1, 77], r'\[77\]'),
        (tmp_path / 'out.json', ['--number', 7], 'has 6 images'),
        (source, ['--ids', 1], 'is the file that is read'),
    ):
        with pytest.raises(ValueError, match=message):
            run(source, out, *words)
    assert source.read_text() == before


def test_a_file_that_is_no_annotation_file_is_named(tmp_path):
    file = tmp_path / 'some.json'
    for text, words in (('{', 'is not a JSON file'), ('{"images": [7]}', r"images\[0\]' \(7\)")):
        file.write_text(text)
        with pytest.raises(ValueError, match=rf'some\.json.*{words}'):
            run(file, tmp_path / 'out.json', '--number', 1)
