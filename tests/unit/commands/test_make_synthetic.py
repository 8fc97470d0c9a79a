import json

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
