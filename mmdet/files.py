"""Say what a file is, or which one a path that leads nowhere means; write COCO files. Imports no torch."""

import contextlib
import difflib
import glob
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Container
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote

UNKNOWN = 'of no known format'
FORMATS = (  # how a file begins, and what it is
    (rb'\xff\xd8\xff', 'a JPEG image'),
    (rb'\x89PNG', 'a PNG image'),
    (rb'BM.{4}\0{4}', 'a BMP image'),
    (rb'GIF8', 'a GIF image'),
    (rb'RIFF.{4}WEBP', 'a WebP image'),
    (rb'\0\0\0\x0cjP  |\xff\x4f\xff\x51', 'a JPEG 2000 image'),
    (rb'II\*\0|MM\0\*', 'a TIFF image, or a raw one of a camera'),
    (rb'.{4}ftyp(heic|heix|mif1|msf1)', 'a HEIC image'),
    (rb'.{4}ftypavi[fs]', 'an AVIF image'),
    (rb'\xff\x0a|\0\0\0\x0cJXL ', 'a JPEG XL image'),
    (rb'.{128}DICM', 'a DICOM image'),
    (rb'8BPS', 'a Photoshop image'),
    (rb'v/1\x01', 'an OpenEXR image'),
    (rb'.{4}ftyp', 'a video'),
    (rb'%PDF', 'a PDF document'),
    (rb'\x93NUMPY', 'an array of NumPy'),
    (rb'\x89HDF', 'an HDF5 file'),
    (rb'PK\x03\x04', 'a zip archive'),
    (rb'\x1f\x8b', 'a gzip file, to be unpacked first'),
    (rb'.{257}ustar', 'a tar archive'),
    (rb'.{8}\{"', 'a safetensors file'),
    (rb'version https://git-lfs', 'the pointer of a git-lfs file, which `git lfs pull` fetches'),
    (rb'\s*<(\?xml|svg)', 'an XML file'),
    (rb'\s*<', 'a web page, perhaps of a download that failed'),
    (rb'\x80', 'a pickle that torch.save has not written'),
    (rb'\0*\Z', 'empty, or begins with zeros'),
    (rb'[\x01-\x7f]*\Z', 'text'),
    (rb'', UNKNOWN),
)
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
HERE = Path(__file__).resolve().parent
# The folder of `configs` and `configs_dev`: a checkout's root, or inside the installed package
CONFIGS_ROOT = HERE / 'shipped' if (HERE / 'shipped').is_dir() else HERE.parent
HEAD = 512  # bytes of a file that tell its format


def describe(head: bytes) -> str:
    """Name the format of a file by its first `HEAD` bytes."""
    return next(name for start, name in FORMATS if re.match(start, head[:HEAD], re.DOTALL))


def shipped_configs() -> list[str]:
    """List the configs that come with the toolbox, relative to `CONFIGS_ROOT`: 'configs/ssd/ssd300.py'."""
    files = [file for name in ('configs', 'configs_dev') for file in (CONFIGS_ROOT / name).rglob('*.py')]
    return sorted(file.relative_to(CONFIGS_ROOT).as_posix() for file in files if '_base_' not in file.parts)


def find_config(path: str | Path) -> Path | None:
    """Find a config by its path, or one that comes with the toolbox by its name: 'ssd/ssd300.py', 'ssd300'.

    Returns:
        None: There is none, or several end so.
    """
    if Path(path).is_file():
        return Path(path)
    ending = '/' + Path(path).as_posix().removesuffix('.py')
    found = [name for name in shipped_configs() if f'/{name}'.removesuffix('.py').endswith(ending)]
    return CONFIGS_ROOT / found[0] if len(found) == 1 else None


