"""The report's terms in a few words each, given where a reader meets them first."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

GLOSSARY = {
    "pool": "the texts without labels",
    "pattern": "a sentence with a gap, into which texts are put",
    "classifier": "the model that the run makes for use",
    "95 % interval": "where the figure would lie on other texts of this kind, 95 times of 100",
    "baseline": "the same kind of model, trained on the labelled texts alone",
    "McNemar's test": "p is how often two equally good systems differ so much by chance",
    "accuracy": "the fraction of texts that get the right label",
    "precision": "of the texts that get a label, the fraction that has it",
    "recall": "of the texts that have a label, the fraction that gets it",
    "F1": "one figure for precision and recall, their harmonic mean; 1 is perfect",
    "macro F1": "the mean of the labels' F1, in which a rare label counts as much as others",
    "MCC": "the correlation of true and predicted labels; 0 is guessing, 1 is perfect",
    "confidence": "the probability of the predicted label",
    "threshold": "the lowest confidence at which a text is answered",
    "coverage": "the fraction of texts that are answered",
    "calibration error": "how far confidence and accuracy are apart, on average; 0 is perfect",
    "PVP": "a pattern with its label words, and the model tuned on it (pattern-verbalizer pair)",
    "label word": "a word that stands for a label in a pattern's gap",
    "ensemble": "all PVPs together: the mean of their scores",
    "soft label": "a probability for each label instead of one label",
    "distillation": "training the classifier to give the ensemble's soft labels",
    "entropy": "how undecided a soft label is; 0 is certain",
    "nats": "the unit that natural logarithms give",
    "Jensen-Shannon divergence": "how far soft labels are apart; 0 is equal",
    "iPET": "generations of PVPs, each tuned on more texts, which the one before labelled",
    "log-loss": "minus the logarithm of the right label's probability, on average; 0 is perfect",
    "standard error": "how far an average is off by chance, typically",
    "in-sample": "measured on the texts that the choice was made by, so too good",
    "masked-LM loss": "minus the logarithm of a masked token's probability, on average",
    "masked accuracy": "the fraction of masked tokens that the model predicts",
    "sentence embedding": "the mean of a model's vectors for a text's tokens",
    "demonstration": "a labelled text inserted into the input as an example",
}
TERMS = {
    term: re.compile(rf"(?<!\w){re.escape(term)}(?!\w*[-_])s?(?!\w)", re.IGNORECASE)
    for term in GLOSSARY
}
UNREAD = re.compile(r"<(svg|style|code|pre)\b.*?</\1>|<[^>]*>", re.DOTALL)


class Glossary:
    """The terms that were not yet explained on a page that is written from its top."""

    def __init__(self) -> None:
        self._unexplained = dict(GLOSSARY)

    def explained(self, html: str) -> Markup:
        """A part of the page, with the terms that stand in it for the first time below it."""
        entries: list[Markup] = []
        unread = " ".join(Markup(UNREAD.sub(" ", html)).unescape().split())
        while new := [term for term in self._unexplained if TERMS[term].search(unread)]:
            texts = {term: self._unexplained.pop(term) for term in new}
            entries += [Markup("<dfn>{}</dfn>: {}").format(*entry) for entry in texts.items()]
            unread = " ".join(texts.values())  # which may have terms of their own
        if not entries:
            return Markup(html)
        note = escape("; ").join(entries)
        return Markup(html) + Markup('<p class="note terms">{}.</p>\n').format(note)
