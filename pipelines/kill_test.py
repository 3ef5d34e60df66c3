"""Kill a run at random moments, resume it each time, and compare it with an undisturbed one.

python pipelines/kill_test.py data/support/demo.toml --kills 20 --output runs/kill-test
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

PROGRAM = Path(__file__).with_name("pet_full.py")


def main(
    settings: Path,
    kills: int = 20,
    output: Path = Path("runs/kill-test"),
    seed: int = 0,
    override: Annotated[list[str] | None, typer.Option("--set")] = None,
) -> None:
    """Exit with 1 if metrics, soft labels or the classifier's weights differ."""
    options = [word for text in override or [] for word in ("--set", text)]
    whole, killed = output / "whole", output / "killed"
    subprocess.run(program(settings, whole, options), check=True, stderr=subprocess.DEVNULL)
    records = [json.loads(file.read_text("utf-8")) for file in whole.rglob("unit.json")]
    seconds = sum(found["seconds"] for found in records)
    typer.echo(f"undisturbed: {len(records)} units, {seconds:.0f} s")
    moments = random.Random(seed)
    for n in range(1, kills + 1):
        process = subprocess.Popen(
            program(settings, killed, options),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(timeout=moments.uniform(3, 3 + 4 * seconds / kills))
            typer.echo(f"kill {n}: too late, the run had ended")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            typer.echo(f"kill {n}: {sum(1 for _ in killed.rglob('unit.json'))} units were done")
    subprocess.run(program(settings, killed, options), check=True, stderr=subprocess.DEVNULL)
    different = compare(whole, killed)
    typer.echo("\n".join(different) or "identical: metrics, soft labels and classifier")
    sys.exit(bool(different))


def program(settings: Path, output: Path, options: list[str]) -> list[str]:
    """The command line of a run."""
    return [sys.executable, str(PROGRAM), str(settings), "--output", str(output), *options]


def compare(one: Path, other: Path) -> list[str]:
    """The files whose contents differ between two runs."""
    patterns = ("evaluate/all/*", "*/ensemble/all/*", "distill/classifier/model.safetensors")
    files = [file for pattern in patterns for file in one.glob(pattern) if file.name != "unit.json"]
    return [
        f"{file.relative_to(one)} differs"
        for file in sorted(files)
        if digest(file) != digest(other / file.relative_to(one))
    ]


def digest(file: Path) -> str:
    """The SHA-256 of a file; of one that is not there, nothing."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""


if __name__ == "__main__":
    typer.run(main)
