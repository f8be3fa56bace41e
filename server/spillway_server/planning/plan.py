"""From a device and a model to vLLM's arguments and the arithmetic behind them. Pure: values in, values out.

1. Take the profile's limits, replaced by whatever the user passes through to vLLM.
2. Refuse what can't work: reserved flags, and formats and number types that this device doesn't support.
3. Do the memory arithmetic; shorten the context when the KV cache can't hold it, refuse when nothing sensible fits.
4. Write the arguments, the user's own last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from spillway_server.obstacle import Obstacle
from spillway_server.planning import adapters, architectures, arguments, layouts
from spillway_server.planning.adapters import Adapter
from spillway_server.planning.arguments import Flag
from spillway_server.planning.hardware import DRIVER_FLOOR, is_old
from spillway_server.planning.layouts import Layout
from spillway_server.planning.memory import MEAN_TOKENS, Budget, MemoryPlan, Row, arithmetic, dtype_bytes, element_bytes
from spillway_server.planning.models import T4_CLASS, ModelSpec
from spillway_server.planning.profiles import Profile
from spillway_server.planning.shapes import GIB, ModelShape

LEAST_CONTEXT = 512
# Spillway sets these itself, or they are dangerous on a command line that every user of the machine can read.
_RESERVED = {
    "--model": "Name the model with --model of `spillway serve` (server.model in spillway.yaml).",
    "--host": "Use --host of `spillway serve`.",
    "--port": "Use --port of `spillway serve`.",
    "--uds": "Use --uds of `spillway serve`.",
    "--api-key": "Set VLLM_API_KEY in the environment: arguments are visible to every user of this machine.",
}
_CPU_FORMATS = {None, "awq", "gptq", "w4a16", "int8"}
_BFLOAT = {"bfloat16", "bf16"}


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """The user's choices: address (a port, or a Unix socket's path), devices, arguments for vLLM, the mean request
    length in tokens for the arithmetic, LoRA adapters, and whether the model embeds instead of generating.
    `gguf_plugin` says whether the engine has the GGUF plugin, `queue_limit` whether it has `--max-num-queued-reqs`.
    `force` turns a refusal that rests on Spillway's arithmetic or knowledge into a warning."""

    host: str = "127.0.0.1"
    port: int = 8001
    uds: str | None = None
    devices: int = 1
    vllm_args: tuple[str, ...] = ()
    mean_tokens: int = MEAN_TOKENS
    adapters: tuple[Adapter, ...] = ()
    embedding: bool = False
    gguf_plugin: bool = False
    queue_limit: bool = True
    force: bool = False


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """How to start vLLM: the arguments after launcher and model, extra environment, and the resulting capacity.

    `kv_tokens` is the capacity of all engines together, None for a model whose shape is unknown. `layout` says how the
    devices are used.
    """

    profile: Profile
    model: ModelSpec
    served_name: str
    arguments: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    kv_tokens: int | None
    max_model_len: int
    max_num_seqs: int
    warnings: tuple[str, ...]
    layout: Layout = Layout()


@dataclass(frozen=True, slots=True)
class _Limits:
    """The limits in force after the user's own flags."""

    dtype: str
    kv_dtype: str
    max_model_len: int
    context_from_user: bool
    max_num_seqs: int
    batched_tokens: int
    share: float
    layout: Layout


def make_plan(profile: Profile, model: ModelSpec, options: PlanOptions) -> EnginePlan | Obstacle:
    """Plan one engine, or return why that is not possible and what to change."""
    flags = arguments.parse(options.vllm_args)
    if isinstance(flags, arguments.StrayWord):
        return Obstacle(f"{flags.word!r} in the vLLM arguments belongs to no flag.", "Write flags as --name value.")
    limits = _limits(profile, model, flags)
    if isinstance(limits, Obstacle):
        return limits
    obstacle = (
        _refuse_flags(flags)
        or _refuse_numbers(flags)
        or _refuse_model(profile, model, options)
        or _refuse_types(profile, limits)
    )
    if obstacle:
        return obstacle
    doubts = [] if _overrides(flags) else [_refuse_length(model, limits)]
    doubts += [_refuse_architecture(model, options), _refuse_unknown(model)]
    fitted: _Fitted | Obstacle = _Fitted(limits)
    if model.shape is not None:
        fitted = _fit(profile, model, model.shape, options, limits)
    if isinstance(fitted, Obstacle):
        doubts.append(fitted)
        fitted = _Fitted(limits)
    obstacles = [doubt for doubt in doubts if doubt is not None]
    if obstacles and not options.force:
        return obstacles[0]
    forced = tuple(f"forced: {doubt.reason}" for doubt in obstacles)
    shortened = (_shortened(limits, fitted.limits),) if fitted.limits.max_model_len < limits.max_model_len else ()
    memory, limits = fitted.memory, fitted.limits
    return EnginePlan(
        profile=profile,
        model=model,
        served_name=arguments.value_of(flags, "--served-model-name") or model.served_name,
        arguments=arguments.merge(_flags(profile, model, options, limits), flags),
        env=_env(profile, model, _cpu_kv_bytes(profile, model, limits)),
        rows=memory.rows if memory else (),
        kv_tokens=memory.kv_tokens * limits.layout.data if memory else None,
        max_model_len=limits.max_model_len,
        max_num_seqs=limits.max_num_seqs,
        warnings=(*_warnings(profile, model, options, limits), *forced, *shortened),
        layout=limits.layout,
    )


