"""Classifiers of torchvision and timm, and the weights that they start from."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision

from mmdet.classifiers import build_classifier, imagenet_normalization, load_pretrained


def refuse(*given: Any, **options: Any) -> None:
    raise OSError('no route to host')


def test_an_unknown_name_is_told_its_neighbors() -> None:
    with pytest.raises(ValueError, match='resnet50'):
        build_classifier('resnet_50', 3)


def test_weights_of_a_file_fit_all_but_the_last_layer(tmp_path: Path) -> None:
    source = torchvision.models.resnet18(num_classes=7)
    torch.save(source.state_dict(), tmp_path / 'imagenet.pth')
    network = build_classifier('resnet18', 2)
    load_pretrained(network, 'resnet18', str(tmp_path / 'imagenet.pth'))
    assert torch.equal(network.conv1.weight, source.conv1.weight)
    assert network.fc.weight.shape == (2, 512)
    torch.save({'other': torch.zeros(1)}, tmp_path / 'other.pth')
    for name, error in (('other.pth', ValueError), ('none.pth', FileNotFoundError)):
        with pytest.raises(error, match=rf'{name}.*model\.backbone\.weights=FILE'):
            load_pretrained(network, 'resnet18', str(tmp_path / name))


def test_imagenet_weights_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the cache; without it and without a network the message says where the file goes."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    network = build_classifier('resnet18', 2)
    assert imagenet_normalization(network) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    monkeypatch.setattr('torch.hub.urlopen', refuse)
    with pytest.raises(FileNotFoundError) as error:
        load_pretrained(network, 'resnet18', 'imagenet')
    folder, name = tmp_path / 'hub/checkpoints', 'resnet18-f37072fd.pth'
    for part in ('no route', name, str(folder), 'model.backbone.weights=FILE', 'model.backbone.weights=None'):
        assert part in str(error.value)
    source = torchvision.models.resnet18()
    torch.save(source.state_dict(), folder / name)
    for weights in ('imagenet', 'IMAGENET1K_V1'):
        network = build_classifier('resnet18', 2)
        load_pretrained(network, 'resnet18', weights)
        assert torch.equal(network.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


def test_imagenet_weights_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_classifier('timm/resnet10t', 2)
    mean = timm.get_pretrained_cfg('resnet10t').mean
    assert imagenet_normalization(network)[0] == [round(255 * value, 3) for value in mean]
    monkeypatch.setattr('timm.create_model', refuse)
    with pytest.raises(FileNotFoundError, match=r'timm/resnet10t.*no route.*model\.backbone\.weights=None'):
        load_pretrained(network, 'timm/resnet10t', 'imagenet')


def test_no_auxiliary_classifiers() -> None:
    logits = build_classifier('googlenet', 2).train()(torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 2)
