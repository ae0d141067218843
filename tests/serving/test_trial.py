"""Hostile graphs: refused, or stopped by a limit with its reason, while what is served goes on."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.formats.bundle import GRAPH, Bundle
from lepton_jupyter.serving.scorer import Scorer
from lepton_jupyter.serving.trial import Trials
from tests.serving.graphs import ROW, SCHEMA_BINARY, Server, graph, make_bundle

pytestmark = pytest.mark.slow

node = helper.make_node
Settle = Callable[..., Future[None]]


def with_extra(nodes: list[Any], constants: dict[str, Any]) -> onnx.ModelProto:
    """Return the binary graph; `extra`, a number that these nodes make, is added to its probabilities."""
    model = onnx.load_model_from_string(graph(SCHEMA_BINARY))
    model.graph.node[-1].output[0] = "clean"
    model.graph.node.extend([*nodes, node("Add", ["clean", "extra"], ["probability"])])
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


SUM = node("ReduceSum", ["much"], ["extra"], keepdims=0)
GIGABYTES = {"shape": np.array([2**31], np.int64), "seed": np.zeros(1, np.float32)}  # of float32: 8 GB

UNFOLDING = {
    "fill": node("ConstantOfShape", ["shape"], ["much"]),
    "expand": node("Expand", ["seed", "shape"], ["much"]),
    "tile": node("Tile", ["seed", "shape"], ["much"]),
}
NO_SIZES = {"overflow": [2**62, 2**62], "negative": [-3, 5], "petabytes": [2**50]}


def endless() -> onnx.ModelProto:
    """Return a graph whose loop takes centuries."""
    body = helper.make_graph(
        [node("Identity", ["on"], ["still"]), node("Add", ["value", "value"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("n", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, []),
        ],
    )
    constants = {"times": np.array(2**62), "true": np.array(True), "zero": np.float32(0)}
    return with_extra([node("Loop", ["times", "true", "zero"], ["extra"], body=body)], constants)


def nested(depth: int) -> bytes:
    """Return a model of so many graphs in graphs, which onnx itself would not write."""

    def field(number: int, content: bytes) -> bytes:
        size, rest = b"", len(content)
        while rest > 127:
            size, rest = size + bytes([rest & 127 | 128]), rest >> 7
        return bytes([number << 3 | 2]) + size + bytes([rest]) + content

    inner = b""
    for _ in range(depth):  # GraphProto.node < NodeProto.op_type, attribute < AttributeProto.name, g
        inner = field(1, field(4, b"If") + field(5, field(1, b"then_branch") + field(6, inner)))
    return b"\x08\x0a" + field(7, inner + field(2, b"g"))


@pytest.fixture
def folder(tmp_path: Path) -> EndpointFolder:
    made = EndpointFolder(tmp_path / "endpoint")
    made.empty.mkdir(parents=True)
    return made


@pytest.fixture
def settle(folder: EndpointFolder) -> Iterator[Settle]:
    """Begin a bundle's trial; the future has its end."""
    with ThreadPoolExecutor() as pool:

        def begin(bundle: Bundle, *, limit_s: float = 20.0) -> Future[None]:
            trials = Trials(folder, limit_s=limit_s)
            return pool.submit(asyncio.run, trials.settle(str(bundle.root), bundle.manifest_hash))

        yield begin


def refusal(settle: Settle, tmp_path: Path, content: bytes, **how: Any) -> str:
    bundle = make_bundle(tmp_path / "hostile", content=content)
    error = settle(bundle, **how).exception()
    assert isinstance(error, LeptonError), error
    return error.message


