"""What the answers of a report would have cost at one model instead: only those that it could have given, each at the
price of its day and of its length (core/money/alternatives.py)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from spillway_router.core.money.alternatives import AnswerKind, Offer, Sizes, part_cost
from spillway_router.core.money.attribution import WorkCoefficients, work_sum_us
from spillway_router.core.money.tariff import price_sums
from spillway_router.ledger.records import Group, Total
from spillway_router.ledger.rentals.fixed_cost import CostLine, shared


@dataclass(frozen=True, slots=True)
class Part:
    """The answers to prompts of one length class among those of a day and group, and what they cost: their charges and
    their share of the used GPU time."""

    day: str
    group: Group
    length: int
    sizes: Sizes
    gpu_us: int
    kv_token_steps_x2: int
    cost_nano: int


@dataclass(slots=True)
class _Alike:
    """All answers of one kind and length class: their tokens per day, their work on this GPU, and their cost."""

    days: dict[str, Sizes] = field(default_factory=dict)
    whole: Sizes = Sizes(0, 0, 0)
    work_us: int = 0
    cost_nano: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What an offer would have charged for the answers that it could have given (unrounded nano-dollars), and what
    these are: their number, tokens, and work on this GPU. `left_out_nano` is what the other answers did cost."""

    cost: Fraction
    sizes: Sizes
    work_us: int
    left_out_nano: int


class Answers:
    """The answers of a report by kind and length.

    `scale` is what the claimed GPU work must be multiplied by so that no day has more of it than time.
    """

    def __init__(
        self,
        lines: Sequence[CostLine],
        lengths: Iterable[tuple[int, Total]],
        coefficients: WorkCoefficients,
        scale: Fraction,
    ) -> None:
        self.parts = _parts(lines, lengths)
        # A model whose answers have no output at all is one for embeddings. Single answers without output are cut off,
        # and what reads no tokens, a parser, writes none.
        prompts = {_model(part) for part in self.parts if part.sizes.prompt_tokens}
        self._embedders = prompts - {_model(part) for part in self.parts if part.sizes.completion_tokens}
        self._alike: dict[tuple[AnswerKind, int], _Alike] = defaultdict(_Alike)
        for part in self.parts:
            sums = self._alike[self.kind_of(part), part.length]
            sums.days[part.day] = _plus(sums.days.get(part.day, Sizes(0, 0, 0)), part.sizes)
            sums.whole = _plus(sums.whole, part.sizes)
            sums.cost_nano += part.cost_nano
            sums.work_us += round(scale * _work_us(part, coefficients))

    @property
    def sizes(self) -> Sizes:
        """All answers together."""
        whole = Sizes(0, 0, 0)
        for sums in self._alike.values():
            whole = _plus(whole, sums.whole)
        return whole

    @property
    def work_us(self) -> int:
        """Microseconds of GPU work that all answers are or would be here."""
        return sum(sums.work_us for sums in self._alike.values())

    def kind_of(self, part: Part) -> AnswerKind:
        """Return what the answers of a part are."""
        return "embedding" if _model(part) in self._embedders else "text"

    def of_groups(self, offer: Offer) -> GroupsInstead:
        """Return what each day's group would have cost at an offer."""
        costs: dict[tuple[str, Group], Fraction] = {}
        for part in self.parts:
            if offer.could_give(self.kind_of(part), part.length):
                key = (part.day, part.group)
                costs[key] = costs.get(key, Fraction()) + part_cost(offer, part.day, part.length, part.sizes)
        return GroupsInstead(offer, costs)

    def at(self, offer: Offer) -> Comparison:
        """Return what the answers that an offer could have given would have cost there."""
        cost, sizes, work_us, left_out_nano = Fraction(), Sizes(0, 0, 0), 0, 0
        for (kind, length), sums in self._alike.items():
            if not offer.could_give(kind, length):
                left_out_nano += sums.cost_nano
                continue
            # One price for all days needs one multiplication.
            days = {"": sums.whole} if len(offer.prices) == 1 else sums.days
            cost += sum((part_cost(offer, day, length, of_day) for day, of_day in days.items()), Fraction())
            sizes = _plus(sizes, sums.whole)
            work_us += sums.work_us
        return Comparison(cost, sizes, work_us, left_out_nano)


