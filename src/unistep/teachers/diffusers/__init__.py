"""Pipelines of diffusers as teachers: network, schedule, VAE and prompts are read from the pipeline's own files."""

from unistep.teachers.diffusers.load import Options as Options
from unistep.teachers.diffusers.load import load_diffusers_teacher as load_diffusers_teacher
from unistep.teachers.diffusers.load import teacher_from_pipeline as teacher_from_pipeline
