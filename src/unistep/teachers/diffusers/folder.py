"""A pipeline's folder, on the disk or from the hub: what model_index.json says, checked before anything is loaded."""

import hashlib
import inspect
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from unistep.errors import UserError, one_line
from unistep.io.arguments import require_choice
from unistep.io.hub import announce_download, is_hub_id
from unistep.io.optional import without_bars
from unistep.io.text_files import read_json
from unistep.teachers.diffusers.rebuild import import_diffusers, model_class

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
DENOISERS = ("unet", "transformer")
LIBRARIES = ("diffusers", "transformers")
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # not fetched
TEXT = re.compile(r"(text_encoder|tokenizer)(_\d)?")
WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
CHUNK = 1 << 20


@dataclass(frozen=True)
class PipelineFolder:
    """A pipeline on the disk.

    Attributes:
        path: the folder.
        source: what the user called it.
        kind: the pipeline's class.
        components: name -> (library, class name), without those that are null.
        settings: what else model_index.json says.
        absent: components of the class that are null; diffusers wants to be told of some of them (SD3 without T5).
    """

    path: Path
    source: str
    kind: Any
    components: Mapping[str, tuple[str, str]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    @property
    def denoiser(self) -> str:
        """Name of the component that denoises: unet or transformer."""
        return next(name for name in DENOISERS if name in self.components)

    @property
    def text(self) -> tuple[str, ...]:
        """Names of text encoders and tokenizers."""
        return tuple(name for name in self.components if TEXT.fullmatch(name))

    def load(self, dtype: str, names: Collection[str]) -> Any:
        """The pipeline with some of its components, from safetensors; nothing in the folder is executed.

        Args:
            dtype: type of the weights; the VAE's stay float32.
            names: which components; the others are None.

        Raises:
            UserError: for an unknown dtype, or a component that cannot be loaded.
        """
        wanted = DTYPES[require_choice(dtype, DTYPES, "teacher.options.dtype")]
        left_out = {name: None for name in (*self.components, *self.absent) if name not in names}
        try:
            with without_bars():
                return self.kind.from_pretrained(
                    str(self.path), torch_dtype={"default": wanted, "vae": torch.float32}, use_safetensors=True,
                    local_files_only=True, trust_remote_code=False, **left_out,
                )  # fmt: skip
        except Exception as error:  # whatever a damaged configuration makes the libraries raise
            raise UserError(f"{self.path}: the pipeline cannot be loaded: {one_line(error)}") from error

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the components that a teacher has: denoiser, scheduler and VAE."""
        return tuple(name for name in (self.denoiser, "scheduler", "vae") if name in self.components)

    @property
    def encoding(self) -> tuple[str, ...]:
        """Names of what it takes to encode prompts; with a text encoder left out (SD3) the denoiser gives its width."""
        return (*self.text, *(() if self.has_all_text else (self.denoiser,)))

    @property
    def has_all_text(self) -> bool:
        """Whether every text encoder that the pipeline's class knows is there."""
        known = inspect.signature(self.kind.__init__).parameters
        return all(name in self.components for name in known if name.startswith("text_encoder"))

    def digest(self, names: Collection[str]) -> str:
        """sha256 over what is read of some components, by name, path and content.

        Other variants (fp16) and formats that lie beside the weights do not matter.
        """
        sha = hashlib.sha256()
        for file in sorted(file for name in sorted(names) for file in files_read(self.path / name)):
            sha.update(f"{file.relative_to(self.path)} {file.stat().st_size}\n".encode())
            with file.open("rb") as stream:
                while chunk := stream.read(CHUNK):
                    sha.update(chunk)
        return sha.hexdigest()


def files_read(component: Path) -> list[Path]:
    """The files of a component that loading it opens: of a model configuration and weights, else all that are there."""
    files = [file for file in component.rglob("*") if file.is_file() and not file.name.startswith(".")]
    read = [file for file in files if file.name == "config.json" or WEIGHTS.fullmatch(file.name)]
    return read if any(file.name != "config.json" for file in read) else files


def open_folder(spec: str) -> PipelineFolder:
    """A pipeline's folder, or a repository of the hub, which is fetched (safetensors only) and kept in the hub's cache.

    Raises:
        UserError: if there is none, it cannot be reached, it is no pipeline, a component is missing, or it holds code.
    """
    path = Path(spec) if Path(spec).is_dir() else fetched(spec)
    require_data_only(path)
    index = path / "model_index.json"
    if not index.is_file():
        raise UserError(f"{path}: found no model_index.json, expected the folder of a diffusers pipeline")
    described = read_json(index, "restore the file")
    listed = {name: tuple(value) for name, value in described.items() if isinstance(value, list) and value}
    components = {name: value for name, value in listed.items() if len(value) == 2 and value != (None, None)}
    settings = {name: value for name, value in described.items() if name not in listed}
    kind = pipeline_class(described.get("_class_name"), index)
    known = inspect.signature(kind.__init__).parameters
    absent = tuple(name for name in listed if name in known and name not in components)
    folder = PipelineFolder(path, spec, kind, components, settings, absent)
    require_components(folder)
    return folder


def load_component(spec: str, name: str, dtype: str = "float32") -> Any:
    """One model of a pipeline.

    Raises:
        UserError: as `open_folder`, or if it cannot be loaded.
    """
    folder = open_folder(spec)
    if name not in folder.components:
        raise UserError(f"{folder.path}: found no {name}, expected a pipeline with one")
    kind: Any = model_class(folder.components[name][1])
    try:
        with without_bars():
            return kind.from_pretrained(
                str(folder.path / name), torch_dtype=DTYPES[dtype], use_safetensors=True, local_files_only=True
            )
    except Exception as error:  # whatever a damaged configuration makes the library raise
        raise UserError(f"{folder.path / name}: cannot be loaded: {one_line(error)}") from error


def fetched(spec: str) -> Path:
    """The cached folder of a repository of the hub.

    Raises:
        UserError: for a name that is none, or a repository that is absent, gated or out of reach.
    """
    if not is_hub_id(spec):
        raise UserError(
            f"teacher: found no folder {spec}, expected diffusers:FOLDER or diffusers:OWNER/NAME of the hub"
        )
    announce_download(spec)
    try:
        kind = import_diffusers().DiffusionPipeline
        return Path(kind.download(spec, use_safetensors=True, trust_remote_code=False, **dict.fromkeys(UNUSED)))
    except Exception as error:  # whatever the hub's client and its transport raise
        raise UserError(
            f"teacher: cannot fetch {spec} from the hub: {one_line(error)}; if it is gated, accept its licence and log "
            "in with `hf auth login`; without a network give the path of a folder"
        ) from error


def require_data_only(path: Path) -> None:
    """Refuses code and pickles before any library looks into the folder.

    Raises:
        UserError: for a Python file anywhere in it, or an index of weights that names other files than safetensors.
    """
    code = sorted(file for file in path.rglob("*") if file.suffix.lower() == ".py")
    if code:
        raise UserError(
            f"{code[0]}: found Python code in a pipeline's folder, expected none: unistep executes nothing that comes "
            f"with a model; look through it and remove it ({len(code)} in all)"
        )
    for index in sorted(file for file in path.rglob("*.safetensors.index.json") if WEIGHTS.fullmatch(file.name)):
        try:
            files = {*read_json(index, "restore the file")["weight_map"].values()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{index}: no readable index of weights ({one_line(error)}); restore the file") from error
        other = sorted(str(name) for name in files if not str(name).endswith(".safetensors"))
        if other:
            raise UserError(f"{index}: found weights in {other[0]}, expected .safetensors files alone")


def pipeline_class(name: object, index: Path) -> Any:
    """One of diffusers' own pipelines by its name.

    Raises:
        UserError: for any other.
    """
    diffusers = import_diffusers()
    kind = getattr(diffusers, name, None) if isinstance(name, str) and name.isidentifier() else None
    if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
        raise UserError(f"{index}: _class_name: found {name!r}, expected the name of a pipeline class of diffusers")
    return kind


def require_components(folder: PipelineFolder) -> None:
    """Denoiser, scheduler and what else is used must be there and come from known libraries.

    Raises:
        UserError: naming the component.
    """
    index = folder.path / "model_index.json"
    if not any(name in folder.components for name in DENOISERS):
        raise UserError(f"{index}: found no {' or '.join(DENOISERS)}, expected a pipeline with one")
    if "scheduler" not in folder.components:
        raise UserError(f"{index}: found no scheduler, expected one: it says how the network was trained")
    if "transformer_2" in folder.components:
        raise UserError(f"{index}: found a transformer_2, expected one denoiser; two of them make no teacher")
    for name in (*folder.used, *folder.text):
        library, kind = folder.components[name]
        if not (isinstance(kind, str) and kind.isidentifier()):
            raise UserError(f"{index}: {name}: found {kind!r}, expected the name of a class")
        if library not in LIBRARIES:
            raise UserError(f"{index}: {name}: found {kind} of {library}, expected a class of {' or '.join(LIBRARIES)}")
        if not (folder.path / name).is_dir():
            raise UserError(f"{folder.path}: found no {name}/, expected the {kind} that model_index.json lists")
