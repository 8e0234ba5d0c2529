"""What a program has set for all of its PyTorch does not reach the mathematics: the same input gives the same result."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Lock
from types import TracebackType
from typing import Any

import torch

DEVICES = ("cpu", "cuda", "xpu", "mps")  # that may be under autocast


@contextmanager
def settled() -> Iterator[None]:
    """Within it, or within a function that has it as its decorator, PyTorch computes as it does in a new process, without
    gradients: whatever autocast, gradient mode, default dtype, default device and precision of float32 products are outside.

    What stays as it is: inference mode, deterministic mode, the number of threads, and switches of single libraries such as
    `torch.backends.cudnn.benchmark`.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for device in DEVICES:
            if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(DTYPE)
        stack.enter_context(PRODUCTS)
        yield


class Held:
    """A setting of the whole process, held at a value for as long as any thread is inside, then given back."""

    def __init__(self, get: Callable[[], Any], change: Callable[[Any], None], value: Any):
        self.get, self.change, self.value = get, change, value
        self.lock, self.inside, self.before = Lock(), 0, value

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.before = self.get()
                if self.before != self.value:
                    self.change(self.value)
            self.inside += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside and self.before != self.value:
                self.change(self.before)


def precision_of_products() -> str:
    with suppress(RuntimeError):  # set for single libraries, by newer functions that do not go with this one
        return torch.get_float32_matmul_precision()
    return FULL


FULL = "highest"
DTYPE = Held(torch.get_default_dtype, torch.set_default_dtype, torch.float32)
PRODUCTS = Held(precision_of_products, torch.set_float32_matmul_precision, FULL)
