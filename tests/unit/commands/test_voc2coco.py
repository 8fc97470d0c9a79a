import json

import cv2
import numpy as np
import pytest

from mmdet.commands.voc2coco import convert, main
from mmdet.datasets import CocoDataset

XML = '<annotation><filename>{file}</filename>{objects}</annotation>'
OBJECT = (
    '<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>'
    '<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>'
)


@pytest.fixture
def root(tmp_path):
    for folder in ('Annotations', 'ImageSets/Main', 'JPEGImages'):
        (tmp_path / folder).mkdir(parents=True)

    def write(stem, file, objects):
        text = ''.join(OBJECT.format(name=n, difficult=d, box=box) for n, d, box in objects)
        (tmp_path / f'Annotations/{stem}.xml').write_text(XML.format(file=file, objects=text))
        cv2.imwrite(str(tmp_path / f'JPEGImages/{stem}.jpg'), np.zeros((30, 40, 3), np.uint8))

    write('a', 'a.jpg', [('dog', 0, (1, 1, 40, 30)), ('cat', 1, (2.5, 3, 10, 12))])
    write('b', 'C:\\photos\\renamed.jpg', [('bird', 0, (5, 6, 7, 8))])
    write('c', 'c.jpg', [])
    (tmp_path / 'ImageSets/Main/train.txt').write_text('b  1\na -1\n')
    (tmp_path / 'ImageSets/Main/val.txt').write_text('c\n\n')
    return tmp_path


def test_boxes_and_ids(root):
    content = convert(root)
    assert content['categories'] == [
        {'id': 1, 'name': 'bird'},
        {'id': 2, 'name': 'cat'},
        {'id': 3, 'name': 'dog'},
    ]
    assert content['images'] == [
        {'id': number, 'file_name': f'{name}.jpg', 'width': 40, 'height': 30}
        for number, name in enumerate('abc', start=1)
    ]
    dog, cat, bird = content['annotations']
    assert dog == {
        'id': 1,
        'image_id': 1,
        'category_id': 3,
        'bbox': [0, 0, 40, 30],
        'area': 1200,
        'iscrowd': 0,
    }
    assert cat['bbox'] == [1.5, 2, 8.5, 10]
    assert cat['iscrowd'] == 1
    assert (bird['image_id'], bird['bbox']) == (2, [4, 5, 3, 3])


@pytest.mark.parametrize(('said', 'size'), [((30, 40), (30, 40)), ((40, 30), (40, 30)), ((8, 9), (40, 30))])
def test_the_size_is_that_of_the_image_as_it_was_labeled(root, said, size):
    """Turned by EXIF data, where the XML says so."""
    width, height = said
    element = f'<size><width>{width}</width><height>{height}</height></size>'
    (root / 'Annotations/c.xml').write_text(XML.format(file='c.jpg', objects=element))
    (image,) = convert(root, 'val')['images']
    assert (image['width'], image['height']) == size


def test_files_and_photos_in_one_folder(root, tmp_path, capsys):
    """As labelImg and Roboflow write them."""
    flat = tmp_path / 'flat'
    flat.mkdir()
    for file in [*root.glob('Annotations/*'), *root.glob('JPEGImages/*')]:
        file.rename(flat / file.name)
    main([str(flat), str(flat / 'annotations/all.json')])
    assert f'--data-root {flat} --cfg-options train_img=./ ' in capsys.readouterr().out
    data = CocoDataset(str(flat), 'annotations/all.json', {'img': './'}, [])
    assert data.image_file(1) == flat / 'a.jpg' and len(data.bboxes) == 2
    with pytest.raises(FileNotFoundError, match=f'VOC_ROOT, {tmp_path}/none, holds no XML files'):
        convert(tmp_path / 'none')


@pytest.mark.parametrize('suffix', ['.PNG', '.webp'])
def test_a_renamed_image_is_found_by_the_name_of_its_labels(root, suffix):
    (root / 'JPEGImages/b.jpg').rename(root / f'JPEGImages/b{suffix}')
    assert convert(root, 'train')['images'][0]['file_name'] == f'b{suffix}'


def test_splits_share_their_categories(root):
    train, val = convert(root, 'train'), convert(root, 'val')
    assert train['categories'] == val['categories']
    assert [image['file_name'] for image in train['images']] == ['b.jpg', 'a.jpg']
    assert [image['file_name'] for image in val['images']] == ['c.jpg']
    with pytest.raises(FileNotFoundError, match='train, val'):
        convert(root, 'test')


@pytest.mark.parametrize(
    'line', ['a 1', 'a 1  -1', 'a 1.jpg', 'JPEGImages/a 1.jpg', '\ufeffa 1', 'a 1.xml 1', 'a 1\na 1']
)
def test_names_in_lists_with_blanks_suffixes_and_marks(root, line):
    for folder, suffix in (('Annotations', 'xml'), ('JPEGImages', 'jpg')):
        (root / f'{folder}/a.{suffix}').rename(root / f'{folder}/a 1.{suffix}')
    (root / 'ImageSets/Main/train.txt').write_text(f'{line}\n\nb  1\n')
    assert [image['file_name'] for image in convert(root, 'train')['images']] == ['a 1.jpg', 'b.jpg']


def test_names_that_are_not_there_are_told_with_list_and_line(root):
    (root / 'ImageSets/Main/train.txt').write_text('b\nA -1\n')
    with pytest.raises(
        FileNotFoundError, match=rf'train\.txt, line 2: .*Did you mean {root}/Annotations/a\.xml\?'
    ):
        convert(root, 'train')
    (root / 'ImageSets/Main/train.txt').write_text('\n')
    with pytest.raises(FileNotFoundError, match=r'train\.txt names nothing'):
        convert(root, 'train')


def test_the_command_and_what_the_data_set_makes_of_it(root, tmp_path, capsys):
    (tmp_path / 'names.txt').write_text('dog\nbird\n')
    main(
        [
            str(root),
            str(tmp_path / 'out/train.json'),
            '--split',
            'train',
            '--classes',
            str(tmp_path / 'names.txt'),
        ]
    )
    assert '2 images (0 without objects), 1 dog, 1 bird' in capsys.readouterr().out
    content = json.loads((tmp_path / 'out/train.json').read_text())
    assert [one['name'] for one in content['categories']] == ['dog', 'bird']
    data = CocoDataset(str(root), str(tmp_path / 'out/train.json'), {'img': 'JPEGImages/'}, [])
    assert data.metainfo['classes'] == ('dog', 'bird')
    assert data.image_file(1) == root / 'JPEGImages/b.jpg'
    assert not data.faults


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('<annotation><object>', 'no element found'),
        (XML.format(file='a.jpg', objects='<object></object>'), 'no <name>'),
        (XML.format(file='a.jpg', objects='<object><name>x</name></object>'), 'not four numbers'),
        (
            XML.format(file='a.jpg', objects=OBJECT.format(name='x', difficult='true', box=[1] * 4)),
            "<difficult> of a x is 'true', not 0 or 1",
        ),
    ],
)
def test_a_broken_file_is_named(root, text, message):
    (root / 'Annotations/a.xml').write_text(text)
    with pytest.raises(ValueError, match=r'a\.xml') as error:
        main([str(root), str(root / 'out.json')])
    assert message in str(error.value)
    assert not (root / 'out.json').exists()


def test_missing_images_are_named(root):
    (root / 'JPEGImages/c.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'c\.xml'):
        convert(root)
