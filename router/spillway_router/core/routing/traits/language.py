"""The language of a text: by its script where that says it, else by the most frequent function words.

It is made for rules such as "Spanish goes to this model". Short texts and names say nothing, which is the answer "".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

LOOKED_AT = 300
"""Characters that are enough to know a language."""
_LEAST_WORDS = 2
"""Different function words of a language that must occur."""
_LEAST_SHARE = 0.5
"""Share of a text's letters that must be of a script."""

_SCRIPTS: tuple[tuple[int, int, str], ...] = (
    (0x3040, 0x30FF, "ja"),  # kana; Chinese characters alone are Chinese
    (0xAC00, 0xD7AF, "ko"),
    (0x4E00, 0x9FFF, "zh"),
    (0x0400, 0x04FF, "ru"),
    (0x0370, 0x03FF, "el"),
    (0x0590, 0x05FF, "he"),
    (0x0600, 0x06FF, "ar"),
    (0x0900, 0x097F, "hi"),
    (0x0E00, 0x0E7F, "th"),
)
_OF_A_SCRIPT = re.compile(f"[{''.join(f'{chr(low)}-{chr(high)}' for low, high, _ in _SCRIPTS)}]")

FUNCTION_WORDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        language: frozenset(words.split())
        for language, words in {
            "en": "the of and to is in that it for you with this what how are be was have not can from or my please",
            "de": "der die das und ist nicht ein eine ich zu mit für auf den von wie was wir sie bitte im es dem kann",
            "es": "el la los las y es en que un una por para con no del cómo qué mi está favor lo se más su",
            "fr": "le la les et est en que un une pour avec pas du des comment je vous dans ce sur il au plus mon",
            "it": "il la gli e è in che un una per con non del come di i le mi sono questo più si da",
            "pt": "o a os as e é em que um uma por para com não do da como mais meu está isso se no na",
            "nl": "de het een en is van in dat niet ik je met voor op te zijn hoe wat mijn deze er aan",
            "pl": "w i na z się nie to jest do że jak co czy dla proszę po o ale mi od za tym",
        }.items()
    }
)


def language(text: str) -> str:
    """Return the ISO 639-1 code of a text's language, "" if it can't be told."""
    beginning = text[:LOOKED_AT].casefold()
    if not beginning.isascii() and _OF_A_SCRIPT.search(beginning):  # most texts that are not ASCII are Latin
        code = _by_script(beginning)
        if code:
            return code
    words = frozenset(beginning.translate(_PUNCTUATION).split())
    counts = {code: len(words & functional) for code, functional in FUNCTION_WORDS.items()}
    best, second = sorted(counts.values(), reverse=True)[:2]
    if best < _LEAST_WORDS or best == second:
        return ""
    return max(counts, key=lambda code: counts[code])


_PUNCTUATION = str.maketrans(dict.fromkeys('.,;:!?¿¡"()', " "))


def _by_script(text: str) -> str:
    letters: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if character.isalpha():
            letters[next((code for low, high, code in _SCRIPTS if low <= ord(character) <= high), "")] += count
    if not letters:
        return ""
    if letters["ja"]:
        letters["ja"] += letters.pop("zh", 0)
    code, count = letters.most_common(1)[0]
    return code if code and count >= _LEAST_SHARE * letters.total() else ""
