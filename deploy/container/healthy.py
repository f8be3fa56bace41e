"""The image's health check: exit with status 0 if the router's process answers, else 1. Takes at most 5 s.

This is not a readiness check: while the model loads, the router sends requests to the cloud, and a container that is
killed for loading slowly never becomes ready. Load balancers use /ready or /ping instead.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

URL = "http://127.0.0.1:8080/health"


def main() -> int:
    """Request the health page once."""
    try:
        with urllib.request.urlopen(URL, timeout=5) as reply:
            return 0 if reply.status == 200 else 1
    except (OSError, urllib.error.URLError):
        return 1


if __name__ == "__main__":
    sys.exit(main())
