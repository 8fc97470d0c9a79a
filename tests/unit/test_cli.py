"""The command line that all commands share, and what is said of errors."""

import contextlib
import errno
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import time
from multiprocessing import connection, reduction
from pathlib import Path

import pytest
from torch.utils.data import get_worker_info

from mmdet import cli
from mmdet.cli import command_names, explain_worker, run_main
from mmdet.commands import split_coco, test
from mmdet.datasets.transforms.loading import LoadImageFromFile
from tests.helpers.tiny_run import ROOT, be_quick, small_config, train, without_evaluation, write_sets

LOADER = 'torch.utils.data.dataloader._MultiProcessingDataLoaderIter'
OPEN_FILES = 'Too many open files.*ulimit -n 8192'


def die(number):
    os.kill(os.getpid(), number)


def limit(what, lowest=0):
    """As where /dev/shm is full, or too many files are open."""
    resource.setrlimit(what, (lowest, resource.getrlimit(what)[1]))


def limit_open_files():
    with Path(os.devnull).open() as lowest:
        limit(resource.RLIMIT_NOFILE, lowest.fileno())


def refuse(where, name):
    """As where one step on a batch's way to the main process fails."""

    def refused(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    setattr(where, name, refused)


@pytest.mark.parametrize(
    ('fault', 'message'),
    [
        ((die, signal.SIGKILL), r'data worker \(pid PID\) was killed: most likely .* ran out of memory'),
        ((die, signal.SIGBUS), r'data worker \(pid PID\) got no shared memory'),
        ((die, signal.SIGABRT), r'DataLoader worker \(pid PID\) is killed by signal: Aborted'),
        ((time.sleep, 60), r'timed out after 1 seconds: does the disk'),
        ((limit, resource.RLIMIT_FSIZE), r'data worker 0 got no shared memory .*--ipc=host, or --shm-size'),
        ((limit_open_files,), OPEN_FILES),
        ((refuse, reduction, 'send_handle'), OPEN_FILES),
        ((refuse, connection.Listener, 'accept'), OPEN_FILES),
        ((refuse, connection.Connection, '_send'), OPEN_FILES),
    ],
)
def test_a_data_worker_that_ends_or_hangs(tiny_coco, tmp_path, monkeypatch, capfd, fault, message):
    be_quick(monkeypatch)
    # torch waits for five seconds, in two places
    monkeypatch.setattr('torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL', 0.2)
    monkeypatch.setattr(f'{LOADER}._try_get_data.__defaults__', (0.2,))
    monkeypatch.delenv('MMDET_TRACEBACK', raising=False)
    load, (strike, *arguments) = LoadImageFromFile.__call__, fault

    def fail_in_worker(self, results):
        if get_worker_info() is not None and results['img_id'] == 5:
            (tmp_path / 'pid').write_text(str(os.getpid()))
            strike(*arguments)
        return load(self, results)

    monkeypatch.setattr(LoadImageFromFile, '__call__', fail_in_worker)
    patience = 1 if strike is time.sleep else 0
    options = {'train_dataloader__num_workers': 1, 'train_dataloader__timeout': patience}
    cfg = small_config(write_sets(tiny_coco, tmp_path / 'set'), tmp_path / 'run', **options)
    with pytest.raises(SystemExit) as caught:
        run_main(lambda: train(without_evaluation(cfg)))
    assert caught.value.code == 1
    for worker in multiprocessing.active_children():
        with contextlib.suppress(RuntimeError):  # torch's, when a worker ends
            worker.kill()
            worker.join()
        worker.join()
    said = capfd.readouterr().err
    assert re.search(message.replace('PID', (tmp_path / 'pid').read_text()), said)
    assert 'train_dataloader.' in said
    assert 'Traceback' not in said.split('error: ')[-1]


def test_an_end_that_torch_does_not_chain_is_told_all_the_same():
    told = explain_worker(RuntimeError('DataLoader worker (pid 4711) is killed by signal: Aborted. '))
    assert told is not None
    assert told.startswith('DataLoader worker (pid 4711) is killed by signal: Aborted')


WORKER = (
    'Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n'
    '  File "x.py", line 1\nValueError: 3.jpg is truncated\n  remove it\n'
)


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        (ValueError('not JSON'), 'error: not JSON\n'),
        (ValueError(WORKER), 'error: 3.jpg is truncated\n  remove it\n'),
        (KeyError('no such key'), 'error: no such key\n'),
        (
            NotADirectoryError(20, 'Not a directory', 'a/b'),
            'error: a/b: Not a directory. Check the path',
        ),
    ],
)
def test_what_a_user_can_mend_is_told_without_a_traceback(error, said, capsys, monkeypatch):
    monkeypatch.delenv('MMDET_TRACEBACK', raising=False)

    def reading():
        raise error

    with pytest.raises(SystemExit) as end:
        run_main(reading)
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith(said)
    monkeypatch.setenv('MMDET_TRACEBACK', '1')
    with pytest.raises(type(error)):
        run_main(reading)


