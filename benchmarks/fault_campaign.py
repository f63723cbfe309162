"""Provokes faults on purpose and counts which of them the commands do not survive.

    python benchmarks/fault_campaign.py
    python benchmarks/fault_campaign.py --areas=data,downloads

An attempt is right where nothing of anybody else's is lost, nothing half-made is taken
for whole, and the command says in one line what is wrong, or does its work. What was
wrong is printed as it happens; the table at the end has a row for each kind of fault.
"""

import argparse
import importlib
import pathlib
import pkgutil
import sys
import tempfile
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks import faults

_ROW = "| {} | {} | {} | {} |\n"


def areas():
    """Returns the sorted names of the modules of faults."""
    names = {module.name for module in pkgutil.iter_modules(faults.__path__)}
    return sorted(names - {"common"})


def main():
    """Makes all attempts and prints the table; exit code 1 where any was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--areas", default=",".join(areas()), help="comma-separated")
    wanted = parser.parse_args().areas.split(",")
    rows, started = [], time.time()
    for area in wanted:
        module = importlib.import_module("benchmarks.faults." + area)
        area_started = time.time()
        counts = [_attempt(fault) for fault in module.FAULTS]
        rows += [(area, f.kind) + count for f, count in zip(module.FAULTS, counts)]
        sys.stderr.write("{}: {:.0f} s\n".format(area, time.time() - area_started))
    totals = [sum(column) for column in zip(*(row[2:] for row in rows))]
    sys.stdout.write(_ROW.format("area", "fault", "tried", "wrong"))
    sys.stdout.write("|---|---|---|---|\n")
    for row in rows:
        sys.stdout.write(_ROW.format(*row))
    sys.stdout.write(_ROW.format("all", "", *totals))
    sys.stdout.write("{:.0f} s\n".format(time.time() - started))
    sys.exit(1 if totals[1] else 0)


def _attempt(fault):
    """Makes all attempts of a `Fault`; returns (number, number of wrong ones)."""
    tried = wrong = 0
    with tempfile.TemporaryDirectory(prefix="faults.") as directory:
        try:
            for name, problem in fault.tries(pathlib.Path(directory)):
                tried += 1
                if problem:
                    wrong += 1
                    sys.stderr.write("{}: {}: {}\n".format(fault.kind, name, problem))
        except Exception:  # the other kinds of fault are still to be tried
            tried, wrong = tried + 1, wrong + 1
            sys.stderr.write("{}: {}".format(fault.kind, traceback.format_exc()))
    return tried, wrong


if __name__ == "__main__":
    main()
