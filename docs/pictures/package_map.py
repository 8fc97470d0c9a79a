"""Draw the map of the package: its rooms on floors, and the way of one training step through them."""

from pathlib import Path
from typing import Any

from page import INK, LOSS, MUTED, NEUTRAL, STUDENT, WHITE, Box, Page, Tone

LEFT, GAP = 124, 8
AROUND = (
    ('tools/', 'shims, scripts'),
    ('configs/', 'plain students'),
    ('configs_dev/', 'distilled ones'),
    ('cls_teachers/', 'teacher files'),
    ('benchmarks/', 'speed, parity'),
    ('tests/', 'unit, integration'),
)
Room = tuple[float, str, str]  # width, name, what it is for
FLOORS: dict[str, tuple[float, list[Room]]] = {  # name: y, rooms; each imports from floors below it only
    'programs': (108, [(760, 'commands/', 'train.py, test.py, predict.py, teacher.py, report.py, ...')]),
    'interfaces': (
        172,
        [
            (240, 'cli.py', 'what the commands share'),
            (248, 'apis/', 'find objects in images'),
            (256, 'analysis/', 'what reports are made of'),
        ],
    ),
    'training': (
        236,
        [(240, 'engine/hooks/', 'one hook a file'), (512, 'engine/', 'runner, loops, state, amp, compile')],
    ),
    'support': (
        300,
        [(240, 'config/', 'resolve, check, options'), (248, 'evaluation/', "COCO's metric, accuracy")],
    ),
    'parts': (
        556,
        [
            (240, 'classifiers.py', 'backbones and teachers'),
            (248, 'synthetic/', 'the generated data set'),
            (256, 'visualization/', 'detections, crops, curves'),
        ],
    ),
    'foundations': (
        620,
        [
            (240, 'structures/', 'values that the parts exchange'),
            (156, 'registry.py', 'names to classes'),
            (172, 'checkpoint/', 'atomic write, safe read'),
            (168, 'distributed/', 'launch, gather, signals'),
        ],
    ),
}
STATIONS = (  # x, name, what it is, whether it is written above the way
    (170, 'sample', '(index, draw)', True),
    (232, 'batch', 'uint8 images', False),
    (324, 'images', 'normalized', True),
    (382, 'feats', 'feature maps', False),
    (448, 'HeadOutputs', '(N, A, ...)', True),
    (515, 'PositiveSamples', 'P rows, G objects', False),
    (632, 'crops', '(G, 3, S, S)', True),
    (702, 'FrozenTeacher', 'logits (G, K)', False),
    (826, 'losses', 'kd_cls, kd_loc', False),
)


def draw_map(file: Path) -> None:
    """Draw the map."""
    page = Page(688)
    page.text(16, 24, 'The package, and one training step through it', 15, bold=True, ha='left')
    for i, (name, what) in enumerate(AROUND):
        draw_room(page, Box(LEFT + i * 128, 46, 120, 48), name, what, WHITE, ls=(0, (4, 2)))
    page.text(44, 70, 'around it', ha='left', color=MUTED)
    for floor, (y, rooms) in FLOORS.items():
        x = float(LEFT)
        page.text(44, y + 26, floor, ha='left', color=MUTED)
        for width, name, what in rooms:
            draw_room(page, Box(x, y, width, 52), name, what)
            x += width + GAP
    page.arrow([(28, 112), (28, 670)], NEUTRAL.line)
    page.text(16, 390, 'imports point downward only', rotation=90, va='center', color=MUTED)
    draw_step(page)
    page.save(file)


def draw_room(page: Page, box: Box, name: str, what: str, tone: Tone = NEUTRAL, **style: Any) -> None:
    """Draw a room: its name and what it is for."""
    page.box(box, tone, **style)
    page.text(box.x + 12, box.y + 18, name, 12.5, mono=True, bold=True, ha='left')
    page.text(box.x + 12, box.y + 36, what, 11.5, ha='left', color=MUTED)


def draw_step(page: Page) -> None:
    """Draw the floor of one training step, and its way from the sample to the optimizer."""
    page.text(44, 454, 'one step', ha='left', bold=True)
    rooms = (
        (LEFT, 152, 'datasets/', 'COCO, transforms', NEUTRAL, INK),
        (284, 292, 'models/', 'backbones, necks, heads, detectors', STUDENT, STUDENT.line),
        (584, 300, 'distillation/', 'the method: ClassifierDistiller', LOSS, LOSS.line),
    )
    for x, width, name, what, tone, color in rooms:
        page.box(Box(x, 364, width, 180), tone, width=2.2 if tone is LOSS else 1)
        size = 15 if tone is LOSS else 12.5
        page.text(x + 12, 384, name, size, mono=True, bold=True, ha='left', color=color)
        page.text(x + 12, 405, what, 11.5, ha='left', color=MUTED)
    way = 478
    page.arrow([(170, way), (826, way), (826, 289)], INK)
    for x, name, what, above in STATIONS:
        page.axes.plot(x, way, 'o', ms=7, mfc='white', mec=INK, mew=1.6, zorder=7)
        y = way - 36 if above else way + 22
        page.text(x, y, name, 11.5, mono=True, bold=True)
        page.text(x, y + 16, what, 11, color=MUTED)
    terms = 'loss_cls + loss_bbox\n+ loss_kd_cls + loss_kd_loc'
    page.text(814, 326, terms, 11, mono=True, ha='right', color=LOSS.line)
    page.text(826, 254, 'OptimWrapper', 11.5, mono=True, bold=True)
    page.text(826, 272, 'updates', 11, color=MUTED)
