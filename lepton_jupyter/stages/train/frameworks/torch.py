"""torch: classes, instances and factories of `torch.nn.Module`."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.serving.text import TextReader
from lepton_jupyter.stages.data.plan import Mode, Plan, apply_plan, fit_plan
from lepton_jupyter.stages.data.plan_graph import plan_graph
from lepton_jupyter.stages.train.checkpoints import Checkpoints, Unwritten, read_checkpoint, restore
from lepton_jupyter.stages.train.checks import N_ROWS, check_first_batch, first_output, mixes_rows
from lepton_jupyter.stages.train.construct import construct, facts_of
from lepton_jupyter.stages.train.dynamo import spare_compiler
from lepton_jupyter.stages.train.exporter import export_module
from lepton_jupyter.stages.train.exporter_process import EXPORT
from lepton_jupyter.stages.train.feed import Feed, Tensors, chunks, names_for
from lepton_jupyter.stages.train.graph import OPSET, add_head, align, join
from lepton_jupyter.stages.train.heads import Head, first_tensor
from lepton_jupyter.stages.train.job import Given, Job, Outcome
from lepton_jupyter.stages.train.loop import Loop
from lepton_jupyter.stages.train.losses import make_loss
from lepton_jupyter.stages.train.places import user_line
from lepton_jupyter.stages.train.precision import settle_precision
from lepton_jupyter.stages.train.proof import Proof
from lepton_jupyter.stages.train.randomness import seed_everything
from lepton_jupyter.stages.train.sources import batches_of, validation_of
from lepton_jupyter.stages.train.threads import settle_threads
from lepton_jupyter.stages.train.tokenizer import check_reads_text, reader_for

PLAN_NAMES = {
    "features": "numeric",
    "numeric": "numeric",
    "categorical": "codes",
    "tokens": "prose",
}  # a module's input, the plan's output


@dataclass
class TorchFitted:
    """A torch module with what stands before and behind it."""

    module: nn.Module
    schema: Schema
    plan: Plan | None
    feed: Feed
    head: Head
    name: str
    example: Tensors
    reader: TextReader | None = None
    outcome: Outcome = field(default_factory=Outcome)
    proof: Proof | None = None
    framework: str = "torch"

    def inputs(self, rows: Given) -> Tensors:
        """Return raw rows as the module takes them."""
        if not isinstance(rows, Packed):
            kept = rows.dtype if self.feed.is_image else np.float32
            return (torch.from_numpy(np.ascontiguousarray(rows, dtype=kept)),)
        assert self.plan is not None  # only tensors have none
        features = apply_plan(self.plan, rows)
        given: dict[str, Any] = {PLAN_NAMES["numeric"]: features.numeric, PLAN_NAMES["categorical"]: features.codes}
        if self.reader is not None:
            tokens = self.reader.tokens(rows)
            given[PLAN_NAMES["tokens"]] = tokens[:, 0] if tokens.shape[1] == 1 else tokens
        return tuple(torch.from_numpy(np.ascontiguousarray(given[PLAN_NAMES[name]])) for name in self.feed.names)

    def predict(self, rows: Given) -> npt.NDArray[np.float64]:
        """Return probabilities [N, K] or predictions [N, T] of the live module."""
        self.module.eval()
        with torch.no_grad():
            inputs = self.inputs(rows)
            parts = [
                self.head.decode(first_tensor(self.feed.call(self.module, part)))
                for part in chunks(inputs, self.feed.at_once)
            ]
        return np.concatenate(parts) if parts else np.empty((0, self.head.n_outputs))

    def export(self) -> onnx.ModelProto:
        """Return the graph from raw columns to outputs."""
        if self.proof is not None:
            raw = self.proof.final(self.module)
        else:
            raw = export_module(self.module, self.feed, self.example, name=self.name)
        if self.plan is None:
            return add_head(align(raw), self.head)
        if raw.graph.input:  # a model of constants alone has none
            raw = _named(raw, self.feed)
        model = add_head(raw, self.head)
        kept = {given.name for given in model.graph.input}
        pairs = [(PLAN_NAMES[name], name) for name in self.feed.names if name in kept]
        return join(plan_graph(self.plan, self.schema, opset=OPSET), model, pairs)

    @property
    def tokenizer(self) -> bytes | None:
        """What makes its tokens."""
        return self.reader.content if self.reader is not None else None

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """Return weights and buffers under the module's own names."""
        return {
            name: tensor.detach().cpu().float().numpy()
            if tensor.dtype == torch.bfloat16
            else tensor.detach().cpu().numpy()
            for name, tensor in self.module.state_dict().items()
            if torch.is_tensor(tensor)
        }

    def thresholds(self) -> dict[str, list[float]]:
        """Return nothing: a network has no thresholds in its inputs."""
        return {}

    def close(self) -> None:
        """End the exporter."""
        if self.proof is not None:
            self.proof.close()


