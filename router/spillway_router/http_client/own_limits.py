"""Errors of this machine and process, for which no upstream is to blame: no descriptor, no memory, no port is left."""

from __future__ import annotations

import errno

OWN_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})


def is_own(error: BaseException | None) -> bool:
    """Return whether an error is of this machine, or was caused by one that is."""
    seen = 0
    while error is not None and seen < 10:  # an exception may have itself as its context
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in OWN_ERRORS):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False
