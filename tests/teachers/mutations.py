"""Damage to a valid file: bytes changed, cut, repeated, moved, opcodes put where none were; a function of a seed."""

import pickle
import random

INTERESTING = [
    *(getattr(pickle, name) for name in dir(pickle) if name.isupper() and isinstance(getattr(pickle, name), bytes)),
    b"\xff" * 8, b"\x00" * 8, b"\xff\xff\xff\x7f", b"\x82\x01", b"cos\nsystem\n", b"cbuiltins\neval\n",
    b"(S'x'\nios\nsystem\n",
    b"\x8c\x02os\x8c\x06system\x93", b"PK\x03\x04", b"h\x00", b"2", b"\x94", b"Q", b"R", b"\x81", b"b",
]  # fmt: skip


def mutate(content: bytes, seed: int, others: list[bytes]) -> bytes:
    """One to eight changes."""
    rng, data = random.Random(seed), bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        start = rng.randrange(len(data) + 1)
        stretch = rng.choice([1, 1, 2, 8, 64, 1024])
        match rng.randrange(8):
            case 0 if start < len(data):
                data[start] = rng.randrange(256)
            case 1 if start < len(data):
                data[start] ^= 1 << rng.randrange(8)
            case 2:
                data[start:start] = rng.choice(INTERESTING)
            case 3:
                piece = rng.choice(INTERESTING)
                data[start : start + len(piece)] = piece
            case 4:
                del data[start : start + stretch]
            case 5:
                data[start:start] = bytes(data[start : start + stretch]) * rng.randrange(1, 5)
            case 6:
                other = rng.choice(others)
                place = rng.randrange(len(other))
                data[start : start + stretch] = other[place : place + stretch]
            case 7:
                del data[start if rng.random() < 0.2 else len(data) :]
    return bytes(data)
