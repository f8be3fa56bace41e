"""`python -m evidence.site` builds the documentation site into build/site and checks its links."""

from __future__ import annotations

import sys

from evidence.site.build import SITE, SiteError, build_site
from evidence.site.links import dead_links


def main() -> int:
    """Build and check; return the exit status."""
    try:
        pages = build_site(SITE)
    except SiteError as error:
        print(error, file=sys.stderr)
        return 1
    dead = dead_links(SITE)
    for link in dead:
        print(f"dead link: {link}", file=sys.stderr)
    print(f"{pages} pages in {SITE}/index.html, {len(dead)} dead links")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
