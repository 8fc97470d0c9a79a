"""Train in mixed precision on any device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.optim import AmpOptimWrapper as MMEngineAmpOptimWrapper
from mmengine.optim import OptimWrapper
from torch import nn

from mmdet.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(MMEngineAmpOptimWrapper):
    """Train under autocast; scale the loss where the type needs it, in float16.

    MMEngine's class of this name asks for a GPU, also for float16, and scales always.

    Args:
        dtype: 'bfloat16' or 'float16'; default: bfloat16 on the CPU and on cards of compute capability 8.0
            and newer, else float16.
        loss_scale: First scale of the loss in float16, changed as gradients overflow or do not; 'dynamic':
            65536.
        **kwargs: As `OptimWrapper` takes them.

    Raises:
        ValueError: Another dtype.
    """

    def __init__(self, dtype: str | None = None, loss_scale: float | str = 'dynamic', **kwargs: Any) -> None:
        OptimWrapper.__init__(self, **kwargs)  # MMEngine's own asserts a GPU
        self.device = torch.device(get_device()).type
        if dtype is None:
            old_card = torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0)
            dtype = 'float16' if old_card else 'bfloat16'
        if dtype not in ('bfloat16', 'float16'):
            raise ValueError(f'mixed precision computes in bfloat16 or float16; got {dtype}')
        self.cast_dtype = getattr(torch, dtype)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler(
            self.device,
            init_scale=2.0**16 if loss_scale == 'dynamic' else float(loss_scale),
            enabled=self.cast_dtype == torch.float16,
        )
        if self.device == 'cpu' and not has_fast_bfloat16():
            MMLogger.get_current_instance().warning(
                'this CPU has no instructions for bfloat16: --amp makes training many times slower here; '
                'leave it out'
            )

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass under autocast; MMEngine's has no float16 on the CPU."""
        with OptimWrapper.optim_context(self, model), torch.autocast(self.device, dtype=self.cast_dtype):
            yield

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; that of a run in another type has no scale."""
        state = {key: value for key, value in state_dict.items() if key != 'loss_scaler' or value}
        super().load_state_dict(state)


def has_fast_bfloat16() -> bool:
    """Tell whether the CPU computes in bfloat16 at all; true where torch cannot say."""
    ask = getattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', None)
    return ask is None or bool(ask())
