"""The certificate of the semantic cache: the similarity from which on two questions may share an answer.

`spillway calibrate-cache` makes it from labelled pairs, a small versioned JSON file. It holds for one embedding model,
because similarities mean something else under any other, and for the scripts of its pairs, because a model may take
all texts of a script that it never learned for the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from spillway_router.core.caching.marks import VERSION

FORMAT = "spillway-semantic-cache/1"


class CertificateError(Exception):
    """A certificate can't be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class SemanticCertificate:
    """P(wrong | hit) <= alpha with probability >= 1 - delta, for pairs like the labelled ones.

    Pairs with the same marks hit from the cosine similarity `threshold` on; None if no threshold could be certified.
    `model` is the embedding model as its backend names it, `scripts` those of the labelled texts. Of `pairs` labelled
    pairs, `agreeing` had the same marks, and of these `hits` were at or above the threshold, `errors` of them wrongly.
    """

    model: str
    threshold: float | None
    alpha: float
    delta: float
    pairs: int
    agreeing: int
    hits: int
    errors: int
    scripts: frozenset[str]

    def to_json(self, made_on: str) -> str:
        """Return the text of its file. `made_on` is an ISO date."""
        values = {**asdict(self), "scripts": sorted(self.scripts)}
        return json.dumps({"format": FORMAT, "marks": VERSION, "made_on": made_on, **values}, indent=1) + "\n"

    @staticmethod
    def from_json(text: str | bytes) -> SemanticCertificate:
        """Read the text of a file. Raises CertificateError."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as malformed:
            raise CertificateError(f"it is not JSON ({malformed}); {_REMAKE}") from malformed
        if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("marks") != VERSION:
            raise CertificateError(f"it is no {FORMAT} of version {VERSION} of the marks; {_REMAKE}")
        try:
            return _certificate(data)
        except KeyError as missing:
            raise CertificateError(f"it lacks {missing}; {_REMAKE}") from missing
        except (TypeError, ValueError) as error:
            raise CertificateError(f"{error}; {_REMAKE}") from error


_REMAKE = "make it with `spillway calibrate-cache`"


def _certificate(data: Mapping[str, Any]) -> SemanticCertificate:
    threshold = data["threshold"]
    if threshold is not None and not 0.0 < float(threshold) <= 1.0:
        raise ValueError(f"its threshold is {threshold}, which is not above 0 and at most 1")
    if not isinstance(data["scripts"], list):
        raise TypeError("its scripts are no list")
    return SemanticCertificate(
        model=str(data["model"]),
        threshold=None if threshold is None else float(threshold),
        alpha=float(data["alpha"]),
        delta=float(data["delta"]),
        pairs=int(data["pairs"]),
        agreeing=int(data["agreeing"]),
        hits=int(data["hits"]),
        errors=int(data["errors"]),
        scripts=frozenset(str(script) for script in data["scripts"]),
    )
