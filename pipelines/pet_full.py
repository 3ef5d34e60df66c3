"""PET from end to end: few labels and a pool in, a classifier and a report out.

    python pipelines/pet_full.py data/support/demo.toml     the demo
    python pipelines/pet_full.py my.toml                    your settings (`pet config > my.toml`)
    python pipelines/pet_full.py --labelled l.csv --pool p.csv --test t.csv

Run the same command again to resume after a stop. Copy this file and change it.
"""

from pet_pipeline import (
    Generation,
    Metrics,
    Run,
    Settings,
    adapt,
    annotate,
    command,
    distill,
    encode,
    ensemble,
    evaluate,
    find_patterns,
    find_task,
    finetune,
    grow,
    prepare,
    read_metrics,
    select,
    write_report,
)


def pet_full(settings: Settings, run: Run) -> Metrics | None:
    """Few labels and a pool of unlabelled text in, a text classifier and a report out."""
    task = find_task(run, settings)
    tables = prepare(run, task, settings)
    searched = find_patterns(run, task, tables, settings)  # LM-BFF's, if the settings ask for them
    task = searched.task
    inputs = encode(run, task, tables, settings)
    inputs = adapt(run, task, inputs, settings)  # the model that all PVPs start from, if set
    inputs = select(run, task, inputs, settings)  # learning rate and steps, if asked for
    generations: list[Generation] = []
    # Without a pool there is nothing to annotate and distil: the baseline is all there is.
    for number in range(settings.ipet.generations + 1 if tables.pool else 0):
        added = {}
        if number > 0:  # iPET: the models of the last generation label more rows for this one
            added = grow(run, task, generations[-1].scores, inputs, settings, generation=number)
        models = finetune(run, task, inputs, settings, generation=number, added=added)
        scores = annotate(run, task, models, inputs, settings, generation=number)
        labels = ensemble(run, task, scores, inputs, settings, generation=number, added=added)
        generations.append(Generation(number, scores, labels, added))
    soft = generations[-1].soft if generations else None
    classifiers = distill(run, task, soft, inputs, settings)
    metrics = evaluate(run, task, generations, inputs, settings, classifiers=classifiers)
    write_report(
        run,
        task,
        generations,
        inputs,
        settings,
        metrics=metrics,
        classifiers=classifiers,
        searched=searched,
    )
    return read_metrics(metrics) if metrics and not run.plan else None


if __name__ == "__main__":
    command(pet_full)
