"""Trials side by side, each in a process and a session of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Found = TypeVar("Found")


def side_by_side(work: Callable[[Job], Found], jobs: Sequence[Job], processes: int) -> list[Found]:
    """`work` of every job, in order; so many at a time. Both must be picklable; an error in one is raised here."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=os.setsid, max_tasks_per_child=1) as pool:
        return list(pool.map(work, jobs))
