"""Builds the site with mkdocs-material in an environment of its own (`make install-docs`).

Pages link to files anywhere in the repository, so the site is built from a copy that has docs/ and every file that its
pages link to, at the same paths. Nothing of the built pages is loaded from elsewhere: they work without a network.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from evidence.site.reference import commands_page, http_page, settings_page

ROOT: Final = Path(__file__).parents[2]
SITE: Final = ROOT / "build" / "site"
MKDOCS: Final = ROOT / ".venv-docs" / "bin" / "mkdocs"
SETTINGS: Final = Path(__file__).parent / "mkdocs.yml"
_LINK: Final = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
_TIMEOUT_S: Final = 300
_GENERATED: Final = {"docs/reference/settings.md": settings_page, "docs/reference/commands.md": commands_page}


class SiteError(Exception):
    """The site can't be built; the message says what to do."""


def build_site(target: Path) -> int:
    """Build the site into a folder, which is replaced; return the number of its pages. Raises SiteError."""
    if not MKDOCS.exists():
        raise SiteError("the tools of the documentation are not installed; run `make install-docs`")
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        copy_sources(source)
        file = Path(name) / "mkdocs.yml"
        places = f"docs_dir: {json.dumps(str(source))}\nsite_dir: {json.dumps(str(target))}\n"
        file.write_text(SETTINGS.read_text(encoding="utf-8") + places, encoding="utf-8")
        done = subprocess.run(
            [str(MKDOCS), "build", "--strict", "--quiet", "--clean", "--config-file", str(file)],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    if done.returncode:
        raise SiteError(f"mkdocs: {(done.stdout + done.stderr).strip()[-2000:]}")
    return sum(1 for _ in target.rglob("*.html"))


def copy_sources(folder: Path) -> None:
    """Write the pages, everything that they link to, and the generated pages into a folder."""
    pending = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    copied: set[Path] = set()
    while pending:
        page = pending.pop()
        if page in copied:
            continue
        copied.add(page)
        place = folder / page.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, place)
        if page.suffix == ".md":
            pending += linked_files(page)
    for name, page_text in {**_GENERATED, "docs/reference/http.md": http_page}.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(page_text(), encoding="utf-8")
    (folder / "README.md").rename(folder / "index.md")
    for page in folder.rglob("*.md"):
        page.write_text(_for_the_site(page, folder), encoding="utf-8")


def linked_files(page: Path) -> Iterator[Path]:
    """Yield the files of the repository that a page links to; of a folder, its README."""
    for match in _LINK.finditer(page.read_text(encoding="utf-8")):
        target = (page.parent / match[1]).resolve()
        if target.is_dir():
            target /= "README.md"
        if target.is_file() and target.is_relative_to(ROOT):
            yield target


def _for_the_site(page: Path, folder: Path) -> str:
    """Return the text of a page with links to folders and to the README as the site has them. A folder without a README
    is named without a link, because the site has no pages for folders."""

    def moved(match: re.Match[str]) -> str:
        target = page.parent / match[2]
        anchor = match[3] or ""
        if target.resolve() == (folder / "README.md").resolve():
            return f"[{match[1]}]({match[2].removesuffix('README.md')}index.md{anchor})"
        if ((ROOT / page.relative_to(folder)).parent / match[2]).is_dir():
            inside = f"{match[2].rstrip('/')}/README.md"
            return f"[{match[1]}]({inside}{anchor})" if (page.parent / inside).exists() else match[1]
        return match[0]

    text = page.read_text(encoding="utf-8")
    return re.sub(r"\[([^\]]*)\]\((?!https?://|mailto:)([^)#\s]+)(#[^)\s]*)?\)", moved, text)
