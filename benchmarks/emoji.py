"""The text-to-image run on emoji pictures: its data, and how teacher and student are judged beyond `evaluate`.

    python benchmarks/emoji.py split data/emoji64.parquet data/emoji
    python benchmarks/emoji.py measure data/emoji runs/emoji --row teacher=runs/emoji-teacher@3 --row student=runs/g3

A row is NAME=RUN for a one-step generator and NAME=RUN@W for a teacher under guidance w. Samples of every caption that
was trained on are compared with the pictures that were trained on; samples of the captions held out are judged by
group and retrieval. The judges are heads on EfficientNet-Lite0's features of real pictures, trained here; nothing is
trained against them.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as parquet
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unistep.data import DataConfig, ImageDataset, load_images
from unistep.data.captions import columns_of, filled
from unistep.evaluation.extractors.pretrained import load_feature_judge
from unistep.evaluation.metrics.diversity import mean_pairwise_distance
from unistep.evaluation.metrics.kid import squared_mmd
from unistep.io.atomic import atomic_write
from unistep.recipes.sections import SolverConfig
from unistep.reports import grid_png
from unistep.run.sample import draws_from
from unistep.run.sample_sources import SampleSource, solved_teacher
from unistep.teachers.diffusers.captions import Captions
from unistep.teachers.load import load_teacher

HELD_OUT, SEED = 0.1, 0
GROUPS = (  # one of them is in no picture held out
    "Activities", "Animals & Nature", "Flags", "Food & Drink", "Objects", "People & Body", "Smileys & Emotion",
    "Symbols", "Travel & Places",
)  # fmt: skip
CAPTION, SIZE = "{text}, {style} style", 32
BLOCKS = 5  # disjoint parts of samples and reference: KID's mean and standard error
FIRST_SEED, HELD_OUT_SEED, DIVERSITY_SEED = 1_000_000, 3_000_000, 4_000_000
ONE = 2  # of the captions watched: shown in the picture of one caption
PER_HELD_OUT = 2  # samples of each caption that was held out
WATCHED, PER_WATCHED = 8, 12  # captions, and seeds of each, for diversity
SOLVER = SolverConfig(name="dpmpp_2m", num_steps=10)
CPU = torch.device("cpu")


# -------------------------------------------------------------------------------------------------------------- data


def split(source: Path, folder: Path) -> None:
    """Writes train.parquet, test.parquet and captions.txt.

    A tenth of the fluent pictures whose noto twin is trained on is held out; which ones follows from the names, sorted,
    and `SEED` alone.
    """
    table = parquet.read_table(source)
    names, styles = table["text"].to_pylist(), table["style"].to_pylist()
    noto = {name for name, style in zip(names, styles, strict=True) if style == "noto"}
    twins = sorted({name for name, style in zip(names, styles, strict=True) if style == "fluent"} & noto)
    order = np.random.default_rng(SEED).permutation(len(twins))[: round(HELD_OUT * len(twins))]
    held = {twins[i] for i in order}
    test = pa.array([style == "fluent" and name in held for name, style in zip(names, styles, strict=True)])
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", pa.compute.invert(test)), ("test", test)):
        part = table.filter(rows)
        parquet.write_table(part, folder / f"{name}.parquet")
        if name == "train":
            write_captions(part, folder / "captions.txt")
        print(f"{folder / name}.parquet: {part.num_rows} pictures")


def write_captions(table: pa.Table, file: Path) -> None:
    """The different captions in a random order, so that the first of any number are of all groups and both styles."""
    columns = {name: table[name].to_pylist() for name in columns_of(CAPTION)}
    captions = sorted(set(filled(CAPTION, columns, range(table.num_rows))))
    order = np.random.default_rng(SEED).permutation(len(captions))
    file.write_text("".join(captions[i] + "\n" for i in order))


def pictures(data: Path, part: str) -> ImageDataset:
    """Pictures with caption and group."""
    return load_images(
        DataConfig(
            kind="parquet",
            path=str(data / f"{part}.parquet"),
            caption=CAPTION,
            label_column="group",
            names=GROUPS,
            size=SIZE,
            channels=3,
        )  # fmt: skip
    )


def kept(file: Path, compute: Callable[[], Tensor]) -> Tensor:
    """A tensor from a file, computed into it the first time."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(compute(), file)
    return torch.load(file, weights_only=True)


# ------------------------------------------------------------------------------------------------------------ judges


