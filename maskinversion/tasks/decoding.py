"""How a captioner chooses its words. It stands by itself, so that it can be listed without torch."""

from dataclasses import dataclass

from ..errors import InputError

HOWS = ("greedy", "beam", "sample")


@dataclass(frozen=True)
class Decoding:
    """How words are chosen.

    how: "greedy", the likeliest word each time; "beam", the likeliest captions among `beams` that grow together; or "sample", at
        random. count: captions of each region; greedy finds one, beam `beams` at most.
    temperature: of sampling; below 1 is more cautious. top_p: sample only from the likeliest words that together are as probable.
    length: most tokens of a caption; it ends sooner at a full stop. seed: of sampling; the k-th caption of every region has
        seed + k, whatever the other regions are.
    """

    how: str = "greedy"
    count: int = 1
    beams: int = 5
    temperature: float = 1.0
    top_p: float = 0.9
    length: int = 40
    seed: int = 0

    def __post_init__(self):
        if self.how not in HOWS:
            raise InputError(f"how is {self.how!r}; it must be one of {', '.join(HOWS)}")
        for what in ("count", "beams", "length"):
            if getattr(self, what) < 1:
                raise InputError(f"{what} is {getattr(self, what)}; it must be at least 1")
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature:g}; it must be above 0. For no chance at all decode greedily")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p:g}; it must be above 0, and 1 at most")
        if self.how == "greedy" and self.count > 1:
            raise InputError(f"greedy decoding finds one caption, not {self.count}: take beam or sample")
        if self.how == "beam" and self.count > self.beams:
            raise InputError(f"{self.beams} beams find {self.beams} captions at most, not {self.count}: take more beams")
