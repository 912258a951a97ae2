"""Running an encoder on a device: uint8 tiles in, float32 features out.

`choose_device` says where, `plan_engine` and `make_engine` say by what: torch anywhere, OpenVINO on CPUs. Which
precision is allowed is measured for every encoder (`encode.gate`); the name of the one used is `Engine.precision`,
part of the features' digest.
"""

from .base import PRECISION, PRECISIONS, TITLES, Engine
from .choice import CHOICES, PlannedEngine, candidates, make_engine, plan_engine, usable_precisions
from .device import Device, available_cores, choose_device, cpu_facts, has_bfloat16, step_back
from .openvino_cpu import OpenVinoEngine
from .openvino_door import openvino_version
from .pytorch import TorchEngine

__all__ = [
    "CHOICES", "PRECISION", "PRECISIONS", "TITLES", "Device", "Engine", "OpenVinoEngine", "PlannedEngine",
    "TorchEngine", "available_cores", "candidates", "choose_device", "cpu_facts", "has_bfloat16", "make_engine",
    "openvino_version", "plan_engine", "step_back", "usable_precisions",
]  # fmt: skip
