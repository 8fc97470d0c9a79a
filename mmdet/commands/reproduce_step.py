"""Run a step again whose losses were not finite, from what training has kept of it.

python tools/misc/reproduce_step.py work_dirs/ssd300/ssd300.py work_dirs/ssd300/not_finite_iter_123.pth

CONFIG is the file that was trained, with the same --cfg-options; the one in the work dir holds them already.
The config inside the dump is never run.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmdet.checkpoint.io import load_checkpoint, load_weights, not_finite
from mmdet.checkpoint.rng import set_rng_state
from mmdet.cli import add_config_arguments, parse
from mmdet.config.resolve import load_config
from mmdet.registry import MODELS
from mmdet.structures import EncodedImages, GroundTruth


def finite(value: Any) -> bool:
    """Whether all tensors are, inside tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return bool(value.isfinite().all())
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return all(map(finite, inside))


def first_not_finite(model: nn.Module, dump: dict[str, Any], device: str) -> tuple[Tensor, str]:
    """Run the forward pass and print every loss.

    Returns:
        The sum of the losses, and the first module that returned something that is not finite: its name, its
        class and whether it was given such a thing; empty where there is none.
    """
    found: list[str] = []

    def look(name: str, module: nn.Module, given: Any, returned: Any) -> None:
        if not found and not finite(returned):
            how = 'finite' if finite(given) else 'not finite'
            found.append(f'{name or "the model"} ({type(module).__name__}), whose input was {how}')

    inputs = dump['batch']['inputs']
    encoded = EncodedImages(**inputs) if isinstance(inputs, dict) else inputs
    batch = {**dump['batch'], 'inputs': encoded, 'gt': GroundTruth(**dump['batch']['gt'])}
    amp = dump['meta']['amp_dtype']
    set_rng_state(dump['rng'][0])
    with ExitStack() as stack:
        for name, module in model.named_modules():
            handle = module.register_forward_hook(
                lambda module, given, returned, name=name: look(name, module, given, returned)
            )
            stack.callback(handle.remove)
        if amp:
            stack.enter_context(torch.autocast(torch.device(device).type, dtype=getattr(torch, amp)))
        losses = model(**model.data_preprocessor(batch, True), mode='loss')
    total, by_name = model.parse_losses(losses)
    for name, value in by_name.items():
        print(f'{name}: {value.item():.9g} (in training {dump["meta"]["losses"][name]:.9g})')
    return total, found[0] if found else ''


def main(argv: Sequence[str] | None = None) -> bool:
    """Print the losses and where the first number arises that is not finite; returns whether one does."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_arguments(parser)
    parser.add_argument('dump', help='not_finite_iter_N.pth')
    parser.add_argument('--device', default=get_device(), help='default: the first GPU, or the CPU')
    args = parse(parser, argv)
    dump = load_checkpoint(args.dump)
    if 'batch' not in dump or 'losses' not in dump['meta']:
        raise ValueError(f'{args.dump} is not what training keeps of a step, not_finite_iter_N.pth')
    cfg = load_config(args.config, args.cfg_options, args.data_root)
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    load_weights(model, dump['state_dict'], args.dump)
    model.to(args.device).train()
    print(f'{dump["meta"]["where"]}, on images {dump["batch"]["gt"]["img_id"].tolist()}')
    if wrong := not_finite(dict(model.named_parameters())):
        print(f'weights that are not finite: {", ".join(wrong)}')
    total, place = first_not_finite(model, dump, args.device)
    if not place:
        print('every module returned finite numbers; going back through them')
        with torch.autograd.set_detect_anomaly(True):
            try:
                total.backward()
            except RuntimeError as error:
                place = f'a gradient: {error}'
    print(f'first not finite: {place}' if place else 'all is finite: not reproduced')
    return bool(place)
