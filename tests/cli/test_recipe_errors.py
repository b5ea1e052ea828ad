"""A recipe's mistakes: the path, what was found, what is allowed."""

from pathlib import Path

import pytest

from unistep.errors import UserError
from unistep.recipes import builtin_recipes, load_recipe
from unistep.recipes.load import dump_recipe
from unistep.recipes.parse import parse_recipe_text, parse_yaml

BUILTIN = sorted(builtin_recipes())


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_recipes_are_valid_and_begin_with_a_comment(name: str) -> None:
    assert builtin_recipes()[name].startswith("# ")
    assert load_recipe(name).name == name


@pytest.mark.parametrize("name", BUILTIN)
def test_a_resolved_recipe_resolves_to_itself(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / f"{name}.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "method.lambda_regg=1",
            r"gaussians: method\.lambda_regg: unknown key; did you mean lambda_reg\? expected one",
        ),
        (
            "method.name=dmd3",
            r"method\.name: found 'dmd3'; did you mean dmd\? expected one of dmd, dmd2, f_distill, gan",
        ),
        ("method=3", r"method: found 3, expected a mapping"),
        ("method={name: [gan]}", r"method\.name: found \['gan'\]; did you mean gan\? expected one of dmd, dmd2"),
        ("method={name: sid, alfa: 1}", r"method\.alfa: unknown key; did you mean alpha\? expected one of P_mean"),
        ("method={name: gan}", r"gaussians: data: found nothing, expected a section: method gan needs real images"),
        (
            "method={name: dmd2, num_steps: 3, places: [0.2, 0.4]}",
            r"gaussians: method\.places: found \[0\.2, 0\.4\], expected num_steps - 1 = 2 decreasing numbers",
        ),
        ("method.dm_from_step=5000", r"gaussians: method\.dm_from_step: found a positive step but lambda_reg is 0"),
        ("data={kind: exactly}", r"data\.kind: found 'exactly'; did you mean exact\? expected one of folder, idx"),
        (
            "data={count: 3}",
            r"data\.kind: missing, expected one of folder, idx, parquet, datasets, cifar, digits, exact",
        ),
        ("data={kind: exact, counts: 3}", r"data\.counts: unknown key; did you mean count\? expected one of count"),
        ("data={kind: idx}", r"data\.path: found nothing, expected a file or folder"),
        ("training.optim.default.lrr=1", r"training\.optim\.default\.lrr: unknown key; did you mean lr\?"),
        ("metod=1", r"metod: unknown key; did you mean method\?"),
        ("method.weighting=eq9", r"method\.weighting: found 'eq9', expected 'eq8'"),
        ("method.lambda_reg=much", r"method\.lambda_reg: found 'much', expected a number"),
        ("training.steps=1.5", r"training\.steps: found 1\.5, expected a whole number"),
        ("training.steps='100'", r"training\.steps: found '100', expected a whole number"),
        ("training.steps=0", r"training\.steps: found 0, expected greater than or equal to 1"),
        ("method.min_fraction=0.99", r"method\.min_fraction: found 0\.99, expected less than max_fraction"),
        ("training.optim.default.lr=-1", r"training\.optim\.default\.lr: found -1"),
        (
            "pairs.first_seed=980001",
            r"pairs\.first_seed: found seeds 980001\.\.1000000, expected none of those that are judged, "
            r"1000000\.\.1011999; change pairs\.first_seed or evaluation\.first_seed",
        ),
        ("pairs.first_seed=1011999", r"pairs\.first_seed: found seeds 1011999\.\.1031998, expected none of"),
        ("evaluation.first_seed=0", r"found seeds 0\.\.19999, expected none of those that are judged, 0\.\.11999"),
        ("kind=distil", r"kind: found 'distil'; did you mean distill\? expected one of distill, teach"),
        ("kind=[distill]", r"kind: found \['distill'\], expected one of distill, teach"),
        ("about=2024-01-01", r"gaussians: about: found 2024-01-01 \(date\), expected text or a number"),
        ("evaluation.beside={a: [!!binary aGk=]}", r"evaluation\.beside\.a\.0: found b'hi' \(bytes\), expected text"),
        ("evaluation.beside={2024-01-01: x}", r"evaluation\.beside: found the key 2024-01-01, expected text; put it"),
        ("training.optim.default.lr=.nan", r"training\.optim\.default\.lr: found nan, expected a finite number"),
        ("training.optim.default.lr=.inf", r"training\.optim\.default\.lr: found inf, expected a finite number"),
        ("method.lambda_reg=.inf", r"method\.lambda_reg: found inf, expected a finite number"),
        ("teacher.guidance=.inf", r"teacher\.guidance: found inf, expected a finite number"),
        ("teacher=null", r"teacher: found None, expected a mapping"),
        ("teacher.teach=digits-teacher", r"teacher: found both load and teach, expected one of them"),
    ],
)
def test_mistakes_are_named(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_recipe("gaussians", [override])
    assert not [line for line in caught.value.lines if "\n" in line]


def test_methods_that_cross_all_levels_start_at_the_terminal_time() -> None:
    message = r"generator\.sigma_init: found 2\.0, expected null: method progressive starts at the terminal time"
    with pytest.raises(UserError, match=message):
        load_recipe("gaussians-progressive", ["generator.sigma_init=2"])


def test_pairs_that_a_method_needs() -> None:
    with pytest.raises(UserError, match=r"pairs: found nothing, expected a section: method knowledge needs noise"):
        load_recipe("gaussians-knowledge", ["pairs=null"])


@pytest.mark.parametrize("first_seed", [980000, 1012000])
def test_pairs_may_end_and_begin_where_judging_begins_and_ends(first_seed: int) -> None:
    pairs = load_recipe("gaussians", [f"pairs.first_seed={first_seed}"]).pairs  # type: ignore[union-attr]
    assert (pairs.first_seed, pairs.count) == (first_seed, 20000)


@pytest.mark.parametrize("override", ["method.lambda_reg", "=1", "method..x=1", "name.x=1", "method.lambda_reg=[1"])
def test_overrides_that_cannot_be_applied(override: str) -> None:
    with pytest.raises(UserError, match="--set "):
        load_recipe("gaussians", [override])


def test_overrides_are_yaml_and_apply_in_order() -> None:
    recipe = load_recipe("gaussians", ["training.steps=7", "training.steps=9", "method.lambda_reg=1e-3"])
    assert recipe.training.steps == 9
    assert recipe.model_dump()["method"]["lambda_reg"] == 1e-3


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"recipe gausians: not found; did you mean gaussians\? expected a file or one of"
    ):
        load_recipe("gausians")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found a folder, expected a recipe file"):
        load_recipe(tmp_path)


def test_a_binary_file_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="a file that is no text"):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [", r"x\.yaml, line \d: no readable YAML"),
        ("a: 1\na: 2", r"a: given twice"),
        ("a: &a [*a]", r"x\.yaml, line 1: no readable YAML \(found unconstructable recursive node\)"),
        ("&a {b: *a}", r"x\.yaml, line 1: no readable YAML \(found unconstructable recursive node\)"),
        ("[" * 2_000, r"x\.yaml: no readable YAML \(nested too deeply\)"),
        ("- a", "found list, expected a mapping"),
        ("!!python/object/apply:os.system [true]", "no readable YAML"),
    ],
)
def test_text_that_is_no_recipe(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_recipe_text(text, "x.yaml")


def test_a_value_may_be_used_twice() -> None:
    assert parse_yaml("a: &a [1]\nb: *a", "x") == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("1E5", 1e5), ("-2.5e-4", -2.5e-4), ("17", 17), ("1e", "1e")]
)
def test_numbers_in_scientific_notation_are_numbers(text: str, value: object) -> None:
    assert parse_yaml(text, "x") == value
