"""The verdict: one sentence with the numbers that matter."""

from unistep.evaluation.result import Evaluation, Row
from unistep.reports.columns import percent, significant

DISTANCE = {"images": ("frechet", "Frechet distance"), "points": ("energy", "energy distance")}


def distance_of(evaluation: Evaluation) -> tuple[str, str]:
    """Key and name of the distance that decides."""
    key, name = DISTANCE[evaluation.kind]
    return key, evaluation.distance if evaluation.distance == "FID" else name


def verdict(evaluation: Evaluation | None) -> str:
    """One sentence: the student's distance beside teacher and floor, its cost beside the teacher's."""
    student = evaluation and evaluation.row("student")
    if evaluation is None or student is None:
        return "This run has not been judged yet."
    key, name = distance_of(evaluation)
    if key not in student.figures:
        return f"The student was judged without its {name}{extras(evaluation, student)}."
    calls = "one network evaluation" if student.nfe == 1 else f"{student.nfe} network evaluations"
    parts = [f"With {calls}, the student reaches a {name} of {significant(student.figures[key])}"]
    parts += compared(evaluation, student, key)
    return "; ".join(parts) + extras(evaluation, student) + "."


def compared(evaluation: Evaluation, student: Row, key: str) -> list[str]:
    """Clauses that set the student's distance beside those of the other rows."""
    mine, clauses = student.figures[key], []
    teacher = evaluation.row("teacher")
    if teacher is not None and teacher.figures.get(key):
        theirs = teacher.figures[key]
        clauses.append(f"its teacher reaches {significant(theirs)} with {teacher.nfe} ({times(mine, theirs)})")
    one_step = evaluation.row("teacher_one_step")
    if one_step is not None and key in one_step.figures:
        clauses.append(f"the teacher cut to one step reaches {significant(one_step.figures[key])}")
    floor = evaluation.row("floor")
    if floor is not None and key in floor.figures:
        clauses.append(f"real samples against real ones give {significant(floor.figures[key])}")
    return clauses


def times(mine: float, theirs: float) -> str:
    """The ratio of two distances in words."""
    return f"the student's is {mine / theirs:.2f} times that"


def extras(evaluation: Evaluation, student: Row) -> str:
    """Class agreement or modes, and how much faster one sample is, as far as they were measured."""
    found = []
    teacher = evaluation.row("teacher")
    if "agreement" in student.figures:
        found.append(f"{percent(student.figures['agreement'])} of its images show the class asked for")
    if "modes" in student.figures:
        found.append(f"it covers {round(student.figures['modes'])} modes")
    if teacher is not None and teacher.timing is not None and student.timing is not None:
        gain = teacher.timing.latency_ms / student.timing.latency_ms
        found.append(f"a single sample takes {significant(student.timing.latency_ms)} ms, {gain:.1f} times less")
    return "".join(f"; {clause}" for clause in found)
