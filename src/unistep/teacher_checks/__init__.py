"""Certification: is what was loaded the denoiser it is said to be? Asked before anything is learnt from it."""

from unistep.teacher_checks.certificate import Certificate as Certificate
from unistep.teacher_checks.certificate import Check as Check
from unistep.teacher_checks.certify import certify as certify