def _named(model: onnx.ModelProto, feed: Feed) -> onnx.ModelProto:
    """Return the model; its inputs must carry the feed's names."""
    found = [given.name for given in model.graph.input]
    if not set(found) <= set(feed.names):
        raise LeptonError(f"The exported graph asks for {', '.join(found)}.", code="refused")
    return model


class TorchFramework:
    """Train torch modules."""

    name = "torch"

    def recognises(self, model: Any) -> bool:
        """Whether it is a module, a class of modules, or a factory."""
        if inspect.isclass(model):
            return issubclass(model, nn.Module)
        return isinstance(model, nn.Module) or inspect.isroutine(model) or _is_partial(model)

    def fit(self, model: Any, job: Job) -> TorchFitted:
        """Train a module on a job's rows, the export proof beside it."""
        __tracebackhide__ = True
        proof = Proof(job.session.folder / EXPORT, lambda known: _tell(job, known))
        try:
            return self._fit(model, job, proof)
        except BaseException:
            proof.close()
            raise

    def _fit(self, model: Any, job: Job, proof: Proof) -> TorchFitted:
        __tracebackhide__ = True
        spare_compiler()
        seed_everything(job.spec.seed)
        fitted = prepare(model, job)
        scaling = _scaling(job)
        fitted.head, output = check_first_batch(job, fitted.module, fitted.feed, fitted.example, scaling)
        fitted.proof = proof
        is_here = not job.is_finishing and job.ranks is None
        loop = _loop(fitted, job, like=tuple(output[0].shape[1:])) if is_here else None
        if not job.is_trial:
            fitted.outcome.why_not = _mixing(fitted, job, output[0])
        if fitted.outcome.why_not:
            job.session.note("exportable", False)
            job.session.note("why_not_exportable", fitted.outcome.why_not)
        elif not job.is_trial:
            proof.begin(fitted.module, fitted.feed, fitted.example, name=job.name)
        if job.is_finishing:
            _restore_best(fitted, job)
        elif loop is None:
            from lepton_jupyter.stages.train.distributed import train_in_ranks

            why_not = fitted.outcome.why_not
            fitted.outcome = train_in_ranks(fitted.module, job, each_look=proof.poll)
            fitted.outcome.why_not = why_not
        else:
            loop.run()
        fitted.module.to("cpu").to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        return fitted

    def describe(self, model: Any, job: Job) -> dict[str, Any]:
        """Return what a module's answer shows of the schema: K > 1 outputs are the logits of K classes."""
        fitted = _adopted(model, job)
        output = first_output(fitted.module, fitted.feed, fitted.example)
        k = output.shape[1] if torch.is_tensor(output) and output.ndim == 2 else 1
        if k == 1:
            return {"task": "regression"}
        return {
            "task": "binary" if k == 2 else "multiclass",
            "classes": tuple(str(code) for code in range(k)),
            "class_kind": "integer",
            "positive": "1" if k == 2 else None,
        }

    def adopt(self, model: Any, job: Job) -> TorchFitted:
        """Take over a trained module: the raw columns, where their number fits what it takes."""
        fitted = _adopted(model, job)
        fitted.head, output = check_first_batch(job, fitted.module, fitted.feed, fitted.example, None)
        fitted.outcome.why_not = _mixing(fitted, job, output[0])
        return fitted


