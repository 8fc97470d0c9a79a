"""What the tools share: arguments, old spellings, and errors that a user can act on."""

import argparse
import os
import re
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any

from mmdet.config.options import DictAction
from mmdet.distributed.signals import StoppedBySignal

# What reading configs, checkpoints and data raises for a user to act on, and a loss that is not finite.
USER_ERRORS = (ArithmeticError, ImportError, LookupError, OSError, SyntaxError, TypeError, ValueError)

STEPS = ('train_step', 'forward_step', 'update_params', 'val_step', 'test_step')  # where the model computes


def run_command(name: str) -> None:
    """Run a command by the name of its module in `mmdet.commands`."""
    run_main(lambda: import_module(f'mmdet.commands.{name}').main())


def run_main(main: Callable[[], Any]) -> None:
    """Run a tool; where the user can mend what is wrong, say that in a few lines and exit with status 1.

    An error inside a step is a bug and keeps its traceback; so does every error when MMDET_TRACEBACK is set.

    Args:
        main: The tool.
    """
    status = 0
    try:
        main()
    except StoppedBySignal as stop:
        status = stop.status
    except Exception as error:
        from mmdet.distributed.heartbeat import explain_lost_ranks, note_end  # loads torch

        told = explain_worker(error)
        of_the_user = isinstance(error, USER_ERRORS) or hasattr(error, 'config_part')
        if told is None and of_the_user and not _inside_a_step(error):
            told = message_of(error)
        lost = explain_lost_ranks(error) if told is None else None
        if lost is None:
            note_end(told or f'{type(error).__name__}: {error}')
        told = told or lost
        if told is None or os.environ.get('MMDET_TRACEBACK'):
            raise
        rank = os.environ.get('RANK', '0')
        where = '' if rank == '0' else f'[process {rank}] '
        print(f'{where}error: {told}\n(MMDET_TRACEBACK=1 shows where)', file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        from mmdet.distributed.heartbeat import note_end

        note_end('interrupted')
        print('interrupted', file=sys.stderr, flush=True)
        raise SystemExit(130) from None
    if 'torch' in sys.modules and sys.modules['torch'].distributed.is_initialized():
        from mmdet.distributed.launch import leave_process_group

        leave_process_group(status)
    if status:
        raise SystemExit(status)


def _inside_a_step(error: BaseException) -> bool:
    """Whether the model was computing."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name in STEPS for frame, _ in frames)


def explain_worker(error: BaseException) -> str | None:
    """What it means that a data worker has ended or does not answer; None for another error."""
    text = f'{error.__cause__ or ""}\n{error}'.strip()  # torch mostly chains what it knows of a worker's end
    if not isinstance(error, RuntimeError) or 'DataLoader' not in text:
        return None
    found = re.search(r'worker process (\d+)|\(pid(?:\(s\))? ([\d, ]+)\)', text)
    worker = f'data worker {found[1] or f"(pid {found[2]})"}' if found else 'no data worker'
    fewer = '--cfg-options train_dataloader.num_workers=1 (likewise val_dataloader, test_dataloader)'
    if 'shared memory' in text:
        return (
            f'{worker} found no room in shared memory: see df -h /dev/shm. Give a container more (docker run '
            f'--ipc=host, or --shm-size=8g), or use fewer workers: {fewer}'
        )
    if 'signal: Killed' in text:
        return (
            f'{worker} was killed: most likely the machine or the container ran out of memory, as dmesg '
            f'then says. Fewer workers need less: {fewer}. So does what waits in /dev/shm, in a container '
            'without --ipc=host. Go on from the last checkpoint with --resume'
        )
    if 'timed out after' in text:
        seconds = re.findall(r'timed out after (\S+) seconds', text)[0]
        return (
            f'{worker} has delivered a batch for {seconds} seconds: does the disk of the images answer? How '
            'long to wait: --cfg-options train_dataloader.timeout=SECONDS, 0 for ever'
        )
    if 'signal:' in text or 'exited unexpectedly' in text:
        return f'{text.splitlines()[0]} (--cfg-options train_dataloader.num_workers=0 shows more)'
    return None


def message_of(error: BaseException) -> str:
    """What an error says, without the traceback of the data worker that raised it."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:  # as the system says it
        text = f'{error.filename}: {error.strerror}. Check the path, and that you may read or write there.'
    if text.startswith('Caught ') and 'Original Traceback' in text:
        parts = re.split(rf'\n(?:\w+\.)*{type(error).__name__}: ', text)  # MODULE.NAME: MESSAGE
        text = parts[-1] if len(parts) > 1 else text.rstrip().splitlines()[-1]
    part = getattr(error, 'config_part', None)  # see `mmdet.config.check.config_context`
    where = f'\n  This is said of {part} in the config (--cfg-options changes it).' if part else ''
    return (text.strip() or type(error).__name__) + where


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every tool that reads a config."""
    parser.add_argument('config', help='config file')
    parser.add_argument('--data-root', help='folder of the data set, stronger than the config')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='change keys of the config: train_cfg.max_iters=10 model.backbone.weights=None',
    )
    parser.add_argument('--options', nargs='+', action=DictAction, help=argparse.SUPPRESS)  # MMDetection 2.x


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every tool that builds a runner."""
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='folder for logs and results; default work_dirs/<config name>')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS
    )  # torch.distributed.launch


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """Argument of the tools that load a checkpoint which the user names."""
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='also read a checkpoint that holds Python objects; this runs code from the file',
    )


def apply_deprecated_args(args: argparse.Namespace) -> None:
    """Move what is accepted under its old name to the new one, with a hint."""
    if args.options is not None:
        hint('--options', '--cfg-options')
        args.cfg_options = {**args.options, **args.cfg_options}
    if getattr(args, 'local_rank', None) is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


def hint(old: str, new: str) -> None:
    """Tell users of MMDetection 2.x what a flag is called now."""
    print(f'note: {old} is now {new}', file=sys.stderr)
