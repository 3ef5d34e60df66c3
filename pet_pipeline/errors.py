"""The one exception that is meant for people, and the wording its messages share.

Grammar of a message: *place: what was found; what is allowed or what to do*.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something the user can correct; the command line prints it and exits with 2.

    >>> print(UserError("a: not a number", "b: missing"))
    2 problems:
      - a: not a number
      - b: missing
    """

    def __init__(self, *problems: str):
        """Problems: one message each."""
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        return f"{len(self.problems)} problems:\n{lines}"


def raise_all(problems: Iterable[str]) -> None:
    """Raise one `UserError` that shows every problem once, or nothing if there is none."""
    unique = tuple(dict.fromkeys(problems))
    if unique:
        raise UserError(*unique)


@contextmanager
def at_place(place: str) -> Iterator[None]:
    """Begin the messages of errors raised inside with the place they are about."""
    try:
        yield
    except UserError as error:
        raise UserError(*(f"{place}: {problem}" for problem in error.problems)) from None


def listed(names: Iterable[object]) -> str:
    """Names as they are written in a message.

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


def first_line(error: BaseException) -> str:
    """The first line of a library's message, or the kind of the error if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
