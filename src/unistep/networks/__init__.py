"""Networks: the U-Nets of EDM, a small MLP, preconditioning, the generator wrapper and precision."""

from unistep.networks.build import build_denoiser as build_denoiser
from unistep.networks.build import build_network as build_network
from unistep.networks.dhariwal_unet import DhariwalUNet as DhariwalUNet
from unistep.networks.edm2_unet import EDM2UNet as EDM2UNet
from unistep.networks.generator import Generator as Generator
from unistep.networks.mlp import MLP as MLP
from unistep.networks.precision import autocast as autocast
from unistep.networks.precision import has_bf16 as has_bf16
from unistep.networks.precision import resolve_precision as resolve_precision
from unistep.networks.preconditioning import EDMDenoiser as EDMDenoiser
from unistep.networks.song_unet import SongUNet as SongUNet
from unistep.networks.state_dict import load_strictly as load_strictly
from unistep.networks.unet import UNet as UNet
