"""Strict loading of weights: names and shapes must be the network's own, and what is not is listed in one line."""

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

from torch import Tensor, nn

from unistep.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]
SHOWN = 3  # names of each kind; a foreign checkpoint has hundreds


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: object) -> None:
    """Copies weights of any floating type into a module whose tensors have the same names and shapes.

    Args:
        module: keeps its own types and devices.
        state: name -> tensor.
        source: where they are from, for the message.

    Raises:
        UserError: as `require_same_tensors`; the module is then unchanged.
    """
    require_same_tensors(module, state, source)
    module.load_state_dict(state)


def require_same_tensors(module: nn.Module, state: Mapping[str, Tensor], source: object) -> None:
    """Weights must have exactly the names and shapes of the module's parameters and buffers.

    Raises:
        UserError: listing what is missing, surplus and misshapen, with the nearest names.
    """
    found = {name: tuple(value.shape) for name, value in state.items()}
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    if found != expected:
        parts = "; ".join(differences(found, expected))
        raise UserError(f"{source}: the weights belong to another network than the configuration describes: {parts}")


def require_finite(state: Mapping[str, Tensor], source: object) -> None:
    """Refuses weights of which some are not finite numbers.

    Raises:
        UserError: naming the first tensor.
    """
    spoilt = next((n for n, t in state.items() if t.is_floating_point() and not bool(t.isfinite().all())), None)
    if spoilt is not None:
        raise UserError(
            f"{source}: found numbers in {spoilt} that are not finite, expected weights; restore the file or train anew"
        )


def differences(found: Shapes, expected: Shapes) -> list[str]:
    """Readable lists of missing, surplus and misshapen tensors, each cut after a few; empty where all agree."""
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    wrong = [name for name in expected if name in found and found[name] != expected[name]]
    lists = {
        "missing": [f"{name} {expected[name]}{nearest(name, surplus or found)}" for name in missing[:SHOWN]],
        "surplus": [f"{name} {found[name]}{nearest(name, missing or expected)}" for name in surplus[:SHOWN]],
        "misshapen": [f"{name} found {found[name]}, expected {expected[name]}" for name in wrong[:SHOWN]],
    }
    totals = {"missing": missing, "surplus": surplus, "misshapen": wrong}
    return [f"{kind}: {cut(shown, totals[kind])}" for kind, shown in lists.items() if shown]


def nearest(name: str, others: Iterable[str]) -> str:
    """A hint at the most similar name, or nothing if none is similar."""
    close = get_close_matches(name, others, 1)
    return f" (nearest: {close[0]})" if close else ""


def cut(shown: list[str], names: Collection[str]) -> str:
    """The shown ones, and how many there are beside them."""
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
