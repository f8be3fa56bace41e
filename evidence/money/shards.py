"""Run trials in parallel, each in a process and a session of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Job], Result], jobs: Sequence[Job], processes: int) -> list[Result]:
    """Return the results of `work` on every job, in order, running `processes` at a time.

    Work and jobs must be picklable. Raises the first error of a job.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=os.setsid, max_tasks_per_child=1) as pool:
        return list(pool.map(work, jobs))
