"""The client of `spillway chat`: stream answers over plain HTTP, as any client would, and show how each came about.

`one_shot` answers a single text, `converse` holds a conversation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from time import monotonic
from typing import Any

import httpx
from rich.console import Console

from spillway_router.commands.running_router import RouterAddress
from spillway_router.core.money.currency import Amounts
from spillway_router.core.money.tariff import NANO
from spillway_router.providers.sse import Event, SseDecoder, SseError

QUIT = frozenset({"/quit", "/exit", "/q"})
RESET = "/reset"
COST = "/cost"
HELP = "/help"
COMMANDS_HELP = "/reset clears the conversation, /cost tells what it has cost, /quit exits; Ctrl-C stops an answer."
Message = dict[str, str]


class ChatError(Exception):
    """There is no answer; the message repeats the router's error, or says how to reach a router."""


@dataclass(frozen=True, slots=True)
class ChatTarget:
    """The router to talk to and the options of each request. `max_tokens` None leaves the limit to the backend."""

    router: RouterAddress
    model: str = "auto"
    max_tokens: int | None = None
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A whole answer and how it came about; `cost_usd` is decimal text ("" if unknown), times are in seconds."""

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
        """One line for people: decision, backend, tokens, cost and times."""
        why = f" ({self.reason})" if self.reason else ""
        tokens = "" if self.prompt_tokens is None else f"{self.prompt_tokens} + {self.completion_tokens} tokens  "
        cost = f"{Amounts().money(int(Decimal(self.cost_usd) * NANO))}  " if self.cost_usd else ""
        times = f"first token {self.first_token_s:.2f} s, total {self.total_s:.2f} s"
        return f"{self.decision}{why}: {self.backend} / {self.model}  {tokens}{cost}{times}  {self.request_id}"


def ask(
    client: httpx.Client, target: ChatTarget, messages: list[Message], on_text: Callable[[str], None]
) -> ChatAnswer:
    """Send a conversation; `on_text` receives the answer as it arrives. Raises `ChatError`."""
    router = target.router
    body: dict[str, Any] = {
        "model": target.model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if target.max_tokens is not None:
        body["max_tokens"] = target.max_tokens
    started = monotonic()
    try:
        with client.stream("POST", f"{router.url}/v1/chat/completions", json=body, headers=router.headers) as response:
            if response.status_code != 200:
                response.read()
                raise ChatError(router.refusal(response.status_code, response.text))
            return _read(response, started, on_text)
    except (httpx.UnsupportedProtocol, httpx.ConnectError) as error:
        raise ChatError(router.unreachable(error)) from None
    except (httpx.HTTPError, SseError) as error:
        raise ChatError(f"the answer was interrupted: {error or type(error).__name__}") from None


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
        raise ChatError("the answer ended before it was complete")
    headers = response.headers
    cost = usage.get("cost")
    return ChatAnswer(
        text="".join(parts),
        finish=finish,
        request_id=headers.get("x-request-id", ""),
        backend=headers.get("x-spillway-backend", ""),
        model=headers.get("x-spillway-model", ""),
        decision=headers.get("x-spillway-decision", ""),
        reason=headers.get("x-spillway-reason", ""),
        attempts=int(headers.get("x-spillway-attempts", "0")),
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
        raise ChatError(f"the answer is not that of an OpenAI API: {event.data[:80]!r}") from None
    return parsed if isinstance(parsed, dict) else None


def one_shot(target: ChatTarget, text: str, console: Console, *, as_json: bool) -> None:
    """Answer one text and print it; with `as_json` nothing is printed before the end. Raises `ChatError`."""
    with httpx.Client(timeout=target.timeout_s, trust_env=False) as client:
        print_text = _printer(console)
        answer = ask(client, target, [{"role": "user", "content": text}], (lambda _: None) if as_json else print_text)
    if as_json:
        print(json.dumps(asdict(answer), indent=2))
    else:
        _print_footer(console, answer)


def converse(target: ChatTarget, console: Console, lines: Callable[[], str]) -> None:
    """Hold a conversation until /quit or the end of the input; `lines` reads the next line.

    An error ends one answer, not the conversation.
    """
    console.print(f"{target.router.url}, model {target.model}. {COMMANDS_HELP}", style="dim", highlight=False)
    conversation = _Conversation([])
    with httpx.Client(timeout=target.timeout_s, trust_env=False) as client:
        while True:
            try:
                line = lines().strip()
            except (EOFError, KeyboardInterrupt):
                return
            if line in QUIT:
                return
            if line.startswith("/"):
                console.print(_local(line, conversation), style="dim", markup=False, highlight=False)
            elif line:
                _answer(client, target, console, conversation, line)


@dataclass(slots=True)
class _Conversation:
    """The messages so far, and what their answers have cost. `unknown` counts answers without a cost: those that were
    stopped."""

    messages: list[Message]
    cost_nano: int = 0
    unknown: int = 0

    @property
    def cost(self) -> str:
        """What the conversation has cost, for people."""
        stopped = f", and {self.unknown} stopped answers whose cost `spillway explain` knows" if self.unknown else ""
        return f"{Amounts().money(self.cost_nano)} so far{stopped}"


def _local(line: str, conversation: _Conversation) -> str:
    """Carry out a command, which never goes to a model; return what to print."""
    if line == RESET:
        conversation.messages.clear()
        return "The conversation is empty."
    if line == COST:
        return conversation.cost
    return COMMANDS_HELP if line == HELP else f"There is no command {line.split()[0]}. {COMMANDS_HELP}"


def _answer(client: httpx.Client, target: ChatTarget, console: Console, conversation: _Conversation, line: str) -> None:
    """Get and print one answer. An error or Ctrl-C ends it, and the conversation goes on without it."""
    conversation.messages.append({"role": "user", "content": line})
    try:
        answer = ask(client, target, conversation.messages, _printer(console))
    except ChatError as error:
        conversation.messages.pop()
        console.print(str(error), style="red", markup=False)
        return
    except KeyboardInterrupt:
        conversation.messages.pop()
        conversation.unknown += 1
        console.print("\nstopped", style="dim")
        return
    if answer.cost_usd:
        conversation.cost_nano += int(Decimal(answer.cost_usd) * NANO)
    _print_footer(console, answer)
    console.print(conversation.cost, style="dim", markup=False, highlight=False)
    conversation.messages.append({"role": "assistant", "content": answer.text})


def _printer(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, end="", markup=False, highlight=False, soft_wrap=True)


def _print_footer(console: Console, answer: ChatAnswer) -> None:
    console.print()
    console.print(answer.footer, style="dim", markup=False, highlight=False, soft_wrap=True)
