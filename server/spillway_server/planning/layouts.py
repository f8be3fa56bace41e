"""How an engine uses several devices: tensor, pipeline and data parallelism, and which divisions a model allows.

Tensor parallelism divides the attention heads, the inner width of the feed-forward layers and, in a quantised model,
its groups of weights; vLLM refuses to start where one of them doesn't divide. Data parallelism runs a whole model on
each part of the devices.
"""

from __future__ import annotations

from dataclasses import dataclass

from spillway_server.obstacle import Obstacle
from spillway_server.planning.shapes import ModelShape


@dataclass(frozen=True, slots=True)
class Layout:
    """The devices that split every layer, that share the layers out, and the number of whole engines. 0 stands for a
    number that is still to be chosen."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1

    @property
    def devices(self) -> int:
        """All devices."""
        return max(self.tensor, 1) * max(self.pipeline, 1) * max(self.data, 1)

    def arguments(self) -> tuple[str, ...]:
        """Return vLLM's flags for it; none for one device."""
        sizes = (("tensor", self.tensor), ("pipeline", self.pipeline), ("data", self.data))
        return tuple(word for kind, size in sizes if size > 1 for word in (f"--{kind}-parallel-size", str(size)))


def choices(fixed: Layout, shape: ModelShape, devices: int, is_cpu: bool) -> tuple[Layout, ...] | Obstacle:
    """Return the layouts that the model allows on `devices` devices, least tensor parallelism first.

    `fixed` holds what the user decided; on a CPU the devices are NUMA nodes, which always split one engine.
    """
    pipeline = fixed.pipeline or 1
    if fixed.tensor or fixed.data or is_cpu:
        data = fixed.data or 1
        tensor = fixed.tensor or max(devices // (data * pipeline), 1)
        wanted = [Layout(tensor, pipeline, data)]
    else:
        per_stage = max(devices // pipeline, 1)
        wanted = [Layout(size, pipeline, per_stage // size) for size in range(1, per_stage + 1) if not per_stage % size]
    allowed = tuple(layout for layout in wanted if why_not(shape, layout.tensor) is None)
    if allowed:
        return allowed
    sizes = [size for size in range(1, 17) if why_not(shape, size) is None]
    return Obstacle(
        f"the model can't be divided over {wanted[-1].tensor} devices: {why_not(shape, wanted[-1].tensor)}.",
        f"Divide it over {', '.join(map(str, sizes[:-1]))} or {sizes[-1]} devices."
        if len(sizes) > 1
        else "Use one device for each engine.",
    )


def why_not(shape: ModelShape, tensor: int) -> str | None:
    """Return why tensor parallelism of this size is impossible for the model, None where it is possible."""
    if tensor == 1 or not shape.heads:
        return None
    if shape.heads % tensor:
        return f"it has {shape.heads} attention heads"
    if not shape.latent and shape.kv_heads % tensor and tensor % shape.kv_heads:
        return f"it has {shape.kv_heads} key and value heads"
    for width in shape.cut_widths:
        if width % tensor:
            return f"a layer is {width} wide"
        if shape.group and width // tensor % shape.group:
            return f"a layer is {width} wide in groups of {shape.group}"
    return None
