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

from unistep.api.draws import Draws, solved_teacher
from unistep.api.sampling import draws_from
from unistep.atomic import atomic_write
from unistep.data import DataConfig, ImageDataset, load_images
from unistep.evaluation.diversity import mean_pairwise_distance
from unistep.evaluation.feature_judge import load_feature_judge
from unistep.evaluation.kid import squared_mmd
from unistep.recipes.schema import SolverConfig
from unistep.reports import grid_png
from unistep.teachers.diffusers.captions import Captions
from unistep.teachers.load import load_teacher

HELD_OUT, SEED = 0.1, 0
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
    """Writes train.parquet and test.parquet: a tenth of the fluent pictures whose noto twin is trained on is held out.

    Which ones follows from the names, sorted, and `SEED` alone.
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
        print(f"{folder / name}.parquet: {part.num_rows} pictures")


def pictures(data: Path, part: str) -> ImageDataset:
    """Pictures with caption and group."""
    path = str(data / f"{part}.parquet")
    return load_images(
        DataConfig(kind="parquet", path=path, caption=CAPTION, label_column="group", size=SIZE, channels=3)
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


def kid(x: Tensor, y: Tensor) -> tuple[float, float]:
    """KID over disjoint blocks of both, its mean and standard error."""
    order = torch.Generator().manual_seed(SEED)
    mixed = [z.double()[torch.randperm(len(z), generator=order)].chunk(BLOCKS) for z in (x, y)]
    values = torch.tensor([squared_mmd(a, b) for a, b in zip(*mixed, strict=True)])
    return float(values.mean()), float(values.std() / BLOCKS**0.5)


# -------------------------------------------------------------------------------------------------------------- rows


def opened(spec: str) -> Draws:
    """A generator, or with `@w` a teacher under guidance w."""
    run, at, guidance = spec.rpartition("@")
    if not at:
        return draws_from(spec, CPU)
    return solved_teacher(load_teacher(run), SOLVER, float(guidance), CPU)[0]


def asked(draws: Draws, texts: tuple[str, ...], labels: Tensor, first_seed: int) -> Tensor:
    """Samples of texts[labels], seeds counting up, uint8 [n, 3, h, w]."""
    assert isinstance(draws.conditioner, Captions)
    conditioner = draws.conditioner.with_prompts(texts)
    other, seeds = replace(draws, conditioner=conditioner), torch.arange(first_seed, first_seed + len(labels))
    parts = zip(seeds.split(64), labels.split(64), strict=True)
    return torch.cat([other.decoded(part, conditioner.from_labels(rows)) for part, rows in parts])


def measure(data: Path, out: Path, specs: dict[str, str], stride: int) -> None:
    """All rows: figures to out/figures.json, pictures beside it; of the captions trained on every `stride`th is asked."""
    train, test = pictures(data, "train"), pictures(data, "test")
    judge = load_feature_judge("efficientnet-lite0")

    def features(name: str, images: Tensor) -> Tensor:
        return kept(out / "features" / f"{name}.pt", lambda: judge.features(images)[0])

    real, held = features("real-train", train.images), features("real-test", test.images)
    rows = {name: opened(spec) for name, spec in specs.items()}
    captions = next(iter(rows.values())).conditioner
    assert isinstance(captions, Captions) and train.labels is not None and test.labels is not None
    known, unseen = tuple(dict.fromkeys(train.captions)), tuple(dict.fromkeys(test.captions))
    gallery, unseen_gallery = sentences_of(captions, known), sentences_of(captions, unseen)
    place, unseen_place = ({text: i for i, text in enumerate(texts)} for texts in (known, unseen))
    own = torch.tensor([place[text] for text in train.captions])
    judges = train_judges(real, train.labels, gallery[own])
    group_of = torch.zeros(len(known), dtype=torch.int64).scatter_(0, own, train.labels)
    unseen_own = torch.tensor([unseen_place[text] for text in test.captions])
    unseen_group = torch.zeros(len(unseen), dtype=torch.int64).scatter_(0, unseen_own, test.labels)

    def figures(name: str, seen: Tensor, labels: Tensor, held_seen: Tensor, held_labels: Tensor) -> dict[str, float]:
        value, error = kid(seen, real) if name != "real" else kid(*halves(real))
        r1, r10 = judges.recall(seen, labels, gallery)
        held_r1, held_r10 = judges.recall(held_seen, held_labels, unseen_gallery)
        return {
            "samples": len(seen), "kid_x1e3": 1e3 * value, "kid_error_x1e3": 1e3 * error,
            "group": float((judges.groups(seen) == group_of[labels]).float().mean()), "r1": r1, "r10": r10,
            "held_out_samples": len(held_seen),
            "held_out_group": float((judges.groups(held_seen) == unseen_group[held_labels]).float().mean()),
            "held_out_r1": held_r1, "held_out_r10": held_r10,
        }  # fmt: skip

    results = {"real": figures("real", real, own, held, unseen_own)}
    every, held_every = torch.arange(0, len(known), stride), torch.arange(len(unseen)).repeat(PER_HELD_OUT)
    watched = torch.linspace(0, len(known) - 1, WATCHED).long().repeat_interleave(PER_WATCHED)
    grids: dict[str, dict[str, Tensor]] = {"known": {}, "held-out": {}, "one-caption": {}}
    shown, unseen_shown = every[torch.linspace(7, len(every) - 1, 12).long()], torch.arange(12)
    for name, draws in rows.items():
        made = kept(out / "samples" / f"{name}.pt", lambda d=draws: asked(d, known, every, FIRST_SEED))
        held_made = kept(
            out / "samples" / f"{name}-held-out.pt", lambda d=draws: asked(d, unseen, held_every, HELD_OUT_SEED)
        )
        many = kept(out / "samples" / f"{name}-many.pt", lambda d=draws: asked(d, known, watched, DIVERSITY_SEED))
        spread = features(f"{name}-many", many).split(PER_WATCHED)
        results[name] = figures(
            name, features(name, made), every, features(f"{name}-held-out", held_made), held_every
        ) | {"diversity": sum(map(mean_pairwise_distance, spread)) / len(spread)}
        grids["known"][name], grids["held-out"][name] = made[shown // stride], held_made[unseen_shown]
        grids["one-caption"][name] = many[PER_WATCHED * ONE : PER_WATCHED * (ONE + 1)]
        print(name, json.dumps(results[name]), flush=True)
        atomic_write(out / "figures.json", (json.dumps(results, indent=1) + "\n").encode())
    first = {text: i for i, text in reversed(list(enumerate(train.captions)))}
    first_unseen = {text: i for i, text in reversed(list(enumerate(test.captions)))}
    real_rows = {
        "known": train.images[[first[known[i]] for i in shown.tolist()]],
        "held-out": test.images[[first_unseen[unseen[i]] for i in unseen_shown.tolist()]],
    }
    for name, grid in grids.items():
        below = {"real": real_rows[name]} | grid if name in real_rows else grid
        atomic_write(out / f"{name}.png", grid_png(below))
    texts = {
        "known": [known[i] for i in shown.tolist()],
        "held-out": [unseen[i] for i in unseen_shown.tolist()],
        "one-caption": [known[watched[PER_WATCHED * ONE]]],
    }
    atomic_write(out / "captions.json", (json.dumps(texts, indent=1) + "\n").encode())
    print("real", json.dumps(results["real"]))


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
