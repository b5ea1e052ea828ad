"""Certification: is what was loaded the denoiser it is said to be? Asked before anything is learnt from it."""

from unistep.certification.certificate import Certificate as Certificate
from unistep.certification.certificate import Check as Check
from unistep.certification.certify import certify as certify