@dataclass(frozen=True, slots=True)
class GroupsInstead:
    """What each day's group of attempts would have cost at an offer, in unrounded nano-dollars; a group is missing if
    the offer could have given none of its answers."""

    offer: Offer
    costs: Mapping[tuple[str, Group], Fraction]

    def plain(self, sizes: Sizes) -> Fraction:
        """Return the cost of answers at the newest price for short prompts, by which API keys share the cost of their
        group: the sums of a key don't show the lengths of its prompts."""
        return price_sums(
            self.offer.newest,
            longer_than=0,
            prompt_tokens=sizes.prompt_tokens,
            completion_tokens=sizes.completion_tokens,
            requests=sizes.answers,
        )


def _model(part: Part) -> tuple[str, str]:
    return part.group.backend, part.group.model


def sizes_of(total: Total) -> Sizes:
    """Return the answers of a total, none if its attempts did not answer."""
    if not total.group.answers:
        return Sizes(0, 0, 0)
    return Sizes(total.answers, total.prompt_tokens, total.completion_tokens)


def _parts(lines: Sequence[CostLine], lengths: Iterable[tuple[int, Total]]) -> list[Part]:
    others: dict[tuple[str, Group], list[tuple[int, Total]]] = defaultdict(list)
    for length, total in lengths:
        others[total.day, total.group].append((length, total))
    parts: list[Part] = []
    for line in lines:
        total = line.total
        if not total.group.answers or total.group.cached:
            continue  # no model answered, and none would have
        of_group = sorted(others.get((total.day, total.group), ()), key=lambda pair: pair[0])
        # What is in no other class is in class 0.
        works = [max(0, other.gpu_us) for _, other in of_group]
        used = list(shared(line.used_nano, [*works, max(0, total.gpu_us - sum(works))], max(total.gpu_us, sum(works))))
        rest = _part(0, total, used[-1])
        for (length, other), used_nano in zip(of_group, used, strict=False):
            part = _part(length, other, used_nano)
            parts.append(part)
            rest = _minus(rest, part)
        if rest.sizes != Sizes(0, 0, 0) or rest.cost_nano or not of_group:
            parts.append(rest)
    return parts


def _part(length: int, total: Total, used_nano: int) -> Part:
    return Part(
        day=total.day,
        group=total.group,
        length=length,
        sizes=sizes_of(total),
        gpu_us=total.gpu_us,
        kv_token_steps_x2=total.kv_token_steps_x2,
        cost_nano=(0 if total.group.local else total.cost_nano) + used_nano,
    )


def _minus(rest: Part, part: Part) -> Part:
    charge_nano = 0 if part.group.local else part.cost_nano
    return Part(
        day=rest.day,
        group=rest.group,
        length=rest.length,
        sizes=Sizes._make(a - b for a, b in zip(rest.sizes, part.sizes, strict=True)),
        gpu_us=rest.gpu_us - part.gpu_us,
        kv_token_steps_x2=rest.kv_token_steps_x2 - part.kv_token_steps_x2,
        cost_nano=rest.cost_nano - charge_nano,
    )


def _work_us(part: Part, coefficients: WorkCoefficients) -> int:
    """Return the work that answers are, or in the cloud would have been, on the local GPU."""
    if part.group.local:
        return max(0, part.gpu_us)
    return work_sum_us(part.sizes.prompt_tokens, part.sizes.completion_tokens, part.kv_token_steps_x2, coefficients)


def _plus(one: Sizes, other: Sizes) -> Sizes:
    return Sizes(
        one.answers + other.answers,
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
    )
