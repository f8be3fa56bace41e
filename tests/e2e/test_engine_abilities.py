"""Real vLLM says what it can do; what the demo model can't hold or see goes to the cloud."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.proxy.answers import answer, said

from spillway_router.testing import FaultUpstream
from spillway_router.testing.harness import MESSAGES, cloud, routing, settings

if TYPE_CHECKING:
    from tests.conftest import RunningEngine

SLO = "slo: {ttft_ms: 60000, tpot_ms: 10000}\n"
TOOLS = [{"type": "function", "function": {"name": "w", "parameters": {"type": "object", "properties": {}}}}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
SEEN = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, PICTURE]}]


async def test_what_the_real_engine_lacks_overflows(engine: RunningEngine) -> None:
    line = f"{{name: local, provider: vllm, model: {engine.model}, base_url: '{engine.base_url}'}}"
    async with (
        FaultUpstream(answer("strong")) as other,
        routing(settings(line, cloud(other), more=SLO)) as router,
    ):
        board, clock = router.runtime.board, router.runtime.services.clock
        await router.until(lambda: board.current(clock()).backends["local"].engine_context_tokens is not None)
        signals = board.current(clock()).backends["local"]
        assert signals.engine_context_tokens == 1024
        assert signals.engine_lacks == {"vision"}  # a text model, which is started with a parser of tool calls
        reply = await router.chat({"messages": SEEN})
        assert said(reply) == "strong"
        assert reply.headers["x-spillway-decision"] == "overflow"
        assert reply.headers["x-spillway-reason"] == "capability"
        assert reply.headers["x-spillway-attempts"] == "1"
        for size in (1500, 3000, 4500, 9000):
            text = "report 12 of 34. " * (size // 17)
            reply = await router.chat({"max_tokens": 20, "messages": [{"role": "user", "content": text}]})
            assert reply.status_code == 200, (size, reply.text)
            where = reply.headers["x-spillway-backend"], reply.headers["x-spillway-decision"]
            assert where in (("local", "local"), ("cloud", "overflow")), size
        assert reply.headers["x-spillway-reason"] == "context"
        plain = await router.chat({"max_tokens": 4, "messages": MESSAGES, "tools": TOOLS})
        assert plain.headers["x-spillway-backend"] == "local"
