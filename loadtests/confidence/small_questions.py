"""Short questions with one right answer, of many kinds and difficulties, for a real small model.

    from loadtests.confidence.small_questions import questions

The facts are common knowledge, and the sums are drawn from a seed, so that a list is always the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import yaml

SEED = 20_261_130


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its right answers in lower case, and its kind. `group` is the fact that it asks for."""

    text: str
    right: tuple[str, ...]
    kind: str
    group: str

    def is_answered_by(self, answer: str) -> bool:
        """Return whether one of the right answers is among the first words of an answer."""
        words = re.findall(r"[\w'-]+", answer.lower())[:_FIRST_WORDS]
        text = f" {' '.join(words)} "
        return any(f" {right} " in text for right in self.right)


_FIRST_WORDS = 24
FACTS = Path(__file__).with_name("small_facts.yaml")
_NUMBERS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
_DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]


def questions(count: int = 1600, seed: int = SEED) -> list[Question]:
    """Return so many questions in a shuffled order, fewer if there are no more."""
    random = Random(seed)
    all_of_them = list(dict.fromkeys([*_facts(random), *_sums(random), *_letters(random)]))
    random.shuffle(all_of_them)
    return all_of_them[:count]


_NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Henry", "Ida", "Jonas", "Karen", "Louis")
_CITIES = ("Lyon", "Turin", "Graz", "Leeds", "Ghent", "Porto", "Malmo", "Krakow", "Bergen", "Basel", "Seville")
_GOODS = ("lamps", "chairs", "books", "pumps", "cables", "lenses", "bottles", "tables", "clocks", "valves")
_ORDERS = (
    "Dear {name},\nyour order {order} of {count} {goods} was sent to {city} on {day} {month}. It costs {price} euros.",
    "{name} from {city} ordered {count} {goods} on {day} {month} for {price} euros. The order number is {order}.",
    "Order {order}\nCustomer: {name}, {city}\nGoods: {count} {goods}\nDate: {day} {month}\nTotal: {price} euros",
    "On {day} {month} we received {price} euros from {name} for order {order}: {count} {goods}, to go to {city}.",
)
_ASKED: Mapping[str, str] = {
    "order": "What is the order number? Answer with the number only.",
    "count": "How many {goods} were ordered? Answer with the number only.",
    "city": "Which city is named? Answer with its name only.",
    "price": "What is the price in euros? Answer with the number only.",
    "name": "What is the customer's name? Answer with the name only.",
    "month": "Which month is named? Answer with its name only.",
}


def extractions(count: int, seed: int = SEED) -> list[Question]:
    """Return so many questions about a short order, each of which holds its answer."""
    random = Random(f"orders/{seed}")
    asked: list[Question] = []
    for number in range(count):
        order = {
            "name": random.choice(_NAMES), "order": str(random.randint(1000, 99_999)), "goods": random.choice(_GOODS),
            "count": str(random.randint(2, 90)), "city": random.choice(_CITIES), "day": str(random.randint(1, 28)),
            "month": random.choice(_MONTHS).title(), "price": str(random.randint(100, 999)),
        }  # fmt: skip
        wanted = random.choice(tuple(_ASKED))
        text = f"{random.choice(_ORDERS).format_map(order)}\n\n{_ASKED[wanted].format_map(order)}"
        asked.append(Question(text, (order[wanted].lower(),), "extraction", f"order {number}"))
    return asked


def _pairs(kind: str) -> list[tuple[str, tuple[str, ...]]]:
    facts: Mapping[str, list[str]] = yaml.safe_load(FACTS.read_text(encoding="utf-8"))[kind]
    return [(name, tuple(right)) for name, right in facts.items()]


def _facts(random: Random) -> Iterator[Question]:
    yield from _asked(
        "capital", _pairs("capital"), ("What is the capital of {}?", "Name the capital city of {}."), str.title
    )
    yield from _asked(
        "opposite", _pairs("opposite"), ("What is the opposite of {}?", "Give the antonym of the word {}.")
    )
    yield from _asked(
        "past", _pairs("past"), ("What is the past tense of the verb {}?", "Yesterday I ... (to {}). Fill the gap.")
    )
    yield from _asked("element", _pairs("element"), ("What is the chemical symbol of {}?",))
    yield from _asked("german", _pairs("german"), ("What is the German word for {}?", "Translate into German: {}"))
    for place, day in enumerate(_DAYS):
        yield Question(f"Which day comes after {day.title()}?", (_DAYS[(place + 1) % 7],), "calendar", f"day {day}")
        yield Question(f"Which day comes before {day.title()}?", (_DAYS[place - 1],), "calendar", f"before {day}")
    for place, month in enumerate(_MONTHS):
        yield Question(
            f"Which month comes after {month.title()}?", (_MONTHS[(place + 1) % 12],), "calendar", f"m {month}"
        )
        later = random.randint(2, 9)
        right = _MONTHS[(place + later) % 12]
        yield Question(
            f"It is {month.title()}. Which month is it in {later} months?", (right,), "calendar", f"l {month}"
        )


def _asked(
    kind: str, pairs: Iterable[tuple[str, tuple[str, ...]]], forms: tuple[str, ...], shown: Callable[[str], str] = str
) -> Iterator[Question]:
    for name, right in pairs:
        for form in forms:
            yield Question(form.format(shown(name)), right, kind, f"{kind} {name}")


def _sums(random: Random) -> Iterator[Question]:
    for most, count in ((9, 90), (50, 120), (500, 140)):
        for _ in range(count):
            a, b = random.randint(1, most), random.randint(1, most)
            yield _number(f"What is {a} plus {b}?", a + b, "sum", f"{a}+{b}")
            yield _number(f"Calculate {max(a, b)} - {min(a, b)}.", abs(a - b), "difference", f"{a}-{b}")
    for most in (9, 15, 40):
        for _ in range(70):
            a, b = random.randint(2, most), random.randint(2, most)
            yield _number(f"What is {a} times {b}?", a * b, "product", f"{a}*{b}")
    for _ in range(120):
        a, b = random.sample(range(1, 1000), 2)
        yield _number(f"Which number is larger, {a} or {b}?", max(a, b), "larger", f"{a}|{b}", bare=True)
    for number, word in enumerate(_NUMBERS):
        yield _number(f"Write the number {word} in digits.", number, "digits", f"w {number}")
        right = (str(number * 2), _NUMBERS[number * 2] if number <= 10 else str(number * 2))
        yield Question(f"How much is twice {word}?", right, "product", f"t {number}")


def _number(text: str, right: int, kind: str, group: str, *, bare: bool = False) -> Question:
    spelt = (_NUMBERS[right],) if right < len(_NUMBERS) and not bare else ()
    return Question(text, (str(right), *spelt), kind, f"{kind} {group}")


def _letters(random: Random) -> Iterator[Question]:
    words = [name for kind in ("opposite", "past", "german") for name, _ in _pairs(kind)]
    for word in random.sample(words, 90):
        length = len(word)
        yield Question(
            f"How many letters does the word {word} have?", (str(length), _NUMBERS[length]), "letters", f"n {word}"
        )
        yield Question(f"What is the first letter of the word {word}?", (word[0],), "letters", f"f {word}")
        yield Question(f"Spell the word {word} backwards.", (word[::-1],), "letters", f"b {word}")
