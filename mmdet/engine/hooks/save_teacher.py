"""Write the file of the best teacher while it is trained."""

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook

from mmdet.checkpoint.io import save_checkpoint
from mmdet.engine.state import unwrap_model
from mmdet.registry import HOOKS

NONE_YET = -1.0  # below every accuracy: this training has not written a file


@HOOKS.register_module()
class SaveTeacherHook(Hook):
    """Say what the teacher is trained on; write its file whenever its accuracy is the best so far.

    The first write keeps the file of an earlier training beside its own, as `earlier_1_NAME`.

    Args:
        file: Where it goes, e.g. 'cls_teachers/ssd/model_best.pth.tar'; default `model_best.pth.tar` in the
            work dir.
        metric: Name of the accuracy among the evaluated values.
    """

    priority = 'ABOVE_NORMAL'  # before EMAHook takes the averaged weights back out, in any order of the keys

    def __init__(self, file: str | None = None, metric: str = 'top1') -> None:
        self.file = file
        self.metric = metric
        self.best = NONE_YET

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save the accuracy of the file that this training has written."""
        checkpoint['best_teacher'] = self.best

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Go on with it; the evaluation that followed the checkpoint is done again."""
        if runner._resume:
            self.best = checkpoint.get('best_teacher', NONE_YET)

    def before_train(self, runner: Any) -> None:
        """Log the objects of each class, with a warning for a class without any."""
        if runner.rank != 0:
            return
        dataset, sampler = (getattr(runner.train_loop.dataloader, name) for name in ('dataset', 'sampler'))
        runner.logger.info(dataset.class_table(getattr(sampler, 'times_shown', None)))
        names = dataset.metainfo['classes']
        counts = np.bincount(dataset.objects()[0], minlength=len(names))
        if missing := [name for name, count in zip(names, counts, strict=True) if count == 0]:
            runner.logger.warning(
                f'no training object of {", ".join(missing)}: what the teacher says about them means nothing'
            )
        if not self._path(runner).is_file():
            self.best = NONE_YET

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Compare and write."""
        named = {name.rsplit('/', 1)[-1]: float(value) for name, value in (metrics or {}).items()}
        if runner.rank != 0 or named.get(self.metric, NONE_YET) <= self.best:
            return
        path = self._path(runner)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.best == NONE_YET and path.is_file():
            runner.logger.warning(f'{path} of an earlier training is kept as {keep_earlier(path)}')
        self.best = named[self.metric]
        save_checkpoint(unwrap_model(runner.model).teacher_file(runner.epoch, named), path)
        runner.logger.info(f'teacher with {self.metric} {self.best:.4f} written to {path}')

    def _path(self, runner: Any) -> Path:
        return Path(runner.work_dir, 'model_best.pth.tar') if self.file is None else Path(self.file)


def keep_earlier(path: Path) -> Path:
    """Rename a file to the first free `earlier_N_NAME` beside it; return that."""
    names = (path.with_name(f'earlier_{number}_{path.name}') for number in count(1))
    return path.rename(next(name for name in names if not name.exists()))
