"""The configs that come with the toolbox, listed, found by name, copied."""

import pytest

from mmdet.commands.configs import main
from mmdet.config.resolve import merge_config
from mmdet.files import CONFIGS_ROOT, find_config


def test_configs_are_found_by_name_from_anywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main([])
    names = capsys.readouterr().out.splitlines()
    assert 'configs/ssd/ssd300.py' in names
    assert not any('_base_' in name for name in names)
    for name in ('configs/ssd/ssd300.py', 'ssd/ssd300.py', 'ssd300.py', 'ssd300'):
        assert find_config(name) == CONFIGS_ROOT / 'configs/ssd/ssd300.py'
    assert merge_config('ssd/ssd300.py').model.type == 'SSD'
    with pytest.raises(FileNotFoundError, match='distill-det configs'):
        merge_config('nothing/like/it.py')


def test_copied_configs_have_their_bases(tmp_path):
    main(['--copy', str(tmp_path / 'own')])
    copied = tmp_path / 'own/configs_dev/ssd/ssd_tiny_cls_loc.py'
    assert merge_config(copied).model.distiller.type == 'ClassifierDistiller'
    with pytest.raises(FileExistsError, match='choose another folder'):
        main(['--copy', str(tmp_path / 'own')])
