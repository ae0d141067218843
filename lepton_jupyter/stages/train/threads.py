"""How many threads a model is trained with: shown by a few steps of a copy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from time import perf_counter, process_time

import psutil
import torch
from torch import nn

from lepton_jupyter.stages.train.feed import Feed, Tensors
from lepton_jupyter.stages.train.heads import first_tensor
from lepton_jupyter.stages.train.randomness import random_state, set_random_state

SHORT_S = 1e-3  # a step so short gains nothing by threads: dividing it costs as much
LONG_S = 0.5  # a step so long surely does
MEASURE_S = 0.1  # for each number of threads, twice
GAIN = 1.15  # by which several must be faster than one, which leaves the other cores to others
BUSY = 0.25  # of a core of ours that others take meanwhile: then it is not the threads that were measured
SURE_S = 5e-3  # a step so long gains by threads on a machine that is not busy
SMALL_STEP = 4_000_000  # weights times rows: half a millisecond on one core
PLAIN = (nn.Linear, nn.BatchNorm1d, nn.LayerNorm, nn.Embedding)  # each weight is used once a row
SMALL_MODEL = 1_000_000  # weights; where nothing can be measured, one thread is for models below


def settle_threads(module: nn.Module, feed: Feed, inputs: Tensors, *, batch_size: int) -> dict[int, float]:
    """Set torch's number of threads for training this model on the CPU. Equal metrics need equal threads.

    Parameters
    ----------
    module : Module
        On the CPU. It is not changed.
    inputs : tuple of Tensor
        A few rows; they are repeated to a whole batch.

    Returns
    -------
    dict
        Seconds of a step by the number of threads; empty where nothing had to be measured.
    """
    n_all = torch.get_num_threads()
    if n_all == 1:
        return {}
    if _is_small(module, inputs, batch_size):
        torch.set_num_threads(1)
        return {}
    before = random_state(torch.device("cpu"))
    began, others_s = perf_counter(), _others_s()
    try:
        found = _measured(_step_of(module, feed, inputs, batch_size), n_all)
    except Exception:  # what cannot be copied, or wants another call: the training itself will tell
        n_weights = sum(parameter.numel() for parameter in module.parameters())
        found = {1: 0.0} if n_weights < SMALL_MODEL else {1: float("inf"), n_all: 0.0}
    set_random_state(before, torch.device("cpu"))
    n_others = (_others_s() - others_s) / (perf_counter() - began)  # cores that other processes took
    is_busy = n_others > max(0, (psutil.cpu_count() or n_all) - n_all) + BUSY
    torch.set_num_threads(n_all)
    if is_busy and n_all in found and found[1] >= SURE_S:
        return found  # such as a kernel that starts beside us: that is over soon
    if n_all not in found or found[1] < found[n_all] * GAIN:
        torch.set_num_threads(1)
    return found


def are_alike(module: nn.Module, loss_of: Callable[[nn.Module], torch.Tensor], n_threads: int) -> bool:
    """Whether a step's gradients are the same, to the last bit, on one thread and on so many.

    Then the number of threads may change at any time: the sizes of a model and its batch tell of all its steps. Sums
    over many rows are what differs, since their parts are added in another order.

    Parameters
    ----------
    module : Module
        On the CPU; a copy of it is asked.
    loss_of : callable
        Returns the loss of that copy.
    """
    n_before, before = torch.get_num_threads(), random_state(torch.device("cpu"))
    found: list[list[torch.Tensor]] = []
    try:
        twin = copy.deepcopy(module).train()
        for n in (1, n_threads):
            torch.set_num_threads(n)
            set_random_state(before, torch.device("cpu"))
            twin.zero_grad()
            loss_of(twin).backward()
            found.append([weight.grad.clone() for weight in twin.parameters() if weight.grad is not None])
    except Exception:  # what cannot be copied, or fails: the training's own first step tells
        return False
    finally:
        torch.set_num_threads(n_before)
        set_random_state(before, torch.device("cpu"))
    return all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def _others_s() -> float:
    """Return the seconds that the cores worked for other processes than this one."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "steal", 0.0)) - process_time()


def _is_small(module: nn.Module, inputs: Tensors, batch_size: int) -> bool:
    """Whether a step is surely short: then nothing is measured, and a busy machine cannot change what comes out."""
    n_weights = sum(parameter.numel() for parameter in module.parameters())
    holders = [part for part in module.modules() if next(part.parameters(recurse=False), None) is not None]
    is_plain = all(isinstance(part, PLAIN) for part in holders) and all(tensor.ndim == 2 for tensor in inputs)
    return is_plain and n_weights * batch_size < SMALL_STEP


def _step_of(module: nn.Module, feed: Feed, inputs: Tensors, batch_size: int) -> Callable[[], None]:
    twin = copy.deepcopy(module).train()
    index = torch.arange(batch_size) % len(inputs[0])
    batch = tuple(tensor[index] for tensor in inputs)

    def step() -> None:
        first_tensor(feed.call(twin, batch)).float().square().mean().backward()

    return step


def _measured(step: Callable[[], None], n_all: int) -> dict[int, float]:
    torch.set_num_threads(n_all)
    if (first_s := _seconds(step)) > LONG_S:
        return {1: float("inf"), n_all: first_s}
    found: dict[int, float] = {}
    for n_threads in (1, n_all, 1, n_all):
        torch.set_num_threads(n_threads)
        found[n_threads] = min(found.get(n_threads, float("inf")), _fastest(step))
        if found[1] < SHORT_S:
            break
    return found


def _fastest(step: Callable[[], None]) -> float:
    best, until = float("inf"), perf_counter() + MEASURE_S
    while perf_counter() < until:
        best = min(best, _seconds(step))
    return best


def _seconds(step: Callable[[], None]) -> float:
    began = perf_counter()
    step()
    return perf_counter() - began
