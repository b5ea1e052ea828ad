"""Teachers: the border where foreign models become a denoiser that predicts the clean sample."""

from unistep.teachers.analytic import GaussianMixture as GaussianMixture
from unistep.teachers.checkpoint import load_generator as load_generator
from unistep.teachers.load import load_teacher as load_teacher
from unistep.teachers.module import teacher_from_module as teacher_from_module
from unistep.teachers.teacher import Teacher as Teacher