@dataclass(frozen=True)
class Judges:
    """Two heads on standardised features: groups of captions, and captions themselves by contrast.

    Attributes:
        mean, scale: of the features of pictures that were trained on.
        group: features -> logits of the groups.
        image, text: features, sentence embeddings -> a common space, unit length.
    """

    mean: Tensor
    scale: Tensor
    group: nn.Module
    image: nn.Module
    text: nn.Module

    def seen(self, features: Tensor) -> Tensor:
        """Standardised features."""
        return (features - self.mean) / self.scale

    @torch.no_grad()
    def groups(self, features: Tensor) -> Tensor:
        """The group of each picture."""
        return self.group(self.seen(features)).argmax(1)

    @torch.no_grad()
    def recall(self, features: Tensor, wanted: Tensor, gallery: Tensor) -> tuple[float, float]:
        """R@1 and R@10: how often row `wanted` of the gallery of sentences is the nearest, or among the ten."""
        image, text = (F.normalize(x, dim=1) for x in (self.image(self.seen(features)), self.text(gallery)))
        similarity = image @ text.T
        own = similarity.gather(1, wanted[:, None])
        rank = (similarity > own).sum(1)
        return float((rank < 1).float().mean()), float((rank < 10).float().mean())


def head(inputs: int, outputs: int) -> nn.Sequential:
    """A small network with dropout on features."""
    return nn.Sequential(nn.Dropout(0.3), nn.Linear(inputs, 384), nn.GELU(), nn.Dropout(0.3), nn.Linear(384, outputs))


def train_judges(features: Tensor, groups: Tensor, sentences: Tensor, epochs: int = 40, batch: int = 256) -> Judges:
    """Both heads on the pictures that were trained on; sentences [n, d] are those of the pictures' captions."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        parts = (
            head(features.shape[1], int(groups.max()) + 1),
            head(features.shape[1], 128),
            head(sentences.shape[1], 128),
        )
        judges = Judges(features.mean(0), features.std(0) + 1e-3, *parts)
        temperature = nn.Parameter(torch.tensor(2.5))
        optimizer = torch.optim.AdamW(
            [*(p for part in parts for p in part.parameters()), temperature], lr=1e-3, weight_decay=0.05
        )
        for _ in range(epochs):
            for rows in torch.randperm(len(features)).split(batch):
                x = judges.seen(features[rows])
                image, text = (F.normalize(y, dim=1) for y in (judges.image(x), judges.text(sentences[rows])))
                logits, own = temperature.exp() * image @ text.T, torch.arange(len(rows))
                contrast = F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)
                loss = F.cross_entropy(judges.group(x), groups[rows]) + contrast
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    for part in parts:
        part.eval().requires_grad_(False)
    return judges


def sentences_of(captions: Captions, texts: tuple[str, ...]) -> Tensor:
    """Mean over a caption's tokens, unit length, [n, d]: what all-MiniLM-L6-v2 calls the sentence's embedding."""
    rows = captions.with_prompts(texts)
    tokens = rows.embeddings.rows(torch.arange(len(texts)))["text"].float()
    used = (tokens != 0).any(2).sum(1, keepdim=True)
    return F.normalize(tokens.sum(1) / used, dim=1)


def kid(x: Tensor, y: Tensor) -> dict[str, float]:
    """KID over disjoint blocks of both, its mean and standard error, times 1,000."""
    order = torch.Generator().manual_seed(SEED)
    mixed = [z.double()[torch.randperm(len(z), generator=order)].chunk(BLOCKS) for z in (x, y)]
    values = torch.tensor([1000 * squared_mmd(a, b) for a, b in zip(*mixed, strict=True)])
    return {"kid": float(values.mean()), "kid_error": float(values.std() / BLOCKS**0.5)}


# -------------------------------------------------------------------------------------------------------------- rows


def opened(spec: str) -> SampleSource:
    """A generator, or with `@w` a teacher under guidance w."""
    run, at, guidance = spec.rpartition("@")
    if not at:
        return draws_from(spec, CPU)
    return solved_teacher(load_teacher(run), SOLVER, float(guidance), CPU)[0]


def asked(draws: SampleSource, texts: tuple[str, ...], labels: Tensor, first_seed: int) -> Tensor:
    """Samples of texts[labels], seeds counting up, uint8 [n, 3, h, w]."""
    assert isinstance(draws.conditioner, Captions)
    conditioner = draws.conditioner.with_prompts(texts)
    other, seeds = replace(draws, conditioner=conditioner), torch.arange(first_seed, first_seed + len(labels))
    parts = zip(seeds.split(64), labels.split(64), strict=True)
    return torch.cat([other.decoded(part, conditioner.from_labels(rows)) for part, rows in parts])


@dataclass(frozen=True)
class Part:
    """Real pictures and what their captions are.

    Attributes:
        data: pictures.
        texts: the different captions, in the order of the pictures.
        own: of each picture, which caption it has.
        groups: of each caption.
        gallery: sentence embeddings of the captions, [len(texts), d].
    """

    data: ImageDataset
    texts: tuple[str, ...]
    own: Tensor
    groups: Tensor
    gallery: Tensor

    @classmethod
    def of(cls, data: ImageDataset, captions: Captions) -> "Part":
        """With embeddings by the encoder of a teacher's captions."""
        assert data.labels is not None
        texts = tuple(dict.fromkeys(data.captions))
        place = {text: i for i, text in enumerate(texts)}
        own = torch.tensor([place[text] for text in data.captions])
        groups = torch.zeros(len(texts), dtype=torch.int64).scatter_(0, own, data.labels)
        return cls(data, texts, own, groups, sentences_of(captions, texts))

    def pictures(self, labels: Tensor) -> Tensor:
        """One real picture of each of the captions."""
        return self.data.images[[int((self.own == label).nonzero()[0]) for label in labels]]

    def figures(self, judges: Judges, features: Tensor, labels: Tensor, name: str = "") -> dict[str, float]:
        """How many of the pictures show their caption's group, and their caption."""
        r1, r10 = judges.recall(features, labels, self.gallery)
        right = (judges.groups(features) == self.groups[labels]).float().mean()
        values = {"samples": len(features), "group": float(right), "r1": r1, "r10": r10}
        return {f"{name}{key}": value for key, value in values.items()}


