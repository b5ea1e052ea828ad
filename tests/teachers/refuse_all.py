"""Converts every file of a folder under a memory limit: `refuse_all.py FOLDER REPORT`; run by test_hostile_files.py.

The report has one entry for each file: what was said, the processor seconds it took, and what the interpreter was asked
to do beyond reading a file (audit events, PEP 578).
"""

import json
import resource
import sys
import time
from pathlib import Path

from edm_writer import write_checkpoint

from unistep.errors import UserError
from unistep.networks.build import build_denoiser
from unistep.run.convert import convert
from unistep.teachers.edm.checkpoint import config_of
from unistep.teachers.edm.pickle import read_edm_pickle

HEADROOM = 400 * 2**20  # bytes that reading may add to what the program has when it starts
QUIET = {"open", "os.listdir", "os.scandir", "mmap.__new__", "object.__getattr__", "sys._getframe", "builtins.id"}
events: list[str] = []


def attempt(file: Path) -> dict[str, object]:
    """What converting one file gives."""
    events.clear()
    start = time.process_time()
    try:
        convert(file, out=file.parent / "out")
        said = "converted"
    except UserError as error:
        said = str(error)
    except BaseException as error:
        said = f"crashed: {type(error).__name__}: {error}"[:500]
    return {"said": said, "seconds": time.process_time() - start, "events": sorted(set(events) - QUIET)}


def main(folder: Path, report: Path) -> None:
    files = sorted(folder.glob("*.pkl"))
    honest = write_checkpoint(folder / "honest", protocol=4)
    state = build_denoiser(config_of(read_edm_pickle(honest))).state_dict()
    convert(write_checkpoint(honest, state, protocol=4), out=folder / "converted")  # imports what reading imports
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + HEADROOM,) * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.addaudithook(lambda event, args: events.append(event))
    found = {file.stem: attempt(file) for file in files}
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    report.write_text(json.dumps({"files": found, "grown": grown}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
