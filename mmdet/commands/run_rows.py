"""Train and test the rows of the proof table: each row and seed is a unit that leaves one JSON file.

A unit whose file exists is skipped, so the command may be stopped and given again. Weights and logs land in
OUT_DIR/work and may be deleted. tools/analysis/compare.py turns the files into tables.

python tools/analysis/run_rows.py configs_dev/ssd/ssd_tiny_cls_loc.py --seeds 0 1 2 --out-dir work_dirs/rows
"""

import argparse
import hashlib
import json
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch.utils.flop_counter import FlopCounterMode

from mmdet.analysis.calibration import measure
from mmdet.analysis.error_split import error_split, score_calibration
from mmdet.analysis.runs import FORMAT, METRICS, TITLES
from mmdet.analysis.teacher import answers_of_split, build_distiller, read_batches
from mmdet.apis import init_detector
from mmdet.checkpoint.io import load_checkpoint
from mmdet.cli import add_config_arguments, parse
from mmdet.config.options import DictAction
from mmdet.config.resolve import DATA_DEFAULTS, annotation_metrics, load_config, merge_config
from mmdet.distributed.signals import StoppedBySignal
from mmdet.evaluation.coco_eval import (
    IOU_THRESHOLDS,
    evaluate_boxes,
    from_records,
    mean_precision,
    read_annotations,
)
from mmdet.evaluation.coco_metric import CocoMetric
from mmdet.visualization.curves import read_lines

ROOT = Path(__file__).resolve().parents[2]
ROWS = tuple(TITLES)
WARM_UP, REPEATS = 3, 20  # of the latency


class Unit(NamedTuple):
    """One row with one seed."""

    row: str
    seed: int
    folder: Path  # --out-dir

    @property
    def name(self) -> str:
        """Of its JSON file, and of its folder of weights and logs."""
        return f'{self.row}_seed{self.seed}'

    @property
    def result(self) -> Path:
        """Its JSON file."""
        return self.folder / f'{self.name}.json'

    @property
    def work_dir(self) -> Path:
        """Its weights and logs; its config stands beside the folder."""
        return self.folder / 'work' / self.name


def keep_row(model: Config, row: str) -> None:
    """Leave of a distilled model what a row has; changes `model`.

    'all' is the model itself. 'cls' has the recognition loss, 'loc_kdloc' the localization loss, 'loc' its
    pixel level, which needs no teacher. 'plain' has no distiller.

    Raises:
        ValueError: The model lacks what the row keeps.
    """
    distiller = model.get('distiller') or {}
    needed = {'cls': ['kd_cls'], 'loc': ['kd_loc'], 'loc_kdloc': ['kd_loc'], 'all': ['kd_cls', 'kd_loc']}
    for name in needed.get(row, []):
        if not distiller.get(name):
            raise ValueError(
                f'row {row} needs model.distiller.{name}: give the config of a student with both losses, '
                'e.g. configs_dev/ssd/ssd300_coco_cls_loc.py'
            )
    if row == 'plain':
        model.distiller = None
    elif row == 'cls':
        distiller.kd_loc = None
    elif row != 'all':
        distiller.kd_cls = None
    if row == 'loc':
        distiller.teacher = None
        _keep_pixels(distiller.kd_loc)


def _keep_pixels(kd_loc: Config) -> None:
    """Reduce a localization loss to its pixel level."""
    if 'pixels' not in kd_loc.levels:
        raise ValueError(f'row loc needs the level pixels in model.distiller.kd_loc.levels={kd_loc.levels}')
    place, weight = list(kd_loc.levels).index('pixels'), kd_loc.get('loss_weight', 1.0)
    kd_loc.levels, kd_loc.pool_sizes = ('pixels',), (kd_loc.pool_sizes[place],)
    kd_loc.loss_weight = weight if isinstance(weight, (int, float)) else weight[place]


