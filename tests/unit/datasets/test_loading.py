"""Image files: what can be read, and what is said about the rest."""

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdet.datasets.transforms import BadImageError, loading, read_image, read_photo
from mmdet.registry import TRANSFORMS

SIZE = (40, 60)  # (h, w)


@pytest.fixture
def picture():
    """A smooth uint8 (40, 60, 3) BGR picture, blue on the left and red below."""
    y, x = np.mgrid[0:40, 0:60]
    return np.stack([255 - 4 * x, 30 + 0 * x, 6 * y], -1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.bmp', 'a.webp', 'a.tif'])
def test_formats(tmp_path, picture, name):
    cv2.imwrite(str(tmp_path / name), picture)
    img = read_image(tmp_path / name, SIZE)
    assert img.dtype == np.uint8
    assert np.abs(img.astype(int) - picture).mean() < 4


@pytest.mark.parametrize('mode', ['L', 'LA', 'P', 'RGBA', 'CMYK', '1'])
def test_color_models_become_three_channels(tmp_path, picture, mode):
    file = tmp_path / ('a.jpg' if mode in ('CMYK', 'L') else 'a.png')
    converted = Image.fromarray(picture[..., ::-1]).convert(mode)
    converted.save(file)
    img = read_image(file, SIZE)
    assert img.shape == (*SIZE, 3)
    assert img.dtype == np.uint8
    expected = np.asarray(converted.convert('RGB'))[..., ::-1].astype(int)
    assert np.abs(img - expected).mean() < 6


@pytest.mark.parametrize('channels', [1, 3])
def test_sixteen_bits_become_eight(tmp_path, picture, channels):
    deep = picture.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / 'a.png'), deep if channels == 3 else deep[..., 0])
    img = read_image(tmp_path / 'a.png', SIZE)
    assert img.dtype == np.uint8
    expected = picture if channels == 3 else picture[..., :1]
    assert np.abs(img.astype(int) - expected).max() <= 1


@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.bmp', 'a.webp', 'a.tif'])
@pytest.mark.parametrize('share', [0.02, 0.5, 0.9])
def test_truncated(tmp_path, name, share):
    photo = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    data = cv2.imencode('.' + name.split('.')[1], photo)[1].tobytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadImageError):
        read_image(tmp_path / name, SIZE)


def test_exif_rotation_only_when_it_gives_the_annotated_size(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(picture[..., ::-1]).save(tmp_path / 'a.jpg', exif=exif, quality=95)
    stored = read_image(tmp_path / 'a.jpg', SIZE)
    turned = read_image(tmp_path / 'a.jpg', SIZE[::-1])
    assert stored.shape == (*SIZE, 3)
    assert (turned == cv2.rotate(stored, cv2.ROTATE_90_CLOCKWISE)).all()
    assert (read_image(tmp_path / 'a.jpg') == turned).all()
    with pytest.raises(BadImageError, match=r'60 x 40 pixels.*annotation says 60 x 50'):
        read_image(tmp_path / 'a.jpg', (50, 60))


# Handed over without being decoded


@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'subsampling': 0}, {'quality': 10}])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_plain_jpegs_are_handed_over_as_they_are(tmp_path, picture, options, mode):
    Image.fromarray(picture[..., ::-1]).convert(mode).save(tmp_path / 'a.jpg', **options)
    assert read_photo(tmp_path / 'a.jpg', SIZE) == (tmp_path / 'a.jpg').read_bytes()


@pytest.mark.parametrize(
    'change',
    [
        {1: 0xC1},  # extended
        {1: 0xC3},  # lossless
        {1: 0xC9},  # arithmetic
        {4: 12},  # bits
        {9: 4},  # components
        {10: ord('R'), 13: ord('G'), 16: ord('B')},
    ],
)
def test_other_jpegs_are_left_to_opencv(tmp_path, picture, change, monkeypatch):
    data = bytearray(cv2.imencode('.jpg', picture)[1].tobytes())
    at = data.index(b'\xff\xc0')  # the frame header of a baseline JPEG
    for offset, value in change.items():
        data[at + offset] = value
    (tmp_path / 'a.jpg').write_bytes(data)
    decoded = []
    monkeypatch.setattr(loading, 'decode_image', lambda data, flags: decoded.append(flags) or picture)
    assert read_photo(tmp_path / 'a.jpg', SIZE) is picture
    assert decoded == [loading.AS_STORED]


def test_jpegs_of_red_green_and_blue_are_left_to_opencv(tmp_path, picture):
    """Adobe's marker says so, or their names; a decoder that takes them for YCbCr shows other colors."""
    Image.fromarray(picture[..., ::-1]).save(tmp_path / 'a.jpg', quality=95, keep_rgb=True)
    named = (tmp_path / 'a.jpg').read_bytes()
    frame, scan = named.index(b'\xff\xc0') + 10, named.index(b'\xff\xda') + 5
    numbered = bytearray(named)
    numbered[frame : frame + 9 : 3] = numbered[scan : scan + 6 : 2] = b'\x01\x02\x03'
    for data in (named, numbered, named.replace(b'Adobe', b'other')):
        (tmp_path / 'a.jpg').write_bytes(data)
        photo = read_photo(tmp_path / 'a.jpg', SIZE)
        assert np.abs(photo.astype(int) - picture).mean() < 4


def test_other_formats_and_turned_photos_are_decoded(tmp_path, picture):
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    assert (read_photo(tmp_path / 'a.png', SIZE) == picture).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture[..., ::-1]).save(tmp_path / 'a.jpg', exif=exif)
    assert isinstance(read_photo(tmp_path / 'a.jpg', SIZE), bytes)
    assert read_photo(tmp_path / 'a.jpg', SIZE[::-1]).shape == (*SIZE[::-1], 3)


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (None, 'the file is missing'),
        (..., 'Is a directory'),
        (lambda data: b'', 'the file is empty'),
        (lambda data: b'<html>404</html>', 'the file is not an image'),
        (lambda data: data[:2], 'the file is truncated'),
        (lambda data: data[:-9], 'the file is truncated'),
        (
            lambda data: data[:400] + bytes(len(data) - 400),
            'the file is truncated',
        ),  # where a download stopped
    ],
)
def test_both_ways_refuse_alike(tmp_path, picture, content, reason):
    file = tmp_path / 'a.jpg'
    if content is ...:
        file.mkdir()
    elif content is not None:
        file.write_bytes(content(cv2.imencode('.jpg', picture)[1].tobytes()))
    for read in (read_image, read_photo):
        with pytest.raises(BadImageError, match=reason):
            read(file, SIZE)


def test_images_without_annotations_and_images_as_pixels(tmp_path, picture):
    """As an application reads them: nobody told the size."""
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    load, resize, pack = (
        TRANSFORMS.build(cfg)
        for cfg in (
            {'type': 'LoadImageFromFile'},
            {'type': 'Resize', 'scale': (30, 20)},
            {'type': 'PackDetInputs'},
        )
    )
    from_file = pack(resize(load({'img_path': tmp_path / 'a.png', 'img_id': 0})))
    from_pixels = pack(resize(load({'img': picture, 'img_id': 0})))
    assert (from_file['img'] == from_pixels['img']).all()
    assert from_file['ori_shape'] == SIZE
    assert from_file['img_shape'] == (20, 30)
    assert from_file['bboxes'].shape == (0, 4)
