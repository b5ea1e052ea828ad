"""Every golden run gives the recorded numbers to the last bit, on the kind of processor that they were recorded on."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from golden_runs import RUNS, VALUES, differences, machine, run_and_read

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", RUNS)
def test_golden_run_gives_the_recorded_bits(name: str, tmp_path: Path) -> None:
    expected = json.loads((VALUES / f"{name}.json").read_text())
    if expected["machine"] != machine():
        pytest.skip(f"recorded on {expected['machine']}, this is {machine()}")
    assert differences(expected, run_and_read(name, tmp_path)) == []
