"""Certify from which share of captioned fields on a page is of a schema's kind.

    python -m evidence.documents.kinds          # prints the certificate for captions/biometry.yaml

The threshold is the least share that at most a share ALPHA of pages of other kinds reaches, with confidence 1 - DELTA
(Clopper and Pearson). It is chosen on the kinds of TUNING and checked on those of HELD_OUT. The pages of one kind share
a few templates, so the certificate speaks for pages like these.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from evidence.documents.corpus import other_kind
from evidence.documents.words import HELD_OUT, TUNING, Vocabulary
from evidence.measures_caching import upper_end
from spillway_router.documents.captions.reading import read_captions
from spillway_router.documents.schemas import shipped_schemas

ALPHA, DELTA, PAGES = 0.01, 0.025, 2000


@dataclass(frozen=True, slots=True)
class KindCertificate:
    """Of `n` pages of other kinds `errors` reach the threshold; at most `upper` of all do, so certified."""

    threshold: float
    n: int
    errors: int
    upper: float


def shares(words: Vocabulary, count: int) -> list[float]:
    """Return the share of captioned fields on pages of other kinds than biometry."""
    schema = shipped_schemas()["biometry"]
    rng = random.Random("kinds")
    pages = (other_kind(rng, words) for _ in range(count))
    return [read_captions(page.text, schema.json_schema, schema.captions()).kind for page in pages]


def certified(reached: Sequence[float], fields: int) -> KindCertificate | None:
    """Return the least threshold k/fields with a certificate, None if there is none."""
    for k in range(1, fields + 1):
        errors = sum(share >= k / fields for share in reached)
        upper = upper_end(errors, len(reached))
        if upper <= ALPHA:
            return KindCertificate(k / fields, len(reached), errors, upper)
    return None


def main() -> None:
    fields = len(shipped_schemas()["biometry"].captions().fields)
    print(certified(shares(TUNING, PAGES), fields))
    reached = shares(HELD_OUT, PAGES)
    print(f"held out: {[sum(share >= k / fields for share in reached) for k in range(1, fields + 1)]} of {PAGES}")


if __name__ == "__main__":
    main()
