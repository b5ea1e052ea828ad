"""Checks of what a teacher knows: a posterior mean obeys laws that hold whatever the data are.

Let mu = E[x_0 | x_t]. Then, over samples of the data:
    orthogonality   E<mu, x_0 - mu> = 0, and likewise E<eps_hat, eps - eps_hat> = 0
    covariance      E|x_0 - mu|^2 = sigma^2 / alpha  E tr(d mu / d x_t)     (Tweedie, second order)
    monotony        E|x_0 - mu|^2 falls with the noise
The samples are the teacher's own, so no data are needed. A network that is read wrongly (another prediction type,
schedule or preconditioning) breaks the laws; one that is right but imperfect breaks them a little, hence the limits.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from unistep.teacher_checks.certificate import Check, nan_as_infinity
from unistep.teacher_checks.probe import Level, Probe
from unistep.teachers.codecs import PixelCodec
from unistep.types import Cond

READ_WRONGLY = (
    "is the prediction type, the noise schedule or the preconditioning another one? (a teacher that has hardly "
    "been trained fails so too)"
)
ORTHOGONAL, COVARIANCE, SKILL, CONDITION, SLACK = 0.12, 2.5, 0.8, 1e-3, 1.1
OUTSIDE, CORRELATED = 0.1, 0.2
BRIGHT_HALF = "all lie in 0..1: if the network was trained on images in [0, 1], say value_range=(0, 1)"


def calibration(seen: Probe) -> Check:
    """Orthogonality of estimate and error, of the sample and of the noise; counted beyond two standard errors."""
    worst, place, strength = 0.0, seen.levels[0], 1.0
    spread = math.sqrt(seen.variance())
    for level in seen.levels:
        pairs = [(level.mu, seen.x_0)]
        if level.sigma > 0.3 * level.alpha * spread:  # below, the noise is too weak to be told from the sample's detail
            pairs.append((level.eps_hat, level.eps))
        for estimate, truth in pairs:
            slope, error = regression_slope(estimate, truth)
            beyond = max(abs(slope - 1) - 2 * error, 0.0)
            if nan_as_infinity(beyond) > nan_as_infinity(worst):
                worst, place, strength = beyond, level, slope
    passed = worst <= ORTHOGONAL
    words = f"estimates are calibrated to {worst:.2g}"
    if not passed:
        words = (
            f"{place.place} the teacher's estimate wants to be multiplied by {strength:.3g}, expected 1; {READ_WRONGLY}"
        )
    return Check(name="calibration", passed=passed, words=words, figure=worst, limit=f"at most {ORTHOGONAL:g}")


def regression_slope(estimate: Tensor, truth: Tensor) -> tuple[float, float]:
    """The factor that brings the estimate closest to the truth, and its standard error over samples."""
    power = estimate.double().square().flatten(1).sum(1)
    residual = (estimate * (truth - estimate)).double().flatten(1).sum(1)
    mean = power.mean().clamp_min(1e-30)
    return float(1 + residual.mean() / mean), float(residual.std() / mean) / math.sqrt(len(residual))


def monotony(seen: Probe) -> Check:
    """The error of x_0 falls as the noise falls; a rise is counted beyond two standard errors."""
    errors = seen.errors()
    rises = [(rise(low, high), level) for (low, high), level in zip(pairwise(errors), seen.levels, strict=False)]
    worst, level = max(rises, key=lambda found: nan_as_infinity(found[0]))
    passed = worst <= SLACK
    share = [float(error.mean()) / max(seen.variance(), 1e-30) for error in (errors[0], errors[-1])]
    words = f"the error of x_0 falls from {share[1]:.2g} to {share[0]:.2g} of the samples' variance"
    if not passed:
        words = f"{level.place} the error of x_0 is {worst:.3g} times that at the next higher noise; {READ_WRONGLY}"
    return Check(name="falling error", passed=passed, words=words, figure=worst, limit=f"at most {SLACK:g}")


def rise(low: Tensor, high: Tensor) -> float:
    """How many times the mean error `low` [n] is the error `high` [n] of the same samples, two standard errors less."""
    error = 2 * float((low - high).std()) / math.sqrt(len(low))
    return (float(low.mean()) - error) / max(float(high.mean()), 1e-30)


def skill(seen: Probe) -> Check:
    """The error beside that of the best multiple of x_t, which knows nothing but the spread of the data."""
    ratios = []
    for level, error in zip(seen.levels, seen.errors(), strict=True):
        factor = (level.x_t * seen.x_0).sum() / level.x_t.square().sum()
        ratios.append(float(error.mean()) / max(float((factor * level.x_t - seen.x_0).square().mean()), 1e-30))
    best = math.nan if any(map(math.isnan, ratios)) else min(ratios)
    passed = best <= SKILL
    words = f"at best {best:.2g} of the error of merely scaling the input"
    if not passed:
        words += ": it has learnt nothing; are these random weights, or those of another network?"
    return Check(name="skill", passed=passed, words=words, figure=best, limit=f"at most {SKILL:g}")


def covariance(seen: Probe) -> Check | None:
    """The error against the trace of the posterior covariance, from finite differences; None where no level suits.

    Where the error is tiny, rounding decides; where most is unknown, a network's derivative is too rough.
    """
    variance, ratios = seen.variance(), []
    for level, error in zip(seen.levels, (float(e.mean()) for e in seen.errors()), strict=True):
        if not math.isfinite(error) or (0.005 < error / variance < 0.15 and level.alpha > 0):
            v, derivative = seen.directional(level)
            trace = float((v * derivative).mean()) * level.sigma**2 / level.alpha
            ratios.append((trace / error, level))
    if not ratios:
        return None
    worst, level = max(ratios, key=lambda found: nan_as_infinity(abs(math.log(max(found[0], 1e-6)))))
    passed = 1 / COVARIANCE <= worst <= COVARIANCE
    words = f"the derivative of mu explains {worst:.2g} of its error (1 = exactly)"
    if not passed:
        words = f"{level.place} {words}; {READ_WRONGLY}"
    limit = f"{1 / COVARIANCE:g} to {COVARIANCE:g}"
    return Check(name="finite differences", passed=passed, words=words, figure=worst, limit=limit)


def density(seen: Probe) -> Check | None:
    """The score against finite differences of the log density, where the teacher knows it; None elsewhere."""
    log_density = getattr(seen.teacher.denoiser, "log_density", None)
    if log_density is None:
        return None
    worst = max((score_error(seen, level, log_density) for level in seen.levels), key=nan_as_infinity)
    passed = worst <= 1e-3
    words = f"the score and finite differences of log p differ by {worst:.2g} of the score"
    return Check(name="score", passed=passed, words=words, figure=worst, limit="at most 0.001")


def score_error(seen: Probe, level: Level, log_density) -> float:
    """Relative difference of the directional derivatives at one level, in float64."""
    x_t, t = level.x_t.double(), level.t.double()
    draws = torch.Generator().manual_seed(round(1000 * level.u))
    v = torch.randn(x_t.shape, generator=draws, dtype=torch.float64).to(x_t.device)
    h = 1e-4 * level.sigma
    slope = (log_density(x_t + h * v, t, seen.cond) - log_density(x_t - h * v, t, seen.cond)) / (2 * h)
    score = (level.alpha * seen.teacher(x_t, t, seen.cond) - x_t) / level.sigma**2  # Eq. 4
    return float(((score * v).flatten(1).sum(1) - slope).norm() / slope.norm())


def condition(seen: Probe) -> Check | None:
    """Another condition changes the answer; None for a teacher without conditions, or with one only."""
    other = rolled(seen.cond)
    if seen.cond is None or same(other, seen.cond):
        return None
    changes = [
        float((seen.ask(level.x_t, level.t, other) - level.mu).norm() / level.mu.norm()) for level in seen.levels[4::3]
    ]
    effect = max(changes, key=nan_as_infinity)
    passed = effect >= CONDITION
    words = f"another condition changes the answer by up to {effect:.2g} of its size"
    if not passed:
        words += ": the network does not see its condition"
    return Check(name="conditioning", passed=passed, words=words, figure=effect, limit=f"at least {CONDITION:g}")


def rolled(cond: Cond) -> Cond:
    """Every row gets its neighbour's condition."""
    if cond is None:
        return None
    return cond.roll(1, 0) if isinstance(cond, Tensor) else {name: value.roll(1, 0) for name, value in cond.items()}