def run(command: Sequence[str], log: Path) -> None:
    """Run a tool with its output added to a log. SIGTERM and Ctrl-C end it, and then this.

    Raises:
        ChildProcessError: It failed; gives the end of the log.
        StoppedBySignal: It was told to end; the same command goes on.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a') as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
        before = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number)),
            signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),  # the terminal tells both
        }
        try:
            failed = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if failed in (128 + number for number in before):
        raise StoppedBySignal(failed - 128)
    if failed:
        end = '\n'.join(log.read_text(errors='replace').splitlines()[-10:])
        raise ChildProcessError(f'{shlex.join(command)} failed. The end of {log}:\n{end}')


def train(cfg: Config, work_dir: Path, seed: int, args: argparse.Namespace, *options: str) -> None:
    """Train a merged config, or go on where this was stopped.

    Raises:
        ValueError: What was begun in the folder is another config.
    """
    file = work_dir.with_suffix('.py')
    work_dir.mkdir(parents=True, exist_ok=True)
    text = cfg.pretty_text
    if file.is_file() and file.read_text() != text:
        raise ValueError(f'{file} is another config: choose another --out-dir, or delete it and {work_dir}')
    file.write_text(text)
    command = [sys.executable, str(ROOT / 'tools/train.py'), str(file)]
    if args.processes > 1:
        command = ['bash', str(ROOT / 'tools/dist_train.sh'), str(file), str(args.processes)]
    command += ['--work-dir', str(work_dir), '--seed', str(seed), *options]
    if args.amp:
        command.append('--amp')
    if (work_dir / 'latest.pth').exists():
        command.append('--resume')
    run(command, work_dir / 'train.log')


def trained_teacher(seed: int, student: Config, args: argparse.Namespace) -> Path:
    """The file of a seed's teacher, trained on the student's data unless it is there."""
    work_dir = args.out_dir / 'work' / f'teacher_seed{seed}'
    file = Path(work_dir, 'model_best.pth.tar')
    if not file.is_file():
        say(f'teacher_seed{seed}: training')
        cfg = merge_config(args.teacher_config, args.teacher_options)
        for key in DATA_DEFAULTS:
            cfg[key] = student.get(key)
        unfinished = file.with_name('unfinished.pth.tar')
        if 'save_teacher' not in cfg.default_hooks:
            raise ValueError(f'{args.teacher_config} has no default_hooks.save_teacher')
        cfg.default_hooks.save_teacher.file = str(unfinished)
        train(cfg, work_dir, seed, args)
        unfinished.rename(file)
    return file


def run_unit(unit: Unit, args: argparse.Namespace) -> dict[str, Any]:
    """Train, test and measure; returns what the unit's JSON file holds."""
    cfg = merge_config(args.config, args.cfg_options, args.data_root)
    keep_row(cfg.model, unit.row)
    teacher = (cfg.model.get('distiller') or {}).get('teacher')
    if teacher and args.teacher_config is not None:
        teacher.checkpoint = str(trained_teacher(unit.seed, cfg, args))
    elif teacher and args.teacher is not None:
        teacher.checkpoint = str(args.teacher)
    say(f'{unit.name}: training')
    train(cfg, unit.work_dir, unit.seed, args, '--no-validate')
    say(f'{unit.name}: testing')
    checkpoint, found = unit.work_dir / 'latest.pth', unit.work_dir / 'detections.json'
    file = str(unit.work_dir.with_suffix('.py'))
    test = [sys.executable, str(ROOT / 'tools/test.py'), file, str(checkpoint), '--format-only']
    run([*test, '--out', str(found), '--work-dir', str(unit.work_dir)], unit.work_dir / 'test.log')
    cfg = load_config(file)
    records = json.loads(found.read_text())
    return {
        'format': FORMAT,
        'row': unit.row,
        'seed': unit.seed,
        'data': Path(cfg.data_root).name,
        'config': str(args.config),
        'options': args.cfg_options,
        **training_numbers(cfg, unit.work_dir),
        **scores(cfg, records),
        'teacher': teacher_numbers(cfg),
        'student': student_numbers(cfg, checkpoint),
        'command': shlex.join(['python', 'tools/analysis/run_rows.py', *args.typed]),
        'commit': commit(),
        'device': device_name(),
        'torch': torch.__version__,
    }


def scores(cfg: Config, records: list[dict[str, Any]]) -> dict[str, Any]:
    """COCO's numbers of detections, the split of their errors, and how much their scores are worth."""
    (settings,) = annotation_metrics(cfg, 'test')
    metric = CocoMetric(settings['ann_file'], settings['classes'])
    coco, category_ids = metric.coco, metric.category_ids
    found = evaluate_boxes(coco, from_records(records), category_ids)
    return {
        'val_images': len(coco.imgs),
        'metrics': dict(zip(METRICS, map(float, found.stats), strict=True)),
        'ap_per_iou': {
            f'{threshold:.2f}': mean_precision(values)
            for threshold, values in zip(IOU_THRESHOLDS, found.precision, strict=True)
        },
        'errors': error_split(coco, records, category_ids)._asdict(),
        'calibration': score_calibration(coco, records, category_ids)._asdict(),
    }


