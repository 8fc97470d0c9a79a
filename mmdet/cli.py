"""Run a command, parse its arguments, explain its errors. Imports no torch."""

import argparse
import ast
import contextlib
import difflib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mmdet.config.options import DictAction, parse_value
from mmdet.distributed.signals import StoppedBySignal
from mmdet.files import suggest

# What reading configs, checkpoints and data raises for a user to act on, and a loss that is not finite.
USER_ERRORS = (ArithmeticError, ImportError, LookupError, OSError, SyntaxError, TypeError, ValueError)

RECEIVE = '_try_get_data'  # where torch's loader gets a batch of a worker
CUT_OFF = (EOFError, ConnectionError)  # what it sees of a worker that ends meanwhile
STEPS = ('train_step', 'forward_step', 'update_params', 'val_step', 'test_step')  # where the model computes

FEWER = '--cfg-options train_dataloader.num_workers=1 (likewise val_dataloader, test_dataloader)'
OPEN_FILES = 'Too many open files'  # as every system says it
WORKER_FAULTS = {  # pattern in torch's message -> what to say
    OPEN_FILES: 'Too many open files: ulimit -n shows the limit, and ulimit -n 8192 raises it (for a '
    f'container: docker run --ulimit nofile=8192). Fewer workers need less: {FEWER}',
    'shared memory|/torch_|Bus error': '{worker} got no shared memory ({said}): see df -h /dev/shm. Give a '
    f'container more (docker run --ipc=host, or --shm-size=8g), or use fewer workers: {FEWER}',
    'signal: Killed': '{worker} was killed: most likely the machine or the container ran out of memory, as '
    f'dmesg then says. Fewer workers need less: {FEWER}. So does what waits in /dev/shm, in a container '
    'without --ipc=host. Go on from the last checkpoint with --resume',
    'timed out after': '{said}: does the disk of the images answer? How long to wait for a batch: '
    '--cfg-options train_dataloader.timeout=SECONDS, 0 for ever',
    'signal:': '{said} (--cfg-options train_dataloader.num_workers=0 shows more)',
    'exited unexpectedly': '{said} (see what it printed above: if that is "Too many open files", ulimit -n '
    '8192 raises the limit; --cfg-options train_dataloader.num_workers=0 shows more)',
}
BROKEN_PIPE = 128 + 13  # exit status, as a shell reports SIGPIPE
HEARTBEAT = 'mmdet.distributed.heartbeat'  # loads torch

