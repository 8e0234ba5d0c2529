"""New inputs from old ones, that keep enough of their form to get past the first check."""

import json
import random

HOSTILE = (
    None, True, False, 0, -1, 1, 2, 7, 10**6, 10**9, 2**31, 2**40, 2**63, 10**30, -(2**40), 0.5, 1e300, float("nan"), float("inf"),
    "", "x", "\ud800", "a\0b", "../../x", "x" * 5000, [], {}, [[]], [0], [1, 2], ["a"], {"a": 1}, [1e300] * 6, [-1] * 3,
)  # fmt: skip


def mutated(content: bytes, seed: int, most: int) -> bytes:
    """As JSON where it is that, as safetensors where it is that, else as bytes; now and then as bytes whatever it is."""
    chance = random.Random(seed)
    if chance.random() < 0.85:
        try:
            return json.dumps(changed(json.loads(content), chance)).encode()[:most]
        except (ValueError, RecursionError):
            pass
        length = int.from_bytes(content[:8], "little")
        if length < len(content):
            try:
                header = json.dumps(changed(json.loads(content[8 : 8 + length]), chance)).encode()
                return (len(header).to_bytes(8, "little") + header + content[8 + length :])[:most]
            except (ValueError, RecursionError):
                pass
    return changed_bytes(content, chance)[:most]


def changed(value: object, chance: random.Random) -> object:
    """JSON with one to three places changed; a text that is JSON itself is changed inside."""
    for _ in range(chance.randint(1, 3)):
        value = changed_once(value, chance)
    return value


def changed_once(value: object, chance: random.Random) -> object:
    if isinstance(value, dict | list) and value and chance.random() < 0.9:
        key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        copy = dict(value) if isinstance(value, dict) else list(value)
        how = chance.random()
        if how < 0.06:
            del copy[key]
        elif how < 0.1 and isinstance(copy, list):
            copy.insert(key, copy[key])
        elif how < 0.1:
            copy[chance.choice(("id", "x", "size", "layers"))] = copy[key]
        else:
            copy[key] = changed_once(copy[key], chance)
        return copy
    if isinstance(value, str) and value[:1] in "{[" and value and chance.random() < 0.9:
        try:
            return json.dumps(changed(json.loads(value), chance))
        except (ValueError, RecursionError):
            pass
    if isinstance(value, int | float) and not isinstance(value, bool) and chance.random() < 0.4:
        return chance.choice((value + 1, value - 1, -value, value * 2, value * 1000, float(value), str(value)))
    return chance.choice(HOSTILE)


def changed_bytes(content: bytes, chance: random.Random) -> bytes:
    found = bytearray(content or b"\0")
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(found)) if chance.random() < 0.5 else min(len(found) - 1, int(chance.expovariate(1 / 100)))
        how = chance.random()
        if how < 0.5:
            found[place] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        elif how < 0.65:
            del found[place : place + chance.randint(1, 16)]
        elif how < 0.8:
            found[place:place] = found[place : place + chance.randint(1, 64)]
        elif how < 0.9:
            found[place:place] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 8)))
        else:
            del found[place + 1 :]
        found = found or bytearray(b"\0")
    return bytes(found)
