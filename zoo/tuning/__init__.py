"""Transfer techniques, each a function over a slice of layer groups."""

from zoo.tuning.dropout import set_dropout as set_dropout
from zoo.tuning.efficient.kinds import Lora as Lora
from zoo.tuning.efficient.lora import attach_lora as attach_lora
from zoo.tuning.efficient.lora import detach_lora as detach_lora
from zoo.tuning.efficient.lora import merge_lora as merge_lora
from zoo.tuning.efficient.lora import untrained as untrained
from zoo.tuning.efficient.targets import lora_targets as lora_targets
from zoo.tuning.freeze import apply_eval as apply_eval
from zoo.tuning.freeze import freeze_prefix as freeze_prefix
from zoo.tuning.optim import param_groups as param_groups
from zoo.tuning.recompute import recompute as recompute
from zoo.tuning.recompute import recomputed as recomputed
from zoo.tuning.regularize import Regularizers as Regularizers
from zoo.tuning.statistics import hold_statistics as hold_statistics
from zoo.tuning.stochastic_depth import stochastic_depth as stochastic_depth
from zoo.tuning.taps import taps as taps
