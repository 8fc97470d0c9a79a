"""Classifiers of torchvision and timm: build one, load its weights, cut it after a layer.

Teachers use them, and backbones. A name is torchvision's, 'resnet50', or timm's as 'timm/NAME'.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.fx.proxy import TraceError
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet.checkpoint.pretrained import load_fitting, remedy, report_fit, state_of_file

IMAGENET = 'imagenet'
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's ImageNet weights, pixels 0..1
TIMM = 'timm/'
PROBE = 128  # side of the image whose feature maps tell the strides
WITH_AUXILIARY = ('googlenet', 'inception_v3')  # return the logits of further layers in training


def build_classifier(arch: str, num_classes: int) -> nn.Module:
    """Build an untrained classifier of torchvision or timm.

    Raises:
        ValueError: No such architecture; names those that come closest, or the package to install.
    """
    if arch.startswith(TIMM):
        import timm  # takes a second

        return timm.create_model(arch.removeprefix(TIMM), pretrained=False, num_classes=num_classes)
    options = {'aux_logits': False, 'init_weights': True} if arch in WITH_AUXILIARY else {}
    try:
        return torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **options)
    except ValueError as error:
        near = difflib.get_close_matches(arch, torchvision.models.list_models(torchvision.models), 5)
        raise ValueError(
            f"arch '{arch}' is not a torchvision classifier; near: {', '.join(near) or 'none'}. "
            "timm's models are written 'timm/NAME'"
        ) from error


def load_pretrained(network: nn.Module, arch: str, weights: str, key: str = 'model.backbone.weights') -> None:
    """Load the weights that fit a classifier; layers of another shape start at random and are logged.

    Args:
        network: As `build_classifier` makes it, or a part of it.
        arch: Its name there.
        weights: 'imagenet' (torchvision's or timm's own weights), torchvision's name of others, such as
            'IMAGENET1K_V1', or the path of a file.
        key: Of the config, for messages.

    Raises:
        FileNotFoundError: They cannot be had; says what to do.
        ValueError: Nothing in them fits.
    """
    known = () if arch.startswith(TIMM) else torchvision.models.get_model_weights(arch).__members__
    published = weights == IMAGENET or weights in known
    state = _published_state(arch, weights, key) if published else state_of_file(weights, key)
    report_fit(network, load_fitting(network, state, weights, remedy(key)), weights)


class _Tracer(fx.Tracer):
    """Traces batch norms, and timm's layers with a padding that depends on the input, as one call each."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        padded = 'same' in type(module).__name__.lower()
        return padded or isinstance(module, _BatchNorm) or super().is_leaf_module(module, name)


class FeatureExtractor(NamedTuple):
    """A classifier that is cut after its deepest level."""

    network: fx.GraphModule  # images (N, 3, H, W) -> {label: (N, C, h, w)}
    channels: list[int]  # C of each level
    strides: dict[str, int]  # at each of its layers, and of its parameters outside of them (layer_scale)


def feature_extractor(network: nn.Module, levels: Mapping[str, str | int]) -> FeatureExtractor:
    """Cut a classifier after the deepest of `levels`; layers are shared with it and keep their names.

    Args:
        network: As `build_classifier` makes it.
        levels: Label -> name of a layer, or a stride: the last layer of that stride.

    Raises:
        ValueError: No such layer or stride, names those that are there; a network that cannot be cut.
    """
    traced = _traced(network)
    known: dict[Any, fx.Node] = {}
    strides: dict[str, int] = {}
    stride = 1
    for node in traced.graph.nodes:
        shape: Sequence[int] = getattr(node.meta.get('tensor_meta'), 'shape', ())
        if len(shape) == 4 and node.op not in ('placeholder', 'get_attr', 'output'):
            known |= dict.fromkeys(node.meta.get('nn_module_stack') or (), node)
            if shape[2] > 1:  # the pooling before the last layer has no stride
                stride = PROBE // shape[2]
                known[stride] = node
        if node.op in ('call_module', 'get_attr'):
            strides[node.target] = stride  # of squeeze-and-excitation, which has no map, the last one
    missing = [level for level in levels.values() if level not in known]
    if missing:
        there = dict.fromkeys(name if isinstance(name, int) else name.split('.')[0] for name in known)
        raise ValueError(
            f'{type(network).__name__} has no layer {missing[0]!r}; there are {list(there)}. '
            f'Its first layers: {", ".join([name for name in strides if name in known][:3])}'
        )
    output = next(node for node in traced.graph.nodes if node.op == 'output')
    output.args = ({label: known[level] for label, level in levels.items()},)
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    left = {node.target for node in traced.graph.nodes}
    channels = [known[level].meta['tensor_meta'].shape[1] for level in levels.values()]
    return FeatureExtractor(traced, channels, {name: strides[name] for name in strides if name in left})


def _traced(network: nn.Module) -> fx.GraphModule:
    """Trace a network and note the shape of each result for an image of `PROBE` pixels."""
    training, weight = network.training, next(network.parameters())
    network.eval()  # dropout and stochastic depth that are not modules stay off
    try:
        traced = fx.GraphModule(network, _Tracer().trace(network))
        with torch.no_grad():
            ShapeProp(traced).propagate(weight.new_zeros(1, 3, PROBE, PROBE))
    except (TraceError, RuntimeError) as error:  # a forward with an `if` about its input, or one size of it
        raise ValueError(
            f'{type(network).__name__} cannot be cut at a layer: {error}; most convolutional networks can'
        ) from error
    network.train(training)
    return traced


def imagenet_normalization(network: nn.Module) -> tuple[list[float], list[float]]:
    """Get the mean and std, RGB, 0..255, that a classifier's ImageNet weights were trained with."""
    of_timm = getattr(network, 'pretrained_cfg', {})
    values = (of_timm.get('mean', MEAN), of_timm.get('std', STD))
    mean, std = ([round(255 * number, 3) for number in three] for three in values)
    return mean, std


def _published_state(arch: str, weights: str, key: str) -> dict[str, Tensor]:
    """Get torchvision's or timm's weights of an architecture, from the local cache or the network."""
    advice = remedy(key)
    try:
        if arch.startswith(TIMM):
            import timm

            return dict(timm.create_model(arch.removeprefix(TIMM), pretrained=True).state_dict())
        known = torchvision.models.get_model_weights(arch)
        chosen = known.DEFAULT if weights == IMAGENET else known[weights]
        folder = Path(torch.hub.get_dir(), 'checkpoints')
        advice = f'put the file {Path(chosen.url).name} ({chosen.url}) into {folder}, {advice}'
        return dict(chosen.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f'the ImageNet weights of {arch} are not available: {error}; {advice}'
        ) from error
