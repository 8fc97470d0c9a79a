"""tools/train.py and its launchers, as users call them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from mmengine.config import Config

from mmdet.checkpoint.io import load_checkpoint, save_checkpoint
from mmdet.commands.train import configure, main, parse_args
from tests.helpers.forked import free_port
from tests.helpers.tiny_run import as_arguments, options_of, write_sets

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / 'configs/ssd/ssd_tiny.py'


@pytest.fixture
def run(tmp_path):
    """Runs a command in `tmp_path`; returns exit status and output."""

    def call(*command, **environment):
        env = {**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', **environment}
        env.pop('MMDET_TRACEBACK', None)
        return subprocess.run(
            [str(word) for word in command],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return call


@pytest.mark.long  # three processes that import torch
def test_two_processes_train_evaluate_and_resume(run, tiny_coco, tmp_path, monkeypatch):
    root = write_sets(tiny_coco, tmp_path / 'set', images=8)
    (root / 'train/5.jpg').write_bytes(b'')
    given = {'train_dataloader.dataset.on_bad_image': 'skip', 'default_hooks.curves': {'type': 'CurvesHook'}}
    options = as_arguments(options_of(train_cfg__max_iters=2, **given))
    script = ROOT / 'tools/dist_train_cls_loc.sh'
    result = run('bash', script, CONFIG, 2, '--data-root', root, *options, PORT=str(free_port()))
    assert result.returncode == 0, result.stderr
    assert f'warning: {CONFIG} has no model.distiller' in result.stderr
    work_dir = tmp_path / 'work_dirs/ssd_tiny'
    lines = [line for line in result.stdout.splitlines() if 'Epoch(train)' in line]
    assert len(lines) == 2  # one process writes
    assert all(re.search(r'eta: .*loss_cls: \d.*loss_bbox: \d.*images/s: \d', line) for line in lines)
    assert 'coco/bbox_mAP' in result.stdout
    checkpoint = load_checkpoint(work_dir / 'latest.pth')
    assert checkpoint['meta']['batch_in_epoch'] == 0  # 8 images, 2 processes x 2
    assert len(checkpoint['rng']) == 2
    (bad,) = json.loads((work_dir / 'bad_data.json').read_text())['images']  # whichever process met it
    assert (bad['split'], bad['img_id']) == ('train', 5)
    assert bad['file'].endswith('train/5.jpg')
    for name in ('curves.png', 'ssd_tiny.py'):
        assert (work_dir / name).is_file()
    monkeypatch.chdir(tmp_path)
    more = ['--resume', '--no-validate', *options, 'train_cfg.max_iters=3']
    main([str(CONFIG), '--data-root', str(root), *more])
    assert load_checkpoint(work_dir / 'latest.pth')['meta']['iter'] == 3
    log = ''.join(file.read_text() for file in work_dir.rglob('*.log'))
    assert 'resumed after 1 epochs and 0 batches, 2 iterations' in log


@pytest.mark.parametrize('resume', [False, True])
def test_a_used_work_dir_is_told_beforehand(tiny_coco, tmp_path, monkeypatch, capsys, resume):
    root = write_sets(tiny_coco, tmp_path / 'set')
    said = []

    def build(*_):
        said.append(capsys.readouterr().err)
        return Mock()

    monkeypatch.setattr('mmdet.engine.DetRunner.from_cfg', build)
    for name in ('epoch_1.pth', 'latest.pth', 'model_best.pth.tar'):  # the hook keeps the last one
        (tmp_path / name).touch()
    words = ['--data-root', str(root), '--work-dir', str(tmp_path), *['--resume'] * resume]
    main([str(CONFIG), *words, *as_arguments(options_of())])
    assert (f'{tmp_path} holds epoch_1.pth, latest.pth of an earlier run' in said[0]) == (not resume)


def arguments(*words):
    return parse_args([str(CONFIG), *words])


@pytest.mark.parametrize(
    ('resume', 'start', 'ours', 'goes_on'),
    [
        (None, 0, False, None),
        (None, 1, False, None),  # died before its first checkpoint
        (None, 1, True, 'latest'),
        ('latest', 0, True, 'latest'),
        ('other.pth', 0, False, 'other.pth'),
        ('other.pth', 1, False, 'other.pth'),
        ('other.pth', 1, True, 'latest'),
        (None, 0, True, ValueError),
        ('other.pth', 0, True, ValueError),
    ],
)
def test_where_a_restart_goes_on(tmp_path, monkeypatch, resume, start, ours, goes_on):
    """From a checkpoint in the work dir, which held none when the run began, unless --resume was given."""
    monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', '2')
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', str(start))
    if ours:
        meta = dict.fromkeys(('epoch', 'iter', 'batch_in_epoch', 'samples_per_step', 'seed'), 1)
        state = {'state_dict': {'weight': torch.zeros(1)}, 'optimizer': {}, 'param_schedulers': [], 'rng': []}
        save_checkpoint({'meta': meta, **state}, tmp_path / 'iter_1.pth')
    words = [] if resume is None else ['--resume', resume]
    args = arguments('--work-dir', str(tmp_path), *words)
    cfg = Config({'train_cfg': {}, 'optim_wrapper': {}, 'load_from': 'start.pth'})
    if goes_on is ValueError:
        with pytest.raises(ValueError, match=r'iter_1\.pth, which another run has written.*--resume'):
            configure(cfg, args)
        return
    cfg = configure(cfg, args)
    assert cfg.get('resume', False) == {'latest': 'latest', None: False}.get(goes_on, True)
    assert cfg.load_from == (goes_on if goes_on == 'other.pth' else 'start.pth')


def test_arguments_reach_the_config():
    def configured(*words):
        return configure(Config.fromfile(CONFIG), arguments(*words))

    cfg = configured()
    assert cfg.work_dir == 'work_dirs/ssd_tiny'
    assert not cfg.resume
    cfg = configured('--resume', '--work-dir', 'w', '--seed', '7', '--deterministic', '--amp')
    assert (cfg.resume, cfg.load_from, cfg.work_dir) == ('latest', None, 'w')
    assert cfg.randomness == {'seed': 7, 'deterministic': True}
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert 'dtype' not in cfg.optim_wrapper
    assert 'channels_last' not in cfg
    assert configured('--channels-last').channels_last
    cfg = configured('--resume-from', 'a.pth', '--amp', '--amp-dtype', 'float16', '--no-validate')
    assert (cfg.resume, cfg.load_from) == (True, 'a.pth')
    assert cfg.optim_wrapper.dtype == 'float16'
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None
    with pytest.raises(ValueError, match='--amp-dtype goes with --amp'):
        configured('--amp-dtype', 'float16')
    with pytest.raises(ValueError, match='base_batch_size'):
        configured('--auto-scale-lr')
    ssd300 = ROOT / 'configs/ssd/ssd300.py'
    cfg = configure(Config.fromfile(ssd300), parse_args([str(ssd300), '--auto-scale-lr']))
    assert cfg.auto_scale_lr == {'enable': True, 'base_batch_size': 64}


def test_torchrun_needs_no_launcher(monkeypatch):
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert configure(Config.fromfile(CONFIG), arguments()).launcher == 'pytorch'


# As `python`, which sees GPUS cards, and as `srun`: prints what it is told, and some of its environment.
STAND_IN = """#!/usr/bin/env bash
if [ "$1" = -c ]; then case "$2" in *device_count*) echo $GPUS_SEEN;; *99999*) exit 1;; esac; exit 0; fi
printf "%s\\n" "$@"; env | grep -E "^(OMP_NUM_THREADS|MASTER_PORT|PYTHONPATH)=" | sort; exit 3
"""
NODES = {'GPUS_SEEN': '8', 'PORT': '1234', 'NNODES': '2', 'NODE_RANK': '1', 'MAX_RESTARTS': '3'}
SLURM = {'GPUS_SEEN': '0', 'GPUS': '16', 'SRUN_ARGS': '--qos=a --time=1'}
OF_SLURM = [
    *('--partition=part', '--job-name=job', '--gres=gpu:8', '--ntasks=16', '--ntasks-per-node=8'),
    *('--cpus-per-task=5', '--kill-on-bad-exit=1', '--qos=a', '--time=1'),
]
TEST_WORDS = ['a config.py', 'c.pth', '4', '--cfg-options', 'a=b c']


@pytest.mark.parametrize(
    ('script', 'words', 'environment', 'status', 'said'),
    [
        ('dist_test.sh', TEST_WORDS, NODES, 2, ['NNODES=2 needs NODE_RANK, from 0 on, and MASTER_ADDR']),
        (
            'dist_test.sh',
            TEST_WORDS,
            {**NODES, 'MASTER_ADDR': '10.0.0.1', 'OMP_NUM_THREADS': '3'},
            3,  # exit status of what was launched
            [
                *('-m', 'torch.distributed.run', '--nnodes=2', '--node_rank=1', '--master_addr=10.0.0.1'),
                *('--master_port=1234', '--nproc_per_node=4', '--max_restarts=3', f'{ROOT}/tools/test.py'),
                *('a config.py', 'c.pth', '--launcher', 'pytorch', '--cfg-options', 'a=b c'),
                *('OMP_NUM_THREADS=3', f'PYTHONPATH={ROOT}'),
            ],
        ),
        (
            'dist_train.sh',
            ['c.py', '--seed', '1'],
            {'OMP_NUM_THREADS': ''},
            3,
            [
                *('--nproc_per_node=2', '--max_restarts=0', f'{ROOT}/tools/train.py', 'c.py'),
                *('--launcher', 'pytorch', '--seed', '1'),
                f'OMP_NUM_THREADS={max(1, len(os.sched_getaffinity(0)) // 2)}',
            ],
        ),
        ('dist_train.sh', ['c.py', '3'], {}, 2, ['3 processes on a machine with 2 GPUs']),
        ('dist_train.sh', [], {}, 2, ['usage: dist_train.sh CONFIG [N]']),
        ('dist_train.sh', ['c.py'], {'PORT': '1x'}, 2, ['PORT=1x is not a whole number']),
        ('dist_train.sh', ['c.py'], {'NODE_RANK': '1'}, 2, ['NODE_RANK=1 must be below NNODES=1']),
        ('dist_train.sh', ['c.py'], {'PORT': '99999', 'GPUS_SEEN': ''}, 2, ['set PORT to another']),
        ('slurm_train.sh', ['p', 'j', 'c.py', 'w'], {'GPUS': 'all'}, 2, ['GPUS=all is not a whole number']),
        (
            'slurm_train.sh',
            ['p', 'j', 'c.py', 'w'],
            {'GPUS': '4', 'GPUS_PER_NODE': '8'},
            2,
            ['GPUS_PER_NODE=8'],
        ),
        (
            'slurm_train.sh',
            ['part', 'job', 'c.py', 'work', '--seed', '1'],
            SLURM,
            3,
            [f'{ROOT}/tools/train.py', 'c.py', '--work-dir', 'work', '--seed', '1', '--launcher', 'slurm'],
        ),
        (
            'slurm_test.sh',
            ['part', 'job', 'c.py', 'c.pth', '--classwise'],
            SLURM,
            3,
            [f'{ROOT}/tools/test.py', 'c.py', 'c.pth', '--classwise', '--launcher', 'slurm'],
        ),
    ],
)
def test_what_the_launchers_start(run, tmp_path, script, words, environment, status, said):
    for name in ('python', 'srun'):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    here = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'PYTHON': str(tmp_path / 'python'), 'GPUS_SEEN': '2'}
    done = run('bash', ROOT / 'tools' / script, *words, **{**here, **environment})
    assert done.returncode == status, done.stderr
    assert '\n'.join(said) in done.stdout + done.stderr
    if environment is SLURM:
        assert done.stdout.startswith('\n'.join(OF_SLURM))
        assert 'MASTER_PORT=29500' in done.stdout
