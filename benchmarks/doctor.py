"""The doctor on small trainings with seeded faults and on sound ones: recall, right cause, false alarms, remedies.

Each run is a plain PyTorch loop of seconds on one thread: rules on the model before it, the watch and the keeper of
steps while it goes, rules on data where the fault is in the data; the peers look at the same run. Rows of runs are kept
in `--out`, so that a benchmark that was stopped goes on. Each part has data sets and architectures of its own: rules
were first set on `--part tune`; held-out figures, on what is now `--part second` and then on what is now
`--part third`, led to changes of them; `--part report`, which has the bars, is looked at only after those.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    track,
)

from harness import ROOT, Options, arguments, need, report, stop

if TYPE_CHECKING:
    from doctor_job import Job

FOLDERS = ("bccd", "fruits", "membrane", "mnist_t10k", "nuclei", "sign_digits", "spoken_digits")
PARTS: tuple[str, ...] = ("tune", "second", "third", "report")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def add_options(parser: argparse.ArgumentParser) -> None:
    """What this benchmark can be told besides."""
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all", help="of data and architectures")
    parser.add_argument("--only", default="", metavar="FAULT", help="runs with this fault alone, and their twins")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each (default: 2)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "doctor", help="results, kept; data, cached")
    parser.add_argument("--list", action="store_true", help="list the faults and the findings that name them")
    parser.add_argument("--scores", action="store_true", help="score what is there; run nothing")
    parser.add_argument(
        "--again", action="store_true", help="apply the rules on runs again to what was recorded; train nothing"
    )


# ------------------------------------------------------------------------------------------------ results on disk
def read_results(file: Path) -> dict[str, dict[str, Any]]:
    """Rows by key, the last of each; a line that was cut off is left out."""
    rows: dict[str, dict[str, Any]] = {}
    if file.is_file():
        for line in file.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            rows[row["key"]] = row
    return rows


def mend(file: Path) -> None:
    """End the last line, if it was cut off, so that the next row has one of its own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file() and not file.read_bytes().endswith(b"\n"):
        with file.open("a") as results:
            results.write("\n")


def in_worker(job: Job, data: Path, cache: Path) -> dict[str, Any]:
    """In a process of its own: the row of a run, or what went wrong."""
    from doctor_job import run_job

    try:
        return run_job(job, data, cache)
    except Exception as error:  # noqa: BLE001 - one run's failure ends no benchmark
        said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return {"key": job.key, "kind": job.kind, "part": job.part, "error": said[:300]}


def run_all(jobs: Sequence[Job], options: Options, file: Path, title: str) -> None:
    """Run what is not known yet, and write each row as it comes."""
    known = read_results(file)
    waiting = [job for job in jobs if job.key not in known or "error" in known[job.key]]
    if not waiting:
        return
    os.environ.update(dict.fromkeys(THREADS, "1"))
    mend(file)
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with (
        file.open("a") as results,
        Progress(*columns, console=Console(stderr=True)) as progress,
        ProcessPoolExecutor(options.extra.workers, mp_context=get_context("spawn")) as pool,
    ):
        task = progress.add_task(title, total=len(jobs), completed=len(jobs) - len(waiting))
        futures = [pool.submit(in_worker, job, options.data, file.parent / "cache") for job in waiting]
        try:
            for future in as_completed(futures):
                results.write(json.dumps(future.result()) + "\n")
                results.flush()
                progress.advance(task)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # those that run come to their end and are lost
            raise


def judged_again(known: dict[str, dict[str, Any]], options: Options, file: Path) -> dict[str, dict[str, Any]]:
    """Rows with what the rules on runs find now, in the records that were kept."""
    from doctor_again import again

    os.environ.update(dict.fromkeys(THREADS, "1"))
    records = file.parent / "cache" / "records"
    with ProcessPoolExecutor(options.extra.workers, mp_context=get_context("spawn")) as pool:
        rows = pool.map(again, known.values(), [records] * len(known), chunksize=8)
        return {row["key"]: row for row in track(rows, "rules on runs", len(known), console=Console(stderr=True))}


# ------------------------------------------------------------------------------------------------ the whole
def list_faults(console: Console) -> None:
    """Names, rows of the catalogue, levels, and what names them."""
    from doctor_job import EVERY

    for name, fault in EVERY.items():
        levels = ", ".join(f"{level:g}" for level in fault.levels)
        told = ", ".join(sorted(fault.accepted))
        console.print(f"{name} ({fault.row}; {levels}): {told}", markup=False, highlight=False, soft_wrap=True)


def main() -> int:
    options = arguments((__doc__ or "").splitlines()[0], extra=add_options)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if options.extra.list:
        list_faults(console)
        return 0
    from doctor_tables import rows_of, show

    parts = list(PARTS) if options.extra.part == "all" else [options.extra.part]
    name = "quick" if options.quick else options.extra.only or "results"
    file = options.extra.out / f"{name}.jsonl"
    if not (options.extra.scores or options.extra.again):
        from doctor_plan import followers, jobs_of

        for folder in FOLDERS:
            need(options, folder)
        if options.quick:
            file.unlink(missing_ok=True)  # a smoke run is to run
        jobs = [job for part in parts for job in jobs_of(part, only=options.extra.only, quick=options.quick)]
        if not jobs:
            stop(f"{options.extra.only}: no such fault; --list shows them")
        run_all(jobs, options, file, "trainings")
        known = read_results(file)
        run_all([job for part in parts for job in followers(known, part)], options, file, "remedies")
    known = read_results(file)
    if options.extra.again:
        known = judged_again({key: row for key, row in known.items() if row["part"] in parts}, options, file)
    show(known, parts, console)
    return report("doctor", rows_of(known, parts), options)


if __name__ == "__main__":
    sys.exit(main())