@dataclass(frozen=True, slots=True)
class _Fitted:
    """Limits under which the model fits, and the arithmetic that shows it."""

    limits: _Limits
    memory: MemoryPlan | None = None


def _fit(
    profile: Profile, model: ModelSpec, shape: ModelShape, options: PlanOptions, limits: _Limits
) -> _Fitted | Obstacle:
    """Choose how the devices are used: the least tensor parallelism with which the model and its longest request fit,
    and one engine for each such group of devices."""
    choices = layouts.choices(limits.layout, shape, options.devices, profile.is_cpu)
    if isinstance(choices, Obstacle):
        return choices
    best: _Fitted | None = None
    obstacle: Obstacle | None = None
    for layout in choices:
        trial = replace(limits, layout=layout)
        kv_space = _cpu_kv_bytes(profile, model, trial)
        memory = _memory(profile, model, shape, trial, options.mean_tokens, kv_space)
        fitted = _fit_context(profile, model, trial, memory)
        if isinstance(fitted, Obstacle):
            obstacle = fitted
        elif fitted.max_model_len == limits.max_model_len:
            return _Fitted(fitted, memory)
        elif best is None or fitted.max_model_len > best.limits.max_model_len:
            # The figure depends on the longest request where layers keep a window.
            again = _memory(profile, model, shape, fitted, options.mean_tokens, kv_space)
            best = _Fitted(fitted, again if shape.sliding else memory)
    if best is not None:
        return best
    assert obstacle is not None, "there is at least one choice"
    return obstacle


def _limits(profile: Profile, model: ModelSpec, flags: tuple[Flag, ...]) -> _Limits | Obstacle:
    model_len = model.shape.max_len if model.shape else profile.max_model_len
    context = arguments.value_of(flags, "--max-model-len")
    try:
        return _Limits(
            dtype=arguments.value_of(flags, "--dtype") or _dtype(profile, model),
            kv_dtype=arguments.value_of(flags, "--kv-cache-dtype") or profile.kv_dtype,
            max_model_len=arguments.integer(context) if context else min(profile.max_model_len, model_len),
            context_from_user=bool(context),
            max_num_seqs=_count(flags, "--max-num-seqs", profile.max_num_seqs),
            batched_tokens=_count(flags, "--max-num-batched-tokens", profile.max_num_batched_tokens),
            share=float(arguments.value_of(flags, "--gpu-memory-utilization") or profile.utilisation),
            layout=_layout(flags),
        )
    except ValueError as error:
        return Obstacle(f"a vLLM argument is not a number: {error}.", "Write it as 8192, 8k or 0.9.")


_COUNTS = (
    "--max-model-len",
    "--max-num-seqs",
    "--max-num-batched-tokens",
    "--tensor-parallel-size",
    "--pipeline-parallel-size",
    "--data-parallel-size",
)
_SHARE = "--gpu-memory-utilization"


def _refuse_numbers(flags: tuple[Flag, ...]) -> Obstacle | None:
    """Refuse numbers that vLLM refuses at its start. All are known to be numbers."""
    for name in _COUNTS:
        text = arguments.value_of(flags, name)
        if text and arguments.integer(text) < 1:
            return Obstacle(f"{name} {text} is less than 1.", "Give a larger number, or omit it.")
    share = arguments.value_of(flags, _SHARE)
    if share and not 0 < float(share) <= 1:
        return Obstacle(
            f"{_SHARE} {share} is no share of the memory.", "Give a number above 0 and up to 1, such as 0.9."
        )
    return None