def test_bugs_keep_their_traceback():
    def train_step():
        raise ValueError('shapes')

    with pytest.raises(ValueError, match='shapes'):
        run_main(train_step)


ASK_EACH = """
import contextlib, io, sys
from mmdet import cli
for name in sys.argv[1:]:
    for words, status in ((['--help'], 0), (['--no-such-option'], 2)):
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                cli.main([name, *words])
        except SystemExit as end:
            assert (end.code or 0) == status, (name, words, said.getvalue())
        assert said.getvalue().startswith(f'usage: distill-det {name} ['), said.getvalue()
print(sorted({'torch', 'cv2', 'mmengine', 'numpy'} & set(sys.modules)))
"""


def test_help_and_refused_arguments_of_every_command_load_no_library():
    names = sorted(command_names())
    done = subprocess.run(
        [sys.executable, '-c', ASK_EACH, *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == '[]\n'


def test_help_of_the_tool_takes_less_than_a_second():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(ROOT / 'tools/train.py'), '--help']
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.startswith('usage: train.py [-h]')
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize(
    ('words', 'unbuffered'), [('--help', ''), ('--help', '1'), ('train --help', ''), ('configs', '1')]
)
def test_a_command_whose_reader_has_gone_ends_as_other_tools_do(words, unbuffered, tmp_path, monkeypatch):
    """As `distill-det --help | head -1`, here from any folder and without an installed script."""
    monkeypatch.setenv('PYTHONUNBUFFERED', unbuffered)
    command = [sys.executable, ROOT / 'mmdet/__main__.py', *words.split()]
    with subprocess.Popen(command, stdout=-1, stderr=-1, cwd=tmp_path) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (128 + signal.SIGPIPE, b'')


def test_distill_det_lists_its_commands_and_knows_what_is_meant(capsys):
    for words in ([], ['--help']):
        cli.main(words)
        said = capsys.readouterr().out
        assert re.search(r'^  train +Train the model of a config\.$', said, re.MULTILINE)
        assert re.search(r'^  print-config +Print a config as', said, re.MULTILINE)
    for word, words in (('trian', 'did you mean train?'), ('zzz', 'see distill-det --help')):
        with pytest.raises(SystemExit) as end:
            cli.main([word])
        assert end.value.code == 2
        assert words in capsys.readouterr().err
    assert "'distill-det=mmdet.cli:main'" in (ROOT / 'setup.py').read_text()


def test_options_of_mmdetection_2_are_renamed_or_answered(capsys):
    parser = cli.make_parser('')
    cli.add_common_arguments(parser)
    args = cli.parse(parser, ['a.py', '--options', 'a.b=1', '--local_rank=0', '--cfg-options', 'c=2'])
    assert args.cfg_options == {'a.b': 1, 'c': 2}
    assert capsys.readouterr().err == 'note: --options is now --cfg-options\n'
    with pytest.raises(SystemExit):
        cli.parse(parser, ['a.py', '--gpus', '2'])
    assert '--gpus is removed: bash tools/dist_train.sh' in capsys.readouterr().err


@pytest.mark.parametrize('status', [0, 3])
def test_an_integer_that_a_command_returns_is_its_exit_status(status):
    with pytest.raises(SystemExit) if status else contextlib.nullcontext() as end:
        run_main(lambda: status)
    assert end is None or end.value.code == status


@pytest.mark.parametrize(
    ('parse_args', 'typed', 'meant'),
    [
        (test.parse_args, ['configs/ssd/ssd300.py', 'x.pth', '--data_rot', 'x'], '--data-root'),
        (split_coco.parse_args, ['all.json', 'out', '--sed', '3'], '--seed'),
    ],
)
def test_a_mistyped_option_gets_a_suggestion(capsys, parse_args, typed, meant):
    with pytest.raises(SystemExit):
        parse_args(typed)
    assert f'{" ".join(typed[-2:])}; did you mean {meant}?' in capsys.readouterr().err
