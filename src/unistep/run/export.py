"""`export_generator`: a run's generator for other libraries, opened again and compared before it is there."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unistep.evaluation.result import Evaluation
from unistep.export import Student, write_export
from unistep.io.progress import show_waiting
from unistep.recipes.schema import DistillRecipe
from unistep.run.checkpoints import export_checkpoint
from unistep.run.console import Talk
from unistep.run.folder import load_run_recipe, read_record
from unistep.teachers.checkpoint import load_generator, read_adapter
from unistep.teachers.teacher import Teacher

CHECKPOINT = re.compile(r"generator-(step-\d+)")


def export_generator(
    run: str | Path,
    *,
    to: str,
    out: str | Path | None = None,
    checkpoint: str | None = None,
    teacher: Teacher | None = None,
    quiet: bool = True,
) -> Path:
    """Writes a generator as a folder for other libraries, with `sampling_contract.json` and a model card.

    Nothing is left unless a fresh process opens the result and draws unistep's samples from the same noise: within 1e-4
    in float32, 1e-3 for onnxruntime.

    Args:
        run: a distilled run, its generator folder, or a file that was exported to safetensors.
        to: `diffusers` (a pipeline folder), `safetensors` (one file, which `load_generator` opens) or `onnx`; of a
            student trained as LoRA also `lora-peft` or `lora-comfyui`, adapter files with their keys.
        out: the folder to write; None = RUN/export-TO. An earlier export there is replaced.
        checkpoint: `best`, `last` or `step-N` of the run's training instead of what it exported at its end.
        teacher: your own teacher, if the run was made with one.
        quiet: do not say what was verified.

    Returns:
        The folder.

    Raises:
        UserError: for what the form cannot express, or samples that differ.
    """
    source = Path(run) if checkpoint is None else export_checkpoint(run, checkpoint)
    student = student_of(source, teacher)
    with show_waiting(f"exporting to {to} and sampling from it in a fresh process", not quiet):
        exported = write_export(student, to, Path(out) if out is not None else default_folder(source, to))
    found = exported.contract["verified"]
    differences = ", ".join(f"{name} differ by {found[name]:.1e}" for name in ("samples", "images") if name in found)
    Talk(quiet)(f"opened again by {found['with']}: {differences}, at most {found['limit']:g} allowed")
    return exported.folder


def student_of(source: Path, teacher: Teacher | None) -> Student:
    """A generator with what its run says of it."""
    generator, config, sha256 = load_generator(source, teacher)
    run, step = run_of(source)
    if run is None:
        adapter = read_adapter(source)
        return Student(
            generator=generator.float(), config=config, sha256=sha256, name=source.stem, adapter=adapter, own=teacher
        )
    recipe, record = load_run_recipe(run), read_record(run / "run.json")
    assert isinstance(recipe, DistillRecipe)
    return Student(
        generator=generator.float(),
        config=config,
        sha256=sha256,
        name=recipe.name if step is None else f"{recipe.name} {step}",
        weights=weights_of(record, recipe, step),
        teacher=record.get("teacher", {}),
        guidance=recipe.teacher.guidance,
        evaluation=evaluation_of(run, step),
        adapter=read_adapter(source),
        own=teacher,
    )


def run_of(source: Path) -> tuple[Path | None, str | None]:
    """The run that a folder is or lies in, and the step if it is a checkpoint's."""
    named = CHECKPOINT.fullmatch(source.name)
    run = source.parent if named or source.name == "generator" else source
    return (run if (run / "recipe.yaml").is_file() else None), (named[1] if named else None)


def weights_of(record: Mapping[str, Any], recipe: DistillRecipe, step: str | None) -> str | None:
    """`ema` or `raw`: as recorded at the end; a checkpoint's are averages where the recipe keeps one."""
    if step is not None:
        return "raw" if recipe.training.ema is None else "ema"
    return record.get("weights", {}).get("exported")


def evaluation_of(run: Path, step: str | None) -> Evaluation | None:
    """The run's evaluation; of a checkpoint only one that has a row for it."""
    file = run / "evaluation.json"
    evaluation = Evaluation.load(file) if file.is_file() else None
    if step is None or evaluation is None:
        return evaluation
    return evaluation if any(row.name == f"generator {step}" for row in evaluation.rows) else None


def default_folder(source: Path, to: str) -> Path:
    """RUN/export-TO, RUN/export-TO-step-N for a checkpoint; beside a generator without a run."""
    run, step = run_of(source)
    if run is None:
        return source.with_name(f"{source.stem}-{to}")
    return run / ("-".join(filter(None, ("export", to, step))))
