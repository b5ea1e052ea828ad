"""Noise processes: x_t = alpha_t x_0 + sigma_t eps, one file each."""

from unistep.process.base import NoiseProcess as NoiseProcess
from unistep.process.config import process_from_config as process_from_config
from unistep.process.config import require_process as require_process
from unistep.process.continuous_vp import ContinuousVPProcess as ContinuousVPProcess
from unistep.process.discrete_vp import DiscreteVPProcess as DiscreteVPProcess
from unistep.process.edm import EDMProcess as EDMProcess
from unistep.process.flow import FlowProcess as FlowProcess
