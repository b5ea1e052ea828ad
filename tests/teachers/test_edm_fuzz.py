"""Damaged checkpoints are read or refused; nothing else happens, and nothing is run."""

import sys
import time
from pathlib import Path

import pytest
from edm_writer import ARGUMENTS, checkpoint, dumps, network, small_state
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutate

from unistep.errors import UserError
from unistep.teachers.edm.checkpoint import config_of
from unistep.teachers.edm.pickle import read_edm_pickle

VALID = [
    dumps(checkpoint(network(small_state(), class_name=name)), protocol)
    for name, protocol in zip(("EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond"), (0, 2, 4, 5), strict=True)
]
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "exec",
    "compile",
    "pickle.find_class",
    "import",
)
seen: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def listener() -> None:
    """Audit hooks cannot be taken away, so this one hears only while a file is read."""
    sys.addaudithook(lambda event, args: seen.append(event) if listening[0] and event in FORBIDDEN else None)


listening = [False]


def outcome(file: Path, content: bytes) -> str:
    """ "" where the file was read; else what was said."""
    file.write_bytes(content)
    listening[0] = True
    try:
        config_of(read_edm_pickle(file))
    except UserError as error:
        return str(error)
    finally:
        listening[0] = False
    return ""


def check(file: Path, content: bytes) -> None:
    start = time.process_time()
    said = outcome(file, content)
    assert said.isascii() and "\n" not in said and len(said) < 600
    assert not seen and time.process_time() - start < 10


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, len(VALID) - 1), seed=st.integers(0, 2**32))
def test_mutated_files(tmp_path: Path, which: int, seed: int) -> None:
    outcome(tmp_path / "valid.pkl", VALID[which])  # whatever reading imports is imported
    seen.clear()
    check(tmp_path / "x.pkl", mutate(VALID[which], seed, VALID))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_noise(tmp_path: Path, content: bytes) -> None:
    seen.clear()
    check(tmp_path / "x.pkl", content)
    check(tmp_path / "x.pkl", b"\x80\x04" + content + b".")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_arguments_are_read_as_they_are(tmp_path: Path, value: object, protocol: int) -> None:
    (tmp_path / "x.pkl").write_bytes(dumps(checkpoint(network(small_state(), {**ARGUMENTS, "extra": value})), protocol))
    assert read_edm_pickle(tmp_path / "x.pkl").arguments == {**ARGUMENTS, "extra": value}
