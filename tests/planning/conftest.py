"""Lets the tests of planning import their tiny distillation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
