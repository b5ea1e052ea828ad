"""Median seconds of `unistep --help` in a fresh interpreter: python benchmarks/startup.py [RUNS]."""

import statistics
import subprocess
import sys
import time

PROGRAM = [sys.executable, "-m", "unistep", "--help"]


def seconds() -> float:
    """Wall time of one call, interpreter included."""
    start = time.perf_counter()
    subprocess.run(PROGRAM, check=True, capture_output=True)
    return time.perf_counter() - start


def main(runs: int) -> None:
    """One call that is not counted, because it may have to compile, then the median of the others."""
    seconds()
    measured = [seconds() for _ in range(runs)]
    print(f"unistep --help: median {statistics.median(measured):.3f} s of {runs} runs, fastest {min(measured):.3f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
