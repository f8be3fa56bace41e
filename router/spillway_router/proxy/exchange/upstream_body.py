"""The body that goes to a backend: the client's bytes, with only those fields changed that a rule must change."""

from __future__ import annotations

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.routing.model import RequestFacts
from spillway_router.providers.streams import json_bytes
from spillway_router.proxy.exchange.active_config import BackendRoute
from spillway_router.proxy.request import body as wire
from spillway_router.proxy.request.large_body import spans_of


@fast_frozen(frozen=True, slots=True)
class UpstreamBody:
    """The bytes for a backend, and which parts of the answer the client did not ask for and must not see."""

    body: bytes
    usage_added: bool
    usage_asked: bool
    logprobs_added: bool


def prepare(
    facts: RequestFacts, raw: bytes, body: dict[str, object], route: BackendRoute, top_logprobs: int = 0
) -> UpstreamBody:
    """Change the model, ask for usage and, for an answer that is to be scored, for logprobs.

    `raw` and `body` are the client's bytes and their JSON; a LargeBody must be the one that was read from `raw`.
    `top_logprobs` is the number of alternatives per token (0: the answer is not scored).
    """
    changes: dict[str, object] = {}
    backend = route.backend
    if body.get("model") != backend.model:
        changes["model"] = backend.model
    options = body.get("stream_options")
    usage_asked = isinstance(options, dict) and options.get("include_usage") is True
    usage_added = False
    if facts.stream and facts.endpoint in ("chat", "completions") and not usage_asked:
        client_options = dict(options) if isinstance(options, dict) else {}
        client_options.pop("continuous_usage_stats", None)  # it has no effect without include_usage
        changes["stream_options"] = {**client_options, "include_usage": True}
        usage_added = True
    logprobs = body.get("logprobs")
    # A client's 0 asks for the logprobs of the chosen tokens. The alternatives show how close a choice was, and which
    # tokens a grammar forced.
    logprobs_added = bool(top_logprobs) and (logprobs is None or logprobs is False)
    if logprobs_added:
        if facts.endpoint == "chat":
            changes |= {"logprobs": True, "top_logprobs": top_logprobs}
        else:
            changes["logprobs"] = top_logprobs
    drop = route.provider.entry.drops_fields.intersection(body)
    return UpstreamBody(
        body=wire.edit(raw, body.keys(), changes, drop, spans_of(body)),
        usage_added=usage_added,
        usage_asked=usage_asked,
        logprobs_added=logprobs_added,
    )


def without_logprobs(answer: dict[str, object]) -> bytes:
    """Serialise a whole answer without the logprobs that only the router asked for. Changes `answer`."""
    choices = answer.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and "logprobs" in choice:
                choice["logprobs"] = None
    return json_bytes(answer)
