"""Trials of a small module that differ in numbers alone, trained together as one program, where that is faster."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import msgspec
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.batches import InMemory
from lepton_jupyter.stages.train.checkpoints import BEST, Checkpoints
from lepton_jupyter.stages.train.checks import check_first_batch
from lepton_jupyter.stages.train.dynamo import spare_compiler
from lepton_jupyter.stages.train.feed import Feed, Rows
from lepton_jupyter.stages.train.forward import loss_function
from lepton_jupyter.stages.train.frameworks.torch import prepare
from lepton_jupyter.stages.train.job import Job, Outcome
from lepton_jupyter.stages.train.judged import make_judge
from lepton_jupyter.stages.train.losses import make_loss
from lepton_jupyter.stages.train.optimizers import make_optimizer
from lepton_jupyter.stages.train.pace import Pace
from lepton_jupyter.stages.train.precision import settle_precision
from lepton_jupyter.stages.train.randomness import seed_everything
from lepton_jupyter.stages.train.sources import batches_of, validation_of
from lepton_jupyter.stages.train.spec import Train
from lepton_jupyter.stages.tune.alike import check_alike, why_not
from lepton_jupyter.stages.tune.matrices import Matrices
from lepton_jupyter.stages.tune.program import Kit, Member, Program
from lepton_jupyter.stages.tune.searching import Asked, Begun
from lepton_jupyter.stages.tune.space import settled
from lepton_jupyter.stages.tune.stacked import Forward, Mapped, NotStackableError, check_forward
from lepton_jupyter.stages.tune.trial import OnOneDevice, copied

WIDTHS = (4, 8, 16, 32, 64, 128)  # how many trials at once are tried
N_LEARNED = 3  # trials of a sampler that learns go in so many programs at least, each drawn from those before
MOST_NUMBERS = 2**25  # weights of all trials together
ENOUGH = 1.1  # of two widths that are so close, the smaller: the sampler sees more before it draws
GAIN = 1.25  # how much faster than one by one it must be
WARM_STEPS, N_STEPS = 3, 12


@dataclass
class Batching:
    """How trials are trained together.

    Attributes
    ----------
    width : int
        Trials at once.
    how : str
        For the record: what was measured, and decided.
    pace : Pace
        How many threads their steps take.
    """

    kit: Kit
    make: Callable[[Train], nn.Module]
    width: int
    how: str
    pace: Pace


def settle(asked: Asked) -> Batching | str:
    """Return how trials are trained together, or why they go one by one.

    Raises
    ------
    LeptonError
        Where ``--batched yes`` cannot be.
    """
    __tracebackhide__ = True
    spec = asked.spec
    if spec.batched == "no":
        return "--batched no"
    n_threads = torch.get_num_threads()
    try:
        found = _settled(asked)
    except NotStackableError as error:
        found = str(error)
    if isinstance(found, str):
        torch.set_num_threads(n_threads)
        if spec.batched == "yes":
            raise LeptonError(f"--batched yes: {found}.", "Leave it at auto: trials go one by one then.")
    elif found.kit.precision.device.type == "cpu":
        found.pace.n_all = n_threads
    return found


def _settled(asked: Asked) -> Batching | str:
    __tracebackhide__ = True
    reason = why_not(asked.question, asked.training, asked.space)
    if reason:
        return reason
    if asked.n_left < 2:
        return "there is but one trial"
    low = settled(asked.training, asked.space, {one.name: one.ends()[0] for one in asked.space})
    high = settled(asked.training, asked.space, {one.name: one.ends()[-1] for one in asked.space})
    kit, make = _kit_of(asked, low)
    modules = [make(low), make(high)]
    check_alike(*modules)
    tried = []
    for forward in forwards_of(modules[0], kit.fitted.feed):
        kit.forward = forward
        try:
            check_forward(forward, modules, kit.fitted.feed, kit.rows.take(torch.arange(min(8, len(kit.rows))))[0])
            return _measured(asked, kit, make, low)
        except NotStackableError as error:
            tried.append(str(error))
        except Exception as error:  # what vmap, or the user's own forward under it, does not take
            tried.append((str(error).splitlines() or [type(error).__name__])[0].rstrip("."))
    return tried[-1]


def _kit_of(asked: Asked, spec: Train) -> tuple[Kit, Callable[[Train], nn.Module]]:
    """Return what all trials share, and what makes their modules; the first batch is checked as in any training."""
    __tracebackhide__ = True
    question = asked.question
    session = OnOneDevice(asked.session)
    spare_compiler()

    def job_of(spec: Train) -> Job:
        return Job(session, spec, question.dataset, spec.model, question.names, is_trial=True)

    def make(spec: Train) -> nn.Module:
        key = msgspec.json.encode((spec.seed, spec.params))
        if key not in made:
            seed_everything(spec.seed)
            made[key] = prepare(copied(question.model), job_of(spec)).module
        return made[key]

    job = job_of(spec)
    seed_everything(spec.seed)
    fitted = prepare(copied(question.model), job)
    made = {msgspec.json.encode((spec.seed, spec.params)): copy.deepcopy(fitted.module)}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)  # `Pace` takes more where that is faster
    fitted.head, output = check_first_batch(job, fitted.module, fitted.feed, fitted.example, None)
    loss = make_loss(job, fitted.head)
    if isinstance(loss.function, nn.Module):
        loss.function.to(device)
    like = tuple(output[0].shape[1:])
    batches = batches_of(job, fitted, "train", loss=loss, like=like, device=device)
    held = validation_of(job, fitted, loss=loss, like=like, device=device)
    if not isinstance(batches, InMemory) or not (held is None or isinstance(held, Rows)):
        raise NotStackableError("its rows are streamed")
    if fitted.feed.is_image:
        raise NotStackableError("its rows are images")
    if batches.rows.targets.device.type != device.type:
        raise NotStackableError("its rows have no room on the device")
    judge = make_judge(job, fitted.head, has_validation=held is not None)
    precision = settle_precision(spec.precision, device)
    kit = Kit(job, fitted, loss, judge, batches.rows, batches.batch_size, held, precision, None)  # type: ignore[arg-type]
    return kit, make


def forwards_of(module: nn.Module, feed: Feed) -> Iterator[Forward]:
    """Yield the ways in which modules like this one may be called together, the faster first."""
    if len(feed.names) == 1:
        try:
            yield Matrices(module)
        except NotStackableError:
            pass  # the next way takes more
    yield Mapped(module, feed)


# -- measured


def _measured(asked: Asked, kit: Kit, make: Callable[[Train], nn.Module], spec: Train) -> Batching | str:
    """Decide by some steps of both ways."""
    alone_s = _alone_s(kit, make(spec))
    n_weights = sum(weight.numel() for weight in make(spec).parameters())
    most = max(2, min(asked.n_left, MOST_NUMBERS // n_weights))
    if asked.spec.sampler == "tpe":
        most = min(most, max(WIDTHS[0], math.ceil(asked.spec.trials / N_LEARNED)))
    widths = [width for width in WIDTHS if width < most] + [most]
    seen = {width: _together_s(kit, make(spec), spec, width) for width in widths}
    fastest = min(seen.values())
    width = next(width for width, seconds in seen.items() if seconds <= fastest * ENOUGH)
    figures = f"{seen[width] * 1e6:.3g} µs a step and trial, one by one {alone_s * 1e6:.3g} µs"
    if alone_s < seen[width] * GAIN and asked.spec.batched != "yes":
        return f"{kit.forward.name} of {width} trials gain too little ({figures})"
    width = math.ceil(asked.n_left / math.ceil(asked.n_left / width))  # so that the last program is as large
    how = f"{width} at once as one program by {kit.forward.name} ({figures})"
    return Batching(kit, make, width, how, Pace(1))


def _alone_s(kit: Kit, module: nn.Module) -> float:
    """Return the seconds of a step of one trial by itself."""
    module = copy.deepcopy(module).to(kit.precision.device).train()
    optimizer = make_optimizer(kit.job, module)
    loss_of = loss_function(module, module, feed=kit.fitted.feed, loss=kit.loss, precision=kit.precision)
    inputs, target = next(kit.batches(0).epoch(1))

    def step() -> None:
        optimizer.zero_grad()
        loss_of(inputs, target).backward()
        optimizer.step()

    return _seconds(step)


def _together_s(kit: Kit, module: nn.Module, spec: Train, width: int) -> float:
    """Return the seconds of a step, for each of so many trials."""
    program = Program(kit, [Member(place, spec, module) for place in range(width)], Pace(1))
    batch = next(kit.batches(0).epoch(1))
    return _seconds(lambda: program.step(batch, is_shared=True)) / width


def _seconds(step: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some steps: what others do on this machine meanwhile is left out."""
    found = []
    for _ in range(WARM_STEPS + N_STEPS):
        started = perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(perf_counter() - started)
    return min(found[WARM_STEPS:])


