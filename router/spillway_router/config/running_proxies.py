"""Find reverse proxies and tunnels that run on this machine, by the names of processes."""

from __future__ import annotations

from pathlib import Path

_NAMES = frozenset(
    {
        "apache2",
        "caddy",
        "cloudflared",
        "envoy",
        "frpc",
        "haproxy",
        "httpd",
        "lighttpd",
        "nginx",
        "ngrok",
        "squid",
        "traefik",
    }
)
_PROCESSES = Path("/proc")


def running_proxies(processes: Path = _PROCESSES) -> list[str]:
    """Return the names of the known proxies among the running processes, sorted; none where there is no /proc."""
    names = set()
    for place in processes.glob("[0-9]*/comm"):
        try:
            names.add(place.read_text(encoding="utf-8", errors="replace").strip())
        except OSError:  # the process has ended
            continue
    return sorted(names & _NAMES)
