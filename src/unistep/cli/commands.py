"""The commands of `unistep` but `recipes`: thin wrappers around the functions of `unistep.api`."""

from pathlib import Path
from typing import Annotated

import typer

from unistep.cli.errors import one_line_errors
from unistep.cli.options import (
    Checkpoint,
    Device,
    NoCache,
    Out,
    Quiet,
    RecipeArgument,
    RecipeOrRun,
    RunArgument,
    Seed,
    Set,
    Steps,
)

DOES_NOT_FIT = 1


@one_line_errors
def plan(
    recipe: RecipeArgument, set_: Set = None, out: Out = None, device: Device = "auto",
    memory: Annotated[float | None, typer.Option(min=0, metavar="GIB", help="Memory to fit into.  [default: what is available]")] = None,  # noqa: E501
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Say what a recipe takes: memory, disk, network evaluations, hours. Nothing runs; code 1 if it does not fit."""
    from unistep import api

    found = api.plan(recipe, out=out, overrides=set_ or (), device=device, memory=memory, quiet=quiet or json)
    if json:
        typer.echo(found.json())
    if not found.fits:
        raise typer.Exit(DOES_NOT_FIT)


@one_line_errors
def teach(
    recipe: RecipeOrRun, set_: Set = None, out: Out = None, seed: Seed = None, steps: Steps = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Train a teacher on images, for when there is no pretrained model. Run it again to go on."""
    from unistep import api

    api.teach(recipe, out=out, overrides=set_ or (), seed=seed, steps=steps, device=device, quiet=quiet)


@one_line_errors
def pairs(
    recipe: RecipeArgument,
    set_: Set = None,
    out: Out = None,
    solver: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A solver in the place of the recipe's; `auto` takes the cheapest that keeps to a tolerance.",
        ),
    ] = None,  # noqa: E501
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Make a recipe's noise-image pairs from the teacher. Run it again to go on."""
    from unistep import api

    api.make_pairs(recipe, out=out, overrides=set_ or (), solver=solver, device=device, quiet=quiet)


@one_line_errors
def distill(
    recipe: RecipeOrRun, set_: Set = None, out: Out = None, seed: Seed = None, steps: Steps = None,
    device: Device = "auto",
    recompute: Annotated[bool, typer.Option("--recompute", help="Measure the teacher anew instead of using stored features.")] = False,  # noqa: E501
    no_cache: NoCache = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Turn a teacher into a one-step generator: pairs, training, evaluation, report. Run it again to go on."""
    from unistep import api

    api.distill(
        recipe, out=out, overrides=set_ or (), seed=seed, steps=steps, device=device, recompute=recompute,
        cache=not no_cache, quiet=quiet,
    )  # fmt: skip


@one_line_errors
def sample(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN_OR_EXPORT", help="A run, a generator's folder, an export of one, or a teacher."),
    ],
    num: Annotated[int, typer.Option("--num", "-n", min=1, max=10_000_000, help="How many.")] = 64,
    first_seed: Annotated[
        int, typer.Option("--first-seed", min=0, max=2**62, help="Seeds count up from here.")
    ] = 2_000_000,
    label: Annotated[list[str] | None, typer.Option(help="A class, by name or index; may be repeated.")] = None,
    prompts: Annotated[
        str | None, typer.Option(metavar="FILE", help="Other prompts, for models taught on captions, in turn.")
    ] = None,
    files: Annotated[bool, typer.Option("--files", help="One file per image beside the grid.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write.  [default: RUN/samples]")] = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Draw samples from a one-step generator (or a teacher): a grid, and files if asked."""
    from unistep import api

    written = api.sample(
        run, num=num, first_seed=first_seed, labels=label, prompts=prompts, files=files, out=out,
        checkpoint=checkpoint, device=device, quiet=quiet,
    )  # fmt: skip
    if not quiet:
        typer.echo(written)


@one_line_errors
def evaluate(
    run: RunArgument, set_: Set = None, checkpoint: Checkpoint = None, device: Device = "auto",
    recompute: Annotated[bool, typer.Option("--recompute", help="Measure the teacher anew instead of using stored features.")] = False,  # noqa: E501
    no_cache: NoCache = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Measure a run: floor, teacher, teacher at one step and generator, then write its report."""
    from unistep import api

    api.evaluate(
        run, overrides=set_ or (), checkpoint=checkpoint, device=device, recompute=recompute, cache=not no_cache,
        quiet=quiet,
    )  # fmt: skip


@one_line_errors
def compare(
    recipe: RecipeArgument, set_: Set = None, out: Out = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="ENTRY", help="Run this entry now (or `solvers`); may be repeated.")] = None,  # noqa: E501
    device: Device = "auto", no_cache: NoCache = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Put one teacher through several methods at equal budget: one table, one figure, one page. Run again to go on."""
    from unistep import api

    api.compare(recipe, out=out, overrides=set_ or (), only=only or (), device=device, cache=not no_cache, quiet=quiet)


@one_line_errors
def export(
    run: RunArgument,
    to: Annotated[
        str,
        typer.Option("--to", metavar="FORM", help="diffusers, safetensors, onnx, comfy, lora-peft or lora-comfyui."),
    ],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write.  [default: RUN/export-FORM]")] = None,
    checkpoint: Checkpoint = None,
    quiet: Quiet = False,
) -> None:
    """Write a generator for other libraries; a fresh process must draw the same samples from it first."""
    from unistep import api

    folder = api.export_generator(run, to=to, out=out, checkpoint=checkpoint, quiet=quiet)
    if not quiet:
        typer.echo(folder)


@one_line_errors
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An EDM checkpoint (.pkl).")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write.  [default: beside FILE]")] = None,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Turn an EDM checkpoint into safetensors and a configuration. Nothing in the file is executed."""
    from unistep import api

    folder = api.convert(file, out=out)
    if not quiet:
        typer.echo(folder)


@one_line_errors
def certify(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="edm:PATH, embedded:NAME, gaussians:NAME, a checkpoint folder or a run of teach.")],  # noqa: E501
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the certificate there, as JSON.")] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Ask a teacher what a denoiser must answer: is it read as it was trained? Needs no data. Fails if it is not."""
    from unistep import api

    api.certify(teacher, out=out, device=device, quiet=quiet).require()
