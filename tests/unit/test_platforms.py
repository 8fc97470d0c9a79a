"""macOS and Windows, as far as Linux can act them."""

import os
import shutil
import subprocess
import sys

from tests.helpers.tiny_run import ROOT, write_sets

# What those lack is taken away once the libraries, which know their platform, are loaded.
BLIND = """
if __name__ == '__main__':
    import importlib, multiprocessing, os, pathlib, pkgutil, platform, shutil, signal, sys
    from multiprocessing import resource_tracker
    from torch.utils.data._utils import signal_handling
    import matplotlib.pyplot, mmengine.runner, torch, torch.distributed, torch.utils.tensorboard, torchvision
    for name in ('fcntl', 'grp', 'pwd', 'resource', 'termios'):
        sys.modules[name] = None
    for name in ('SIGALRM', 'SIGBUS', 'SIGCHLD', 'SIGHUP', 'SIGKILL', 'SIGUSR1', 'pthread_sigmask'):
        delattr(signal, name)
    for name in ('getpgid', 'killpg', 'nice', 'sched_getaffinity', 'setsid', 'statvfs'):
        delattr(os, name)
    def refuse(*_, **__):
        raise OSError('a required privilege is not held by the client')
    pathlib.Path.symlink_to, open_any = refuse, os.open
    def open_file(path, *how, **named):
        if os.path.isdir(path):
            raise PermissionError(13, 'Permission denied', path)
        return open_any(path, *how, **named)
    os.open, shutil._use_fd_functions = open_file, False
    resource_tracker._HAVE_SIGMASK, signal_handling.IS_WINDOWS = False, True
    multiprocessing.set_start_method('spawn')
    platform.system = lambda: 'Windows'  # MMEngine asks
    import mmdet
    for module in pkgutil.walk_packages(mmdet.__path__, 'mmdet.'):
        importlib.import_module(module.name)
    from mmdet.cli import run_main
    from mmdet.commands import test, train
    import pytest
    from tests.helpers.tiny_run import PLAIN, as_arguments, be_quick, options_of
    be_quick(pytest.MonkeyPatch())
    root, work_dir = sys.argv[1:]
    typed = [str(PLAIN), '--data-root', root, '--work-dir', work_dir]
    options = as_arguments(options_of(train_dataloader__num_workers=1))
    run_main(lambda: train.main([*typed, '--no-validate', *options]))
    run_main(lambda: test.main([*typed[:1], f'{work_dir}/latest.pth', *typed[1:], *options]))
"""


def test_what_other_systems_lack_is_not_needed(tiny_coco, tmp_path):
    """All is imported; a run trains with a worker that is spawned, saves and is tested."""
    script = tmp_path / 'blind.py'
    script.write_text(BLIND)
    root = write_sets(tiny_coco, tmp_path / 'set')
    done = subprocess.run(
        [sys.executable, str(script), str(root), str(tmp_path / 'run')],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'coco/bbox_mAP:' in done.stdout + done.stderr
    assert (tmp_path / 'run/latest.pth').is_file()
    assert not (tmp_path / 'run/latest.pth').is_symlink()


def test_scripts_keep_their_line_ends_in_a_checkout_for_windows(tmp_path):
    (tmp_path / 'a.sh').write_bytes(b'true\n')
    (tmp_path / 'b.txt').write_bytes(b'true\n')
    shutil.copy(ROOT / '.gitattributes', tmp_path)
    git = ['git', '-C', str(tmp_path), '-c', 'core.autocrlf=true']
    for words in (['init', '-q'], ['add', '.'], ['checkout-index', '-a', '--prefix=out/']):
        subprocess.run([*git, *words], check=True, capture_output=True)
    assert (tmp_path / 'out/b.txt').read_bytes() == b'true\r\n'
    assert (tmp_path / 'out/a.sh').read_bytes() == b'true\n'
