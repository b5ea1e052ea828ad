"""Samplers: from unit noise to samples by asking a denoiser a counted number of times."""

from unistep.samplers.base import DenoiserFn as DenoiserFn
from unistep.samplers.base import Sampler as Sampler
from unistep.samplers.base import SampleResult as SampleResult
from unistep.samplers.build import SAMPLERS as SAMPLERS
from unistep.samplers.build import build_sampler as build_sampler
from unistep.samplers.build import missing_package as missing_package
from unistep.samplers.consistency import Consistency as Consistency
from unistep.samplers.ddim import DDIM as DDIM
from unistep.samplers.dpmpp import DPMpp2M as DPMpp2M
from unistep.samplers.euler import Euler as Euler
from unistep.samplers.heun import Heun as Heun
from unistep.samplers.pndm import PNDM as PNDM
from unistep.samplers.seeds import seeded_normal as seeded_normal
from unistep.samplers.seeds import seeded_uniform as seeded_uniform
from unistep.samplers.unipc import UniPC as UniPC