def _layout(flags: tuple[Flag, ...]) -> Layout:
    """Return what the user fixed of the layout; 0 stands for what is left to choose."""
    tensor, pipeline, data = (_count(flags, f"--{kind}-parallel-size", 0) for kind in ("tensor", "pipeline", "data"))
    return Layout(tensor, pipeline, data)


def _count(flags: tuple[Flag, ...], name: str, otherwise: int) -> int:
    text = arguments.value_of(flags, name)
    return arguments.integer(text) if text else otherwise


def _dtype(profile: Profile, model: ModelSpec) -> str:
    if profile.is_cpu:
        # bfloat16 uses AMX where the processor lists it, and dies of SIGILL where a hypervisor hides it.
        return "float32" if model.quantisation is None else "auto"
    return "half" if profile.compute_capability < (8, 0) else "auto"


def _refuse_flags(flags: tuple[Flag, ...]) -> Obstacle | None:
    for flag in flags:
        if flag.name in _RESERVED:
            return Obstacle(f"{flag.name} can't be among the vLLM arguments.", _RESERVED[flag.name])
    return None


def _refuse_model(profile: Profile, model: ModelSpec, options: PlanOptions) -> Obstacle | None:
    capability = profile.compute_capability
    if options.embedding and options.adapters:
        return Obstacle("an embedding engine can't serve adapters.", "Omit --lora or --embed.")
    if model.quantisation == "gguf" and (profile.is_cpu or not options.gguf_plugin):
        return Obstacle(
            f"{model.location} is a GGUF file, which vLLM no longer reads by itself.",
            "Convert it with `spillway convert`, serve the checkpoint it was made from, or on a GPU install "
            "vllm-gguf-plugin beside vLLM.",
        )
    if profile.is_cpu and model.quantisation not in _CPU_FORMATS:
        return Obstacle(
            f"vLLM on the CPU can't run {model.quantisation} weights.",
            "Use an unquantised, AWQ, GPTQ, W4A16 or INT8 checkpoint.",
        )
    if not profile.is_cpu and capability < (7, 5):
        return Obstacle(
            f"{profile.title} has compute capability {capability[0]}.{capability[1]}; vLLM needs 7.5 or newer.",
            "Use a T4 or newer, or run the CPU engine.",
        )
    if model.quantisation == "fp8" and not profile.is_cpu and capability < (8, 0):
        return Obstacle(f"{profile.title} can't run fp8 weights.", f"Use a 4-bit checkpoint, such as {T4_CLASS}.")
    return None


def _refuse_length(model: ModelSpec, limits: _Limits) -> Obstacle | None:
    if model.shape is None or limits.max_model_len <= model.shape.max_len:
        return None
    return Obstacle(
        f"{model.served_name} reads at most {model.shape.max_len} tokens, fewer than --max-model-len "
        f"{limits.max_model_len}.",
        f"Ask for {model.shape.max_len} tokens or fewer, or lengthen its context with --hf-overrides.",
    )


def _overrides(flags: tuple[Flag, ...]) -> bool:
    """Return whether the user changes the model's configuration, so that its own length no longer holds."""
    return any(flag.name.startswith(("--hf-overrides", "--rope-scaling")) for flag in flags)


def _refuse_architecture(model: ModelSpec, options: PlanOptions) -> Obstacle | None:
    name = model.architecture
    if not name:
        return None
    if not architectures.is_known(name):
        return Obstacle(
            f"{model.served_name} is a {name}, which vLLM {architectures.VERSION} doesn't know.",
            "Choose another model; --force starts vLLM all the same.",
        )
    if architectures.only_pools(name) and not options.embedding:
        return Obstacle(f"{model.served_name} is a {name}, which embeds and can't answer.", "Serve it with --embed.")
    return None


def _refuse_unknown(model: ModelSpec) -> Obstacle | None:
    if model.shape is not None or model.quantisation == "gguf":
        return None
    return Obstacle(
        f"the size of {model.served_name} is unknown.", "Give its configuration (--model-config DIR), or --force."
    )


def _refuse_types(profile: Profile, limits: _Limits) -> Obstacle | None:
    if profile.is_cpu:
        return None
    if limits.dtype in _BFLOAT and profile.compute_capability < (8, 0):
        return Obstacle(f"{profile.title} has no bfloat16.", "Use --dtype half, or omit --dtype.")
    if limits.kv_dtype.startswith("fp8") and profile.compute_capability < (8, 0):
        return Obstacle(f"{profile.title} has no fp8 KV cache.", "Omit --kv-cache-dtype.")
    return None


