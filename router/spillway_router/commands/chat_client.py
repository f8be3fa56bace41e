"""`spillway chat`: talk to a running router, and see after each answer who gave it, why, and what it cost.

One text is answered and printed; without one it is a conversation. Answers are streamed over plain HTTP, as any
client would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

import httpx
from rich.console import Console

from spillway_router.providers.sse import Event, SseDecoder, SseError

LEAVE = frozenset({"/quit", "/exit", "/q"})
RESET = "/reset"
Message = dict[str, str]


class ChatError(Exception):
    """No answer; the message says what the router said, or how to reach one."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Where and how to ask. `url` is the router's root; `max_tokens` None leaves it to the backend."""

    url: str
    model: str = "auto"
    key: str = ""
    private: bool = False
    max_tokens: int | None = None
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A whole answer and how it was made; `cost_usd` as decimal text ("" when not told), times in seconds."""

    text: str
    finish: str
    request_id: str
    backend: str
    model: str
    decision: str
    reason: str
    attempts: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: str
    first_token_s: float
    total_s: float

    @property
    def footer(self) -> str:
        """One line for a person."""
        why = f" ({self.reason})" if self.reason else ""
        tokens = "" if self.prompt_tokens is None else f"{self.prompt_tokens} + {self.completion_tokens} tokens  "
        cost = f"{self.cost_usd} USD  " if self.cost_usd else ""
        times = f"first token {self.first_token_s:.2f} s, total {self.total_s:.2f} s"
        return f"{self.decision}{why}: {self.backend} / {self.model}  {tokens}{cost}{times}  {self.request_id}"


def ask(client: httpx.Client, asking: Asking, messages: list[Message], on_text: Callable[[str], None]) -> ChatAnswer:
    """Send a conversation; `on_text` gets the answer as it comes. Raises ChatError."""
    headers = {"authorization": f"Bearer {asking.key}"} if asking.key else {}
    if asking.private:
        headers["x-spillway-privacy"] = "local-only"
    body: dict[str, Any] = {
        "model": asking.model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if asking.max_tokens is not None:
        body["max_tokens"] = asking.max_tokens
    started = monotonic()
    try:
        with client.stream("POST", f"{asking.url}/v1/chat/completions", json=body, headers=headers) as response:
            if response.status_code != 200:
                response.read()
                raise ChatError(_refusal(response))
            return _read(response, started, on_text)
    except httpx.ConnectError:
        raise ChatError(f"nothing answers at {asking.url}; start it with `spillway up` or `spillway route`") from None
    except (httpx.HTTPError, SseError) as error:
        raise ChatError(f"the answer broke off: {error or type(error).__name__}") from None


def _read(response: httpx.Response, started: float, on_text: Callable[[str], None]) -> ChatAnswer:
    parts: list[str] = []
    finish, first = "", 0.0
    usage: dict[str, Any] = {}
    for data in _events(response):
        if "error" in data:
            raise ChatError(str(data["error"].get("message", data["error"])))
        usage = data.get("usage") or usage
        for choice in data.get("choices") or ():
            text = (choice.get("delta") or {}).get("content") or ""
            finish = choice.get("finish_reason") or finish
            if text:
                first = first or monotonic() - started
                parts.append(text)
                on_text(text)
    if not finish:
        raise ChatError("the answer ended before it was finished")
    told = response.headers
    cost = usage.get("cost")
    return ChatAnswer(
        text="".join(parts),
        finish=finish,
        request_id=told.get("x-request-id", ""),
        backend=told.get("x-spillway-backend", ""),
        model=told.get("x-spillway-model", ""),
        decision=told.get("x-spillway-decision", ""),
        reason=told.get("x-spillway-reason", ""),
        attempts=int(told.get("x-spillway-attempts", "0")),
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        cost_usd="" if cost is None else f"{cost:.9f}".rstrip("0").rstrip("."),
        first_token_s=first,
        total_s=monotonic() - started,
    )


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    decoder = SseDecoder()
    for chunk in response.iter_bytes():
        for event in decoder.feed(chunk):
            parsed = _parsed(event)
            if parsed is not None:
                yield parsed


def _parsed(event: Event) -> dict[str, Any] | None:
    if event.data is None or event.data == b"[DONE]":
        return None
    try:
        parsed = json.loads(event.data)
    except ValueError:
        raise ChatError(f"not an answer of the OpenAI API: {event.data[:80]!r}") from None
    return parsed if isinstance(parsed, dict) else None


def _refusal(response: httpx.Response) -> str:
    try:
        error: Mapping[str, Any] = response.json()["error"]
        return f"{response.status_code} {error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} from {response.url}: is that a Spillway router?"


def one_shot(asking: Asking, text: str, console: Console, *, as_json: bool) -> None:
    """Answer one text; as JSON nothing is printed before the end. Raises ChatError."""
    with httpx.Client(timeout=asking.timeout_s, trust_env=False) as client:
        shown = _shown(console)
        answer = ask(client, asking, [{"role": "user", "content": text}], (lambda _: None) if as_json else shown)
    if as_json:
        print(json.dumps(asdict(answer), indent=2))
    else:
        _end(console, answer)


def converse(asking: Asking, console: Console, lines: Callable[[], str]) -> None:
    """A conversation until /quit or the end of the input; `lines` asks for the next line. An error ends one answer,
    not the conversation."""
    console.print(f"{asking.url}, model {asking.model}. {RESET} forgets the conversation, /quit leaves.", style="dim")
    messages: list[Message] = []
    with httpx.Client(timeout=asking.timeout_s, trust_env=False) as client:
        while True:
            try:
                said = lines().strip()
            except (EOFError, KeyboardInterrupt):
                return
            if said in LEAVE:
                return
            if said == RESET:
                messages.clear()
            if not said or said == RESET:
                continue
            messages.append({"role": "user", "content": said})
            try:
                answer = ask(client, asking, messages, _shown(console))
            except ChatError as error:
                messages.pop()
                console.print(str(error), style="red", markup=False)
                continue
            _end(console, answer)
            messages.append({"role": "assistant", "content": answer.text})


def _shown(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, end="", markup=False, highlight=False, soft_wrap=True)


def _end(console: Console, answer: ChatAnswer) -> None:
    console.print()
    console.print(answer.footer, style="dim", markup=False, highlight=False, soft_wrap=True)
