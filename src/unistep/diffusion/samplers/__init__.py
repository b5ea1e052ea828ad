"""Samplers: from unit noise to samples by asking a denoiser a counted number of times."""

from unistep.diffusion.samplers.base import DenoiserFn as DenoiserFn
from unistep.diffusion.samplers.base import Sampler as Sampler
from unistep.diffusion.samplers.base import SampleResult as SampleResult
from unistep.diffusion.samplers.build import SAMPLERS as SAMPLERS
from unistep.diffusion.samplers.build import build_sampler as build_sampler
from unistep.diffusion.samplers.build import missing_package as missing_package
from unistep.diffusion.samplers.consistency import Consistency as Consistency
from unistep.diffusion.samplers.ddim import DDIM as DDIM
from unistep.diffusion.samplers.dpmpp import DPMpp2M as DPMpp2M
from unistep.diffusion.samplers.euler import Euler as Euler
from unistep.diffusion.samplers.heun import Heun as Heun
from unistep.diffusion.samplers.pndm import PNDM as PNDM
from unistep.diffusion.samplers.seeds import seeded_normal as seeded_normal
from unistep.diffusion.samplers.seeds import seeded_uniform as seeded_uniform
from unistep.diffusion.samplers.unipc import UniPC as UniPC
