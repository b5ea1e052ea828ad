"""The U shape that all U-Nets here have: which blocks, of which widths, with which skip connections, by name."""

from collections.abc import Sequence
from dataclasses import dataclass

from unistep.networks.layers import Resampling

MOST_LEVELS = 16  # each halves the size, so more would need pictures beyond all reason


@dataclass(frozen=True)
class Stage:
    """One residual block of a U-Net.

    Attributes:
        name: as in the published checkpoints, for example 16x16_block0.
        in_channels: width of its input, a skip connection's share included.
        out_channels: width of its output.
        skip_channels: the share of the input that comes from the encoder, concatenated; 0 = none.
        resample: whether it halves or doubles the size.
        attention: whether self-attention follows.
    """

    name: str
    in_channels: int
    out_channels: int
    skip_channels: int = 0
    resample: Resampling = ""
    attention: bool = False


@dataclass(frozen=True)
class UShape:
    """The blocks of an encoder, from the finest level down, and of a decoder, back up.

    Attributes:
        resolution: height and width of the finest level.
        stem: channels of the convolution before the first block.
        widths: channels of each level.
        num_blocks: residual blocks per level of the encoder; the decoder has one more.
        attn_resolutions: sizes of the levels with self-attention.
        attend_often: attention after every block of such a level in the decoder; else after its last only.
    """

    resolution: int
    stem: int
    widths: Sequence[int]
    num_blocks: int
    attn_resolutions: Sequence[int]
    attend_often: bool = False

    def level_name(self, level: int) -> str:
        """For example 16x16."""
        size = self.resolution >> level
        return f"{size}x{size}"

    def attends(self, level: int) -> bool:
        """Whether the blocks of this level have self-attention."""
        return self.resolution >> level in self.attn_resolutions

    def encoder(self) -> list[Stage]:
        """`num_blocks` per level; one before each level but the first halves the size."""
        stages, channels = [], self.stem
        for level, width in enumerate(self.widths):
            name = self.level_name(level)
            if level:
                stages.append(Stage(f"{name}_down", channels, channels, resample="down"))
            for i in range(self.num_blocks):
                stages.append(Stage(f"{name}_block{i}", channels, width, attention=self.attends(level)))
                channels = width
        return stages

    def decoder(self) -> list[Stage]:
        """Two blocks at the bottom, then per level one for each of the encoder's outputs, the last of them first."""
        skips = [self.stem, *(stage.out_channels for stage in self.encoder())]
        channels, bottom = skips[-1], self.level_name(len(self.widths) - 1)
        stages = [Stage(f"{bottom}_in{i}", channels, channels, attention=i == 0) for i in range(2)]
        for level, width in reversed(list(enumerate(self.widths))):
            name = self.level_name(level)
            if name != bottom:
                stages.append(Stage(f"{name}_up", channels, channels, resample="up"))
            for i in range(self.num_blocks + 1):
                attention = self.attends(level) and (self.attend_often or i == self.num_blocks)
                skip = skips.pop()
                stages.append(Stage(f"{name}_block{i}", channels + skip, width, skip, attention=attention))
                channels = width
        return stages


def whole_heads(width: int, channels_per_head: int) -> int:
    """Attention heads of a level of this width.

    Raises:
        ValueError: if they do not fill it.
    """
    if width % channels_per_head:
        raise ValueError(
            f"model_channels: found a level of {width} channels with attention, expected a multiple of "
            f"{channels_per_head}, the width of a head; the coarsest level always has attention"
        )
    return width // channels_per_head


def require_sizes(resolution: int, channel_mult: Sequence[int], dropout: float = 0.0, patch: int = 1,
                  **counts: int) -> None:  # fmt: skip
    """Refuses what would fail later or mean nothing.

    Args:
        resolution: height and width of the images.
        channel_mult: one multiplier per level.
        dropout: a rate.
        patch: pixel-unshuffle factor of the stem.
        counts: numbers that must be 1 or more, by the argument's name.

    Raises:
        ValueError: naming the argument.
    """
    for name, size in {**counts, "patch": patch, "channel_mult": min(channel_mult, default=0)}.items():
        if size < 1:
            raise ValueError(f"{name}: found {size}, expected 1 or more")
    if counts["model_channels"] % 2:
        raise ValueError(
            f"model_channels: found {counts['model_channels']}, expected an even number: sines and cosines"
        )
    if any(counts["model_channels"] * m % counts.get("num_heads", 1) for m in channel_mult):
        raise ValueError(f"num_heads: found {counts['num_heads']}, expected a divisor of the width of every level")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: found {dropout}, expected 0 or more and less than 1")
    if len(channel_mult) > MOST_LEVELS:
        raise ValueError(f"channel_mult: found {len(channel_mult):,} levels, expected at most {MOST_LEVELS}")
    divisor = patch * 2 ** (len(channel_mult) - 1)
    if resolution % divisor:
        raise ValueError(
            f"img_resolution: found {resolution}, expected a multiple of {divisor} "
            f"(patch {patch}, {len(channel_mult)} levels); pad the images or use fewer levels"
        )
