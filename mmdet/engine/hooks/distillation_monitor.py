"""Alarms of a distilled training: terms that teach next to nothing, and terms that drown the detector's own.

cls_logits and box_deltas: what the head predicted, as `HeadOutputs` holds them
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmdet.registry import HOOKS

# All that is known here of a detector: this part of it returns, in fields of these names, what its losses and
# its distiller start from.
HEAD = 'bbox_head'
PREDICTIONS = ('cls_logits', 'box_deltas')
TOGETHER = 'detector'  # stands among the names of losses for the sum of the detector's own

Norms = dict[str, dict[str, float]]  # loss -> prediction -> norm


class _Episode(NamedTuple):
    """Steps in a row in which a loss had one value."""

    value: float
    since: int  # iteration, counted from 1


@HOOKS.register_module()
class DistillationMonitorHook(Hook):
    """Warns when distillation does nothing or too much; does nothing where the model has no distiller.

    Values: a loss of the distiller that is exactly 0, or the same number bit for bit, for `patience` steps in
    a row. Once an episode; also where `loss_weight=0` is meant, because a term of weight 0 still costs its
    share of the step. One that is not finite needs no alarm: `TrainLoop` stops in that step.

    Gradients: in the first step and every `interval` steps the norm of each loss's gradient with respect to
    the head's `cls_logits` and `box_deltas` goes to the log and to the scalars, as
    `grad_norm/loss_kd_cls/cls_logits`; `detector` stands for the sum of the detector's own losses. It warns
    when the norm of a distillation loss is more than `max_grad_ratio` times that of the sum, when it is less
    than `min_grad_ratio` of it with respect to both predictions, and when it is not finite though the loss
    is. The norms are of the losses as logged: before loss scaling, accumulation and clipping.

    Forward hooks that are attached for this one step see the predictions and the losses; the gradients end at
    the predictions, so that nothing passes through the backbone again and DDP does not notice. Meanwhile
    memory is needed for two more tensors of the size of `cls_logits`.

    Of several processes the main one looks, at its own images, and nothing is exchanged.

    Args:
        patience: Steps in a row, at least 2.
        interval: Steps between measurements of the gradients.
        max_grad_ratio: Above 0.
        min_grad_ratio: From 0 (never) to below `max_grad_ratio`.

    Raises:
        ValueError: A number out of range.
    """

    def __init__(
        self,
        patience: int = 50,
        interval: int = 500,
        max_grad_ratio: float = 10,
        min_grad_ratio: float = 0.01,
    ) -> None:
        for name, value, smallest in (('patience', patience, 2), ('interval', interval, 1)):
            if not isinstance(value, int) or value < smallest:
                raise ValueError(
                    f'DistillationMonitorHook.{name} is a whole number from {smallest} on; got {value!r}'
                )
        if max_grad_ratio <= 0:
            raise ValueError(f'DistillationMonitorHook.max_grad_ratio is above 0; got {max_grad_ratio!r}')
        self.patience = patience
        self.interval = interval
        if not 0 <= min_grad_ratio < max_grad_ratio:
            raise ValueError(
                'DistillationMonitorHook.min_grad_ratio is from 0 to below max_grad_ratio; '
                f'got {min_grad_ratio!r}'
            )
        self.max_grad_ratio = max_grad_ratio
        self.min_grad_ratio = min_grad_ratio

    def before_train(self, runner: Runner) -> None:
        """Begin anew, also in a resumed run: its config may have changed."""
        self.start = runner.iter
        self.distilled: set[str] = set()  # losses that the distiller has returned
        self.episodes: dict[str, _Episode] = {}
        self.raised: set[tuple[str, ...]] = set()  # what held at the last measurement

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any] | None = None
    ) -> None:
        """Look into a step whose gradients are measured."""
        due = runner.iter == self.start or self.every_n_train_iters(runner, self.interval)
        if due and is_main_process():
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            if getattr(model, 'distiller', None) is not None:
                self._attach(runner, model)

    def _attach(self, runner: Runner, model: Any) -> None:
        """Forward hooks for the next call of `model`, which takes them off, also when it fails."""
        seen: dict[str, Any] = {}

        def see(part: nn.Module, _: Any, returned: Any) -> None:
            seen['distilled' if part is model.distiller else 'predicted'] = returned

        def finish(_: nn.Module, __: Any, losses: Any) -> None:
            for handle in handles:
                handle.remove()
            if isinstance(losses, Mapping):  # None where the call failed
                self._measure(runner, losses, **seen)

        parts = [part for part in (model.distiller, getattr(model, HEAD, None)) if part is not None]
        handles = [part.register_forward_hook(see) for part in parts]
        handles.append(model.register_forward_hook(finish, always_call=True))

    def _measure(
        self,
        runner: Runner,
        losses: Mapping[str, Tensor],
        distilled: Mapping[str, Tensor] | None = None,
        predicted: Any = None,
    ) -> None:
        """Log the norms of this step, and warn.

        losses: all, scalars · distilled: those that the distiller returned · predicted: what the head did
        """
        self.distilled |= {name for name in distilled or () if 'loss' in name}  # MMEngine sums these
        iteration = runner.iter + 1
        self._warn_once(
            runner,
            ('no losses',),
            not distilled,
            f'model.distiller gave no loss in iteration {iteration}: this step was plain training. Does the '
            "detector's `loss` call it?",
        )
        fields = {name: getattr(predicted, name, None) for name in PREDICTIONS}
        predictions = {name: x for name, x in fields.items() if isinstance(x, Tensor) and x.requires_grad}
        if len(predictions) < len(PREDICTIONS):
            self._warn_once(
                runner,
                ('no predictions',),
                True,
                f'gradients are not measured: the model has no {HEAD} that returns '
                f'{" and ".join(PREDICTIONS)} with a gradient',
            )
            return
        own = [name for name in losses if 'loss' in name and name not in self.distilled]
        terms = [name for name in losses if name in self.distilled]
        norms = gradient_norms(losses, own, terms, predictions)
        self._report(runner, norms)
        for loss in (*own, *terms):
            for prediction, norm in norms[loss].items():
                together = norms[TOGETHER][prediction]
                where = f'the gradient of {loss} with respect to {prediction}'
                self._warn_once(
                    runner,
                    ('not finite', loss, prediction),
                    not math.isfinite(norm) and math.isfinite(losses[loss].item()),
                    f'{where} has norm {norm} in iteration {iteration}, though {loss} is finite: the weights '
                    'become useless with it. Look for logarithms, roots and quotients of 0 in this loss.',
                )
                self._warn_once(
                    runner,
                    ('dwarfs', loss, prediction),
                    loss in terms and norm > self.max_grad_ratio * together,
                    f"{loss} dwarfs the detector's own losses: {where} has norm {norm:.3g} in iteration "
                    f'{iteration}, that of {" + ".join(own)} {together:.3g}. Lower '
                    f'{_config_key(loss)}.loss_weight.',
                )
        self._warn_of_feeble(runner, norms, terms)

    def _warn_of_feeble(self, runner: Runner, norms: Norms, terms: Sequence[str]) -> None:
        """Warn of terms that hardly teach: measured where they pull most, beside the detector's own."""
        own = norms[TOGETHER]
        for term in terms:
            share, prediction = max(
                ((norm / own[name], name) for name, norm in norms[term].items() if own[name] > 0),
                default=(0.0, ''),
            )
            self._warn_once(
                runner,
                ('feeble', term),
                0 < share < self.min_grad_ratio,
                f'{term} hardly teaches: its gradient with respect to {prediction} has {100 * share:.2g} % '
                f"of the norm of the detector's own in iteration {runner.iter + 1}. Raise "
                f'{_config_key(term)}.loss_weight, or set {_config_key(term)}=None, which saves its time. '
                '(The level pixels of kd_loc is in units of data_preprocessor.std, see docs/method.md.)',
            )

    def _report(self, runner: Runner, norms: Norms) -> None:
        """One line, and the scalars."""
        parts = (
            f'{prediction}: ' + ', '.join(f'{loss} {norms[loss][prediction]:.3g}' for loss in norms)
            for prediction in PREDICTIONS
        )
        runner.logger.info(f'gradient norms in iteration {runner.iter + 1}, by {"; by ".join(parts)}')
        runner.visualizer.add_scalars(
            {
                f'grad_norm/{loss}/{prediction}': norm
                for loss, by_prediction in norms.items()
                for prediction, norm in by_prediction.items()
            },
            step=runner.iter + 1,
        )

    def _warn_once(self, runner: Runner, alarm: tuple[str, ...], holds: bool, message: str) -> None:
        """Warn when a measurement finds what the one before did not."""
        if holds and alarm not in self.raised:
            runner.logger.warning(message)
        (self.raised.add if holds else self.raised.discard)(alarm)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | None = None,
        outputs: dict[str, float] | None = None,
    ) -> None:
        """Warn of a distillation loss that has not changed for `patience` steps."""
        iteration = runner.iter + 1
        for name in sorted(self.distilled & set(outputs or ())):
            value = (outputs or {})[name]
            episode = self.episodes.get(name)
            if episode is None or value != episode.value:
                self.episodes[name] = _Episode(value, iteration)
            elif iteration - episode.since + 1 == self.patience:
                runner.logger.warning(_standstill(name, episode, self.patience))


