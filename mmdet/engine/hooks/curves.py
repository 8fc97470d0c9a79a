"""Draw the learning curves when a run ends."""

from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet.engine.logs import warn_on_write_error
from mmdet.registry import HOOKS


@HOOKS.register_module()
class CurvesHook(Hook):
    """Draw the learning curves of a run, from its first start on, into `work_dir/curves.png`, as it ends."""

    priority = 'LOWEST'

    def after_train(self, runner: Runner) -> None:
        """Draw them, once there is something to draw."""
        scalars = sorted(Path(runner.work_dir).glob('*/vis_data/scalars.json'))  # named by the time
        if is_main_process() and scalars:
            from mmdet.visualization.curves import plot_curves  # loads matplotlib

            picture = Path(runner.work_dir) / 'curves.png'
            with warn_on_write_error(picture):
                plot_curves(scalars, picture)
                runner.logger.info(f'learning curves: {picture}')
