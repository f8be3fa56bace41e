"""vLLM's command-line flags as data: parse what the user passes through, and merge it over what was planned."""

from __future__ import annotations

from dataclasses import dataclass

# The short and old spellings that stand for a planned flag.
_ALIASES = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-q": "--quantization",
}
_SUFFIXES = {"k": 1000, "m": 10**6, "g": 10**9, "K": 1024, "M": 1024**2, "G": 1024**3}


@dataclass(frozen=True, slots=True)
class Flag:
    """One option: its long name with dashes (`--max-model-len`), its values, and the words as the user wrote them."""

    name: str
    values: tuple[str, ...] = ()
    written: tuple[str, ...] = ()

    def argv(self) -> tuple[str, ...]:
        """Return the words of the command line, as the user wrote them if the option came from the user."""
        return self.written or (self.name, *self.values)


@dataclass(frozen=True, slots=True)
class StrayWord:
    """A word on the command line that belongs to no flag."""

    word: str


def parse(words: tuple[str, ...]) -> tuple[Flag, ...] | StrayWord:
    """Split words into flags, or return the first word that belongs to no flag.

    `--a=b`, `--a b c`, `--a_b` and short aliases are accepted; negative numbers count as values.
    """
    flags: list[Flag] = []
    for word in words:
        if word.startswith("-") and not _is_number(word):
            head, equals, value = word.partition("=")
            flags.append(Flag(_long_name(head), (value,) if equals else (), (word,)))
        elif not flags:
            return StrayWord(word)
        else:
            last = flags[-1]
            flags[-1] = Flag(last.name, (*last.values, word), (*last.written, word))
    return tuple(flags)


def merge(planned: tuple[Flag, ...], given: tuple[Flag, ...]) -> tuple[str, ...]:
    """Return the command line: planned flags that the user didn't set, then the user's own; the last of each name
    wins."""
    last = {_subject(flag.name): flag for flag in given}
    remaining = [flag for flag in planned if _subject(flag.name) not in last]
    return tuple(word for flag in (*remaining, *last.values()) for word in flag.argv())


def value_of(flags: tuple[Flag, ...], name: str) -> str | None:
    """Return the last value given for a flag, None when it is absent, and the empty string for a bare switch."""
    for flag in reversed(flags):
        if flag.name == name:
            return flag.values[0] if flag.values else ""
    return None


def integer(text: str) -> int:
    """Parse a count as vLLM reads it: `8192`, `8k` (thousand), `8K` (1024), `1.5m`.

    Raises `ValueError` for anything else.
    """
    factor = _SUFFIXES.get(text[-1:], 1)
    digits = text[:-1] if factor > 1 else text
    return int(float(digits) * factor) if factor > 1 else int(digits)


def _long_name(head: str) -> str:
    if head in _ALIASES:
        return _ALIASES[head]
    return "--" + head[2:].replace("_", "-") if head.startswith("--") else head


def _subject(name: str) -> str:
    # `--no-x` and `--x` set the same thing, so one replaces the other.
    return "--" + name.removeprefix("--no-") if name.startswith("--no-") else name


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