# -- trained


def run_batched(asked: Asked, batching: Batching) -> None:
    """Train trials, so many at once, until there are enough, or the run is to stop."""
    __tracebackhide__ = True
    while begun := _begun(asked, batching.width):
        members = []
        for one in begun:
            try:
                members.append(Member(one.number, one.training, batching.make(one.training)))
            except Exception as error:
                asked.fail(one.number, error)
        if members and not _train(asked, Program(batching.kit, members, batching.pace), asked.spec.epochs):
            break
    if batching.pace.n_most > 1:
        batching.how += f", on {batching.pace.n_most} threads while that was faster"
        batching.pace.close()


def _begun(asked: Asked, width: int) -> list[Begun]:
    found: list[Begun] = []
    while len(found) < width and (begun := asked.begin()) is not None:
        found.append(begun)
    return found


def _train(asked: Asked, program: Program, epochs: int) -> bool:
    """Train a program to its end; return False where it was stopped in its middle."""
    __tracebackhide__ = True
    seed_everything(program.members[0].training.seed)
    epoch = 0
    while program.members and epoch < epochs:
        epoch += 1
        is_whole = program.epoch(epoch)
        asked.session.telemetry(epoch=float(epoch))
        if is_whole:
            _sort_out(asked, program, epoch)
        if program.members and (not is_whole or (epoch < epochs and asked.session.should_stop())):
            if not asked.has_best() and program.members[0].best_epoch:  # better than nothing at all
                _keep_best(asked, program, range(len(program.members)))
                best = _ranked(program, range(len(program.members)))[0]
                asked.end(program.members[best].number, "complete", program.members[best].best)
            return False
    _complete(asked, program, range(len(program.members)))
    return True


