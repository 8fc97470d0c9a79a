"""Registries: names in a config file -> classes of this package.

A config is built depth first, so a constructor receives built parts, plain values or None and
never a config. A key that a constructor does not know is an error that names the class.
Parts are built in the order of the constructor's parameters: random weights do not depend on the order
of a config's keys, which MMEngine sorts when it writes a config.
"""

import inspect
from collections.abc import Callable
from typing import Any

from mmengine import registry as root
from mmengine.registry import Registry
from mmengine.registry import build_from_cfg as build_one


def _depth_first(parts: Registry | None = None) -> Callable[..., Any]:
    """A build function that builds nested `type` dicts first, from `parts` (default: the same registry)."""

    def build(cfg: dict[str, Any], registry: Registry, default_args: dict[str, Any] | None = None) -> Any:
        def built(value: Any) -> Any:
            if isinstance(value, dict) and 'type' in value:
                return (registry if parts is None else parts).build(value)  # an empty registry is falsy
            if isinstance(value, (list, tuple)):
                return type(value)(built(item) for item in value)
            return value

        kind = cfg.get('type')
        found = registry.get(kind) if isinstance(kind, str) else kind
        order = [*inspect.signature(found).parameters] if found else []
        keys = sorted(cfg, key=lambda key: order.index(key) if key in order else len(order))
        try:
            return build_one({key: built(cfg[key]) for key in keys}, registry, default_args)
        except TypeError as error:
            if 'unexpected keyword' not in str(error) and 'required' not in str(error):
                raise
            raise TypeError(f'config of {cfg.get("type")}: {error}') from error

    return build


TRANSFORMS = Registry(
    'transform', parent=root.TRANSFORMS, scope='mmdet', locations=['mmdet.datasets.transforms']
)
DATASETS = Registry(
    'dataset',
    build_func=_depth_first(TRANSFORMS),
    parent=root.DATASETS,
    scope='mmdet',
    locations=['mmdet.datasets'],
)
DATA_SAMPLERS = Registry(
    'data sampler', parent=root.DATA_SAMPLERS, scope='mmdet', locations=['mmdet.datasets']
)
COLLATES = Registry('collate', parent=root.FUNCTIONS, scope='mmdet', locations=['mmdet.datasets'])
MODELS = Registry(
    'model',
    build_func=_depth_first(),
    parent=root.MODELS,
    scope='mmdet',
    locations=['mmdet.models', 'mmdet.distillation'],
)
METRICS = Registry('metric', parent=root.METRICS, scope='mmdet', locations=['mmdet.evaluation'])
LOOPS = Registry('loop', parent=root.LOOPS, scope='mmdet', locations=['mmdet.engine'])
HOOKS = Registry('hook', parent=root.HOOKS, scope='mmdet', locations=['mmdet.engine'])
OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=root.OPTIM_WRAPPERS, scope='mmdet', locations=['mmdet.engine']
)

# MMEngine's runner builds these by the scope of the config, and warns in the log where that has no registry.
for _name in (
    'EVALUATOR',
    'LOG_PROCESSORS',
    'MODEL_WRAPPERS',
    'OPTIMIZERS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'PARAM_SCHEDULERS',
    'VISBACKENDS',
    'VISUALIZERS',
):
    Registry(_name.lower(), parent=getattr(root, _name), scope='mmdet', locations=['mmdet.engine'])
