"""Folders as people have them: classes, captions from names and side-cars, links; every mistake is told at once."""

import io
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unistep.data import DataConfig, load_images
from unistep.data.captioned_folder import side_car_texts
from unistep.data.images import open_picture
from unistep.errors import UserError


def picture(shade: int = 0, size: tuple[int, int] = (4, 4), form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(file, form)
    return file.getvalue()


def lay_files(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def load(root: Path, **options: object):
    return load_images(DataConfig(kind="folder", path=str(root), **options))  # type: ignore[arg-type]


def mistakes(root: Path, **options: object) -> tuple[str, ...]:
    with pytest.raises(UserError) as raised:
        load(root, **options)
    return raised.value.lines


CLASSES: dict[str, bytes | str] = {"ant/1.png": picture(1), "cat/2.png": picture(2), "cat/more/3.png": picture(3)}


class TestClasses:
    def test_sub_folders_are_classes_or_are_not(self, tmp_path: Path) -> None:
        lay_files(tmp_path, CLASSES)
        for labels in ("auto", "folders"):
            data = load(tmp_path, labels=labels)
            assert data.names == ("ant", "cat")
            assert data.labels is not None
            assert data.labels.tolist() == [0, 1, 1]
        data = load(tmp_path, labels="none")
        assert (data.labels, data.names, data.images[:, 0, 0, 0].tolist()) == (None, (), [1, 2, 3])

    def test_pictures_at_any_depth_where_nothing_is_a_class(self, tmp_path: Path) -> None:
        lay_files(tmp_path, {**CLASSES, "0.png": picture(9)})
        assert load(tmp_path, labels="none").images[:, 0, 0, 0].tolist() == [9, 1, 2, 3]

    def test_every_mistake_is_told_at_once(self, tmp_path: Path) -> None:
        lay_files(
            tmp_path, {**CLASSES, "a.png": picture(), "b.png": picture(), "cat/x.png": b"?", "cat/y.pdf": b"%PDF"}
        )
        (tmp_path / "dog").mkdir()
        (tmp_path / "eel" / "none").mkdir(parents=True)
        found = mistakes(tmp_path)
        assert [line.replace(f"{tmp_path}/", "").split(";")[0] for line in found] == [
            "a.png: a file beside class folders (and 1 more)",
            "data.path: found 2 of 4 class folders empty (dog, eel), expected images in each",
            "cat/x.png: no image",
            "cat/y.pdf: no image",
        ]

    def test_folders_that_are_no_classes(self, tmp_path: Path) -> None:
        lay_files(tmp_path, {"train/a.png": picture(), "test/b.png": picture()})
        (line,) = mistakes(tmp_path)
        assert f"data.split: found nothing, but {tmp_path} has the sub-folders test, train; expected train or" in line
        assert load(tmp_path, labels="folders").names == ("test", "train")
        assert len(load(tmp_path, split="test")) == 1

    def test_labels_folders_needs_folders(self, tmp_path: Path) -> None:
        lay_files(tmp_path, {"a.png": picture()})
        assert (
            f"data.labels: found folders, but {tmp_path} has no sub-folders" in mistakes(tmp_path, labels="folders")[0]
        )

    def test_classes_and_captions_together(self, tmp_path: Path) -> None:
        data = load(lay_files(tmp_path, CLASSES), labels="folders", caption="{folder} {stem}")
        assert data.captions == ("ant 1", "cat 2", "cat 3")
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1, 1]

    def test_labels_can_be_left_out_of_any_kind(self) -> None:
        data = load_images(DataConfig(kind="digits", labels="none"))
        assert (data.labels, data.num_classes) == (None, 0)
        with pytest.raises(ValueError, match="labels: found 'folders', expected auto or none: kind digits"):
            DataConfig(kind="digits", labels="folders")
        with pytest.raises(ValueError, match="label_column: found 'x' with labels none"):
            DataConfig(kind="parquet", path="x", label_column="x", labels="none")


class TestFiles:
    def test_hidden_files_upper_case_and_other_formats(self, tmp_path: Path) -> None:
        files = {"B.JPG": picture(form="JPEG"), "a.png": picture(7), "c": picture(9), ".x.png": b"?", "Thumbs.db": b"?"}
        data = load(lay_files(tmp_path, files))
        assert data.images[:, 0, 0, 0].tolist() == [0, 7, 9]

    def test_sizes_and_colors_that_differ_are_counted(self, tmp_path: Path) -> None:
        grey = io.BytesIO()
        Image.new("L", (4, 4)).save(grey, "PNG")
        files = {"a.png": grey.getvalue(), "b.png": picture(size=(5, 4)), "c.png": picture(size=(8, 8)), "d.png": b"?"}
        found = mistakes(lay_files(tmp_path, files))
        assert [line.replace(f"{tmp_path}/", "") for line in found] == [
            "d.png: no image; expected one of PNG, JPEG, WEBP, GIF, BMP, TIFF, PPM, so remove it or convert it",
            "b.png: a colour picture, but a.png is grey (2 colour pictures); set data.channels to 1 or 3",
            "b.png: 5x4 pixels, but a.png has 4x4 (2 pictures of other sizes); set data.size to bring all to one size",
        ]
        (tmp_path / "d.png").unlink()
        assert load(tmp_path, size=4, channels=3).shape == (3, 4, 4)

    def test_of_many_damaged_pictures_ten_are_named(self, tmp_path: Path) -> None:
        found = mistakes(lay_files(tmp_path, {f"{i:02}.png": b"?" for i in range(13)}))
        assert len(found) == 11
        assert found[-1] == "3 more pictures that cannot be read"

    def test_links_are_followed_and_never_in_circles(self, tmp_path: Path) -> None:
        elsewhere = lay_files(tmp_path / "elsewhere", {"deep/1.png": picture(1), "2.png": picture(2)})
        root = lay_files(tmp_path / "root", {"ant/0.png": picture(0)})
        (root / "bee").symlink_to(elsewhere)
        (root / "ant" / "far").symlink_to(elsewhere / "deep")
        (root / "ant" / "3.png").symlink_to(elsewhere / "2.png")
        data = load(root)
        assert data.labels is not None
        assert (data.images[:, 0, 0, 0].tolist(), data.labels.tolist()) == ([0, 2, 1, 2, 1], [0, 0, 0, 1, 1])
        (root / "ant" / "circle").symlink_to(root)
        (elsewhere / "deep" / "up").symlink_to(elsewhere)
        (root / "gone.png").symlink_to(root / "nothing.png")
        found = mistakes(root)
        assert f"{root}/gone.png: a link to nothing; mend or remove it" in found
        assert f"{root}/ant/circle: a link to a folder that it is in; remove it" in found
        assert f"{root}/bee/deep/up: a link to a folder that it is in; remove it" in found

    def test_a_list_stays_in_its_folder(self, tmp_path: Path) -> None:
        lay_files(tmp_path, {"out.png": picture(), "in/metadata.jsonl": '{"file_name": "../out.png", "text": "x"}\n'})
        assert "found file_name '../out.png', expected files below" in mistakes(tmp_path / "in", caption="{text}")[0]


class TestCaptions:
    def test_from_names(self, tmp_path: Path) -> None:
        data = load(lay_files(tmp_path, CLASSES), caption="a {folder}, number {stem}")
        assert data.captions == ("a ant, number 1", "a cat, number 2", "a cat, number 3")
        assert data.labels is None

    def test_names_of_any_alphabet_are_composed(self, tmp_path: Path) -> None:
        files = {f"{unicodedata.normalize('NFD', 'größe')}.png": picture(), "猫.v2.png": picture()}
        assert load(lay_files(tmp_path, files), caption="{stem}").captions == ("größe", "猫.v2")

    def test_from_side_cars(self, tmp_path: Path) -> None:
        files = {"a.png": picture(1), "a.txt": "a red fox\n", "sub/b.JPG": picture(2, form="JPEG"),
                 "sub/b.TXT": "\ufefftwo boats\r\n  at {night}\n\n"}  # fmt: skip
        data = load(lay_files(tmp_path, files), caption="{text}")
        assert data.captions == ("a red fox", "two boats at {night}")
        assert load(tmp_path, caption="{stem}: {text}").captions[0] == "a: a red fox"
        assert len(load(tmp_path, labels="none")) == 2  # side-cars are no pictures where nobody asks for them

    def test_a_caption_stays_with_its_picture_when_few_are_drawn(self, tmp_path: Path) -> None:
        data = load(lay_files(tmp_path, {f"{i}.png": picture(i) for i in range(10, 40)}), caption="{stem}", limit=7)
        assert data.captions == tuple(map(str, data.images[:, 0, 0, 0].tolist()))
        assert len(data) == 7

    def test_side_cars_that_lack_are_listed(self, tmp_path: Path) -> None:
        files = {f"{i}.png": picture(i) for i in range(6)} | {"0.txt": "x", "1.txt": " \n", "9.txt": "of nothing"}
        found = mistakes(lay_files(tmp_path, files), caption="{text}")
        assert found == (
            "data.path: found 1 text files that belong to no image (9.txt), expected them beside one of the same name; "
            "remove them, or begin their names with a dot",
            "data.caption: 4 of 6 pictures have no text (2.png, 3.png, 4.png and 1 more), expected a file beside each: "
            "2.txt for 2.png",
            "data.caption: 1 texts are empty (1.txt), expected captions",
        )

    def test_side_cars_that_cannot_be_read(self, tmp_path: Path) -> None:
        found = mistakes(lay_files(tmp_path, {"a.png": picture(), "a.txt": b"caf\xe9"}), caption="{text}")
        assert re.match(rf"{tmp_path}/a.txt: no UTF-8 text", found[0])

    def test_names_that_nothing_gives(self, tmp_path: Path) -> None:
        (line,) = mistakes(lay_files(tmp_path, {"a.png": picture()}), caption="{style} {stem} {subject}")
        assert line.startswith("data.caption: found {style} and {subject}, expected {stem}, {folder} or {text} (from a")

    def test_a_folder_that_is_none(self, tmp_path: Path) -> None:
        (line,) = mistakes(lay_files(tmp_path, {**CLASSES, "a.png": picture()}), caption="{folder}")
        assert line.startswith("data.caption: found 1 pictures in no sub-folder (a.png), expected one for each")

    def test_a_list_gives_stem_and_folder_too_unless_it_has_its_own(self, tmp_path: Path) -> None:
        rows = '{"file_name": "cat/2.png", "color": "red"}\n{"file_name": "ant/1.png", "color": "blue"}\n'
        lay_files(tmp_path, {**CLASSES, "metadata.jsonl": rows})
        assert load(tmp_path, caption="{color} {folder} {stem}").captions == ("red cat 2", "blue ant 1")
        lay_files(tmp_path, {"metadata.jsonl": rows.replace('"color"', '"stem"')})
        assert load(tmp_path, caption="{stem}").captions == ("red", "blue")

    def test_a_template_is_checked_with_the_recipe(self) -> None:
        with pytest.raises(ValueError, match="caption: found 'a fox', expected names of columns in braces"):
            DataConfig(kind="folder", path="x", caption="a fox")

    @given(st.text(st.characters(codec="utf-8"), max_size=40))
    def test_a_text_keeps_its_words(self, tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
        root = tmp_path_factory.mktemp("text")
        (root / "a.txt").write_bytes(text.encode())
        words = text.removeprefix("\ufeff").split()
        if words:
            assert side_car_texts([root / "a.png"], root, {root / "a.png": root / "a.txt"}) == [" ".join(words)]
        else:
            with pytest.raises(UserError, match="1 texts are empty"):
                side_car_texts([root / "a.png"], root, {root / "a.png": root / "a.txt"})


class TestBackground:
    @pytest.mark.parametrize(
        ("background", "expected"), [("white", (255,) * 3), ("Black", (0,) * 3), ("#102030", (16, 32, 48))]
    )
    def test_transparent_parts_take_it(self, tmp_path: Path, background: str, expected: tuple[int, ...]) -> None:
        file = io.BytesIO()
        Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(file, "PNG")
        data = load(lay_files(tmp_path, {"a.png": file.getvalue()}), background=background)
        assert tuple(data.images[0, :, 0, 0].tolist()) == expected

    def test_white_unless_said_otherwise_and_half_of_it_under_half_transparent_parts(self) -> None:
        file = io.BytesIO()
        Image.new("LA", (4, 4), (100, 128)).save(file, "PNG")
        half = 100 * 128 / 255
        for options, rest in (((), 255), (("black",), 0)):
            shade = open_picture("x", file.getvalue(), *options).getpixel((0, 0))
            assert shade == pytest.approx(half + rest * 127 / 255, abs=1)
        assert open_picture("x", file.getvalue(), "#ff0000").mode == "RGB"

    @pytest.mark.parametrize("background", ["whit", "#12", "rgb(1,2,3)", ""])
    def test_colors_that_are_none(self, background: str) -> None:
        message = f"background: found {background!r}, expected the name of a color"
        with pytest.raises(ValueError, match=re.escape(message)):
            DataConfig(kind="folder", path="x", background=background)

    def test_arrays_have_no_transparent_parts(self) -> None:
        with pytest.raises(ValueError, match="background: found 'black', expected nothing: kind idx has no background"):
            DataConfig(kind="idx", path="x", background="black")


def test_all_mistakes_of_the_section_are_told_at_once() -> None:
    with pytest.raises(ValueError, match="(?s)label_column: .*path: found nothing.*background: .*caption: "):
        DataConfig(kind="folder", label_column="x", background="x", caption="x")
