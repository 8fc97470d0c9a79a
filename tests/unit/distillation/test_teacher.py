"""Reading a teacher's file."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision

from mmdet.distillation import FrozenTeacher
from mmdet.structures import Normalization

CLASSES = ['ant', 'bee', 'cat']
SSD_INPUT = Normalization(torch.tensor([123.0, 116.0, 103.0]), torch.ones(3))


@pytest.fixture(scope='module')
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=3).state_dict()


def load(tmp_path: Path, content: Any, **arguments: Any) -> FrozenTeacher:
    file = tmp_path / 'model_best.pth.tar'
    torch.save(content, file)
    return FrozenTeacher(**{'arch': 'resnet18', 'checkpoint': str(file), 'num_classes': 3, **arguments})


@pytest.mark.filterwarnings('ignore:.*names no classes')
@pytest.mark.parametrize('layout', ['plain', 'published', 'parallel', 'reference'])
def test_layouts(tmp_path: Path, state: dict[str, torch.Tensor], layout: str) -> None:
    content: dict[str, Any] = dict(state)
    if layout != 'plain':
        prefix = 'module.' if layout == 'parallel' else ''
        content = {f'{prefix}{name}': value for name, value in state.items()}
        content = {
            'epoch': 3,
            'arch': 'resnet18',
            'best_acc1': torch.tensor(80.3),
            'optimizer': {},
            'state_dict': content,
        }
    if layout == 'reference':  # torchvision's script
        content = {'model': state, 'optimizer': {}, 'epoch': 3, 'args': Namespace(lr=0.1, model='resnet18')}
    teacher = load(tmp_path, content)
    network = torchvision.models.resnet18(num_classes=3)
    network.load_state_dict(state)
    crops = torch.randn(2, 3, 32, 32)
    assert torch.equal(teacher.normalize(crops, SSD_INPUT), crops)  # the file says nothing: the student's own
    torch.testing.assert_close(teacher.logits(crops, SSD_INPUT), network.eval()(crops), rtol=1e-4, atol=1e-5)


def test_missing_file_says_where_it_goes_and_how_to_train_one() -> None:
    with pytest.raises(FileNotFoundError, match=r'cls_teachers/ssd/nothing.*\n?.*tools/train.py'):
        FrozenTeacher('resnet18', 'cls_teachers/ssd/nothing.pth.tar', num_classes=3)


def test_classes_are_checked_by_name_and_order(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    content = {'state_dict': state, 'classes': CLASSES}
    load(tmp_path, content, classes=CLASSES)
    with pytest.raises(ValueError, match=r"(?s)\['ant', 'bee', 'cat'\].*\['bee', 'ant', 'cat'\]"):
        load(tmp_path, content, classes=['bee', 'ant', 'cat'])


def test_a_file_without_classes_warns_once(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    with pytest.warns(UserWarning, match='order cannot be checked') as caught:
        load(tmp_path, state)
    assert len(caught) == 1


def test_another_number_of_classes_and_another_network_are_refused(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(ValueError, match=r'fc\.bias: .*\[3\].*\[4\]'):
        load(tmp_path, state, num_classes=4)
    with pytest.raises(ValueError, match='not the teacher of this config'):
        load(tmp_path, state, arch='resnet50')


def test_normalisation_is_converted_by_what_the_file_says(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    mean, std = [100.0, 110.0, 120.0], [50.0, 60.0, 70.0]
    teacher = load(tmp_path, {'state_dict': state, 'classes': CLASSES, 'mean': mean, 'std': std})
    raw = torch.rand(2, 3, 8, 8) * 255
    student_input = (raw - SSD_INPUT.mean[:, None, None]) / SSD_INPUT.std[:, None, None]
    expected = (raw - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(teacher.normalize(student_input, SSD_INPUT), expected, rtol=1e-4, atol=1e-4)


def test_a_config_that_contradicts_the_file_is_refused(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    content = {'state_dict': state, 'classes': CLASSES, 'mean': [1.0, 2.0, 3.0], 'std': [1.0, 1.0, 1.0]}
    load(tmp_path, content, mean=[1, 2, 3])
    with pytest.raises(ValueError, match='mean=None'):
        load(tmp_path, content, mean=[1, 2, 4])
    with pytest.raises(ValueError, match='both or neither'):
        load(tmp_path, {'state_dict': state, 'classes': CLASSES}, mean=[1, 2, 4])


def test_a_timm_classifier_teaches_too(tmp_path: Path) -> None:
    network = timm.create_model('resnet10t', pretrained=False, num_classes=3)
    teacher = load(tmp_path, {'state_dict': network.state_dict(), 'classes': CLASSES}, arch='timm/resnet10t')
    assert teacher.logits(torch.zeros(1, 3, 32, 32), SSD_INPUT).shape == (1, 3)
    teacher.build_feature_extractor(('layer1',))
    assert set(teacher.features(torch.zeros(1, 3, 32, 32), SSD_INPUT)) == {'layer1'}


def test_a_teacher_without_a_stem_says_what_to_type(tmp_path: Path) -> None:
    network = timm.create_model('efficientnet_lite0', pretrained=False, num_classes=3)
    teacher = load(tmp_path, {'state_dict': network.state_dict()}, arch='timm/efficientnet_lite0')
    with pytest.raises(ValueError, match=r'first layers: conv_stem, bn1, .*\n.*levels=\(pixels,LAYER\)'):
        teacher.build_feature_extractor(('stem',))
    teacher.build_feature_extractor(('bn1',))
