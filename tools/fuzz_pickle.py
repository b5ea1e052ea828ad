"""Feeds damaged and hostile EDM checkpoints to the reader: python tools/fuzz_pickle.py MINUTES [FIRST_SEED].

Every file is a function of its seed. A worker with a memory limit reads them one after another; a file that ends the
worker, that takes more than a minute, or that makes it import, compile or start anything, is named by its seed.
"""

import resource
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "teachers"))

HEADROOM = 1200 * 2**20  # bytes of address space beyond what the worker starts with
PATIENCE = 60  # seconds for one file
FORBIDDEN = ("import", "compile", "exec", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")


def corpus() -> list[bytes]:
    """Valid files of every protocol, and the hostile ones that are small."""
    from edm_writer import checkpoint, dumps, network, small_state
    from hostile import liars, opcodes, records

    valid = [dumps(checkpoint(network(small_state())), protocol) for protocol in range(6)]
    hostile = [content for group in (opcodes("true"), liars(), records()) for content in group.values()]
    return valid * 20 + [content for content in hostile if 0 < len(content) < 100_000]


def work(first: int) -> None:
    """Reads files for ever and says on stdout what came of each."""
    from mutations import mutate

    from unistep.errors import UserError
    from unistep.teachers.edm.checkpoint import config_of
    from unistep.teachers.edm.pickle import read_edm_pickle

    files, events = corpus(), []
    path = Path(tempfile.mkdtemp()) / "x.pkl"
    path.write_bytes(files[0])
    read_edm_pickle(path)  # whatever reading imports is imported
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + HEADROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.addaudithook(lambda event, _: events.append(event) if event in FORBIDDEN else None)
    for seed in range(first, 2**62):
        path.write_bytes(mutate(files[seed % len(files)], seed, files))
        print("try", seed, flush=True)
        events.clear()
        try:
            config_of(read_edm_pickle(path))
            outcome = "read"
        except UserError as error:
            outcome = "refused" if str(error).isascii() and "\n" not in str(error) else "badly-said"
        except Exception as error:
            outcome = f"crash-{type(error).__name__}"
        outcome = "executed" if events else outcome
        print("end", outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)


def watch(until: float, first: int, counts: Counter[str], bad: list[str]) -> tuple[int, int]:
    """Runs a worker until the time is over or it ends; returns the next seed and its peak memory in MB."""
    command = [sys.executable, str(Path(__file__).resolve()), "--work", str(first)]
    seed, peak = first, 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as worker:
        assert worker.stdout is not None
        while time.monotonic() < until:
            ready = select.select([worker.stdout], [], [], PATIENCE)[0]
            kind, *rest = worker.stdout.readline().split() or ["gone"] if ready else ["hang"]
            if kind == "try":
                seed = int(rest[0])
            elif kind == "end":
                peak = int(rest[1])
                counts[rest[0]] += 1
                if rest[0] not in ("read", "refused"):
                    bad.append(f"seed {seed}: {rest[0]}")
            else:
                counts[kind] += 1
                bad.append(f"seed {seed}: {kind}")
                break
        worker.kill()
    return seed + 1, peak


def main(minutes: float, seed: int) -> int:
    """Fuzzes and reports; 1 if anything but reading and refusing happened."""
    until = time.monotonic() + 60 * minutes
    counts: Counter[str] = Counter()
    bad: list[str] = []
    first, peak = seed, 0
    while time.monotonic() < until:
        seed, highest = watch(until, seed, counts, bad)
        peak = max(peak, highest)
    print(f"{sum(counts.values())} files from seed {first}: {dict(counts)}, peak RSS {peak} MB")
    print(*bad, sep="\n", end="\n" if bad else "")
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1] == "--work":
        work(int(sys.argv[2]))
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
