"""PET from end to end: few labels and a pool in, a classifier and a report out.

    python pipelines/pet_full.py data/support/demo.toml     the demo
    python pipelines/pet_full.py my.toml                    your settings (`pet config > my.toml`)
    python pipelines/pet_full.py --task patterns/mine --labelled l.csv --pool p.csv --test t.csv

Type the same command again to go on after a stop. Copy this file and change it.
"""

from typing import Any

from pet_pipeline import (
    Generation,
    Run,
    Settings,
    annotate,
    baseline,
    command,
    distill,
    encode,
    ensemble,
    evaluate,
    find_patterns,
    finetune,
    grow,
    load_task,
    prepare,
    read_metrics,
    write_report,
)


def pet_full(settings: Settings, run: Run) -> dict[str, Any] | None:
    """Few labels and a pool of unlabelled text in, a text classifier and a report out."""
    task = load_task(settings.task)
    tables = prepare(run, task, settings)
    searched = find_patterns(run, task, tables, settings)  # LM-BFF's, if the settings ask for them
    task = searched.task
    tables = encode(run, task, tables, settings)
    generations: list[Generation] = []
    grown = {}
    for number in range(settings.ipet.generations + 1):
        if number > 0:  # iPET: the models of the last generation label more rows for this one
            scores = generations[-1].scores
            grown = grow(run, task, scores, tables, settings, generation=number)
        models = finetune(run, task, tables, settings, generation=number, grown=grown)
        scores = annotate(run, task, models, tables, settings, generation=number)
        soft = ensemble(run, task, scores, tables, settings, generation=number)
        generations.append(Generation(number, scores, soft, grown))
    classifier = distill(run, task, generations[-1].soft, tables, settings)
    supervised = baseline(run, task, tables, settings)
    metrics = evaluate(run, task, generations, tables, classifier=classifier, baseline=supervised)
    write_report(
        run,
        task,
        generations,
        tables,
        settings,
        metrics=metrics,
        classifier=classifier,
        baseline=supervised,
        searched=searched,
    )
    return read_metrics(metrics) if metrics and not run.plan else None


if __name__ == "__main__":
    command(pet_full)
