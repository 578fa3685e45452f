"""Our nodes in mmengine's registry tree.

mmengine imports this file by its name the first time it meets `type="swin_dense.<Name>"`, and the
`locations` after it, so that a config needs no `custom_imports`.
"""

from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import LOOPS as ROOT_LOOPS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as ROOT_WRAPPERS
from mmengine.registry import RUNNERS as ROOT_RUNNERS
from mmengine.registry import TASK_UTILS as ROOT_TASK_UTILS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import Registry

_SCOPE = "swin_dense"
_GLUE = ["swin_dense.openmmlab"]

MODELS = Registry(
    "model", parent=ROOT_MODELS, scope=_SCOPE, locations=["swin_dense.backbones", *_GLUE]
)
DATASETS = Registry("dataset", parent=ROOT_DATASETS, scope=_SCOPE, locations=_GLUE)
TRANSFORMS = Registry("transform", parent=ROOT_TRANSFORMS, scope=_SCOPE, locations=_GLUE)
TASK_UTILS = Registry("task util", parent=ROOT_TASK_UTILS, scope=_SCOPE, locations=_GLUE)
METRICS = Registry("metric", parent=ROOT_METRICS, scope=_SCOPE, locations=_GLUE)
OPTIM_WRAPPERS = Registry("optimizer wrapper", parent=ROOT_WRAPPERS, scope=_SCOPE, locations=_GLUE)
RUNNERS = Registry("runner", parent=ROOT_RUNNERS, scope=_SCOPE, locations=_GLUE)
HOOKS = Registry("hook", parent=ROOT_HOOKS, scope=_SCOPE, locations=_GLUE)
LOOPS = Registry("loop", parent=ROOT_LOOPS, scope=_SCOPE, locations=_GLUE)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor", parent=ROOT_CONSTRUCTORS, scope=_SCOPE, locations=_GLUE
)