def _warnings(profile: Profile, model: ModelSpec, options: PlanOptions, limits: _Limits) -> tuple[str, ...]:
    warnings = [model.caution] if model.caution else []
    warnings += _warnings_of_shape(model, limits)
    if profile.compute_capability == (7, 5) and model.shape and model.shape.head_dim != 128:
        warnings.append(
            f"head size {model.shape.head_dim}: on the T4 only models with head size 128 are known to run well."
        )
    if model.quantisation == "gguf":
        warnings.append(
            "vllm-gguf-plugin is much slower than W4A16 (`spillway convert`), and needs the base model's tokenizer: "
            "--vllm-arg=--tokenizer=OWNER/NAME."
        )
    if model.quantisation == "fp8" and not profile.is_cpu and profile.compute_capability < (8, 9):
        warnings.append("this GPU runs fp8 weights without fp8 arithmetic: a W4A16 or INT8 checkpoint is faster.")
    if is_old(profile.driver):
        needs = f"the CUDA 13 build of vLLM needs {DRIVER_FLOOR} or newer; use the cu129 build."
        warnings.append(f"driver {profile.driver}: {needs}")
    if not options.queue_limit:
        warnings.append(
            "this vLLM is older than 0.29 and has no --max-num-queued-reqs: only the router limits its queue."
        )
    if profile.is_cpu and model.shape and model.shape.parameters > 3_000_000_000:
        warnings.append("a model of this size answers very slowly on a CPU; it is meant for a GPU.")
    if options.uds is None and options.host not in ("127.0.0.1", "::1", "localhost"):
        warnings.append(
            f"the engine listens on {options.host}: vLLM protects only /v1 with a key, so allow only the router to "
            "reach that port."
        )
    return tuple(warnings)


def _warnings_of_shape(model: ModelSpec, limits: _Limits) -> list[str]:
    warnings = []
    if model.gated:
        warnings.append(f"{model.location} is gated: accept its licence on the hub, and set HF_TOKEN.")
    if model.vision:
        warnings.append("it reads images: their encoder's working memory is not part of the arithmetic.")
    if model.shape is not None and model.shape.rough:
        warnings.append(f"the KV figure is a cautious one: {model.shape.rough}.")
    if limits.layout.data > 1:
        warnings.append(
            f"{limits.layout.data} engines with a whole model each, behind one address: each request uses one of them. "
            "For fewer, larger engines pass --vllm-arg=--tensor-parallel-size=N."
        )
    return warnings