def test_a_bundle_that_passed_is_not_tried_again(settle: Settle, folder: EndpointFolder, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    settle(bundle).result()
    assert folder.tried.stat().st_mode & 0o777 == 0o600
    (bundle.root / GRAPH).unlink()
    settle(bundle).result()
    settle(make_bundle(tmp_path / "c", shift=1.0)).result()
    assert len(folder.tried.read_text().splitlines()) == 2


def test_a_bundle_that_did_not_pass_is_tried_again(settle: Settle, folder: EndpointFolder, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    content = (bundle.root / GRAPH).read_bytes()
    (bundle.root / GRAPH).write_bytes(b"changed")
    error = settle(bundle).exception()
    assert isinstance(error, LeptonError) and "is not what its manifest says" in error.message
    assert not folder.tried.exists()
    (bundle.root / GRAPH).write_bytes(content)
    settle(bundle).result()


@pytest.mark.parametrize("how", UNFOLDING)
def test_a_constant_that_unfolds_to_8_gb_is_stopped_by_the_memory_limit(
    settle: Settle, tmp_path: Path, how: str
) -> None:
    content = with_extra([UNFOLDING[how], SUM], GIGABYTES).SerializeToString()
    assert len(content) < 3000
    said = refusal(settle, tmp_path, content)
    assert "wants more than 4.0 GiB of memory" in said or (how == "tile" and "would require more than" in said)


def test_the_memory_that_a_graph_may_take_can_be_set(
    settle: Settle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEPTON_GRAPH_MEMORY", "512M")
    gigabyte = {"shape": np.array([2**28], np.int64)}
    content = with_extra([UNFOLDING["fill"], SUM], gigabyte).SerializeToString()
    assert "wants more than 0.5 GiB of memory" in refusal(settle, tmp_path, content)
    monkeypatch.setenv("LEPTON_GRAPH_MEMORY", "much")
    assert "'much' is no size of memory" in refusal(settle, tmp_path, content)
    monkeypatch.delenv("LEPTON_GRAPH_MEMORY")
    settle(make_bundle(tmp_path / "same", content=content)).result()


@pytest.mark.parametrize("size", NO_SIZES)
def test_a_size_that_cannot_be_is_refused(settle: Settle, tmp_path: Path, size: str) -> None:
    shape = {"shape": np.array(NO_SIZES[size], np.int64)}
    content = with_extra([UNFOLDING["fill"], SUM], shape).SerializeToString()
    assert refusal(settle, tmp_path, content).startswith("The graph ")


@pytest.mark.parametrize("size", NO_SIZES)
def test_a_weight_that_claims_more_than_it_holds_is_refused(settle: Settle, tmp_path: Path, size: str) -> None:
    model = with_extra([SUM], {"much": np.zeros(1, np.float32)})
    model.graph.initializer[-1].dims[:] = NO_SIZES[size]
    assert "cannot be loaded" in refusal(settle, tmp_path, model.SerializeToString())


def test_a_graph_that_never_ends_is_stopped_by_the_time_limit(settle: Settle, tmp_path: Path) -> None:
    said = refusal(settle, tmp_path, endless().SerializeToString(), limit_s=1.5)
    assert said == "The graph of bundle 'hostile' was not loaded and run within 1.5 s."


@pytest.mark.parametrize("depth", [40, 2000])
def test_graphs_in_graphs_without_an_end_are_refused(settle: Settle, tmp_path: Path, depth: int) -> None:
    assert "cannot be loaded" in refusal(settle, tmp_path, nested(depth))


@pytest.mark.parametrize("domain", ["", "ai.onnx.ml", "com.microsoft", "custom.evil"])
def test_an_unknown_operator_is_refused(settle: Settle, tmp_path: Path, domain: str) -> None:
    model = with_extra([node("RunThis", ["seed"], ["extra"], domain=domain)], {"seed": np.zeros(1, np.float32)})
    if domain not in ("", "ai.onnx.ml"):
        model.opset_import.append(helper.make_opsetid(domain, 1))
    said = refusal(settle, tmp_path, model.SerializeToString())
    assert "cannot be loaded" in said and "RunThis" in said


@pytest.mark.parametrize("content", [pickle.dumps({"a": 1}), b"\x80", b"PK\x03\x04", b"\x08\x0a", b"\xff" * 5000])
def test_bytes_that_are_no_graph_are_refused(settle: Settle, tmp_path: Path, content: bytes) -> None:
    assert "cannot be loaded" in refusal(settle, tmp_path, content)


def test_a_trial_whose_process_is_lost_says_how(settle: Settle, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    running = settle(make_bundle(tmp_path / "b", content=endless().SerializeToString()))
    eventually(trial_processes)[0].kill()
    error = running.exception()
    assert isinstance(error, LeptonError)
    assert error.message.endswith("the process that tried it was killed by SIGKILL.")


def test_a_trial_that_is_given_up_leaves_no_process(
    folder: EndpointFolder, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    bundle = make_bundle(tmp_path / "b", content=endless().SerializeToString())

    async def give_up() -> None:
        task = asyncio.create_task(Trials(folder).settle(str(bundle.root), bundle.manifest_hash))
        while not trial_processes():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    assert not trial_processes()


def trial_processes() -> list[psutil.Process]:
    """Return our children that try a bundle."""
    found = []
    for child in psutil.Process().children():
        try:
            if "lepton_jupyter.serving.trial" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            pass
    return found


def external(tensor: TensorProto, location: str) -> TensorProto:
    """Return the tensor with its values in a file."""
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def of_weight(location: str) -> onnx.ModelProto:
    model = with_extra([SUM], {"much": np.zeros(4, np.float32)})
    external(model.graph.initializer[-1], location)
    return model


def of_constant(location: str) -> onnx.ModelProto:
    value = external(numpy_helper.from_array(np.zeros(4, np.float32), "value"), location)
    return with_extra([node("Constant", [], ["much"], value=value), SUM], {})


def of_inner_graph(location: str) -> onnx.ModelProto:
    weight = external(numpy_helper.from_array(np.zeros(4, np.float32), "inner"), location)
    inner = helper.make_graph(
        [node("ReduceSum", ["inner"], ["sum"], keepdims=0)],
        "branch",
        [],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [])],
        [weight],
    )
    branches = {"then_branch": inner, "else_branch": inner}
    return with_extra([node("If", ["yes"], ["extra"], **branches)], {"yes": np.array(True)})


def of_sparse_weight(location: str) -> onnx.ModelProto:
    model = with_extra([SUM], {})
    values = external(numpy_helper.from_array(np.zeros(4, np.float32), "much"), location)
    places = numpy_helper.from_array(np.arange(4), "much_places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4]))
    return model


@pytest.mark.parametrize("make", [of_weight, of_constant, of_inner_graph, of_sparse_weight])
@pytest.mark.parametrize("where", ["secret.bin", "./secret.bin", "../secret.bin", "link.bin", "hard.bin", "absolute"])
def test_a_graph_reads_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[str], onnx.ModelProto], where: str
) -> None:
    """Neither from the working folder nor from its own, above it or by its whole path."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.array([1, 2, 3, 4], np.float32).tobytes())
    work = tmp_path / "work"
    work.mkdir()
    (work / "secret.bin").write_bytes(secret.read_bytes())
    (work / "link.bin").symlink_to(secret)
    (work / "hard.bin").hardlink_to(secret)
    monkeypatch.chdir(work)
    content = make(str(secret) if where == "absolute" else where).SerializeToString()
    with pytest.raises(LeptonError, match="cannot be loaded"):
        Scorer(make_bundle(work / "b", content=content)).warm()


def test_a_live_endpoint_serves_on_whatever_it_is_told_to_load(
    server: Server, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    """Each hostile release is refused with its reason; the next good one is taken."""
    hostile = [
        (with_extra([UNFOLDING["expand"], SUM], GIGABYTES).SerializeToString(), "wants more than 4.0 GiB of memory"),
        (nested(2000), "cannot be loaded"),
        (pickle.dumps({"a": 1}), "cannot be loaded"),
        (of_weight("/etc/hostname").SerializeToString(), "cannot be loaded"),
    ]
    pid = server.wait().pid
    version = server.predict(ROW)["version"]
    for release, (content, said) in enumerate(hostile, start=100):
        bundle = make_bundle(tmp_path / f"hostile-{release}", content=content)
        server.configure(bundle, release=release, version=f"Net@{release}")
        status = eventually(lambda n=release: (s := server.status()) and s.error_release == n and s, timeout_s=30)
        assert said in status.error
        assert (status.state, status.pid) == ("ready", pid)
        assert server.predict(ROW)["version"] == version
    server.configure(make_bundle(tmp_path / "good"), release=200, version="Net@200")
    assert server.wait(release=200).pid == pid
    assert server.predict(ROW)["version"] == "Net@200"
