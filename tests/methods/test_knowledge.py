"""Knowledge distillation is DMD without distribution matching, bit for bit, with one network less."""

from pathlib import Path

import torch
from small import made_of
from torch import Tensor

from unistep.methods import DMDConfig
from unistep.methods.config import MethodConfig
from unistep.methods.knowledge import KnowledgeConfig
from unistep.pairs import Pairs
from unistep.training import Streams, TrainingConfig, train


class NoisePairs:
    """Pairs that are noise on both sides."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: Tensor) -> Pairs:
        z = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))[index]
        return Pairs(z=z, x=z.flip(-1), cond=None, seeds=index)


def trained(config: MethodConfig, folder: Path) -> dict[str, Tensor]:
    settings = TrainingConfig.model_validate(
        {"steps": 6, "batch": 8, "optim": {"default": {"lr": 1e-2}}, "checkpoint": {"every_minutes": None}}
    )
    method = config.build(made_of())
    streams = Streams(seed=0, batch=8, pairs=NoisePairs())
    train(method, streams, settings, folder)
    return method.networks["generator"].state_dict()


def test_the_weights_are_those_of_dmd_without_distribution_matching(tmp_path: Path) -> None:
    knowledge = trained(KnowledgeConfig(name="knowledge", regression="l2"), tmp_path / "knowledge")
    ablation = trained(DMDConfig(lambda_dm=0, lambda_reg=1, regression="l2"), tmp_path / "dmd")
    start = made_of().build_generator().state_dict()
    assert any(not torch.equal(value, start[name]) for name, value in knowledge.items())
    assert all(torch.equal(value, ablation[name]) for name, value in knowledge.items())


def test_there_is_no_fake_score() -> None:
    assert list(KnowledgeConfig(name="knowledge").build(made_of()).networks) == ["generator"]