def _sort_out(asked: Asked, program: Program, epoch: int) -> None:
    """End the trials that failed, did badly or have waited long enough; the others stay."""
    __tracebackhide__ = True
    judge, patience = program.kit.judge, program.kit.job.spec.patience
    staying, done = [], []
    for place, member in enumerate(program.members):
        losses = member.history["train_loss"]
        if not math.isfinite(losses[-1]):
            asked.end(member.number, "failed", reason=_diverged(losses[-1], epoch, member.training))
        elif asked.report(member.number, epoch, judge.judged({key: one[-1] for key, one in member.history.items()})):
            asked.end(member.number, "pruned")
        elif patience is not None and not judge.is_blind and epoch - member.best_epoch >= patience:
            done.append(place)
        else:
            staying.append(place)
    _complete(asked, program, done)
    program.keep(staying)


def _diverged(loss: float, epoch: int, spec: Train) -> str:
    word = "NaN" if math.isnan(loss) else "infinite"
    return f"The loss became {word} in epoch {epoch} of {spec.epochs}, at --lr {spec.lr:.3g}."


def _complete(asked: Asked, program: Program, places: Sequence[int]) -> None:
    """End trials that were trained to their end."""
    if places:
        _keep_best(asked, program, places)
    for place in places:
        member = program.members[place]
        asked.end(member.number, "complete", member.best)


def _ranked(program: Program, places: Sequence[int]) -> list[int]:
    sign = -1.0 if program.kit.judge.is_greater_better else 1.0

    def key(place: int) -> float:
        value = program.members[place].best
        return math.inf if value is None or math.isnan(value) else sign * value

    return sorted(places, key=key)


def _keep_best(asked: Asked, program: Program, places: Sequence[int]) -> None:
    """Give the weights of the best of these trials to the search."""
    place = _ranked(program, places)[0]
    member = program.members[place]
    if member.best is None or not math.isfinite(member.best):
        return
    state, metrics = program.best_of(place)
    folder = asked.session.folder / "trials" / f"program-{member.number}"
    checkpoints = Checkpoints(folder / "checkpoints")
    about = {"epoch": member.best_epoch, "metrics": metrics, "history": member.history, "is_torn": False}
    checkpoints.keep(BEST, state, about)
    checkpoints.flush()
    outcome = Outcome(member.history, metrics, member.best_epoch, len(member.history["epoch"]))
    asked.keep(member.number, member.best, outcome, folder)
    shutil.rmtree(folder, ignore_errors=True)
