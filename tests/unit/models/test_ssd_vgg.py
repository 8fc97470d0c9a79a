"""The backbone's shapes and the weights it starts from."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models.vgg import cfgs, make_layers

from mmdet.models.backbones import SSDVGG


def save_vgg(file: Path) -> dict[str, Tensor]:
    """A file with the names of torchvision's VGG16, its large classifier cut short."""
    torch.manual_seed(0)
    state = {f'features.{name}': value for name, value in make_layers(cfgs['D']).state_dict().items()}
    torch.save({**state, 'classifier.0.bias': torch.zeros(1)}, file)
    return state


def test_weights_from_a_file_are_vgg16s(tmp_path: Path) -> None:
    vgg = save_vgg(tmp_path / 'vgg16.pth')
    backbone = SSDVGG(weights=str(tmp_path / 'vgg16.pth'))
    before = backbone.features[31].weight.clone()
    assert not torch.equal(backbone.features[0].weight, vgg['features.0.weight'])  # not yet read
    backbone.init_weights()
    for layer in (0, 2, 5, 28):
        assert torch.equal(backbone.features[layer].weight, vgg[f'features.{layer}.weight'])
    assert torch.equal(backbone.features[31].weight, before)  # fc6 is not among them

    reference = make_layers(cfgs['D'])
    reference.load_state_dict({name.removeprefix('features.'): value for name, value in vgg.items()})
    reference[16].ceil_mode = True  # 75 -> 38
    image = torch.randn(1, 3, 300, 300)
    with torch.no_grad():
        conv4_3, conv7 = backbone(image)
        torch.testing.assert_close(conv4_3, reference[:23](image))
    assert conv4_3.shape == (1, 512, 38, 38)
    assert conv7.shape == (1, 1024, 19, 19)


def test_imagenet_weights_fit_the_full_width_only() -> None:
    with pytest.raises(ValueError, match='weights=None'):
        SSDVGG(width=0.25)
    narrow = SSDVGG(width=0.25, batch_norm=True, weights=None)
    narrow.init_weights()
    assert narrow.out_channels == (128, 256)


@pytest.mark.parametrize('weights', ['IMAGENET1K_FEATURES', 'imagenet'])
def test_weights_that_cannot_be_had_name_file_folder_and_the_way_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr('torch.hub.download_url_to_file', _no_network)
    backbone = SSDVGG(weights=weights)  # building asks for nothing
    with pytest.raises(FileNotFoundError) as error:
        backbone.init_weights()
    message = str(error.value)
    assert 'vgg16_features-amdegroot-88682ab5.pth' in message
    assert str(tmp_path / 'hub' / 'checkpoints') in message
    assert '--cfg-options model.backbone.weights=None' in message


def _no_network(*_: object, **__: object) -> None:
    raise OSError('no network')
