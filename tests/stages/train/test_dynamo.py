"""torch's optimizers without its compiler: the same weights, and two seconds earlier."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import json, sys
import torch
from lepton_jupyter.stages.train.dynamo import spare_compiler

if sys.argv[1] == "spared":
    spare_compiler()
torch.set_num_threads(1)
torch.manual_seed(0)
module = torch.nn.Linear(3, 2, bias=False)
optimizer = getattr(torch.optim, sys.argv[2])(module.parameters(), lr=0.1)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
rows = torch.arange(12.0).reshape(4, 3) / 12

def steps():
    for _ in range(3):
        optimizer.zero_grad()
        module(rows).pow(2).sum().backward()
        optimizer.step()
        schedule.step()
    optimizer.load_state_dict(optimizer.state_dict())

steps()
was_loaded = "torch._dynamo" in sys.modules
import torch._dynamo
steps()
print(json.dumps([was_loaded, torch.is_grad_enabled(), module.weight.tolist()]))
"""


def _program(how: str, optimizer: str) -> Any:
    argv = [sys.executable, "-c", PROGRAM, how, optimizer]
    return json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD", "Adafactor"])
def test_an_optimizer_works_as_torchs_own_without_its_compiler_and_with_it(optimizer: str) -> None:
    loaded, _, expected = _program("plain", optimizer)
    was_loaded, is_grad_enabled, weights = _program("spared", optimizer)
    assert loaded, "torch no longer loads its compiler for an optimizer: stages/train/dynamo.py can go"
    assert (was_loaded, is_grad_enabled) == (False, True)
    assert weights == expected


WRAPPED = """
import json, os, sys, tempfile
import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from lepton_jupyter.stages.train.dynamo import spare_wrapper

store = tempfile.NamedTemporaryFile()
dist.init_process_group("gloo", init_method=f"file://{store.name}", rank=0, world_size=1)
module = torch.nn.Linear(3, 2)
with spare_wrapper():
    wrapped = DistributedDataParallel(module)
wrapped(torch.ones(1, 3)).sum().backward()
was_loaded = "torch._dynamo" in sys.modules
import torch._dynamo
wrapped(torch.ones(1, 3)).sum().backward()
print(json.dumps([was_loaded, torch._dynamo.utils.get_optimize_ddp_mode(), module.weight.grad.tolist()]))
dist.destroy_process_group()
"""


def test_the_wrapper_of_several_processes_is_made_without_the_compiler() -> None:
    found = subprocess.run([sys.executable, "-c", WRAPPED], capture_output=True, text=True, check=True).stdout
    assert json.loads(found) == [False, "ddp_optimizer", [[2.0] * 3] * 2]
