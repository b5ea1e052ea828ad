"""The sampling contract: all that somebody without unistep must know to draw samples, as plain values."""

import json
from typing import Any

import unistep
from unistep.export.student import Student
from unistep.teachers.codecs import PixelCodec
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.module import ModuleDenoiser

FORMAT = "unistep-sampling-contract/1"
FILE = "sampling_contract.json"


def contract_of(student: Student, licence: str) -> dict[str, Any]:
    """What holds for every form of export; a form adds its own (`scheduler`, `call`, `inputs`), the proof `verified`.

    `timesteps` are in the unit of `process`. x = `noise_scale` z at the first of them, z unit noise. `generator` is the
    configuration by which unistep opens the export again.
    """
    scale, _ = student.start
    config, steps = student.config, student.generator.steps
    return {
        "format": FORMAT,
        "steps": steps.count,
        "timesteps": student.times,
        "between_steps": steps.transition if steps.later_times else None,
        "noise_scale": scale,
        "process": student.generator.process.config(),
        "prediction": prediction_of(student),
        "guidance": {
            "scale": 1.0,
            "learnt": student.guidance,
            "meaning": "`learnt` is the teacher's scale that the weights hold already; sample without guidance",
        },
        "weights": student.weights,
        "teacher": dict(student.teacher),
        "licence": licence,
        "shape": list(student.shape),
        "space": student.space,
        "value_range": value_range(student),
        "conditioning": (config.get("conditioner") or {}).get("type"),
        "generator_sha256": student.sha256,
        "generator": json.loads(json.dumps(dict(config))),
        "unistep": unistep.__version__,
    }


def value_range(student: Student) -> list[float] | None:
    """What black and white are in model space, where that holds pixels."""
    if student.config["codec"].get("type") != "pixels":  # a VAE need not be loaded for this
        return None
    codec = student.codec
    return [codec.low, codec.high] if isinstance(codec, PixelCodec) else None


def prediction_of(student: Student) -> str:
    """What the network itself predicts; own networks are read through EDM's preconditioning."""
    denoiser = student.generator.denoiser
    if isinstance(denoiser, DiffusersDenoiser):
        return denoiser.schedule.prediction
    if isinstance(denoiser, ModuleDenoiser):
        return denoiser.prediction
    return (student.config.get("preconditioning") or {"type": "edm"})["type"] + " preconditioning"
