"""Phrases and templates that come with the library. They stand by themselves, so that they can be listed without torch.

ImageNet's are open_clip's, which is imported when they are asked for, not before.
"""

from collections.abc import Callable, Iterator, Mapping

from ..bundled import bundled_classes, bundled_phrases

CLASS_TEMPLATE = "a photo of a {}"
EXPRESSION_TEMPLATE = "{}"
PROMPT_TEMPLATE = "{}"
REGION_TEMPLATE = "{place}, {prompt}"

# What prompts are made of, in the order in which they are looked through: each has a file in bundled/phrases.
PROMPT_LISTS = ("things", "materials", "colours", "patterns", "lighting", "medium", "style")


class _Templates(Mapping[str, list[str]]):
    """Lists of templates by their name."""

    def __init__(self, lists: dict[str, Callable[[], list[str]]]):
        self._lists = lists

    def __getitem__(self, name: str) -> list[str]:
        return self._lists[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._lists)

    def __len__(self) -> int:
        return len(self._lists)


def imagenet_classes() -> list[str]:
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    return list(IMAGENET_CLASSNAMES)


def seven_templates() -> list[str]:
    from open_clip.zero_shot_metadata import SIMPLE_IMAGENET_TEMPLATES

    return [fill("{}") for fill in SIMPLE_IMAGENET_TEMPLATES]


def eighty_templates() -> list[str]:
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    return [fill("{}") for fill in OPENAI_IMAGENET_TEMPLATES]


def prompt_phrases(name: str, clip: str) -> list[str]:
    """One of PROMPT_LISTS for the CLIP of that name: the things of the bundled one are the names that it knows."""
    return bundled_classes() if (name, clip) == ("things", "bundled") else bundled_phrases(name)


# Names to choose from that need no file.
NAMES: dict[str, Callable[[], list[str]]] = {"bundled": bundled_classes, "imagenet": imagenet_classes}
# Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021): several templates, averaged.
TEMPLATES: Mapping[str, list[str]] = _Templates({"imagenet-7": seven_templates, "imagenet-80": eighty_templates})
