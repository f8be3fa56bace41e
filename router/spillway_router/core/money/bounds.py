"""What a request contains besides plain text, and what that can cost: the part of a hold that bytes don't show.

Plain text never has more tokens than bytes. A document by address, a stored conversation or a provider's own tool has
no such bound, and a field that nobody looked up may cost anything. So every field, content part and tool of a request
is an *item*, and a provider's list (providers/bounded_fields.yaml) has a rule for each item whose cost is bounded. What
is not on the list is unbounded: under a cap a paid backend refuses it, unless its configuration permits it.

Pure: items and rules are values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

UseLimit = Literal["", "max_uses", "max_tool_calls"]
"""How the provider limits the uses of a tool: by a field of the tool, or by a field of the body for all tools together;
empty for what is no tool of the provider."""

MOST_UNKNOWN_TOKENS = 1_000_000
"""Input tokens held for an unbounded item that is permitted at a backend whose context is not known."""


@dataclass(frozen=True, slots=True)
class RequestItem:
    """A kind of field, content part or tool in a request, such as `part:document/url`.

    `where` is the place of the first one, for messages. `size_bytes` is the JSON of all of them. `uses` is the sum of
    the limits that the client set for a tool, and `unlimited` the number of tools for which it set none.
    """

    name: str
    where: str
    count: int = 1
    size_bytes: int = 0
    uses: int = 0
    unlimited: int = 0


@dataclass(frozen=True, slots=True)
class ItemRule:
    """What an item can cost in addition to its own bytes as input.

    `tokens`: input tokens that the provider adds for each one. `context`: it stands for input that the bytes don't
    show, up to the context of the model. `as_output`: its bytes may be billed as output as well. `limit`: it is a tool
    that the provider runs, and each use reads the context again; `fee` names the price of one use, and `most_uses` is
    the limit that is sent where the client sets none.
    """

    tokens: int = 0
    context: bool = False
    as_output: bool = False
    limit: UseLimit = ""
    fee: str = ""
    most_uses: int = 0


@dataclass(frozen=True, slots=True)
class UnboundedModel:
    """Why the cost of a request to a model is not bounded, whatever it contains, and the setting of a backend that
    would bound it; empty if none would."""

    reason: str
    setting: str = ""

    @property
    def settings(self) -> str:
        """The settings of a backend that permit such requests under a cap, as a sentence names them."""
        return f"{self.setting} or .unbounded: hold" if self.setting else "unbounded: hold"


ItemRules = Mapping[str, ItemRule]
"""The list of one provider and endpoint, by the names of items."""
NO_RULES: ItemRules = {}


@dataclass(frozen=True, slots=True)
class ItemCosts:
    """The most that the items of a request add: input tokens, and output tokens per choice; how often the whole input
    may be read, and the output be bounded anew; and the uses of tools by the names of their fees."""

    input_tokens: int = 0
    output_tokens: int = 0
    fills_context: bool = False
    passes: int = 1
    output_passes: int = 1
    calls: tuple[tuple[str, int], ...] = ()


def unbounded(
    items: Iterable[RequestItem], rules: ItemRules, fees: Mapping[str, object], context_tokens: int | None
) -> tuple[RequestItem, str] | None:
    """Return the first item whose cost is not bounded, and why; None if all are bounded.

    `fees` are the known prices of tool calls, `context_tokens` is the context of the model.
    """
    for item in items:
        rule = rule_of(item, rules)
        if rule is None:
            return item, "what it costs is not known to be bounded"
        if rule.fee and rule.fee not in fees:
            return item, f"the price of one call is unknown; add price.fees.{rule.fee}"
        if (rule.context or rule.limit) and context_tokens is None:
            return item, "it is bounded by the model's context, which is unknown; set context_tokens"
    return None


def item_costs(items: Sequence[RequestItem], rules: ItemRules) -> ItemCosts:
    """Return what the items add to the bound. An item without a rule fills the context once."""
    tokens = output = uses = shared_uses = 0
    fills_context = False
    calls: dict[str, int] = {}
    shared = shared_limit(items)
    for item in items:
        rule = rule_of(item, rules)
        if rule is None:
            fills_context = True
            continue
        tokens += rule.tokens * item.count
        output += item.size_bytes if rule.as_output else 0
        fills_context = fills_context or rule.context or rule.limit != ""
        if not rule.limit:
            continue
        if rule.limit == "max_uses":
            most = item.uses + item.unlimited * rule.most_uses
            uses += most
        else:
            most = rule.most_uses if shared is None else shared
            shared_uses = max(shared_uses, most)
        if rule.fee:
            calls[rule.fee] = calls.get(rule.fee, 0) + most
    return ItemCosts(
        input_tokens=tokens,
        output_tokens=output,
        fills_context=fills_context,
        passes=1 + uses + shared_uses,
        output_passes=1 + uses,
        calls=tuple(calls.items()),
    )


def rule_of(item: RequestItem, rules: ItemRules) -> ItemRule | None:
    """Return the rule of an item. A rule of a whole field covers every value and key of it."""
    rule = rules.get(item.name)
    if rule is None and ("=" in item.name or "." in item.name):
        return rules.get(item.name.partition("=")[0].partition(".")[0])
    return rule


def shared_limit(items: Iterable[RequestItem]) -> int | None:
    """Return the client's limit on all tool calls together; None if it set none that can be read."""
    return next((item.uses for item in items if item.name == "max_tool_calls" and not item.unlimited), None)


def fees_of(
    calls: Iterable[tuple[str, int]], items: Iterable[RequestItem], rules: ItemRules
) -> tuple[tuple[str, int], ...]:
    """Return the uses of tools in an answer by the names of their fees.

    An answer names the kind of a tool, such as web_search, and the request which of its versions it was.
    """
    asked = [(item.name, rule.fee) for item in items if (rule := rule_of(item, rules)) is not None and rule.fee]
    named: dict[str, int] = {}
    for kind, count in calls:
        fee = next((fee for name, fee in asked if name.startswith(f"tool:{kind}")), kind)
        named[fee] = named.get(fee, 0) + count
    return tuple(named.items())
