"""The documentation: links that lead nowhere, and examples that fail."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from evidence.results import Measurement, not_measured
from evidence.site.build import SiteError, build_site
from evidence.site.examples import examples, fault_of
from evidence.site.links import count_links, dead_links

DEAD_LINKS = "docs.dead_links"
EXAMPLES_FAILED = "docs.examples_failed"


def links(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Build the site and count its dead links, anchors among them, and whatever it would load from elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        try:
            pages = build_site(site)
        except SiteError as error:
            return {DEAD_LINKS: not_measured(str(error))}
        dead, count = dead_links(site), count_links(site)
    say(f"  {pages} pages, {count:,} links, {len(dead)} dead")
    details = {"pages": pages, "dead": dead[:50], "not_followed": "links to other sites, which need a network"}
    return {DEAD_LINKS: Measurement(len(dead), count, details)}


def failing_examples(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Run every example and count those that fail."""
    faults = {example.place: fault_of(example) for example in examples()}
    failed = {place: fault for place, fault in faults.items() if fault}
    say(f"  {len(faults)} examples, {len(failed)} failed")
    kinds = [example.kind for example in examples()]
    details = {"failed": failed, "kinds": {kind: kinds.count(kind) for kind in sorted(set(kinds))}}
    return {EXAMPLES_FAILED: Measurement(len(failed), len(faults), details)}