def measure(data: Path, out: Path, specs: dict[str, str], stride: int) -> None:
    """All rows: figures to out/figures.json, pictures beside it; every `stride`th caption of those trained on."""
    judge = load_feature_judge("efficientnet-lite0")

    def features(name: str, images: Tensor) -> Tensor:
        return kept(out / "features" / f"{name}.pt", lambda: judge.features(images)[0])

    def samples(name: str, make: Callable[[], Tensor]) -> Tensor:
        return kept(out / "samples" / f"{name}.pt", make)

    rows = {name: opened(spec) for name, spec in specs.items()}
    captions = next(iter(rows.values())).conditioner
    assert isinstance(captions, Captions)
    known, unseen = (Part.of(pictures(data, part), captions) for part in ("train", "test"))
    real, held = features("real-train", known.data.images), features("real-test", unseen.data.images)
    judges = train_judges(real, known.groups[known.own], known.gallery[known.own])
    every, twice = torch.arange(0, len(known.texts), stride), torch.arange(len(unseen.texts)).repeat(PER_HELD_OUT)
    watched = torch.linspace(0, len(known.texts) - 1, WATCHED).long().repeat_interleave(PER_WATCHED)
    shown, unseen_shown = every[torch.linspace(7, len(every) - 1, 12).long()], torch.arange(12)
    results = {
        "real": kid(*halves(real))
        | known.figures(judges, real, known.own)
        | unseen.figures(judges, held, unseen.own, "held_out_")
    }
    grids = {"known": {"real": known.pictures(shown)}, "held-out": {"real": unseen.pictures(unseen_shown)}}
    alike: dict[str, Tensor] = {}
    for name, draws in rows.items():
        made = samples(name, lambda d=draws: asked(d, known.texts, every, FIRST_SEED))
        new = samples(f"{name}-held-out", lambda d=draws: asked(d, unseen.texts, twice, HELD_OUT_SEED))
        many = samples(f"{name}-many", lambda d=draws: asked(d, known.texts, watched, DIVERSITY_SEED))
        seen, seen_new = features(name, made), features(f"{name}-held-out", new)
        spread = [mean_pairwise_distance(part) for part in features(f"{name}-many", many).split(PER_WATCHED)]
        results[name] = (
            kid(seen, real)
            | known.figures(judges, seen, every)
            | unseen.figures(judges, seen_new, twice, "held_out_")
            | {"diversity": sum(spread) / len(spread)}
        )
        grids["known"][name], grids["held-out"][name] = made[shown // stride], new[unseen_shown]
        alike[name] = many[PER_WATCHED * ONE : PER_WATCHED * (ONE + 1)]
        atomic_write(out / "figures.json", (json.dumps(results, indent=1) + "\n").encode())
    for name, grid in (*grids.items(), ("one-caption", alike)):
        atomic_write(out / f"{name}.png", grid_png(grid))
    texts = {
        "known": [known.texts[i] for i in shown.tolist()],
        "held-out": [unseen.texts[i] for i in unseen_shown.tolist()],
        "one-caption": known.texts[int(watched[PER_WATCHED * ONE])],
    }
    atomic_write(out / "captions.json", (json.dumps(texts, indent=1) + "\n").encode())
    print((out / "figures.json").read_text())


def halves(features: Tensor) -> tuple[Tensor, Tensor]:
    """Two random halves, for the floor."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(SEED + 1))
    half = len(features) // 2
    return features[order[:half]], features[order[half:]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    splitting = commands.add_parser("split")
    splitting.add_argument("source", type=Path)
    splitting.add_argument("folder", type=Path)
    splitting.set_defaults(run=lambda a: split(a.source, a.folder))
    measuring = commands.add_parser("measure")
    measuring.add_argument("data", type=Path)
    measuring.add_argument("out", type=Path)
    measuring.add_argument("--row", action="append", required=True, metavar="NAME=RUN[@W]")
    measuring.add_argument("--stride", type=int, default=1)
    measuring.set_defaults(run=lambda a: measure(a.data, a.out, dict(row.split("=", 1) for row in a.row), a.stride))
    arguments = parser.parse_args()
    arguments.run(arguments)