def suggest(path: str | Path, similar: bool = True) -> str:
    """Suggest what to write in the place of a path that leads nowhere: a sentence after a space, or ''.

    Names are compared with those that are there without quotes, case, suffix and the two ways to write an
    accent in Unicode; a backslash is taken for a slash, `~`, `$NAME` and %20 for what they stand for.

    Args:
        path: What was given.
        similar: Whether names that are merely alike are meant, too: not those of photos, which are numbers.
    """
    if url := re.search(r'([a-zA-Z][\w+.-]+:)/+(.*)', str(path)):  # of whose slashes Path keeps one
        return f' {url[1]}//{url[2]} is a URL, not a path: download the file and give its path.'
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # folders and names that cannot be looked at
        if Path(path).is_symlink() and not Path(path).exists():
            return f' It is a link to {Path(path).readlink()}, which is not there.'
        found = _find_near(str(path), similar)
        return '' if found in (Path(), Path(path)) else f' Did you mean {found}?'
    return ''


def _find_near(text: str, similar: bool) -> Path:
    """Find the file that a path means, part by part; the empty path where there is none."""
    plain = re.sub(r'(?<![^/])["\']|["\'](?![^/])', '', os.path.expandvars(text.strip()).replace('\\', '/'))
    parts = Path(plain).expanduser().parts
    found = Path()
    for part in parts:
        nearest = _nearest(found, part, similar)
        if nearest is None:  # perhaps without the folders in between, or in one below
            below = (found / parts[-1], *found.glob(f'*/{glob.escape(parts[-1])}'))
            return next((file for file in below if file.exists()), Path())
        found = nearest
    return found


def _nearest(folder: Path, name: str, similar: bool) -> Path | None:
    """Find the entry of a folder that a name means."""
    if (folder / name).exists():
        return folder / name
    key, there = _fold(name), folder.iterdir() if folder.is_dir() else ()
    names = {_fold(entry.name): entry for entry in there}
    stems = {PurePath(folded).stem: entry for folded, entry in names.items()}
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.8) if similar else []
    stem = PurePath(key).stem
    return names.get(key) or stems.get(key) or stems.get(stem) or names.get(stem) or names.get(''.join(near))


def _fold(name: str) -> str:
    plain = unicodedata.normalize('NFC', unquote(name)).casefold().strip()
    return re.sub('^[0-9a-f]{8}-', '', plain)  # which Label Studio puts before names


def suggest_converter(path: Path) -> str:
    """Say how to convert labels of another format that were given in the place of an annotation file, or ''.

    Args:
        path: A folder of .txt or .xml files, one of them, or a .yaml.
    """
    files = path.rglob('*') if path.is_dir() else [path] if path.is_file() else []
    label = next((file for file in files if file.suffix in ('.txt', '.xml', '.yaml', '.yml')), None)
    if label is None:
        return ''
    if label.suffix == '.xml':
        root = label.parent.parent if label.parent.name == 'Annotations' else label.parent
        command = f'python tools/misc/voc2coco.py {root} {root / "annotations/all.json"}'
        return f"these are labels in Pascal VOC's format, which `{command}` converts (--split NAME: one list)"
    above = [file for folder in [*label.parents][:4] for file in sorted(folder.glob('*.y*ml'))]
    known = next((file for file in above if 'names' in file.read_text(errors='ignore')), None)
    write = 'once there is a data.yaml as docs/data.md shows, ' if known is None else ''
    return (
        f"these are labels in YOLO's format: {write}`python tools/misc/yolo2coco.py {known or 'data.yaml'}`"
    )


def part_of_coco(content: dict[str, Any], img_ids: Container[int]) -> dict[str, Any]:
    """Choose images of a COCO annotation file's content, with their annotations and all categories."""
    images = [image for image in content['images'] if image['id'] in img_ids]
    annotations = [one for one in content.get('annotations') or [] if one['image_id'] in img_ids]
    return {**content, 'images': images, 'annotations': annotations}


def write_coco(file: Path, content: dict[str, Any]) -> None:
    """Write a COCO annotation file, and its folder where there is none; print what it holds."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8')
    images, objects = content['images'], content['annotations']
    counts = Counter(one['category_id'] for one in objects)
    found = ', '.join(f'{counts[one["id"]]} {one["name"]}' for one in content['categories'])
    empty = len(images) - len({one['image_id'] for one in objects})
    print(f'{file}: {len(images)} images ({empty} without objects), {found}')
