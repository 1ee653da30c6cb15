"""The pages of the documentation say what is there: examples, links, and the tests that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.named_tests import ROOT, missing_tests

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
EXAMPLES = sorted(path for path in (DOCS / "examples").iterdir() if path.suffix in (".py", ".js"))

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def included(page: Path) -> dict[str, str]:
    """The examples of a page: the name of the file, and the fenced block that follows the marker."""
    found = re.findall(r"<!-- example: (\S+) -->\n```(?:python|js)\n(.*?)```\n", page.read_text(), re.DOTALL)
    assert len(found) == page.read_text().count("<!-- example:"), "a marker is not followed by its block"
    return dict(found)


@each_page
def test_an_example_on_a_page_is_its_file(page: Path):
    for name, block in included(page).items():
        assert block == (DOCS / "examples" / name).read_text(), name


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_every_example_is_on_a_page_and_exercised(example: Path):
    assert any(example.name in included(page) for page in PAGES)
    assert re.search(rf"\b{example.stem}\b", (Path(__file__).with_name("test_examples.py")).read_text())


@each_page
def test_every_test_that_a_page_names_exists(page: Path):
    assert missing_tests(page.read_text()) == []


@each_page
def test_every_link_between_pages_leads_somewhere(page: Path):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        other = (page.parent / target) if target else page
        assert other.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", other.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}, (
                f"{target}#{anchor}"
            )
