"""What a recognizer of names, places and the like must offer. It is optional and slow, so it runs in a thread."""

from __future__ import annotations

from typing import Protocol


class Recognizer(Protocol):
    """Finds personal data by a language model. Thread-safe."""

    def kinds(self, text: str) -> tuple[str, ...]:
        """Return the kinds of personal data in a text, such as ("person",)."""
        ...