DEPRECATED_OPTIONS = {  # of MMDetection 2.x: what they are called now, or what to do in their place
    '--options': '--cfg-options',
    '--resume-from': '--resume',
    '--eval-options': 'removed: --classwise gives the AP of every class, --out FILE.json writes detections',
    '--gpus': 'removed: bash tools/dist_train.sh CONFIG N starts N processes, one a GPU',
    '--gpu-ids': 'removed: the variable CUDA_VISIBLE_DEVICES chooses GPUs',
    '--gpu-collect': 'removed: leave it out',
    '--autoscale-lr': '--auto-scale-lr',
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run `distill-det COMMAND ...`; without a command, list them."""
    name, *words = (sys.argv[1:] if argv is None else argv) or ['--help']
    known = command_names()
    if name in ('-h', '--help'):
        run_main(lambda: _list(known))
        return
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f'did you mean {near[0]}?' if near else 'see distill-det --help'
        print(f'distill-det: there is no command {name}; {advice}', file=sys.stderr)
        raise SystemExit(2)
    sys.argv = [f'distill-det {name}', *words]  # argparse takes the name of the program from it
    run_command(known[name].stem)


def command_names() -> dict[str, Path]:
    """Find the commands: name on the command line -> file of the module."""
    files = sorted(Path(__file__).with_name('commands').glob('[!_]*.py'))
    return {file.stem.replace('_', '-'): file for file in files}


def _list(commands: dict[str, Path]) -> None:
    width = max(map(len, commands)) + 2
    print('usage: distill-det COMMAND [--help | arguments of the command]\n')
    print('\n'.join(f'  {name:<{width}}{_first_line(file)}' for name, file in commands.items()))


def _first_line(file: Path) -> str:
    """Read the first line of a module's docstring without importing the module."""
    return (ast.get_docstring(ast.parse(file.read_text(encoding='utf-8'))) or '').partition('\n')[0]


def run_command(name: str) -> None:
    """Run a command by the name of its module in `mmdet.commands`."""
    run_main(lambda: import_module(f'mmdet.commands.{name}').main())


def run_main(main: Callable[[], Any]) -> None:
    """Run a command; explain an error that its user can mend in a few lines, with exit status 1.

    An error inside a step is a bug and keeps its traceback; so does every error when MMDET_TRACEBACK is set.

    Args:
        main: The command. What it returns is the exit status if it is an integer.
    """
    try:
        returned = main()
        status = returned if isinstance(returned, int) else 0
    except StoppedBySignal as stop:
        status = stop.status
    except Exception as error:
        _flush(error)
        told = _explain(error)
        if told is None or os.environ.get('MMDET_TRACEBACK'):
            raise
        rank = os.environ.get('RANK', '0')
        where = '' if rank == '0' else f'[process {rank}] '
        print(f'{where}error: {told}\n(MMDET_TRACEBACK=1 shows where)', file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt as error:
        if HEARTBEAT in sys.modules:
            sys.modules[HEARTBEAT].note_end(error, 'interrupted')
        print('interrupted', file=sys.stderr, flush=True)
        raise SystemExit(130) from None
    finally:
        _flush()
    if 'torch' in sys.modules and sys.modules['torch'].distributed.is_initialized():
        from mmdet.distributed.launch import leave_process_group

        leave_process_group(status)
    if status:
        raise SystemExit(status)


def _flush(error: Exception | None = None) -> None:
    """Write out what was printed; end quietly where nobody reads it any more, as in front of `| head`.

    Args:
        error: What has ended the command, perhaps a `print` of ours that was not buffered.
    """
    with contextlib.suppress(OSError):  # of a full disk, told at exit
        try:
            if isinstance(error, BrokenPipeError):
                last = traceback.extract_tb(error.__traceback__)[-1].filename
                if Path(last).is_relative_to(Path(__file__).parent):
                    raise error
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushed once more at exit
            raise SystemExit(BROKEN_PIPE) from None


def _explain(error: Exception) -> str | None:
    """Explain an error to the user, and tell the other processes; None: it is a bug."""
    told = explain_worker(error)
    if told is None and isinstance(error, USER_ERRORS) and not _inside(STEPS, error):
        told = message_of(error)
    heartbeat = sys.modules.get(HEARTBEAT)  # loaded where there are other processes
    if heartbeat is not None:
        lost = heartbeat.explain_lost_ranks(error) if told is None else None
        if lost is None:
            heartbeat.note_end(error, told or f'{type(error).__name__}: {error}')
        told = told or lost
    return told


def _inside(functions: Sequence[str], error: BaseException) -> bool:
    """Tell whether an error was raised in one of these functions, or in what they call."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name in functions for frame, _ in frames)


def explain_worker(error: BaseException) -> str | None:
    """Explain why a data worker has ended, does not answer or cannot send; None for another error."""
    text = f'{error.__cause__ or ""}\n{error}'.strip()  # torch mostly chains what it knows of a worker's end
    if isinstance(error.__cause__ or error, CUT_OFF) and _inside((RECEIVE,), error):
        # it was killed while it sent a batch, or cannot open what it is to send
        text = _killed_worker(error) or OPEN_FILES
    told = [told for pattern, told in WORKER_FAULTS.items() if re.search(pattern, text)]
    of_worker = isinstance(error, (RuntimeError, *CUT_OFF)) and re.search('DataLoader|Pin memory', text)
    if not told or not (of_worker or OPEN_FILES in text):
        return None
    found = re.search(r'worker process (\d+)|\(pid(?:\(s\))? ([\d, ]+)\)', text)
    worker = f'data worker {found[1] or f"(pid {found[2]})"}' if found else 'a data worker'
    return told[0].format(worker=worker, said=text.splitlines()[-1 if text.startswith('Caught ') else 0])


def _killed_worker(error: BaseException) -> str:
    """Say which data worker was killed by a signal, as torch does where it notices in time; '' for none."""
    from multiprocessing.connection import wait

    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    loader = next(frame.f_locals['self'] for frame in frames if frame.f_code.co_name == RECEIVE)
    with contextlib.suppress(RuntimeError):  # torch's, which notices now
        wait([worker.sentinel for worker in loader._workers], timeout=0.5)
    for worker in loader._workers:
        if (worker.exitcode or 0) < 0:
            said = signal.strsignal(-worker.exitcode)
            return f'DataLoader worker (pid {worker.pid}) is killed by signal: {said}'
    return ''


def message_of(error: BaseException) -> str:
    """Extract the message of an error, without the traceback of the data worker that raised it."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:  # as the system says it
        near = suggest(error.filename) if isinstance(error, FileNotFoundError) else ''
        text = (
            f'{error.filename}: {error.strerror}.{near} Check the path, and that you may read or write there.'
        )
    if text.startswith('Caught ') and 'Original Traceback' in text:
        parts = re.split(rf'\n(?:\w+\.)*{type(error).__name__}: ', text)  # MODULE.NAME: MESSAGE
        text = parts[-1] if len(parts) > 1 else text.rstrip().splitlines()[-1]
    return text.strip() or type(error).__name__


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Make the parser of a command; its help is the docstring of the module."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line in which options may have the names of MMDetection 2.x; those get a hint."""
    words = list(sys.argv[1:] if argv is None else argv)
    for index, word in enumerate(words):
        old, equals, value = word.partition('=')
        new = DEPRECATED_OPTIONS.get(old, '--')
        if not new.startswith('--'):
            parser.error(f'{old} is {new}')
        if new != '--':
            print(f'note: {old} is now {new}', file=sys.stderr)
            words[index] = f'{new}{equals}{value}'
    args, unknown = parser.parse_known_args(words)
    if unknown:
        options = [option for action in parser._actions for option in action.option_strings]
        near = difflib.get_close_matches(unknown[0].partition('=')[0], options, n=1)
        advice = f'did you mean {near[0]}?' if near else 'see --help'
        parser.error(f'unrecognized arguments: {" ".join(unknown)}; {advice}')
    return args


def not_negative(text: str, least: int = 0) -> int:
    """Parse the value of an option that counts something."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f'{text} is not a whole number of at least {least}')
    return int(text)


def positive(text: str) -> int:
    """Parse the value of an option that counts something of which there is at least one."""
    return not_negative(text, 1)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that reads a config."""
    parser.add_argument('config', help='config file')
    parser.add_argument('--data-root', help='data set folder; overrides data_root of the config')
    add_config_options(parser)


def add_config_options(
    parser: argparse.ArgumentParser,
    option: str = '--cfg-options',
    what: str = 'override keys of the config: train_cfg.max_iters=10 model.backbone.weights=None',
) -> None:
    """Add `--cfg-options`, or another option that changes keys of a config."""
    parser.add_argument(option, nargs='+', action=DictAction, default={}, metavar='KEY=VALUE', help=what)


def add_short_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training that set all keys that belong together, see mmdet/config/schedule.py."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        '--epochs', type=int, metavar='N', help='length of the training; the schedule is stretched to match'
    )
    length.add_argument('--iters', type=int, metavar='N', help='the same in iterations')
    parser.add_argument(
        '--batch-size', type=int, metavar='N', help='images per process and step; scales the learning rate'
    )
    parser.add_argument('--lr', type=float, help='learning rate, not scaled with the batch size')
    parser.add_argument('--input-size', metavar='W[xH]', help='network input in pixels; SSD anchors adapt')


def short_options(args: argparse.Namespace) -> dict[str, Any]:
    """Translate `add_short_options` into keys of the config."""
    given = {key: getattr(args, key) for key in ('epochs', 'iters', 'batch_size', 'lr')}
    if args.input_size is not None:
        sides = [parse_value(side) for side in re.split('[x,]', args.input_size.lower())]
        given['input_size'] = sides * 2 if len(sides) == 1 else sides
    return {key: value for key, value in given.items() if value is not None}


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that builds a runner."""
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='folder for logs and results; default work_dirs/<config name>')
    add_launcher_argument(parser)
    add_trust_argument(parser)


def add_launcher_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument of the commands that share their work among processes, see `choose_launcher`."""
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        help='how processes were started; default: pytorch under torchrun, else none',
    )
    # given by torch.distributed.launch, which says the same in the environment
    parser.add_argument('--local_rank', '--local-rank', help=argparse.SUPPRESS)


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument of the commands that load a checkpoint which the user names."""
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='read a checkpoint that holds Python objects, too; this runs code from the file',
    )


def usable_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def make_progress() -> Any:
    """Make a progress bar on stderr, with the remaining time and M/N."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    return Progress(*columns, console=Console(stderr=True))


def default_work_dir(config: str) -> Path:
    """Name the folder of the results of a config: work_dirs/<config name>."""
    return Path('work_dirs', Path(config).stem)