def _adopted(model: Any, job: Job) -> TorchFitted:
    """Return a copy of a trained module with the raw columns before it, shown to take them."""
    if not isinstance(model, nn.Module):
        raise LeptonError(
            f"'{job.name}' is {'a class' if inspect.isclass(model) else 'no module'}, not a trained module.",
            "Give the instance that was trained.",
        )
    if job.schema.txt:
        raise LeptonError(
            f"'{job.name}' takes numbers, and '{job.dataset.ref}' has text: {job.schema.txt[0].name}.",
            "Save it with example= (rows as it takes them), or train it: %lepton train prepares text.",
        )
    model = copy.deepcopy(model).to("cpu").eval()
    fitted = prepare(model, job)
    try:
        first_output(fitted.module, fitted.feed, fitted.example)
    except Exception as error:
        raise LeptonError(
            f"'{job.name}' does not take {fitted.feed.describe(fitted.example)}, the raw columns of "
            f"'{job.dataset.ref}': {str(error).splitlines()[0]}.",
            "If it was trained on prepared features, save it with example= (rows as it takes them).",
            detail=user_line(error),
        ) from error
    return fitted


def _mixing(fitted: TorchFitted, job: Job, output: torch.Tensor) -> str:
    why = mixes_rows(fitted.module, fitted.feed, fitted.example, output)
    return f"'{job.name}' cannot be served: {why}." if why else ""


def _is_partial(model: Any) -> bool:
    return callable(model) and not hasattr(model, "fit") and not inspect.isclass(model)


def _tell(job: Job, proof: Proof) -> None:
    job.session.note("exportable", bool(proof.is_proved))
    if proof.why_not is not None:
        job.session.note("why_not_exportable", str(proof.why_not))


def _scaling(job: Job) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
    """Return mean and standard deviation of the training targets for ``--scale-target``."""
    if not job.spec.scale_target or job.task != "regression":
        return None
    values = job.targets("train", job.some("train"))
    spread = values.std(axis=0)
    return values.mean(axis=0), np.where(spread > 0, spread, 1.0)


def prepare(model: Any, job: Job) -> TorchFitted:
    """Fit the preprocessing, make the module, and lay out the first rows. The head is settled by the first batch."""
    __tracebackhide__ = True
    if hasattr(model, "forward"):
        check_reads_text(model, job)
    has_prose, reader = bool(job.schema.prose), reader_for(job)
    names = names_for(model, has_prose=has_prose)
    fitted = _made(model, job, names, reader)
    found = names_for(fitted.module, has_prose=has_prose)
    if found != names and job.schema.tensor_shape is None:
        fitted = _made(model, job, found, reader)  # a factory shows its module's forward only now
    check_reads_text(fitted.module, job)
    return fitted


