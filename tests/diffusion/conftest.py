"""Every noise process, as a fixture: what holds for one must hold for all."""

import pytest

from unistep.diffusion.process import ContinuousVPProcess, DiscreteVPProcess, EDMProcess, FlowProcess, NoiseProcess

PROCESSES = {
    "edm": EDMProcess(),
    "edm-narrow": EDMProcess(sigma_min=0.02, sigma_max=10.0),
    "linear": DiscreteVPProcess.linear(),
    "scaled-linear": DiscreteVPProcess.scaled_linear(),
    "cosine": DiscreteVPProcess.cosine(),
    "zero-snr": DiscreteVPProcess.zero_terminal_snr(DiscreteVPProcess.scaled_linear()),
    "continuous-vp": ContinuousVPProcess(),
    "flow": FlowProcess(),
    "flow-shift": FlowProcess(shift=3.0),
}


@pytest.fixture(params=list(PROCESSES))
def process(request: pytest.FixtureRequest) -> NoiseProcess:
    return PROCESSES[request.param]


@pytest.fixture(params=[name for name in PROCESSES if name not in ("zero-snr", "flow", "flow-shift")])
def signal_process(request: pytest.FixtureRequest) -> NoiseProcess:
    """The processes that keep some signal at the terminal time."""
    return PROCESSES[request.param]