def training_numbers(cfg: Config, work_dir: Path) -> dict[str, Any]:
    """What the run has logged. Losses: means over the first and over the last tenth of the lines."""
    lines = list(logged(work_dir))
    tenth = max(len(lines) // 10, 1)
    names = sorted({name for line in lines for name in line if name.startswith('loss')})
    meta = load_checkpoint(work_dir / 'latest.pth')['meta']
    return {
        'train_images': len(read_annotations(Path(cfg.data_root, cfg.train_ann)).imgs),
        'iterations': meta['iter'],
        'batch_size': meta['samples_per_step'],
        'losses': {
            name: {
                'first': statistics.fmean(line[name] for line in lines[:tenth]),
                'last': statistics.fmean(line[name] for line in lines[-tenth:]),
            }
            for name in names
        },
        'training': {
            'images_per_second': statistics.median(line['images/s'] for line in lines),
            'seconds': meta['iter'] * statistics.fmean(line['time'] for line in lines),
            'memory_mb': max(line['memory'] for line in lines),
        },
    }


def logged(work_dir: Path) -> Iterator[dict[str, Any]]:
    """The training lines of a run's scalars, those of interrupted starts first."""
    lines = read_lines(sorted(work_dir.glob('*/vis_data/scalars.json')))
    return (dict(line) for line in lines if 'loss' in line)


def teacher_numbers(cfg: Config) -> dict[str, Any] | None:
    """How good the teacher is on the validation crops that the distiller would cut; None without one."""
    teacher = (cfg.model.get('distiller') or {}).get('teacher')
    if not teacher:
        return None
    distiller, preprocessor = build_distiller(cfg, get_device())
    logits, labels, _ = answers_of_split(cfg, 'val', distiller, preprocessor)
    digest = hashlib.sha256(Path(teacher.checkpoint).read_bytes()).hexdigest()
    return {'arch': teacher.arch, **measure(logits, labels)._asdict(), 'sha256': digest[:16]}


@torch.no_grad()
def student_numbers(cfg: Config, checkpoint: Path) -> dict[str, float]:
    """Size and speed of the student on one image, network and post-processing; the distiller is no part."""
    model = init_detector(cfg, checkpoint)
    batch = next(read_batches(cfg, 'val', model.data_preprocessor, number=1))
    with FlopCounterMode(display=False) as counter:
        model(batch.images, batch.gt, mode='tensor')
    seconds = []
    for _ in range(WARM_UP + REPEATS):
        start = time.perf_counter()
        model(batch.images, batch.gt, mode='predict')  # ends on the CPU: nothing is left to wait for
        seconds.append(time.perf_counter() - start)
    return {
        'parameters': sum(parameter.numel() for parameter in model.parameters()),
        'gmacs': counter.get_total_flops() / 2e9,
        'latency_ms': 1e3 * statistics.median(seconds[WARM_UP:]),
    }


def check_settings(result: Path, args: argparse.Namespace) -> None:
    """Refuse to take a file that other settings have left for the one that is asked for.

    Raises:
        ValueError: Names the file and both settings.
    """
    there = json.loads(result.read_text())
    settings = {'config': args.config, 'options': json.loads(json.dumps(args.cfg_options))}
    for name, value in settings.items():
        if there.get(name) != value:
            raise ValueError(
                f'{result} was made with {name} {there.get(name)}, not {value}: choose another --out-dir'
            )


def commit() -> str:
    """The commit of the code, marked when tracked files differ from it."""
    git = ['git', '-C', str(ROOT), 'describe', '--always', '--dirty', '--abbrev=7', '--exclude=*']
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def device_name() -> str:
    """What the unit ran on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'CPU, {torch.get_num_threads()} thread(s) a process'


def say(text: str) -> None:
    """Report progress."""
    print(f'{time.strftime("%H:%M:%S")} {text}', flush=True)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_arguments(parser)
    parser.add_argument('--rows', nargs='+', choices=ROWS, default=list(ROWS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/rows'), help='of the JSON files')
    teacher = parser.add_mutually_exclusive_group()
    teacher.add_argument('--teacher', type=Path, help='file of another teacher than the config names')
    teacher.add_argument('--teacher-config', help='train a teacher for each seed with this config')
    parser.add_argument(
        '--teacher-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='change keys of --teacher-config; the data are those of the student',
    )
    parser.add_argument('--processes', type=int, default=1, help='of a training, one a GPU')
    parser.add_argument('--amp', action='store_true', help='train in bfloat16 or float16')
    args = parse(parser, argv)
    args.typed = list(sys.argv[1:] if argv is None else argv)
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing."""
    args = parse_args(argv)
    units = [Unit(row, seed, args.out_dir) for seed in args.seeds for row in args.rows]
    for unit in units:
        if unit.result.is_file():
            check_settings(unit.result, args)
            say(f'{unit.name}: there already')
            continue
        torch.manual_seed(unit.seed)
        result = run_unit(unit, args)
        new = unit.result.with_suffix('.tmp')
        new.write_text(json.dumps(result, indent=1) + '\n')
        new.replace(unit.result)
        numbers = result['metrics']
        say(f'{unit.name}: AP {numbers["AP"]:.3f}, AP50 {numbers["AP50"]:.3f}')
    print(f'compare: python tools/analysis/compare.py {args.out_dir}')
