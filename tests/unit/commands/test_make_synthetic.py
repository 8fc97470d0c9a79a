import json

import pytest

from mmdet.commands.make_synthetic import main


def test_writes_a_set_once(tmp_path, capsys):
    arguments = [str(tmp_path / 'set'), '--train', '3', '--val', '2', '--size', '96']
    main(arguments)
    assert f'--data-root {tmp_path / "set"}' in capsys.readouterr().out
    main(arguments)
    assert 'kept' in capsys.readouterr().out
    for split, count in (('train2017', 3), ('val2017', 2)):
        assert len(list((tmp_path / 'set' / split).glob('*.jpg'))) == count
        annotations = json.loads((tmp_path / 'set' / 'annotations' / f'instances_{split}.json').read_text())
        assert len(annotations['images']) == count


def test_another_set_is_not_overwritten(tmp_path):
    arguments = [str(tmp_path), '--train', '1', '--val', '1', '--size', '96']
    main(arguments)
    with pytest.raises(FileExistsError, match='another data set'):
        main([*arguments, '--seed', '1'])
