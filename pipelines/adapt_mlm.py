"""A masked language model, trained further on a table of texts, or made of any encoder.

    python pipelines/adapt_mlm.py --model M --text TABLE --output DIR
    python pipelines/adapt_mlm.py --model M --text TABLE --output DIR --keep base

The table is Parquet, CSV or JSON lines: a file, a folder, a URL, or datasets:NAME:SPLIT. A model
without a masked-LM head gets a new one. --keep names a teacher, or base for the model itself, whose
sentence embeddings are kept by a second loss. DIR is then a model for `pet run --model`; its
README.md records texts, tokens and losses. Run the same command again to resume after a stop.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from pet_pipeline import UserError
from pet_pipeline.adapted import FEW_POSITIONS
from pet_pipeline.compute import Compute
from pet_pipeline.errors import at_place, listed
from pet_pipeline.files import sync_file
from pet_pipeline.models import Pretrained, default_rate, resolve_model
from pet_pipeline.optimisation import Adaptation, Optimisation
from pet_pipeline.progress import say
from pet_pipeline.sources import Source, find_source, open_datasets
from pet_pipeline.stages.adapt import STAGE, AdaptMlm, read_adapted
from pet_pipeline.stages.adapt_texts import TableTexts
from pet_pipeline.stages.check_adapt import BASE
from pet_pipeline.units import PlannedUnit, Result


def main(
    model: Annotated[str, typer.Option(help="Encoder: folder, hub name, or NAME@REVISION.")],
    text: Annotated[str, typer.Option(help="Table of texts.")],
    output: Annotated[Path, typer.Option(help="Folder to write, which must not exist yet.")],
    keep: Annotated[str, typer.Option(help="Teacher: base, or an encoder; none by default.")] = "",
    keep_weight: Annotated[float, typer.Option(help="Weight of the teacher's loss.")] = 4.0,
    column: Annotated[str, typer.Option(help="Column of the texts.")] = "text",
    tokens: Annotated[int, typer.Option(min=0, help="Tokens to read; 0 follows --passes.")] = 0,
    passes: Annotated[float, typer.Option(min=0.0, help="Times the table is read.")] = 1.0,
    batch: Annotated[int, typer.Option(min=1, help="Sequences per update.")] = 64,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of an update computed at once, by memory.")
    ] = 8192,
    sequence: Annotated[int, typer.Option(min=8, help="Tokens of a sequence.")] = 128,
    packed: Annotated[bool, typer.Option(help="Text after text fills a sequence.")] = False,
    whole_words: Annotated[bool, typer.Option(help="Mask whole words.")] = False,
    masked: Annotated[float, typer.Option(help="Fraction of tokens to predict.")] = 0.15,
    rate: Annotated[float, typer.Option(min=0.0, help="Learning rate; 0 follows the size.")] = 0.0,
    warmup: Annotated[float, typer.Option(min=0.0, max=1.0, help="Fraction of the updates.")] = 0.1,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="On a CPU; 0 is one per core.")] = 0,
) -> None:
    """Adapt a model and print its figures before and after."""
    try:
        check_options(masked, passes, precision)
        base = at("--model", model)
        compute = Compute(device, precision, threads=threads, batch_tokens=batch_tokens)
        optimisation = Optimisation(
            learning_rate=rate or default_rate(base),
            batch_size=batch,
            batch_tokens=batch_tokens,
            warmup=warmup,
            frozen_embeddings=False,
            balanced=False,
        )
        how = Adaptation(
            optimisation=optimisation,
            steps=0,
            passes=0.0 if tokens else passes,
            max_tokens=sequence,
            packed=packed,
            masked=masked,
            whole_words=whole_words,
            keep_weight=keep_weight if keep else 0.0,
            held_out=FEW_POSITIONS,
        )
        if tokens:
            how = replace(how, steps=max(1, tokens // how.update_tokens))
        teacher = (base if keep == BASE else at("--keep", keep)) if keep else None
        check_models(base, teacher, sequence)
        texts = texts_of(text, column)
        unit = AdaptMlm(
            base=base,
            texts=texts,
            teacher=teacher,
            adaptation=how,
            precision=resolved(compute),
            new_head=True,
        )
        print_figures(adapt_in(output, unit, compute))
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def check_options(masked: float, passes: float, precision: str) -> None:
    """Refuse values that mean nothing."""
    if not 0 < masked < 1:
        raise UserError(f"--masked: {masked} is no fraction of the tokens; take 0.15, for example")
    if not passes:
        raise UserError("--passes: 0 reads nothing; take 1, for example")
    if precision not in ("auto", "float32", "bfloat16"):
        raise UserError(f"--precision: {precision!r} is not one of 'auto', 'float32', 'bfloat16'")


def at(option: str, name: str) -> Pretrained:
    """The model that an option names."""
    with at_place(option):
        return resolve_model(name)


def check_models(base: Pretrained, teacher: Pretrained | None, sequence: int) -> None:
    """Refuse models that do not fit, before anything is read."""
    from pet_pipeline.adapting import check_teacher
    from pet_pipeline.encoding import layout_of
    from pet_pipeline.pretrained import check_mlm, load_tokenizer

    with at_place("--model"):
        limit = check_mlm(base)
        layout_of(load_tokenizer(base))
    if sequence > limit:
        raise UserError(f"--sequence: {sequence} is more than {base} reads, {limit}")
    if teacher and teacher != base:
        with at_place("--keep"):
            check_teacher(teacher, base, sequence)


def texts_of(text: str, column: str) -> TableTexts:
    """The texts of a table; refuses one without the column, or with fewer than two rows."""
    with at_place("--text"):
        source: Source = find_source(text)
        known = list(open_datasets(source, (column,), {})[0][1].schema.names)
        if column not in known:
            raise UserError(
                f"{text} has no column {column!r}; name one with --column: {listed(known)}"
            )
        texts = TableTexts(source, (column,), {})
        if texts.count() < 2:
            raise UserError(f"{text} has no texts, or one; give more")
    return texts


def resolved(compute: Compute) -> str:
    """The precision that is computed in; it is a part of what the result depends on."""
    from pet_pipeline.inference import resolve_precision

    return resolve_precision(compute)


def adapt_in(output: Path, unit: AdaptMlm, compute: Compute) -> Result:
    """The adapted model in its folder, made unless it is there; begun work is resumed."""
    folder = output.with_name(f".{output.name}.partial")
    if found := PlannedUnit(output, STAGE, unit).result():
        say(f"{output}: done before, with the same options")
        shutil.rmtree(folder, ignore_errors=True)  # of a program that was killed at its end
        return found
    if output.exists():
        raise UserError(f"--output: {output} exists and was made otherwise; name a new folder")
    with held(folder, output):
        planned = PlannedUnit(folder / "model", STAGE, unit)
        say(f"{unit.size()}, from {unit.base}; run the same command again to resume after a stop")
        say(f"unfinished work, also that with other options, is in {folder} until {output} is made")
        made = planned.result() or planned.run(compute)
        made.dir.rename(output)
        sync_file(output.parent)
        shutil.rmtree(folder, ignore_errors=True)
    return replace(made, dir=output)


@contextmanager
def held(folder: Path, output: Path) -> Iterator[None]:
    """A folder to make an output in, which no other process may do at the same time."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"--output: another process is at work on {output}; wait for it, or name a new folder"
        ) from None
    except OSError as error:
        raise UserError(f"--output: {folder}: {error.strerror}; name another folder") from None
    try:
        yield
    finally:
        lock.release()


def print_figures(result: Result) -> None:
    """What the model is worth before and after."""
    model = read_adapted(result)
    table = Table("", "before", "after", box=None)
    for row in model.adapted.rows:
        table.add_row(*row)
    Console().print(table)
    few = f", fewer than {FEW_POSITIONS:,}: the table is small" if model.few_positions else ""
    say(f"on {model.adapted.positions:,} masked positions of held-out texts{few}")
    say(f"written: {result.dir}")


if __name__ == "__main__":
    typer.run(main)