def _cpu_kv_bytes(profile: Profile, model: ModelSpec, limits: _Limits) -> int | None:
    """Return the KV cache to request on the CPU, in whole GiB: what the full batch needs, at least 1, at most 8."""
    if not profile.is_cpu:
        return None
    if model.shape is None:
        return 4 * GIB
    need = limits.max_num_seqs * limits.max_model_len * _kv_per_token(model, limits)
    return min(max(-(-need // GIB), 1), 8) * GIB


def _kv_per_token(model: ModelSpec, limits: _Limits) -> int:
    assert model.shape is not None
    return model.shape.kv_bytes_per_token(element_bytes(limits.kv_dtype, _dtype_run(model, limits)))


def _dtype_run(model: ModelSpec, limits: _Limits) -> str:
    return model.dtype if limits.dtype == "auto" else limits.dtype


def _memory(
    profile: Profile, model: ModelSpec, shape: ModelShape, limits: _Limits, mean_tokens: int, kv_bytes: int | None
) -> MemoryPlan:
    dtype = _dtype_run(model, limits)
    weights = shape.weight_bytes
    if model.quantisation is None:
        weights = weights * dtype_bytes(dtype) // dtype_bytes(model.dtype)
    budget = Budget(
        device_bytes=profile.memory_bytes,
        share=limits.share,
        batched_tokens=limits.batched_tokens,
        kv_element_bytes=element_bytes(limits.kv_dtype, dtype),
        mean_tokens=min(mean_tokens, limits.max_model_len),
        max_model_len=limits.max_model_len,
        block_tokens=_block_tokens(profile, shape),
        split=limits.layout.tensor * limits.layout.pipeline,
        tensor=limits.layout.tensor,
        engines=limits.layout.data,
        kv_bytes=kv_bytes,
    )
    return arithmetic(shape, weights, budget)


def _block_tokens(profile: Profile, shape: ModelShape) -> int:
    """Return the tokens of one KV block, by vLLM's defaults."""
    if profile.is_cpu:
        return 16 if shape.latent else 128
    return 64 if shape.latent else 16


def _fit_context(profile: Profile, model: ModelSpec, limits: _Limits, memory: MemoryPlan) -> _Limits | Obstacle:
    if memory.missing_bytes or memory.kv_tokens < LEAST_CONTEXT:
        smaller = f"a 4-bit checkpoint ({T4_CLASS})" if model.quantisation is None else "a smaller model"
        shortage = (
            f"{memory.missing_bytes / GIB:.1f} GiB are missing" if memory.missing_bytes else "no KV cache is left"
        )
        return Obstacle(
            f"{model.location} does not fit into {_devices(profile, limits)}: weights and overhead take too much, "
            f"{shortage}.",
            f"Use {smaller}, a larger device, or more devices (--gpus {2 * limits.layout.devices}).",
        )
    if memory.kv_tokens >= limits.max_model_len:
        return limits
    if limits.context_from_user:
        return Obstacle(
            f"the KV cache holds {memory.kv_tokens} tokens, fewer than --max-model-len {limits.max_model_len}.",
            f"Ask for {memory.kv_tokens} tokens or fewer, or use a smaller model.",
        )
    return replace(limits, max_model_len=memory.kv_tokens // 256 * 256)


def _devices(profile: Profile, limits: _Limits) -> str:
    count = limits.layout.devices
    return profile.title if count == 1 else f"{count} x {profile.title}"


def _shortened(before: _Limits, after: _Limits) -> str:
    return f"context shortened from {before.max_model_len} to {after.max_model_len} tokens: the KV cache holds no more."


def _flags(profile: Profile, model: ModelSpec, options: PlanOptions, limits: _Limits) -> tuple[Flag, ...]:
    address = (
        [Flag("--uds", (options.uds,))]
        if options.uds
        else [Flag("--host", (options.host,)), Flag("--port", (str(options.port),))]
    )
    flags = [
        *address,
        Flag("--served-model-name", (model.served_name,)),
        Flag("--max-model-len", (str(limits.max_model_len),)),
        Flag("--max-num-seqs", (str(limits.max_num_seqs),)),
        Flag("--max-num-batched-tokens", (str(max(limits.batched_tokens, limits.max_num_seqs)),)),
        Flag("--scheduling-policy", ("priority",)),
        Flag("--enable-prompt-tokens-details"),
        Flag("--disable-uvicorn-access-log"),
    ]
    if options.queue_limit:
        # A backstop only: the router stops sending long before; beyond the limit vLLM answers 503.
        flags.insert(-3, Flag("--max-num-queued-reqs", (str(profile.queue_limit),)))
    if limits.dtype != "auto":
        flags.append(Flag("--dtype", (limits.dtype,)))
    if profile.is_cpu:
        flags.append(Flag("--enforce-eager"))
    else:
        flags.append(Flag("--gpu-memory-utilization", (f"{limits.share:.2f}",)))
    if limits.kv_dtype != "auto":
        flags.append(Flag("--kv-cache-dtype", (limits.kv_dtype,)))
    if limits.layout.tensor > 1:
        flags.append(Flag("--tensor-parallel-size", (str(limits.layout.tensor),)))
    if limits.layout.data > 1:
        flags.append(Flag("--data-parallel-size", (str(limits.layout.data),)))
    if options.embedding:
        # Pooling instead of decoding; a model without a pooling head embeds by its last token.
        flags += [Flag("--runner", ("pooling",)), Flag("--convert", ("embed",))]
    elif model.tool_parser:
        flags += [Flag("--enable-auto-tool-choice"), Flag("--tool-call-parser", (model.tool_parser,))]
    flags += [Flag(name, values) for name, values in adapters.argv(options.adapters)]
    return tuple(flags)


def _env(profile: Profile, model: ModelSpec, kv_bytes: int | None) -> tuple[tuple[str, str], ...]:
    # A redirect would lead the engine where the router does not let an address of a picture lead.
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0"}
    if model.is_local:
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if profile.is_cpu and kv_bytes is not None:
        env["VLLM_CPU_KVCACHE_SPACE"] = str(kv_bytes // GIB)
    return tuple(sorted(env.items()))
