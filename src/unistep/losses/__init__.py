"""Losses: pure functions from tensors to one value per sample."""

from unistep.losses.denoising import denoising_loss as denoising_loss
from unistep.losses.distribution_matching import distribution_matching_gradient as distribution_matching_gradient
from unistep.losses.distribution_matching import distribution_matching_loss as distribution_matching_loss
from unistep.losses.regression import build_regression as build_regression
