"""`import unistep` is instant, and every public name is where it says."""

import importlib.metadata
import subprocess
import sys

import pytest

import unistep


def test_importing_unistep_imports_no_torch() -> None:
    code = "import sys, unistep; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", [name for name in unistep.__all__ if name != "__version__"])
def test_public_names_resolve(name: str) -> None:
    assert callable(getattr(unistep, name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unistep.nothing


def test_version_is_that_of_the_distribution() -> None:
    assert unistep.__version__ == importlib.metadata.version("unistep")
    assert set(unistep.__all__) <= set(dir(unistep))
