"""Answers of a teacher: stored by the command, read by a student."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmdet.analysis import answers
from mmdet.checkpoint.io import load_checkpoint
from mmdet.commands.store_teacher import main
from mmdet.config.resolve import load_config
from mmdet.distillation import (
    ClassifierDistiller,
    FrozenTeacher,
    SigmoidKDLoss,
    StoredTeacher,
    distiller,
)
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import crop_boxes
from tests.helpers.tiny_run import (
    CLASSES,
    DISTILLED,
    ROOT,
    as_arguments,
    be_quick,
    options_of,
    save_teacher,
    train,
    write_sets,
)

STORED = ROOT / 'configs_dev/ssd/ssd_tiny_cls_loc_stored.py'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    be_quick(monkeypatch)


@pytest.fixture
def arguments(tiny_coco: Any, tmp_path: Path) -> list[str]:
    """Of the command, for a set of six photos; three views of each object."""
    root = write_sets(tiny_coco, tmp_path / 'set')
    teacher = save_teacher(tmp_path / 'teacher.pth')
    out = ['--out', str(tmp_path / 'answers.pth'), '--views', '3', '--data-root', str(root)]
    return [str(DISTILLED), *out, *as_arguments(options_of(teacher))]


def mean_one_by_one(cfg: Config, views: int) -> dict[int, torch.Tensor]:
    """The mean of the logits of each object, one crop at a time."""
    teacher: FrozenTeacher = MODELS.build(cfg.model.distiller.teacher)
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    dataset = DATASETS.build({'seed': 0, **cfg.train_dataloader.dataset})
    found: dict[int, list[torch.Tensor]] = {}
    for row in range(len(dataset)):
        for view in range(views):
            sample = dataset[row, view * len(dataset) + row]
            mean, std = preprocessor.normalization
            image = (sample['img'].flip(0).float() - mean[:, None, None]) / std[:, None, None]
            for box, ann_id in zip(sample['bboxes'], sample['ann_ids'].tolist(), strict=True):
                crop = crop_boxes(image[None], box[None], torch.tensor([0]), cfg.model.distiller.crop_size)
                found.setdefault(ann_id, []).append(teacher.logits(crop, preprocessor.normalization)[0])
    return {ann_id: torch.stack(logits).mean(0) for ann_id, logits in found.items()}


def test_the_mean_over_the_views_of_each_object(arguments: list[str], tmp_path: Path, capsys: Any) -> None:
    main(arguments)
    file = load_checkpoint(tmp_path / 'answers.pth')
    ids, logits = file['state_dict']['ann_ids'], file['state_dict']['answers']
    assert f'{len(ids)} objects, each from 3.0 views' in capsys.readouterr().out
    assert (file['classes'], file['views'], file['arch']) == (list(CLASSES), 3, 'resnet18')
    assert logits.dtype == torch.float16
    cfg = load_config(DISTILLED, options_of(tmp_path / 'teacher.pth'), tmp_path / 'set')
    expected = mean_one_by_one(cfg, 3)
    assert ids.tolist() == sorted(expected)
    torch.testing.assert_close(
        logits.float(), torch.stack([expected[i] for i in ids.tolist()]), rtol=2e-3, atol=2e-3
    )
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['answers.pth', 'teacher.pth']


def test_a_stopped_run_goes_on_to_the_same_bits(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(arguments)
    whole = load_checkpoint(tmp_path / 'answers.pth')['state_dict']
    monkeypatch.setattr(answers, 'SAVE_EVERY', 0.0)
    load, asked = answers.load_batches, []

    def stop_at_the_fourth(*given: Any) -> Any:
        for batch in load(*given):
            asked.append(batch)
            if len(asked) == 4:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(answers, 'load_batches', stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        main(arguments)
    main(arguments)
    assert len(asked) == 4 + 9 - 3  # 18 views in batches of 2, three of which were saved
    again = load_checkpoint(tmp_path / 'answers.pth')['state_dict']
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_another_input_size_begins_anew_and_says_what_it_replaces(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    main(arguments)
    assert load_checkpoint(tmp_path / 'answers.pth')['input_size'] == [96, 96]
    with monkeypatch.context() as patch:
        patch.setattr('mmdet.analysis.answers.merge_answers', lambda *_: torch.ones(1))
        main(arguments)
    assert 'note:' not in capsys.readouterr().err
    assert load_checkpoint(tmp_path / 'answers.part1of1.pth')['batches'] == 9
    load, asked = answers.load_batches, []
    monkeypatch.setattr(answers, 'load_batches', lambda *given: asked.append(given[2]) or load(*given))
    main([*arguments, 'input_size=64'])
    assert len(asked[0]) == 18  # all views
    told = capsys.readouterr().err
    assert 'answers.pth is not known to be of the same input_size: it will be replaced' in told
    assert load_checkpoint(tmp_path / 'answers.pth')['input_size'] == [64, 64]


def test_objects_that_no_view_shows_are_asked_about_as_in_an_evaluation(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, orders = answers.load_batches, []

    def note_order(loader: Any, dataset: Any, draws: Any, preprocessor: Any) -> Any:
        orders.append(draws)
        return load(loader, dataset, draws, preprocessor)

    monkeypatch.setattr(answers, 'load_batches', note_order)
    crop = {'type': 'MinIoURandomCrop', 'min_ious': (0.1,), 'min_crop_size': 0.3}
    pipeline = load_config(DISTILLED, options_of(), tmp_path / 'set').train_pipeline
    config = tmp_path / 'crops.py'
    config.write_text(
        f'_base_ = {str(DISTILLED)!r}\n'
        f'train_dataloader = dict(dataset=dict(pipeline={[*pipeline[:2], *[crop] * 4, *pipeline[2:]]}))\n'
    )
    main([str(config), *arguments[1:3], '--views', '1', *arguments[5:]])
    assert len(orders[0]) == 6
    assert orders[1]  # cut away by the crops
    assert load_checkpoint(tmp_path / 'answers.pth')['state_dict']['answers'].isfinite().all()


def test_a_set_that_cannot_be_read_leaves_the_earlier_answers(arguments: list[str], tmp_path: Path) -> None:
    main(arguments)
    earlier = (tmp_path / 'answers.pth').read_bytes()
    for photo in (tmp_path / 'set/train').iterdir():
        photo.write_bytes(b'no image')
    with pytest.raises(ValueError, match='none of the images with objects can be read'):
        main([*arguments, 'train_dataloader.dataset.on_bad_image=skip'])
    assert (tmp_path / 'answers.pth').read_bytes() == earlier


def test_objects_of_images_that_cannot_be_read_are_left_out(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Asked about one on a GPU, which waits for no error, the answer is NaN: the loss stops the training."""
    (tmp_path / 'set/train/2.jpg').write_bytes(b'no image')
    main([*arguments, 'train_dataloader.dataset.on_bad_image=skip'])
    out = capsys.readouterr().out
    assert '15 objects, each from 3.0 views' in out and 'left out 3 objects' in out
    teacher = StoredTeacher(str(tmp_path / 'answers.pth'))
    assert teacher.ann_ids.tolist() == [1, 2, 3, *range(7, 19)]
    assert teacher.answers.isfinite().all()
    asked = torch.tensor([3, 4, 7, 99])
    with pytest.raises(KeyError, match='no answer about the object 4'):
        teacher.logits(asked)
    monkeypatch.setattr('mmdet.distillation.stored_teacher.on_gpu', lambda tensor: True)
    assert teacher.logits(asked).isnan().any(1).tolist() == [False, True, False, True]


