"""Checkpoints at the tools: refused in a few lines, trusted on request; and what our own files hold."""

import io
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch

from mmdet.apis import init_detector
from mmdet.checkpoint.io import load_checkpoint
from mmdet.commands import test as test_tool
from tests.helpers.tiny_run import (
    CLASSES,
    PLAIN,
    ROOT,
    as_arguments,
    be_quick,
    options_of,
    save_teacher,
    small_config,
    train,
    write_sets,
)
from tests.unit.checkpoint.test_safety import WEIGHTS, Call, other_formats, records_of


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    be_quick(monkeypatch)


class Harmless:
    """An object of a class, as old training scripts left them."""


def test_trusted_checkpoints_are_read_on_request(tiny_coco, tmp_path, quick, capsys):
    root = write_sets(tiny_coco, tmp_path / 'set', images=2)
    model = init_detector(PLAIN, None, 'cpu', options_of(**{'model__bbox_head__num_classes': 3}))
    file = tmp_path / 'old.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {'history': Harmless(), 'CLASSES': CLASSES}}, file)
    arguments = [str(PLAIN), str(file), '--data-root', str(root), '--work-dir', str(tmp_path / 'test')]
    options = as_arguments(options_of())
    with pytest.raises(ValueError, match=r'Harmless(?s:.*)python -m mmdet(?s:.*)--trust-checkpoint'):
        test_tool.main([*arguments, *options])
    with pytest.warns(UserWarning, match=r'old\.pth is trusted: code inside it runs'):
        numbers = test_tool.main([*arguments, '--trust-checkpoint', *options])
    assert 'coco/bbox_mAP' in numbers
    with pytest.raises(ValueError, match='Harmless'):
        init_detector(PLAIN, file, 'cpu', options_of())
    with pytest.warns(UserWarning, match='code inside it runs'):
        init_detector(PLAIN, file, 'cpu', options_of(), trust_checkpoint=True)
    file.write_bytes(pickle.dumps(Call(os.system, 'true')).replace(b'posix', b'absnt'))
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match=r'objects of a package that is absent.*absnt'),
    ):
        load_checkpoint(file, trust=True)


def test_the_tool_refuses_in_a_few_lines(tiny_coco, tmp_path):
    """Two real processes."""
    root = write_sets(tiny_coco, tmp_path / 'set', images=2)
    marker = tmp_path / 'ran'
    torch.save({'state_dict': WEIGHTS, 'x': Call(os.system, f'touch {marker}')}, tmp_path / 'evil.pth')
    (tmp_path / 'page.pth').write_bytes(other_formats()['page'][0])
    for name, words in (('evil.pth', 'GLOBAL posix.system'), ('page.pth', 'a web page, perhaps')):
        command = [sys.executable, str(ROOT / 'tools/test.py'), str(PLAIN), str(tmp_path / name)]
        command += ['--data-root', str(root), *as_arguments(options_of())]
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 1
        assert f'error: {tmp_path / name}' in done.stderr
        assert words in done.stderr
        assert 'Traceback' not in done.stderr
    assert not marker.exists()


# Our own


class OnlyTensors(pickle.Unpickler):
    """Knows what rebuilds a tensor, and no other name."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.names: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.names.add(f'{module}.{name}')
        assert (module, name) in {('torch._utils', '_rebuild_tensor_v2'), ('collections', 'OrderedDict')} or (
            module == 'torch' and name.endswith('Storage')
        ), f'{module}.{name}'
        return (
            (lambda *args: torch.zeros(()))
            if module.startswith('torch')
            else super().find_class(module, name)
        )

    def persistent_load(self, pid: Any) -> None:
        assert pid[0] == 'storage'


def kinds_of(value: Any) -> set[type]:
    inside = (
        [*value.keys(), *value.values()]
        if isinstance(value, dict)
        else value
        if isinstance(value, list)
        else []
    )
    return {type(value)}.union(*map(kinds_of, inside))


def test_our_own_files_hold_tensors_numbers_strings_lists_and_dicts(tiny_coco, tmp_path, quick):
    """Of a distilled training with evaluation and EMA: the newest, the best."""
    root = write_sets(tiny_coco, tmp_path / 'set')
    teacher = save_teacher(tmp_path / 'model_best.pth.tar')
    train(small_config(root, tmp_path / 'run', teacher, custom_hooks=[{'type': 'EMAHook'}]))
    files = [file for file in (tmp_path / 'run').glob('*.pth') if not file.is_symlink()]
    assert {file.name.split('_')[0] for file in files} >= {'best'}
    assert len(files) >= 2
    for file in files:
        reader = OnlyTensors(io.BytesIO(records_of(file)['data.pkl']))
        found = kinds_of(reader.load())
        assert found <= {torch.Tensor, bool, int, float, str, list, dict, type(None)}, found
        assert 'torch._utils._rebuild_tensor_v2' in reader.names
