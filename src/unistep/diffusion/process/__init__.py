"""Noise processes: x_t = alpha_t x_0 + sigma_t eps, one file each."""

from unistep.diffusion.process.base import NoiseProcess as NoiseProcess
from unistep.diffusion.process.config import process_from_config as process_from_config
from unistep.diffusion.process.config import require_process as require_process
from unistep.diffusion.process.continuous_vp import ContinuousVPProcess as ContinuousVPProcess
from unistep.diffusion.process.discrete_vp import DiscreteVPProcess as DiscreteVPProcess
from unistep.diffusion.process.edm import EDMProcess as EDMProcess
from unistep.diffusion.process.flow import FlowProcess as FlowProcess
