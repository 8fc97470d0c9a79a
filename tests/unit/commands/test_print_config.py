import pytest
from mmengine.config import Config

from mmdet.commands.print_config import main
from tests.unit.config.test_resolve import DISTILLED, STUDENT, write_set

COCO = 'annotations/instances_{}2017.json'


@pytest.fixture
def config_file(tmp_path):
    (tmp_path / 'student.py').write_text(STUDENT)
    (tmp_path / 'distilled.py').write_text(DISTILLED)
    return tmp_path / 'distilled.py'


def test_what_is_printed_is_the_resolved_config(config_file, tmp_path, capsys):
    root = write_set(tmp_path / 'set', COCO.format('train'), COCO.format('val'), ['cat', 'dog'])
    main([str(config_file), '--data-root', str(root), '--cfg-options', 'train_dataloader.batch_size=3'])
    cfg = Config.fromstring(capsys.readouterr().out, '.py')
    assert cfg.train_dataloader.batch_size == 3
    assert cfg.train_dataloader.dataset.data_root == str(root)
    assert cfg.model.distiller.teacher.num_classes == 2


def test_raw_needs_no_data_set(config_file, capsys):
    main([str(config_file), '--raw', '--data-root', 'nowhere'])
    cfg = Config.fromstring(capsys.readouterr().out, '.py')
    assert cfg.data_root == 'nowhere'
    assert cfg.model.bbox_head.num_classes == 80
    with pytest.raises(FileNotFoundError, match='--raw'):
        main([str(config_file), '--data-root', 'nowhere'])