def _standstill(name: str, episode: _Episode, steps: int) -> str:
    key = _config_key(name)
    what = 'exactly 0' if episode.value == 0 else f'{episode.value:g}, the same bit for bit,'
    causes = (
        f'{key}.loss_weight is 0 ({key}=None switches the term off and saves its time); no anchor is matched '
        'to an object (loss_bbox is 0 then, too: look at python tools/misc/browse_dataset.py); the loss is 0 '
        'for these classes, as DKDLoss is for a single one'
        if episode.value == 0
        else 'what it compares does not reach it (the student is frozen, the learning rate is 0); its '
        'inputs are saturated (temperature, normalization); DISTLoss with a single positive'
    )
    return (
        f'{name} is {what} in each of the {steps} steps since iteration {episode.since}: it teaches nothing. '
        f'Likely: {causes}. See what the teacher sees: python tools/analysis/browse_teacher.py CONFIG'
    )


def _config_key(name: str) -> str:
    """Where the config describes a loss of the distiller: loss_kd_cls -> model.distiller.kd_cls."""
    return f'model.distiller.{name.removeprefix("loss_")}'


def gradient_norms(
    losses: Mapping[str, Tensor], own: Sequence[str], terms: Sequence[str], predictions: Mapping[str, Tensor]
) -> Norms:
    """L2 norms of the gradients of losses with respect to predictions; graph and `.grad` stay as they are.

    A loss that does not depend on a prediction has norm 0 there.

    Args:
        losses: Scalars by name.
        own: Those of the detector.
        terms: Those of the distiller.
        predictions: Tensors of any shape that require a gradient.

    Returns:
        The norms of each of `own` and `terms`, and as `TOGETHER` those of the sum of `own`.
    """
    inputs = tuple(predictions.values())

    def gradients(name: str) -> Sequence[Tensor | None]:
        if not losses[name].requires_grad:
            return [None] * len(inputs)
        return torch.autograd.grad(losses[name], inputs, retain_graph=True, allow_unused=True)

    norms: dict[str, Tensor] = {}
    # The caller is inside the forward pass, but a gradient belongs outside of its autocast.
    with torch.autocast(inputs[0].device.type, enabled=False):
        total: Sequence[Tensor | None] = [None] * len(inputs)
        for name in own:
            found = gradients(name)
            norms[name] = _norms(found, inputs)
            total = [_sum(a, b) for a, b in zip(total, found, strict=True)]
            del found  # or it would be held beside the next
        norms[TOGETHER] = _norms(total, inputs)
        del total
        for name in terms:
            norms[name] = _norms(gradients(name), inputs)
    rows = torch.stack(list(norms.values())).tolist()  # one wait for the device
    return {name: dict(zip(predictions, row, strict=True)) for name, row in zip(norms, rows, strict=True)}


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """None stands for zeros."""
    return b if a is None else a if b is None else a + b


def _norms(gradients: Sequence[Tensor | None], inputs: Sequence[Tensor]) -> Tensor:
    """(len(inputs),) float32."""
    zero = inputs[0].new_zeros((), dtype=torch.float32)
    return torch.stack(
        [zero if x is None else torch.linalg.vector_norm(x, dtype=torch.float32) for x in gradients]
    )
