"""The one exception that is meant for people, and the wording its messages share.

Grammar of a message: *place: what was found; what is allowed or what to do*.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right; the command line prints it and exits with 2."""


def raise_all(problems: Iterable[str]) -> None:
    """Raise one `UserError` that shows every problem, or nothing if there is none."""
    found = list(dict.fromkeys(problems))
    if len(found) == 1:
        raise UserError(found[0])
    if found:
        lines = "\n".join(f"  - {problem}" for problem in found)
        raise UserError(f"{len(found)} problems:\n{lines}")


def listed(names: Iterable[object]) -> str:
    """Names as they stand in a message.

    >>> listed(["a", "b"])
    "'a', 'b'"
    """
    return ", ".join(repr(name) for name in names)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest valid one, or all of them.

    >>> nearest("txet", ["text", "label"])
    "; did you mean 'text'?"
    >>> nearest("x", ["text", "label"])
    "; there are 'text', 'label'"
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    if not close:
        lowered = {known_name.lower(): known_name for known_name in names}
        close = [lowered[n] for n in difflib.get_close_matches(name.lower(), list(lowered), n=1)]
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {listed(names)}" if names else ""
