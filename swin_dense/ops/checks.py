"""What the fronts of all ops ask of their tensors, in the same words."""

from torch import Tensor

from swin_dense.ops import reference


def require_floats(op: str, **tensors: Tensor | None) -> None:
    """Require dtypes that kernels and references compute with; tensors may differ, or be None.

    Raises:
        ValueError: one of `tensors` has another.
    """
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype not in reference.FLOATING:
            raise ValueError(
                f"{op}: {name} holds numbers of float32, float64, float16 or bfloat16; it has "
                f"{tensor.dtype}. Convert it with .float()."
            )


def require_one_device(op: str, **tensors: Tensor | None) -> None:
    """Require the device of the first of `tensors` for all of them.

    Raises:
        ValueError: one is elsewhere.
    """
    devices = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    first = next(iter(devices))
    for name, device in devices.items():
        if device != devices[first]:
            raise ValueError(
                f"{op}: all tensors are on one device; {first} is on {devices[first]}, {name} on "
                f"{device}. Move them to one, e.g. with {name}.to({first}.device)."
            )