def same(a: Cond, b: Cond) -> bool:
    """Whether two conditions are equal."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return a is not None and b is not None and all(torch.equal(a[name], b[name]) for name in a)  # type: ignore[index]


def samples(seen: Probe) -> Check:
    """Its own solver's samples: finite, different from each other, and, for pixels, in range and no white noise."""
    x, name = seen.x_0, "samples"
    if not x.isfinite().all():
        return Check(name=name, passed=False, words=f"its own solver leaves the finite numbers; {READ_WRONGLY}")
    spread, apart = float(x.std()), float((x - x.roll(1, 0)).square().mean().sqrt())
    if not (spread > 0 and apart > 0.05 * spread):
        words = f"found samples {apart:.2g} apart at a spread of {spread:.2g}: all seeds give the same"
        return Check(name=name, passed=False, words=words, figure=apart)
    words = f"mean {float(x.mean()):.2f}, standard deviation {spread:.2f}"
    if not isinstance(seen.teacher.codec, PixelCodec) or x.ndim != 4:
        return Check(name=name, passed=True, words=words, figure=spread)
    codec, signed = seen.teacher.codec, seen.teacher.codec.signed(x)
    outside, correlation = float((signed.abs() > 1.5).double().mean()), neighbour_correlation(x)
    words += (
        f", {100 * outside:.1f} % far outside {codec.low:g}..{codec.high:g}, neighbouring pixels correlated to "
        f"{correlation:.2f}"
    )
    if codec.is_signed and in_bright_half(x):
        words += f"; {BRIGHT_HALF}"
    passed = outside <= OUTSIDE and correlation >= CORRELATED
    limit = f"at most {100 * OUTSIDE:g} % outside, correlation at least {CORRELATED:g}"
    if not passed:
        words = f"found samples of {words}, expected pictures; {READ_WRONGLY}"
    return Check(name=name, passed=passed, words=words, figure=correlation, limit=limit)


def in_bright_half(x: Tensor) -> bool:
    """Whether pixels that could be -1..1 hardly leave 0..1, though many come near its lower end."""
    return bool((x < -0.2).double().mean() < 1e-3 and (x < 0.2).double().mean() > 0.05)


def neighbour_correlation(x: Tensor) -> float:
    """Correlation of horizontally neighbouring pixels of [n, c, h, w]."""
    d = x - x.mean()
    return float((d[..., 1:] * d[..., :-1]).mean() / d.square().mean())