def _made(model: Any, job: Job, names: tuple[str, ...], reader: TextReader | None) -> TorchFitted:
    __tracebackhide__ = True
    plan: Plan | None = None
    schema = job.schema
    if job.schema.tensor_shape is not None:
        feed = Feed(("tensor",), is_image=job.schema.image is not None, at_once=job.schema.rows_at_once)
        shape: tuple[int, ...] = job.schema.tensor_shape
        cardinalities: tuple[int, ...] = ()
        rows: Given = job.dataset.tensors("train", job.some("train", N_ROWS))[:N_ROWS]
    else:
        mode: Mode = "none" if job.spec.preprocess == "none" else "embed" if "categorical" in names else "dense"
        packed = job.dataset.packed("train", job.some("train"))
        plan = fit_plan(job.schema, packed, mode=mode)
        feed = Feed(names, at_once=job.schema.rows_at_once)
        shape, cardinalities = (plan.n_features,), plan.cardinalities
        rows = Packed(packed.num[:N_ROWS], packed.txt[:N_ROWS])
    facts = facts_of(
        n_features=int(np.prod(shape)),
        n_outputs=job.n_outputs,
        input_shape=shape,
        cardinalities=cardinalities,
        vocab_size=reader.vocab_size if reader is not None else None,
        max_tokens=reader.max_tokens if reader is not None else None,
    )
    if not isinstance(model, nn.Module):
        torch.manual_seed(job.spec.seed)
    module = construct(model, facts, job.spec.params, name=job.name, data=job.data_name)
    if not isinstance(module, nn.Module):
        raise LeptonError(
            f"'{job.name}' gives a {type(module).__name__}, not a torch.nn.Module.", "Return the module from it."
        )
    if reader is not None:
        schema = msgspec.structs.replace(schema, max_tokens=reader.max_tokens)
    fitted = TorchFitted(module, schema, plan, feed, Head("identity", 1), job.name, (), reader)
    fitted.example = fitted.inputs(rows)
    return fitted


def _loop(fitted: TorchFitted, job: Job, *, like: tuple[int, ...]) -> Loop:
    """Return a training that begins with the first step, or with the last checkpoint in the run's folder."""
    __tracebackhide__ = True
    team = job.team
    device = team.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoints = (Checkpoints if team.is_first else Unwritten)(job.session.folder / "checkpoints")
    going_on = checkpoints.last()
    settled = going_on["settled"] if going_on is not None else {}
    precision = settle_precision(settled.get("precision", job.spec.precision), device)
    loss = make_loss(job, fitted.head)
    if isinstance(loss.function, nn.Module):
        loss.function.to(device)
    batch_size = settled.get("batch_size")
    batches = batches_of(job, fitted, "train", loss=loss, like=like, device=device, batch_size=batch_size)
    n_threads = torch.get_num_threads()
    if settled:
        most = settled["threads"] if team.n == 1 else torch.get_num_threads()  # ranks share the cores
        torch.set_num_threads(min(most, settled["threads"]))
    elif device.type == "cpu":
        settle_threads(fitted.module, fitted.feed, fitted.example, batch_size=batches.batch_size or N_ROWS)
    assert fitted.proof is not None
    return Loop(
        job=job,
        module=fitted.module,
        feed=fitted.feed,
        head=fitted.head,
        loss=loss,
        batches=batches,
        validation=validation_of(job, fitted, loss=loss, like=like, device=device),
        checkpoints=checkpoints,
        precision=precision,
        each_stride=fitted.proof.poll,
        going_on=going_on,
        n_threads=n_threads,
        outcome=fitted.outcome,
    )


def _restore_best(fitted: TorchFitted, job: Job) -> None:
    """Take the best checkpoint of a run whose kernel was ended; before its first epoch ended, its last."""
    checkpoints = Checkpoints(job.session.folder / "checkpoints")
    found, last = read_checkpoint(checkpoints.folder), checkpoints.last()
    if found is None and last is None:
        raise LeptonError("The run was stopped before its first epoch ended: there is no checkpoint.", code="stopped")
    outcome = fitted.outcome
    if found is not None:
        state, about = found
        outcome.metrics, outcome.best_epoch, outcome.history = about["metrics"], about["epoch"], about["history"]
        restore(fitted.module, state)
    else:
        assert last is not None
        outcome.best_epoch, outcome.history = 1, {"epoch": [1.0]}
        restore(fitted.module, last["module"])
    if last is not None and len(last["standing"]["history"].get("epoch", ())) >= len(outcome.history["epoch"]):
        outcome.history = last["standing"]["history"]
    outcome.epochs = outcome.stopped_at = len(outcome.history["epoch"])
