"""Draw the two pictures of the documentation: method.png and map.png, beside this file.

Usage: python docs/pictures/draw.py

Both are generated: the photo comes from `mmdet.synthetic`, the class distributions are an example.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from package_map import draw_map
from page import LOSS, MUTED, STUDENT, TEACHER, Box, Page, Tone

from mmdet.synthetic.dataset import draw_scene

SHIFTS = np.array([[0.22, -0.12, 0.2, -0.14], [-0.2, 0.1, 0.08, 0.1], [0.2, 0.14, 0.22, -0.1]])
CLASSES = ('ring', 'ball', 'cross', 'star', 'background')
STUDENT_SAYS = (0.46, 0.20, 0.07, 0.09, 0.18)
TEACHER_SAYS = (0.70, 0.21, 0.04, 0.05, 0.0)


@dataclass(frozen=True)
class Example:
    """A generated training image, its true boxes and what a student might predict.

    image (H, W, 3) uint8 · truth, predicted (G, 4) float, xyxy in pixels, the largest object first
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.float64]
    predicted: NDArray[np.float64]

    def crop(self, box: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Cut out a box."""
        x1, y1, x2, y2 = box.round().astype(int)
        return self.image[max(y1, 0) : y2, max(x1, 0) : x2]


def make_example() -> Example:
    """Generate the training image."""
    scene = draw_scene(0, 'train', 513)  # a ring, a cross and a star, well apart
    boxes = np.array([one['bbox'] for one in scene.annotations], float)  # xywh
    boxes = boxes[np.argsort(-boxes[:, 2] * boxes[:, 3])]
    truth = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return Example(scene.image[..., ::-1], truth, truth + SHIFTS[: len(truth)] * boxes[:, [2, 3, 2, 3]])


def edge_features(crop: NDArray[np.uint8], side: int = 8) -> NDArray[np.float64]:
    """Pool the edges of a crop to (side, side): about what a map of a shallow layer looks like."""
    gray = crop.mean(2)
    edges = np.hypot(*np.gradient(gray))
    rows = np.array_split(edges, side, axis=0)
    return np.array([[cell.mean() for cell in np.array_split(row, side, axis=1)] for row in rows])


def draw_method(file: Path) -> None:
    """Draw how a classifier is distilled into a detector."""
    page, example = Page(664), make_example()
    draw_photo(page, example)
    draw_student(page)
    draw_localization(page, example)
    draw_recognition(page)
    draw_teacher(page, example)
    draw_total(page)
    draw_legend(page)
    page.save(file)


def draw_photo(page: Page, example: Example) -> None:
    """Draw the training image with its boxes, left."""
    page.text(16, 32, 'One training step', 15, bold=True, ha='left')
    words = 'A frozen image classifier\nteaches the detector what\nits objects are, and where.'
    page.text(16, 76, words, ha='left', color=MUTED)
    photo = Box(16, 196, 216, 162)
    page.picture(example.image, photo, MUTED)
    scale = photo.w / example.image.shape[1]
    for boxes, tone in ((example.truth, TEACHER), (example.predicted, STUDENT)):
        for x1, y1, x2, y2 in boxes * scale:
            frame = Box(photo.x + x1, photo.y + y1, x2 - x1, y2 - y1)
            page.box(frame, Tone('white', 'none'), radius=0.1, width=3, zorder=5)
            page.box(frame, Tone(tone.line, 'none'), radius=0.1, width=1.7, zorder=5)
    page.text(16, 180, 'training image', ha='left', bold=True)
    for x, tone, words in ((16, TEACHER, 'true boxes'), (116, STUDENT, 'predicted boxes')):
        page.box(Box(x + 1, 371, 13, 11), Tone(tone.line, 'none'), radius=0.1, width=1.7)
        page.text(x + 21, 377, words, ha='left', color=tone.line)
    page.arrow([(220, 192), (220, 76), (272, 76)], MUTED, gradient=False)
    page.text(206, 446, 'the true boxes\ncut out the objects', ha='right', color=TEACHER.line)
    page.arrow([(220, 394), (220, 495), (278, 495)], TEACHER.line, gradient=False)


def draw_student(page: Page) -> None:
    """Draw the student and what it hands over, top."""
    page.box(Box(256, 12, 628, 166), STUDENT, radius=8)
    page.text(272, 32, 'Student', 15, bold=True, ha='left', color=STUDENT.line)
    page.text(344, 32, 'the detector that you keep', ha='left', color=MUTED)
    for x, width, words in ((272, 76, 'backbone'), (370, 44, 'neck'), (436, 58, 'head')):
        page.block(Box(x, 56, width, 40), words, STUDENT)
    for start, end in ((348, 370), (414, 436), (494, 690)):
        page.arrow([(start, 76), (end, 76)], STUDENT.line)
    page.block(Box(690, 56, 178, 40), 'loss_cls + loss_bbox', LOSS, mono=True)
    page.text(868, 44, "the detector's own losses", ha='right', color=LOSS.line)
    page.arrow([(465, 96), (465, 126)], STUDENT.line)
    page.block(Box(345, 126, 240, 38), '', STUDENT)
    page.axes.plot([465, 465], [126, 164], color=STUDENT.line, lw=1, zorder=4)
    page.text(405, 145, 'bboxes', mono=True, color=STUDENT.line)
    page.text(525, 145, 'cls_logits', mono=True, color=STUDENT.line)
    page.text(599, 136, 'PositiveSamples', mono=True, bold=True, ha='left', color=STUDENT.line)
    page.text(599, 155, 'the anchors matched to an object', ha='left', color=MUTED)


def draw_card(page: Page, box: Box, name: str, title: str, equations: str) -> None:
    """Draw the card of a distillation loss."""
    page.box(box, LOSS, radius=8, width=1.6)
    page.text(box.x + 14, box.y + 19, title, 13, bold=True, ha='left', color=LOSS.line)
    page.text(box.x + 14, box.y + 37, name, mono=True, ha='left', color=LOSS.line)
    page.text(box.x + box.w - 14, box.y + 19, equations, ha='right', color=MUTED)


def draw_localization(page: Page, example: Example) -> None:
    """Draw `loss_kd_loc`: crops of the predicted boxes against crops of the true boxes."""
    draw_card(page, Box(256, 206, 306, 220), 'loss_kd_loc', 'Localization', 'Eq. 8–11')
    rows = (
        (257, example.predicted[0], STUDENT, 'crop of a\npredicted\nbox'),
        (351, example.truth[0], TEACHER, 'crop of\nits true\nbox'),
    )
    for y, box, tone, words in rows:
        crop = example.crop(box)
        page.text(270, y + 32, words, ha='left', color=tone.line)
        page.picture(crop, Box(373, y, 64, 64), tone.line)
        page.picture(edge_features(crop), Box(473, y, 64, 64), tone.line)
    for x, words in ((405, 'pixels, L1'), (505, 'stem, L1')):
        page.block(Box(x - 39, 326, 78, 20), words, LOSS)
    page.arrow([(405, 164), (405, 256)], STUDENT.line)
    page.arrow([(438, 289), (472, 289)], STUDENT.line)


def draw_recognition(page: Page) -> None:
    """Draw `loss_kd_cls`: the student's class distribution against the teacher's."""
    draw_card(page, Box(578, 206, 306, 220), 'loss_kd_cls', 'Recognition', 'Eq. 1–7')
    rows = ((257, STUDENT_SAYS, STUDENT, "student's"), (351, TEACHER_SAYS, TEACHER, "teacher's"))
    for y, shares, tone, words in rows:
        page.box(Box(592, y, 278, 64), Tone(tone.line, 'white'))
        page.text(862, y + 13, f'{words} class distribution', ha='right', color=tone.line)
        for x, share, name in zip((618, 670, 722, 774, 832), shares, CLASSES, strict=True):
            page.axes.bar(x, -54 * share, 30, bottom=y + 46, color=tone.line, zorder=4)
            page.text(x, y + 55, name, 10.5, color=MUTED)
        page.axes.plot([600, 862], [y + 46] * 2, color=tone.line, lw=0.8, zorder=5)
    page.block(Box(621, 326, 220, 20), 'KL divergence at temperature T', LOSS)
    page.text(884, 192, 'ClassifierDistiller', mono=True, bold=True, ha='right', color=LOSS.line)
    page.arrow([(525, 164), (525, 192), (731, 192), (731, 257)], STUDENT.line)


def draw_teacher(page: Page, example: Example) -> None:
    """Draw the frozen teacher, bottom."""
    page.box(Box(256, 454, 628, 120), TEACHER, radius=8)
    page.text(272, 556, 'Teacher', 15, bold=True, ha='left', color=TEACHER.line)
    page.text(348, 556, 'FrozenTeacher', mono=True, bold=True, ha='left', color=TEACHER.line)
    words = 'an image classifier: no gradient, absent from the checkpoint'
    page.text(456, 556, words, ha='left', color=MUTED)
    for x, box in zip((382, 330, 278), example.truth, strict=True):
        page.picture(example.crop(box), Box(x, 472, 46, 46), TEACHER.line)
    page.text(278, 530, 'crops, each object once', 11, ha='left', color=MUTED)
    for x, width, words in ((470, 70, 'stem'), (562, 96, 'deeper layers'), (680, 102, 'class logits')):
        page.block(Box(x, 475, width, 40), words, TEACHER)
    for start, end in ((428, 470), (540, 562), (658, 680)):
        page.arrow([(start, 495), (end, 495)], TEACHER.line, gradient=False)
    page.text(868, 495, '\u2744 frozen', 13, bold=True, ha='right', color=TEACHER.line)
    for x, start in ((405, 472), (505, 475), (731, 475)):
        page.arrow([(x, start), (x, 416)], TEACHER.line, gradient=False)


def draw_total(page: Page) -> None:
    """Draw the total loss and what is left after training."""
    page.box(Box(16, 594, 546, 54), LOSS, radius=8)
    page.text(30, 621, 'Total =', 13, bold=True, ha='left', color=LOSS.line)
    terms = 'loss_cls + loss_bbox + loss_kd_cls + loss_kd_loc'
    page.text(96, 621, terms, mono=True, ha='left', color=LOSS.line)
    page.text(548, 621, 'Eq. 12', ha='right', color=MUTED)
    page.box(Box(578, 594, 306, 54), STUDENT, radius=8)
    page.text(592, 612, 'After training: a plain detector', 13, bold=True, ha='left', color=STUDENT.line)
    page.text(592, 631, 'the teacher and its losses are gone', ha='left', color=MUTED)


def draw_legend(page: Page) -> None:
    """Explain the arrows."""
    for y, gradient, words in ((530, True, 'gradient flows back'), (552, False, 'no gradient')):
        page.arrow([(16, y), (48, y)], MUTED, gradient)
        page.text(56, y, words, ha='left', color=MUTED)


if __name__ == '__main__':
    here = Path(__file__).parent
    draw_method(here / 'method.png')
    draw_map(here / 'map.png')
