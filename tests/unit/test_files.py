"""Which file may have been meant by a path that leads nowhere, and what a file is."""

import unicodedata
from pathlib import Path

import pytest

from mmdet.files import describe, suggest, suggest_converter

ACCENT = unicodedata.normalize('NFC', 'café.jpg')


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with some files in folders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path))
    for name in ('set/train2017/1.jpg', 'set/train2017/Photo.JPG', f'set/train2017/{ACCENT}', 'set/a.json'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ('given', 'meant'),
    [
        ('set\\train2017\\1.jpg', 'set/train2017/1.jpg'),
        ('set/train2017\\1.jpg', 'set/train2017/1.jpg'),
        ('set/train2017/1', 'set/train2017/1.jpg'),
        ('set/train2017/1.png', 'set/train2017/1.jpg'),
        ('set/a.json.json', 'set/a.json'),
        ('set/train2017/photo.jpg', 'set/train2017/Photo.JPG'),
        ('SET/Train2017/1.jpg', 'set/train2017/1.jpg'),
        ('set/train%32017/%31.jpg', 'set/train2017/1.jpg'),
        ('set/train2017/0a1b2c3d-photo.jpg', 'set/train2017/Photo.JPG'),
        (f'set/train2017/{unicodedata.normalize("NFD", ACCENT)}', f'set/train2017/{ACCENT}'),
        ('"set/train2017/1.jpg"', 'set/train2017/1.jpg'),
        ("set/'train2017'/1.jpg", 'set/train2017/1.jpg'),
        ('set/train2017/1.jpg\r', 'set/train2017/1.jpg'),
        (' set/a.json', 'set/a.json'),
        ('set/train2017/images/1.jpg', 'set/train2017/1.jpg'),
        ('set/1.jpg', 'set/train2017/1.jpg'),
        ('~/set/a.json', '{there}/set/a.json'),
        ('$HOME/set/a.json', '{there}/set/a.json'),
        ('{there}/set/a', '{there}/set/a.json'),
        ('set/train2017/2.jpg', None),
        ('set/train2017/1.jpg', None),  # it is there
        ('x' * 300, None),
        ('a\0b', None),
        ('~nobody-of-this-name/a', None),
        ('', None),
    ],
)
def test_the_near_name_is_offered(there, given, meant):
    given = given.format(there=there)
    expected = '' if meant is None else f' Did you mean {meant.format(there=there)}?'
    assert suggest(given, similar=False) == expected
    assert suggest(Path(given), similar=False) == (expected if given.strip() == given else suggest(given))


def test_a_link_to_nothing_is_told(there):
    """As those of git-annex and DVC, whose content was not fetched."""
    (there / 'set/train2017/3.jpg').symlink_to('../annex/3.jpg')
    assert suggest('set/train2017/3.jpg') == ' It is a link to ../annex/3.jpg, which is not there.'
    (there / 'set/train2017/4.jpg').symlink_to('1.jpg')
    assert suggest('set/train2017/4.jpg') == ''


def test_names_that_are_merely_alike(there):
    assert suggest('set/trian2017/1.jpg') == ' Did you mean set/train2017/1.jpg?'
    assert suggest('set/train2017/11.jpg', similar=False) == ''  # numbers are not


@pytest.mark.parametrize('url', ['https://a.b/c.pth', 'file:///c.pth', 's3://bucket/c.pth'])
def test_a_url_is_no_path(there, url):
    for given in (url, Path(url), there / url):
        told = suggest(given)
        assert told.startswith(f' {url.replace("///", "//")} is a URL, not a path: download the file')
    assert suggest('C:\\set\\a.json') == ' Did you mean set/a.json?'


@pytest.mark.parametrize(
    ('head', 'name'),
    [
        (b'\0\0\0\x18ftypheic', 'a HEIC image'),
        (bytes(128) + b'DICM', 'a DICOM image'),
        (b'<?xml version="1.0"?><svg/>', 'an XML file'),
        (b'\n<html>', 'a web page, perhaps of a download that failed'),
        (b'\x93NUMPY', 'an array of NumPy'),
        (b'\xfe\xdc\xba', 'of no known format'),
    ],
)
def test_formats(head, name):
    assert describe(head) == name


@pytest.mark.parametrize(
    ('given', 'advice'),
    [
        ('yolo/labels/train', '`python tools/misc/yolo2coco.py yolo/data.yaml`'),
        ('yolo/data.yaml', '`python tools/misc/yolo2coco.py yolo/data.yaml`'),
        ('yolo/labels/train/1.txt', '`python tools/misc/yolo2coco.py yolo/data.yaml`'),
        ('bare', 'docs/data.md shows'),
        ('voc', '`python tools/misc/voc2coco.py voc voc/annotations/all.json`'),
        ('voc/Annotations', '`python tools/misc/voc2coco.py voc voc/annotations/all.json`'),
        ('flat', '`python tools/misc/voc2coco.py flat/train flat/train/annotations/all.json`'),
        ('set/a.json', ''),
        ('set', ''),
        ('nowhere.txt', ''),
    ],
)
def test_labels_in_another_format(there, given, advice):
    for name in ('yolo/labels/train/1.txt', 'bare/1.txt', 'voc/Annotations/1.xml', 'flat/train/1.xml'):
        Path(name).parent.mkdir(parents=True)
        Path(name).touch()
    Path('yolo/data.yaml').write_text('names: [ant]')
    told = suggest_converter(Path(given))
    assert advice in told if advice else not told
