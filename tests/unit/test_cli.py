"""Data workers that end or do not answer, in a real training: what is said of them."""

import os
import re
import signal
import time

import pytest
from torch.utils.data import get_worker_info

from mmdet.cli import explain_worker, run_main
from mmdet.datasets.transforms.loading import LoadImageFromFile
from tests.helpers.tiny_run import be_quick, small_config, train, without_evaluation, write_sets


@pytest.mark.parametrize(
    ('fault', 'message'),
    [
        (signal.SIGKILL, r'data worker \(pid PID\) was killed: most likely .* ran out of memory'),
        (signal.SIGBUS, r'data worker \(pid PID\) found no room in shared memory'),
        (signal.SIGABRT, r'DataLoader worker \(pid PID\) is killed by signal: Aborted'),
        (None, r'no data worker has delivered a batch for 1 seconds'),
    ],
)
def test_a_data_worker_that_ends_or_hangs(tiny_coco, tmp_path, monkeypatch, capfd, fault, message):
    be_quick(monkeypatch)
    monkeypatch.delenv('MMDET_TRACEBACK', raising=False)
    load = LoadImageFromFile.__call__

    def fail_in_worker(self, results):
        if get_worker_info() is not None and results['img_id'] == 5:
            (tmp_path / 'pid').write_text(str(os.getpid()))
            if fault is None:
                time.sleep(1000)
            os.kill(os.getpid(), fault)
        return load(self, results)

    monkeypatch.setattr(LoadImageFromFile, '__call__', fail_in_worker)
    options = {'train_dataloader__num_workers': 1, 'train_dataloader__timeout': 0 if fault else 1}
    cfg = small_config(write_sets(tiny_coco, tmp_path / 'set'), tmp_path / 'run', **options)
    with pytest.raises(SystemExit) as caught:
        run_main(lambda: train(without_evaluation(cfg)))
    assert caught.value.code == 1
    said = capfd.readouterr().err
    assert re.search(message.replace('PID', (tmp_path / 'pid').read_text()), said)
    assert 'train_dataloader.' in said
    assert 'Traceback' not in said.split('error: ')[-1]


def test_an_end_that_torch_does_not_chain_is_told_all_the_same():
    told = explain_worker(RuntimeError('DataLoader worker (pid 4711) is killed by signal: Aborted. '))
    assert told is not None
    assert told.startswith('DataLoader worker (pid 4711) is killed by signal: Aborted')


def test_what_the_system_refuses_is_told_with_file_and_remedy(tmp_path, capfd):
    (tmp_path / 'file').write_text('')
    with pytest.raises(SystemExit):
        run_main((tmp_path / 'file/below').mkdir)
    said = capfd.readouterr().err
    assert said.startswith(f'error: {tmp_path}/file/below: Not a directory. Check the path, and that you may')
