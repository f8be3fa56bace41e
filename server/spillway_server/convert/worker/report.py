"""How a job reports to its caller: progress as lines on standard output, an obstacle as an exception."""

from __future__ import annotations

import json


class JobError(Exception):
    """The job can't be done: `reason` says why, `fix` what to change. Both are whole sentences."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason} {fix}")
        self.reason = reason
        self.fix = fix


def report_progress(share: float, what: str) -> None:
    """Print one line of progress: the share done, 0 to 1, and what is being done."""
    print(json.dumps({"progress": round(share, 4), "what": what}), flush=True)
