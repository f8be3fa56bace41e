"""The image's health check: the router's process answers. Exit status 0 or 1; takes at most 5 s.

Not readiness: while the model loads the router answers by the cloud, and a container that is killed for loading slowly
never gets ready. Load balancers ask /ready or /ping instead.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

URL = "http://127.0.0.1:8080/health"


def main() -> int:
    """Ask once."""
    try:
        with urllib.request.urlopen(URL, timeout=5) as reply:
            return 0 if reply.status == 200 else 1
    except (OSError, urllib.error.URLError):
        return 1


if __name__ == "__main__":
    sys.exit(main())