def test_a_student_learns_from_them(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crops are cut for localization alone, at its own side."""
    main(arguments)
    sides = []
    cut = distiller.crop_boxes
    monkeypatch.setattr(distiller, 'crop_boxes', lambda *given: sides.append(given[3]) or cut(*given))
    teacher = {'file': str(tmp_path / 'answers.pth'), 'network.checkpoint': str(tmp_path / 'teacher.pth')}
    options = options_of(**{f'model__distiller__teacher__{key}': value for key, value in teacher.items()})
    options['model.distiller.kd_loc.crop_size'] = 8
    cfg = load_config(STORED, options, tmp_path / 'set')
    cfg.work_dir, cfg.log_level = str(tmp_path / 'run'), 'WARNING'
    assert cfg.model.distiller.teacher.ann_file == str(tmp_path / 'set/annotations/train.json')
    runner = train(cfg)
    assert runner.iter == 3
    assert set(sides) == {8}
    assert not any('teacher' in name or 'answers' in name for name in runner.model.state_dict())


def test_a_sigmoid_student_is_warned_of_stored_answers_of_softmax_alone(
    arguments: list[str], tmp_path: Path
) -> None:
    teacher = tmp_path / 'teacher.pth'
    torch.save({**torch.load(teacher), 'focal_weight': 0.0}, teacher)
    main(arguments)
    stored = StoredTeacher(str(tmp_path / 'answers.pth'))
    with pytest.warns(UserWarning, match=r'model\.focal_weight=1'):
        ClassifierDistiller(stored.crop_size, stored, SigmoidKDLoss())


def test_what_does_not_belong_together_is_refused(arguments: list[str], tmp_path: Path) -> None:
    file, root = tmp_path / 'answers.pth', tmp_path / 'set'
    with pytest.raises(FileNotFoundError, match=r'store_teacher\.py CONFIG --out .*answers\.pth'):
        StoredTeacher(str(file))
    main(arguments)
    teacher = StoredTeacher(str(file), CLASSES, str(root / 'annotations/train.json'))
    assert teacher.logits(teacher.ann_ids[:1]).shape == (1, 3)
    assert teacher.logits(teacher.ann_ids[:0]).shape == (0, 3)
    with pytest.raises(KeyError, match='no answer about the object 999'):
        teacher.logits(torch.tensor([999]))
    with pytest.raises(ValueError, match='network'):
        teacher.build_feature_extractor(['stem'])
    with pytest.raises(ValueError, match='in another order'):
        StoredTeacher(str(file), CLASSES[::-1])
    with pytest.raises(ValueError, match='another ann_file'):
        StoredTeacher(str(file), CLASSES, str(root / 'annotations/val.json'))
    shutil.copy(tmp_path / 'teacher.pth', tmp_path / 'old.pth')
    other = FrozenTeacher('resnet18', str(save_teacher(tmp_path / 'other.pth', classes=CLASSES)), 3)
    torch.save({**torch.load(tmp_path / 'old.pth'), 'epoch': 1}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'another network\.checkpoint'):
        StoredTeacher(str(file), CLASSES, None, other)
    with pytest.raises(ValueError, match='does not hold the answers'):
        StoredTeacher(str(tmp_path / 'old.pth'))


def test_processes_of_torchrun_work_together(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --launcher, as they train and test."""
    for name, value in {'RANK': '1', 'LOCAL_RANK': '1', 'WORLD_SIZE': '2'}.items():
        monkeypatch.setenv(name, value)
    started, shares = [], []
    monkeypatch.setattr('mmdet.distributed.launch.start_process_group', started.append)
    monkeypatch.setattr('mmengine.dist.get_dist_info', lambda: (1, 2))
    monkeypatch.setattr(answers, 'ask_teacher', lambda *given: shares.append(given[3:]))
    main(arguments)
    assert (started, shares) == (['pytorch'], [(1, 2)])
    main([*arguments, '--launcher', 'none'])
    assert started == ['pytorch']
