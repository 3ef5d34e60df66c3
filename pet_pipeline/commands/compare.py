"""`pet compare`: whether one run is better than another on the same test rows."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pet_pipeline.commands.options import user_errors

if TYPE_CHECKING:
    from pet_pipeline.run_comparison import Comparison


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder of a run.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Folder of another run.")],
    system: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="classifier, ensemble, baseline, or a model; repeatable.  [default: these three]",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two runs on the same test rows, by paired tests."""
    from pet_pipeline.run_comparison import compare_predictions, read_predictions

    with user_errors():
        comparison = compare_predictions(
            read_predictions(first), read_predictions(second), system or ()
        )
        if as_json:
            typer.echo(json.dumps(asdict(comparison), indent=1))
        else:
            _print(comparison)


def _print(comparison: Comparison) -> None:
    """The figures of each system, then what they say in words."""
    from pet_pipeline.run_comparison import probability
    from pet_pipeline.show import console

    table = Table(
        *("system", "metric", "A", "B", "B - A", "95 % interval", "rows that differ", "p"),
        title=escape(f"A {comparison.first}, B {comparison.second}: {comparison.rows} test rows"),
        caption="interval by paired bootstrap; p: McNemar's test that both are right equally often",
        title_justify="left",
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for system in comparison.systems:
        once = [
            escape(system.system),
            str(system.rows_that_differ),
            probability(system.p_value).removeprefix("= "),
        ]
        for d in system.differences:
            name, differ, p_value = once
            interval = f"{d.low:+.3f} to {d.high:+.3f}"
            values = f"{d.first:.3f}", f"{d.second:.3f}", f"{d.difference:+.3f}", interval
            table.add_row(name, escape(d.metric), *values, differ, p_value)
            once = ["", "", ""]
    console.print(table)
    console.print()
    for system in comparison.systems:
        text = escape(f"{system.system}: {system.sentence}")
        console.print(text, soft_wrap=True, highlight=False)
