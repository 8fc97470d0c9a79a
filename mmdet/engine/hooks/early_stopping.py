"""Stop a training whose metric does not improve any more."""

from typing import Any

from mmengine.hooks import EarlyStoppingHook as MMEngineEarlyStoppingHook
from mmengine.runner import Runner

from mmdet.registry import HOOKS


@HOOKS.register_module()
class EarlyStoppingHook(MMEngineEarlyStoppingHook):
    """MMEngine's, whose memory goes into checkpoints.

    Args are MMEngine's.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save the best score and for how many evaluations it has been that."""
        checkpoint['early_stopping'] = {'best': self.best_score, 'waited': self.wait_count}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on with them."""
        if runner._resume and 'early_stopping' in checkpoint:
            memory = checkpoint['early_stopping']
            self.best_score, self.wait_count = memory['best'], memory['waited']
