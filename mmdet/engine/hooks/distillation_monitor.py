"""Watch a distilled training: how strongly each loss pulls at the predictions of the head.

cls_logits, box_deltas: what the head predicts, as `HeadOutputs` holds them
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmdet.engine.state import unwrap_model
from mmdet.registry import HOOKS

PREDICTIONS = ('cls_logits', 'box_deltas')
DETECTOR = 'detector'  # stands among the names of losses for the sum of the detector's own


@HOOKS.register_module()
class DistillationMonitorHook(Hook):
    """Log the gradient norm of each loss; warn of a distillation loss that is constant or dominates.

    Does nothing where the model has no `distiller` and `head`. In the first step and every `interval` steps
    the L2 norms of the gradients with respect to the head's `cls_logits` and `box_deltas` go to the log and,
    as `grad_norm/loss_kd_cls/cls_logits`, to the scalars. They are of the losses as logged: before loss
    scaling, accumulation and clipping. In a distributed run the main process measures its own images.

    Forward hooks that are attached for one step see predictions and losses. The gradients end at the
    predictions: nothing passes through the backbone again, and DDP does not notice.

    Args:
        patience: Steps in a row with the same value, bit for bit, after which a loss is called constant.
        interval: Steps between measurements of the gradients.
        max_grad_ratio: Of a distillation loss's norm to that of the sum of the detector's own losses.

    Raises:
        ValueError: A number out of range.
    """

    def __init__(self, patience: int = 50, interval: int = 500, max_grad_ratio: float = 10) -> None:
        if patience < 2 or interval < 1 or max_grad_ratio <= 0:
            raise ValueError(
                'default_hooks.distillation_monitor needs patience >= 2, interval >= 1, max_grad_ratio > 0; '
                f'got {patience}, {interval} and {max_grad_ratio}'
            )
        self.patience = patience
        self.interval = interval
        self.max_grad_ratio = max_grad_ratio

    def before_train(self, runner: Runner) -> None:
        """Begin anew, also in a resumed run: its config may have changed."""
        self.start = runner.iter
        self.values: dict[str, tuple[float, int]] = {}  # loss -> value, and since which iteration
        self.dominating: set[tuple[str, str]] = set()  # loss and prediction, at the last measurement

    def before_train_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        """Attach forward hooks where the gradients of this step are measured; its end removes them."""
        model = unwrap_model(runner.model)
        head = getattr(model, 'head', None)
        due = runner.iter == self.start or self.every_n_train_iters(runner, self.interval)
        if not due or not is_main_process() or head is None or getattr(model, 'distiller', None) is None:
            return
        seen: dict[str, Any] = {}

        def finish(_: nn.Module, __: Any, losses: Any) -> None:
            for handle in handles:
                handle.remove()
            if losses is not None and len(seen) == 2:  # None where the step failed
                self._measure(runner, losses, **seen)

        handles = [
            head.register_forward_hook(lambda _, __, outputs: seen.update(outputs=outputs)),
            model.distiller.register_forward_hook(lambda _, __, losses: seen.update(distilled=losses)),
            model.register_forward_hook(finish, always_call=True),
        ]

    def _measure(
        self, runner: Runner, losses: Mapping[str, Tensor], outputs: Any, distilled: Mapping[str, Tensor]
    ) -> None:
        """Log the norms of this step, and warn of a distillation loss that begins to dominate.

        losses: all, scalars · outputs: of the head · distilled: the losses that the distiller returned
        """
        own = {name: loss for name, loss in losses.items() if 'loss' in name and name not in distilled}
        terms = {name: losses[name] for name in distilled if 'loss' in name}  # MMEngine sums these names
        self.values = dict.fromkeys(terms, (math.nan, 0)) | self.values
        norms = gradient_norms(
            {**own, DETECTOR: torch.stack(list(own.values())).sum(), **terms},
            {name: x for name in PREDICTIONS if (x := getattr(outputs, name)).requires_grad},
        )
        parts = [
            f'{prediction}: ' + ', '.join(f'{loss} {norm:.3g}' for loss, norm in row.items())
            for prediction, row in norms.items()
        ]
        runner.logger.info(f'gradient norms in iteration {runner.iter + 1}, by {"; by ".join(parts)}')
        scalars = {f'grad_norm/{loss}/{of}': norm for of, row in norms.items() for loss, norm in row.items()}
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
        dominating = {
            (loss, prediction)
            for prediction, row in norms.items()
            for loss in terms
            if row[loss] > self.max_grad_ratio * row[DETECTOR]
        }
        for loss, prediction in sorted(dominating - self.dominating):
            runner.logger.warning(
                f'{loss} dominates: its gradient with respect to {prediction} has norm '
                f'{norms[prediction][loss]:.3g} in iteration {runner.iter + 1}, that of {" + ".join(own)} '
                f'{norms[prediction][DETECTOR]:.3g}. Lower '
                f'model.distiller.{loss.removeprefix("loss_")}.loss_weight.'
            )
        self.dominating = dominating

    def after_train_iter(
        self, runner: Runner, batch_idx: int, outputs: dict[str, float] | None = None, **_: Any
    ) -> None:
        """Warn of a distillation loss that has not changed for `patience` steps."""
        iteration = runner.iter + 1
        for name, (value, since) in self.values.items():
            now = (outputs or {}).get(name, value)
            if now != value:
                self.values[name] = now, iteration
            elif iteration - since + 1 == self.patience:
                runner.logger.warning(
                    f'{name} is {value:g}, bit for bit, in each of the {self.patience} steps since iteration '
                    f'{since}: it teaches nothing. model.distiller.{name.removeprefix("loss_")}=None '
                    'switches it off; likely causes: docs/training.md, "The distillation monitor".'
                )


def gradient_norms(
    losses: Mapping[str, Tensor], predictions: Mapping[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Compute L2 norms of the gradients of losses with respect to predictions; the graph stays as it is.

    A loss that does not depend on a prediction has norm 0 there.

    losses: scalars · predictions: of any shape, require a gradient · returns prediction -> loss -> norm
    """
    inputs = tuple(predictions.values())
    columns = []
    # The caller is inside the forward pass, but a gradient belongs outside of its autocast.
    with torch.autocast(next(iter(losses.values())).device.type, enabled=False):
        for loss in losses.values():
            found = (
                torch.autograd.grad(loss, inputs, retain_graph=True, materialize_grads=True)
                if loss.requires_grad
                else [torch.zeros(1, device=loss.device)] * len(inputs)
            )
            columns.append(torch.stack([torch.linalg.vector_norm(x, dtype=torch.float32) for x in found]))
    table = torch.stack(columns, dim=1).tolist()  # one wait for the device
    return {name: dict(zip(losses, row, strict=True)) for name, row in zip(predictions, table, strict=True)}
