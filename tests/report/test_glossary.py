"""Terms are explained where a reader meets them first, and only there."""

from __future__ import annotations

import re
from html import unescape

import pytest
from report_data import CASES, page_of

from pet_pipeline.report.glossary import GLOSSARY, TERMS, UNREAD, Glossary


def read(html: str) -> str:
    """What a reader sees of a part of a page."""
    return " ".join(unescape(UNREAD.sub(" ", html)).split())


def test_a_term_is_explained_once_below_the_part_that_has_it() -> None:
    explained = Glossary().explained
    assert explained("<p>A threshold of 0.8.</p>") == (
        "<p>A threshold of 0.8.</p>"
        '<p class="note terms"><dfn>threshold</dfn>: the lowest confidence at which a text is '
        "answered; <dfn>confidence</dfn>: the probability of the predicted label.</p>\n"
    )
    assert explained("<p>Another threshold.</p>") == "<p>Another threshold.</p>"


@pytest.mark.parametrize(
    ("html", "terms"),
    [
        ("soft labels", ["soft label"]),
        ("The POOL", ["pool"]),
        ("carpool, pool-side, pooling, pool_rows", []),
        ("<code>pool</code><pre>pool</pre><svg><text>pool</text></svg>", []),
        ('<a href="#pool">x</a>', []),
        ("McNemar&#39;s test", ["McNemar's test"]),
        ("a mean F1 of 0.3", ["F1", "precision", "recall"]),
        ("f1_macro", []),
    ],
)
def test_terms_are_found_as_words(html: str, terms: list[str]) -> None:
    found = re.findall(r"<dfn>(.*?)</dfn>", Glossary().explained(html))
    assert [term.replace("&#39;", "'") for term in found] == terms


@pytest.mark.parametrize("case", CASES)
def test_every_term_on_a_page_is_explained_in_the_section_that_has_it_first(case: str) -> None:
    page = page_of(case)
    body = page[page.index("<body>") : page.index('id="settings"')]
    body = re.sub(r"<nav>.*?</nav>", "", body, flags=re.DOTALL)
    sections = re.split(r"(?=<h2|<h3>(?:Is|On|What))", body)
    for term in GLOSSARY:
        named = [s for s in sections if TERMS[term].search(read(s))]
        dfn = f"<dfn>{term}</dfn>".replace("'", "&#39;")
        assert page.count(dfn) == bool(named), term
        if named:
            assert dfn in named[0], term
