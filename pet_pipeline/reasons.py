"""Why a result does not count any more, in words: what differs between two identities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pet_pipeline.keys import Change

NOUNS = {
    "base": "model",
    "t5": "generator",
    "real": "",
    "params": "",
    "selected_by": "selection",
}  # fields, as people say
WORDS = {"None": "none", "True": "true", "False": "false"}  # values, as in settings


def reasons(stage: str, changes: Sequence[Change]) -> list[str]:
    """A sentence for each difference that is the unit's own, without those of earlier results.

    >>> reasons("finetune", [Change(("params", "tuning", "steps"), "value", 60, 40)])
    ['finetune steps: 60 → 40']
    """
    own = [change for change in changes if change.kind != "result"]
    return list(dict.fromkeys(_reason(stage, change) for change in own))


def waiting(names: Mapping[str, bool]) -> str:
    """That results a unit is made from are new, or will be.

    names: of the units that make them, "gen-0/finetune/colon-1", and whether they are done
    >>> waiting({"gen-0/finetune/colon-1": True, "gen-0/finetune/team-1": False})
    'gen-0/finetune/team-1 is redone first'
    """
    undone = [name for name, done in names.items() if not done]
    chosen = undone or list(names)
    if not chosen:
        return "an earlier result has changed"
    stages = {name.rpartition("/")[0] for name in chosen}
    if len(chosen) == 1:
        what, verb = chosen[0], "is"
    elif len(stages) == 1:
        what, verb = f"{len(chosen)} units of {stages.pop()}", "are"
    else:
        what, verb = f"{chosen[0]} and {len(chosen) - 1} more", "are"
    if undone:
        return f"{what} {verb} redone first"
    return f"{what} {'was' if verb == 'is' else 'were'} redone"


def _reason(stage: str, change: Change) -> str:
    if change.path == ("attempt",):
        return "forced"
    if change.path == ("version",):
        return f"{stage} has a new version: {_text(change.old)} → {_text(change.new)}"
    if change.thing:
        field, name = change.thing
        whole = change.kind in ("added", "removed") and change.path[-1] == name
        return f"{NOUNS.get(field, field)} {name} {change.kind if whole else 'changed'}".lstrip()
    if change.kind in ("added", "removed"):
        return f"{_noun(change)} {change.kind}"
    if change.kind == "content":
        return f"{_noun(change)} changed"
    if change.kind == "order":
        return f"{_noun(change)} in another order"
    return f"{stage} {_noun(change)}: {_text(change.old)} → {_text(change.new)}"


def _noun(change: Change) -> str:
    """The last part of the path that is a name."""
    nouns = [NOUNS.get(part, part) for part in change.path]
    return next((noun for noun in reversed(nouns) if noun and not noun.isdigit()), "it")


def _text(value: Any, limit: int = 60) -> str:
    text = WORDS.get(repr(value), str(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"
