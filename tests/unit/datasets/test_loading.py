"""Image files: what can be read, and what is said about the rest."""

import errno
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdet.datasets.transforms import BadImageError, exif_reading, loading, read_image, read_photo
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


def with_exif(file, picture, orientation, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture[..., ::-1]).save(file, exif=exif, **options)


def upright(stored, orientation):
    """As the standard says: mirrored left to right, turned by 180 degrees, mirrored top to bottom, ..."""
    transposed = stored.transpose(1, 0, 2)
    turns = {
        **{2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1]},
        **{5: transposed, 6: transposed[:, ::-1], 7: transposed[::-1, ::-1], 8: transposed[::-1]},
    }
    return turns[orientation]


@pytest.mark.parametrize('side', [40, 60])
@pytest.mark.parametrize('orientation', range(2, 9))
def test_exif_is_followed_wherever_the_annotated_size_allows_it(tmp_path, picture, side, orientation):
    stored = np.ascontiguousarray(picture[:, :side])
    with_exif(tmp_path / 'a.png', stored, orientation)
    shown = upright(stored, orientation)
    for size in {stored.shape[:2], shown.shape[:2]}:
        expected = shown if size == shown.shape[:2] else stored
        assert (read_image(tmp_path / 'a.png', size) == expected).all()
        reading = exif_reading((tmp_path / 'a.png').read_bytes(), size)
        assert reading == ('upright' if size == shown.shape[:2] else 'as stored')
    assert (read_image(tmp_path / 'a.png') == shown).all()
    if orientation == 6:
        with pytest.raises(BadImageError, match=rf'{side} x 40 pixels.*annotation says 60 x 50'):
            read_image(tmp_path / 'a.png', (50, 60))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_no_decoder_but_opencv_gets_what_exif_turns(tmp_path, picture, orientation):
    with_exif(tmp_path / 'a.jpg', picture, orientation)
    for size in (SIZE, SIZE[::-1]):
        handed_over = orientation == 1 or (orientation > 4 and size == SIZE)
        if orientation > 4 or size == SIZE:
            assert isinstance(read_photo(tmp_path / 'a.jpg', size), bytes) == handed_over


def test_a_size_with_its_sides_swapped_is_told(tmp_path, picture):
    cv2.imwrite(str(tmp_path / 'a.jpg'), picture)
    with pytest.raises(BadImageError, match=r'60 x 40 pixels .* says 40 x 60: has it swapped the two\?'):
        read_image(tmp_path / 'a.jpg', SIZE[::-1])


# What 8 bits would lose


@pytest.mark.parametrize('kind', [np.float32, np.float64, np.int16, np.int32])
def test_numbers_that_are_no_colors_are_named(tmp_path, picture, kind):
    for name, numbers in (('gray.tif', picture[..., 0]), ('color.tif', picture)):
        cv2.imwrite(str(tmp_path / name), numbers.astype(kind) * 2)
        with pytest.raises(BadImageError, match=rf'holds {kind.__name__} numbers from'):
            read_image(tmp_path / name, SIZE)


@pytest.mark.parametrize('name', ['a.png', 'a.tif', 'a.pgm', 'a.jp2'])
@pytest.mark.parametrize(
    ('low', 'high', 'levels'),
    [
        *((0, 4095, 16), (0, 2295, 9), (0, 1020, 4), (0, 16383, 64), (3, 8000, 32), (30000, 32000, 9)),
        *((0, 65535, None), (0, 20000, None), (30000, 30000, None)),
    ],
)
def test_sixteen_bits_of_which_little_would_be_left(tmp_path, picture, name, low, high, levels):
    """Data of 10, 12 or 14 bits in the lower ones make a dark image, heat images a gray one."""
    ramp = (low + (high - low) * np.linspace(0, 1, 2400).reshape(SIZE)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / name), ramp)
    if levels is None:
        img = read_image(tmp_path / name, SIZE)
        assert np.abs(img - (ramp >> 8).astype(int)[..., None]).max() <= 1
    else:
        with pytest.raises(
            BadImageError, match=rf'16-bit numbers from {low} to {high}, of which {levels} gray'
        ) as error:
            read_image(tmp_path / name, SIZE)
        factor = {1020: '10 bits.* by 64', 16383: '14 bits.* by 4', 32000: 'scale those of the whole set'}
        assert re.search(factor.get(high, 'of 1[24] bits.* by'), str(error.value))


@pytest.mark.parametrize(
    'numbers', [np.arange(61) * 257, np.arange(250, 256) * 256, np.arange(400) << 4, np.zeros(9, int)]
)
def test_a_dark_photo_of_sixteen_bits_is_none_of_fewer(tmp_path, numbers):
    """Of 8 or 12 bits in the upper ones: nothing, or little, is lost."""
    photo = np.resize(numbers, SIZE).astype(np.uint16)
    cv2.imwrite(str(tmp_path / 'a.png'), photo)
    assert (read_image(tmp_path / 'a.png', SIZE)[..., 0] == photo >> 8).all()


def test_formats_of_ten_bits_are_scaled_by_their_decoder(tmp_path, picture):
    if not cv2.haveImageWriter('a.avif'):
        pytest.skip('no AVIF')
    wide = picture.astype(np.uint16) << 2
    cv2.imwrite(str(tmp_path / 'a.avif'), wide, [cv2.IMWRITE_AVIF_DEPTH, 10])
    assert np.abs(read_image(tmp_path / 'a.avif', SIZE).astype(int) - picture).mean() < 4


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (bytes(128) + b'DICM', 'is not an image that OpenCV reads: it is a DICOM image'),
        (b'\0\0\0\x18ftypheic', 'is not an image that OpenCV reads: it is a HEIC image'),
        (b'\0\0\0\x1cftypavif', 'is not an image that OpenCV reads: it is an AVIF image'),
        (b'RIFF\x20\0\0\0WEBPVP8 ', 'begins as a WebP image but cannot be decoded'),
        (b'\xff\xd8\xff\xd9', 'begins as a JPEG image but cannot be decoded'),
        (bytes(range(1, 256)), 'is not an image'),
    ],
)
def test_what_opencv_does_not_read_is_named(tmp_path, content, reason):
    (tmp_path / 'a.jpg').write_bytes(content)
    with pytest.raises(BadImageError, match=f'the file {reason}'):
        read_image(tmp_path / 'a.jpg', SIZE)


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
    monkeypatch.setattr(loading, 'decode_image', lambda data, flags, deep: decoded.append(flags) or picture)
    assert read_photo(tmp_path / 'a.jpg', SIZE) is picture
    assert decoded == [loading.AS_SHOWN]


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


def test_other_formats_are_decoded(tmp_path, picture):
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    assert (read_photo(tmp_path / 'a.png', SIZE) == picture).all()


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


def test_the_limit_of_open_files_is_no_fault_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such an image is not skipped: the run ends with the remedy."""

    def refuse(path: Path) -> bytes:
        raise OSError(errno.EMFILE, 'Too many open files')

    monkeypatch.setattr(Path, 'read_bytes', refuse)
    with pytest.raises(OSError, match='ulimit -n') as error:
        read_image(tmp_path / 'any.jpg')
    assert not isinstance(error.value, BadImageError)
