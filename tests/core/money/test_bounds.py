"""The part of the bound that bytes don't show: whatever the items allow costs at most what is held."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.money.bounds import (
    MOST_UNKNOWN_TOKENS,
    ItemRule,
    ItemRules,
    RequestItem,
    fees_of,
    item_costs,
    rule_of,
    unbounded,
)
from spillway_router.core.money.tariff import Rates, Tariff, TariffStep, Usage, price
from spillway_router.core.routing.filters import cost_bound_nano
from spillway_router.core.routing.model import Backend, Caller, PrivacyVerdict, RequestFacts

RULES: ItemRules = {
    "plain": ItemRule(),
    "tools": ItemRule(tokens=500),
    "prediction": ItemRule(as_output=True),
    "part:document/url": ItemRule(context=True),
    "tool:web_search": ItemRule(limit="max_uses", most_uses=3, fee="search"),
    "tool:web_fetch": ItemRule(limit="max_uses", most_uses=2, fee="fetch"),
    "tool:file_search": ItemRule(limit="max_tool_calls", most_uses=4, fee="file"),
    "max_tool_calls": ItemRule(),
}
FEES = (("search", Decimal("0.01")), ("fetch", Decimal(0)), ("file", Decimal("0.0025")))
CONTEXT = 10_000
ITEMS = st.lists(
    st.builds(
        RequestItem,
        name=st.sampled_from(sorted(RULES)),
        where=st.just("x"),
        count=st.integers(1, 4),
        size_bytes=st.integers(0, 300),
        uses=st.integers(0, 5),
        unlimited=st.integers(0, 3),
    ),
    unique_by=lambda item: item.name,
)
PRICES = st.decimals(0, 100, places=3)


def backend(tariff: Tariff, context_tokens: int | None = CONTEXT) -> Backend:
    return Backend(
        name="b",
        provider="generic",
        model="m",
        local=False,
        endpoints=frozenset({"chat"}),
        capabilities=frozenset(),
        tariff=tariff,
        context_tokens=context_tokens,
        item_rules={"chat": RULES},
    )


def request(prompt_bytes: int, max_tokens: int, items: tuple[RequestItem, ...], choices: int = 1) -> RequestFacts:
    return RequestFacts(
        request_id="r",
        endpoint="chat",
        model="b",
        stream=False,
        prompt_bytes=prompt_bytes,
        max_tokens=max_tokens,
        choices=choices,
        needs=frozenset(),
        privacy=PrivacyVerdict(True),
        caller=Caller(),
        items=items,
    )


@given(
    data=st.data(),
    items=ITEMS,
    input_price=PRICES,
    output_price=PRICES,
    long_price=PRICES,
    prompt_bytes=st.integers(1, CONTEXT),
    max_tokens=st.integers(1, 200),
    choices=st.integers(1, 3),
)
def test_nothing_that_the_items_allow_costs_more_than_the_bound(
    data: st.DataObject,
    items: list[RequestItem],
    input_price: Decimal,
    output_price: Decimal,
    long_price: Decimal,
    prompt_bytes: int,
    max_tokens: int,
    choices: int,
) -> None:
    tariff = Tariff(input_price, output_price, steps=(TariffStep(Rates(long_price, output_price), 5000),), fees=FEES)
    facts = request(prompt_bytes, max_tokens, tuple(items), choices)
    uses = {item.name: data.draw(st.integers(0, _most_uses(item, items))) for item in items}
    shared = next((i.uses for i in items if i.name == "max_tool_calls" and not i.unlimited), None)
    if shared is not None:
        uses["tool:file_search"] = min(uses.get("tool:file_search", 0), shared)
    calls = tuple((name.removeprefix("tool:"), count) for name, count in uses.items() if name.startswith("tool:"))
    once = prompt_bytes + sum(500 * item.count for item in items if item.name == "tools")
    hides = any(item.name.startswith(("part:", "tool:")) for item in items)
    each = data.draw(st.integers(0, max(once, CONTEXT) if hides else once))
    turns = 1 + sum(count for _, count in calls)
    drafts = sum(item.size_bytes for item in items if item.name == "prediction")
    own_turns = 1 + sum(count for name, count in calls if name != "file_search")
    output = data.draw(st.integers(0, (max_tokens + drafts) * choices * own_turns))
    usage = Usage(each * turns, output, calls=fees_of(calls, items, RULES))
    assert price(usage, tariff) <= cost_bound_nano(facts, backend(tariff))


def _most_uses(item: RequestItem, items: list[RequestItem]) -> int:
    """Return what the client's limits and those that are sent for it allow."""
    rule = RULES[item.name]
    if rule.limit == "max_uses":
        return item.uses + item.unlimited * rule.most_uses
    return (item.uses if not item.unlimited else rule.most_uses) if rule.limit and items else rule.most_uses


@given(items=ITEMS)
def test_the_order_of_the_items_makes_no_difference(items: list[RequestItem]) -> None:
    there, back = item_costs(items, RULES), item_costs(items[::-1], RULES)
    assert (there.input_tokens, there.output_tokens, there.passes, there.output_passes, dict(there.calls)) == (
        back.input_tokens,
        back.output_tokens,
        back.passes,
        back.output_passes,
        dict(back.calls),
    )


def test_what_is_on_no_list_is_unbounded_and_fills_the_context_where_it_is_permitted() -> None:
    video = RequestItem("part:video_url", "messages[0].content")
    first = unbounded((RequestItem("plain", "plain"), video), RULES, dict(FEES), CONTEXT)
    assert first is not None
    assert first[0] is video
    one_dollar = Tariff(Decimal(1), Decimal(0))
    held = cost_bound_nano(request(10, 1, (video,)), backend(one_dollar))
    assert held >= CONTEXT * 1000
    assert cost_bound_nano(request(10, 1, (video,)), backend(one_dollar, None)) >= MOST_UNKNOWN_TOKENS * 1000


def test_a_tool_without_a_known_fee_or_context_is_unbounded() -> None:
    search = RequestItem("tool:web_search", "tools[0]", unlimited=1)
    assert unbounded((search,), RULES, dict(FEES), CONTEXT) is None
    without_fee = unbounded((search,), RULES, {}, CONTEXT)
    assert without_fee is not None
    assert "price.fees.search" in without_fee[1]
    without_context = unbounded((search,), RULES, dict(FEES), None)
    assert without_context is not None
    assert "context_tokens" in without_context[1]


def test_a_rule_of_a_field_covers_its_values_and_keys() -> None:
    rules = {"provider": ItemRule(tokens=1), "speed=standard": ItemRule(tokens=2)}
    assert rule_of(RequestItem("provider.order", "provider.order"), rules) == ItemRule(tokens=1)
    assert rule_of(RequestItem("speed=standard", "speed"), rules) == ItemRule(tokens=2)
    assert rule_of(RequestItem("speed=fast", "speed"), rules) is None


def test_a_search_of_an_older_version_has_the_fee_of_that_version() -> None:
    rules = {"tool:web_search_preview": ItemRule(limit="max_tool_calls", most_uses=3, fee="web_search_preview")}
    asked = (RequestItem("tool:web_search_preview", "tools[0]"),)
    assert fees_of((("web_search", 2),), asked, rules) == (("web_search_preview", 2),)
    assert fees_of((("web_search", 2),), (), rules) == (("web_search", 2),)
