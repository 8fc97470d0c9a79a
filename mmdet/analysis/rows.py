"""Train, test and measure one row of an ablation with one seed."""

import argparse
import copy
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from mmengine.config import Config

from mmdet.analysis.calibration import measure
from mmdet.analysis.runs import FORMAT, read_result
from mmdet.analysis.teacher import build_distiller, predict_split, teacher_network
from mmdet.checkpoint.io import atomic_write, load_checkpoint
from mmdet.cli import usable_cores
from mmdet.config.resolve import DATA_DEFAULTS, load_config, merge_config
from mmdet.datasets.coco_format import read_coco
from mmdet.distillation.stored_teacher import checksum
from mmdet.distributed.signals import StoppedBySignal
from mmdet.files import HERE, suggest
from mmdet.visualization.curves import read_lines

MMDET = (sys.executable, str(HERE / '__main__.py'))  # without a checkout, too
TORCHRUN = ('-m', 'torch.distributed.run', '--standalone', '--local_addr=127.0.0.1')
# Of the report on a test, which says the student's size and speed, too
OF_TEST = ('metrics', 'ap_per_iou', 'errors', 'calibration', 'commit', 'device', 'torch')
OF_STUDENT = ('parameters', 'gmacs', 'ms_per_image', 'of_which_waiting_for_data')


def run_row(row: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train, test and measure a row of `ROWS`, or read its JSON file where that exists; returns its content.

    Raises:
        ValueError: The file, or what was begun, was made with other settings; or the config lacks the row.
        ChildProcessError: The training or the test failed; gives the end of its log.
        StoppedBySignal: It was told to end; the same command goes on.
    """
    file = result_file(args.out_dir, row, seed)
    settings = row_settings(row, seed, args)
    if not file.is_file():
        found = train_and_test(row, args.out_dir / 'work' / file.stem, seed, args)
        text = json.dumps({**settings, **found}, indent=1) + '\n'
        atomic_write(file, lambda out: out.write(text.encode()))
    return read_result(file, settings)


def row_settings(row: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Collect what the numbers of a row depend on, as its JSON file tells it: files by their content.

    Of a teacher that is trained for the row, config and options stand for its file.
    """
    cfg = load_row(row, args)
    teacher = teacher_network(cfg)
    own = bool(teacher) and args.teacher_config is not None
    annotations = {'train': cfg.train_ann, 'test': cfg.test_ann or cfg.val_ann}
    return {
        'format': FORMAT,
        'row': row,
        'seed': seed,
        'config': str(args.config),
        'options': args.cfg_options,
        'amp': args.amp,
        'data': Path(cfg.data_root).name,
        'annotations': {split: _digest(Path(cfg.data_root, file)) for split, file in annotations.items()},
        'teacher_config': args.teacher_config if own else None,
        'teacher_options': args.teacher_options if own else {},
        'teacher': {'sha256': _digest(teacher.checkpoint)} if teacher and not own else None,
    }


def _digest(file: str | Path) -> str:
    return checksum(file)[:16]


def train_and_test(row: str, work_dir: Path, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train, test and measure a row, see `run_row`, with weights and logs in a work dir."""
    cfg = load_row(row, args)
    teacher = teacher_network(cfg)
    if teacher and args.teacher_config is not None:
        teacher.checkpoint = str(train_teacher(seed, cfg, args))
    train(cfg, work_dir, seed, args, '--no-validate')
    test = [*MMDET, 'test', f'{work_dir}.py', str(work_dir / 'latest.pth'), '--work-dir', str(work_dir)]
    report_file = work_dir / 'report/report.json'
    report_file.unlink(missing_ok=True)  # of an earlier test
    run_tool([*test, '--report', str(work_dir / 'report')], work_dir / 'test.log')
    if not report_file.is_file():
        raise ValueError(f'nothing was scored: see {work_dir}/test.log, and val_ann in the config')
    report = json.loads(report_file.read_text())
    return {
        **training_numbers(cfg, work_dir),
        'val_images': report['images'],
        **{key: report[key] for key in OF_TEST},
        'teacher': teacher_numbers(cfg),
        'student': {key: report[key] for key in OF_STUDENT if report[key] is not None},
        'command': args.command,
    }


def load_row(row: str, args: argparse.Namespace) -> Config:
    """Resolve the config of a row, with the teacher of the command line.

    Raises:
        FileNotFoundError: There is no such teacher, and no --teacher-config trains one.
    """
    cfg = load_config(args.config, {**args.cfg_options, 'row': row}, args.data_root)
    teacher = teacher_network(cfg)
    if teacher and args.teacher is not None:
        teacher.checkpoint = str(args.teacher)
    if teacher and args.teacher_config is None and not Path(teacher.checkpoint).is_file():
        raise FileNotFoundError(
            f'row {row}: teacher file {teacher.checkpoint} not found.{suggest(teacher.checkpoint)} Train it '
            'first, or name another by --teacher FILE'
        )
    return cfg


def result_file(out_dir: Path, row: str, seed: int) -> Path:
    """Name the JSON file of a row and seed."""
    return out_dir / f'{row}_seed{seed}.json'


def train_teacher(seed: int, student: Config, args: argparse.Namespace) -> Path:
    """Train a seed's teacher unless it is there, on the data, classes and input size of the student.

    Returns:
        Its file.

    Raises:
        ValueError: What is there is of another config; or the config saves no teacher.
    """
    work_dir = args.out_dir / 'work' / f'teacher_seed{seed}'
    file, unfinished = (Path(work_dir, f'{name}.pth.tar') for name in ('model_best', 'unfinished'))
    given = merge_config(args.config, args.cfg_options)  # with `input_size`, which `resolve` takes out
    shared = {key: given[key] for key in ('classes', 'input_size') if given.get(key) is not None}
    data = {key: student.get(key) for key in DATA_DEFAULTS}
    cfg = load_config(args.teacher_config, {**shared, **args.teacher_options, **data})
    if 'save_teacher' not in cfg.default_hooks:
        raise ValueError(f'{args.teacher_config} has no save_teacher in default_hooks')
    cfg.default_hooks.save_teacher.file = str(unfinished)
    write_config(cfg, work_dir, args.amp)
    if not file.is_file():
        train(cfg, work_dir, seed, args)
        unfinished.rename(file)
    return file


def train(cfg: Config, work_dir: Path, seed: int, args: argparse.Namespace, *options: str) -> None:
    """Train a resolved config, or go on where this was stopped; see `write_config`."""
    file = write_config(cfg, work_dir, args.amp)
    command = [*MMDET, 'train', str(file), '--work-dir', str(work_dir), '--seed', str(seed), *options]
    command += ['--amp'] * args.amp + ['--resume'] * (work_dir / 'latest.pth').exists()
    if args.processes > 1:
        command[1:1] = [*TORCHRUN, f'--nproc_per_node={args.processes}']
    run_tool(command, work_dir / 'train.log', args.processes)


def write_config(cfg: Config, work_dir: Path, amp: bool) -> Path:
    """Write the config and the precision of a training beside its work dir; returns the file.

    Raises:
        ValueError: What was begun in the folder has another.
    """
    file = Path(f'{work_dir}.py')
    work_dir.mkdir(parents=True, exist_ok=True)
    text = cfg.pretty_text + '# trained with --amp\n' * amp
    if file.is_file() and file.read_text() != text:
        raise ValueError(
            f'{file} is another config or precision: choose another --out-dir, or delete it and {work_dir}'
        )
    file.write_text(text)
    return file


def run_tool(command: Sequence[str], log: Path, processes: int = 1) -> None:
    """Run a tool with its output added to a log. SIGTERM and Ctrl-C end it, and then this.

    The processes that it starts share the cores, unless OMP_NUM_THREADS is set.

    Raises:
        ChildProcessError: It failed; gives the end of the log.
        StoppedBySignal: It was told to end; the same command goes on.
    """
    print(f'{time.strftime("%H:%M:%S")} {log}', flush=True)
    threads = os.environ.get('OMP_NUM_THREADS', str(max(usable_cores() // processes, 1)))
    environment = {'MKL_NUM_THREADS': threads, **os.environ, 'OMP_NUM_THREADS': threads}
    with (
        log.open('a') as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        before = signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the terminal has told the tool, too
            status = process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    if status in (128 + signal.SIGTERM, 128 + signal.SIGINT):
        raise StoppedBySignal(status - 128)
    if status:
        end = '\n'.join(log.read_text(errors='replace').splitlines()[-10:])
        raise ChildProcessError(f'{shlex.join(command)} failed. The end of {log}:\n{end}')


def training_numbers(cfg: Config, work_dir: Path) -> dict[str, Any]:
    """Summarize what the run has logged; losses are means over the first and the last tenth of the lines."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))  # those of interrupted starts first
    lines = [line for line in read_lines(files) if 'loss' in line]
    tenth = max(len(lines) // 10, 1)
    parts = {'first': lines[:tenth], 'last': lines[-tenth:]}
    meta = load_checkpoint(work_dir / 'latest.pth')['meta']
    return {
        'train_images': len(read_coco(Path(cfg.data_root, cfg.train_ann)).img_ids),
        'iterations': meta['iter'],
        'batch_size': meta['samples_per_step'],
        'losses': {
            name: {part: fmean(line[name] for line in some) for part, some in parts.items()}
            for name in sorted(lines[-1])
            if name.startswith('loss')
        },
        'training': {
            'images_per_second': median(line['images/s'] for line in lines),
            'seconds': meta['iter'] * fmean(line['time'] for line in lines),
            'memory_mb': max(line.get('memory', -1) for line in lines),  # of a GPU; -1: not known
        },
    }


def teacher_numbers(cfg: Config) -> dict[str, Any] | None:
    """Measure the teacher on the validation crops that the distiller would cut; None without one."""
    teacher = teacher_network(cfg)
    if not teacher:
        return None
    cfg = copy.deepcopy(cfg)
    cfg.model.distiller.teacher = teacher
    logits, labels, _ = predict_split(cfg, 'val', *build_distiller(cfg))
    return {'arch': teacher.arch, **measure(logits, labels), 'sha256': _digest(teacher.checkpoint)}
