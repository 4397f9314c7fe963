"""A piece of material as bytes, and back: what a party keeps on its disk (encrypted, by its store).

The layout is a description in JSON and then the arrays' bytes, each at a multiple of 16 from the first.
Reading makes no copy of them. Only the record types named here can come out: it is data, never code.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.core.errors import Bug, FailedPrecondition
from libs.mpc.schemes.masked.comparison import Comparison
from libs.mpc.schemes.masked.relu import ReluMaterial
from libs.mpc.schemes.masked.relu_wide import WideReluMaterial
from libs.secure_nn.predict import Material

FORMAT = "trefoil-material-1"
_ALIGNMENT = 16
_LENGTH_BYTES = 8
_RECORDS = {cls.__name__: cls for cls in (Material, ReluMaterial, WideReluMaterial)}
_DTYPES = frozenset({"|u1", "<u2", "<u4", "<u8"})


def dump_material(material: Material) -> Iterator[memoryview]:
    """The bytes in pieces; the arrays themselves, not copies of them."""
    arrays: list[npt.NDArray[Any]] = []
    tree = _describe(material, arrays)
    sizes = [{"dtype": array.dtype.str, "shape": array.shape} for array in arrays]
    header = json.dumps({"format": FORMAT, "arrays": sizes, "tree": tree}).encode()
    header += b" " * (-(_LENGTH_BYTES + len(header)) % _ALIGNMENT)
    yield memoryview(len(header).to_bytes(_LENGTH_BYTES, "little") + header)
    for array in arrays:
        data = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        yield data
        yield memoryview(bytes(-len(data) % _ALIGNMENT))


def load_material(content: bytearray) -> Material:
    """The piece that `dump_material` wrote. Its arrays are views of `content`: writable, and aligned.

    Raises `FailedPrecondition` when this is not one, which the store's own check makes unlikely.
    """
    try:
        start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
        header = json.loads(content[_LENGTH_BYTES:start])
        if header["format"] != FORMAT:
            raise ValueError("format")
        arrays = list(_cut(content, header["arrays"], start))
        material = _build(header["tree"], arrays)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise FailedPrecondition(
            "A stored piece of material was written by another version; it is not used."
        ) from error
    if not isinstance(material, Material):
        raise FailedPrecondition("A stored piece of material does not begin with its record.")
    return material


def _cut(content: bytearray, described: list[Any], start: int) -> Iterator[npt.NDArray[Any]]:
    for item in described:
        if item["dtype"] not in _DTYPES:
            raise ValueError("dtype")
        dtype, shape = np.dtype(item["dtype"]), tuple(item["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        yield np.frombuffer(content, dtype=dtype, count=count, offset=start).reshape(shape)
        size = count * dtype.itemsize
        start += size + -size % _ALIGNMENT


def _describe(node: object, arrays: list[npt.NDArray[Any]]) -> object:
    if isinstance(node, Comparison):
        return {"comparison": node.value}
    if node is None or isinstance(node, (int, str)):
        return node
    if isinstance(node, np.ndarray):
        arrays.append(node)
        return {"array": len(arrays) - 1}
    if isinstance(node, bytes):
        return {"bytes": node.hex()}
    if isinstance(node, dict):
        return {"map": {key: _describe(value, arrays) for key, value in node.items()}}
    if dataclasses.is_dataclass(node) and type(node).__name__ in _RECORDS:
        fields = {f.name: _describe(getattr(node, f.name), arrays) for f in dataclasses.fields(node)}
        return {"record": type(node).__name__, "fields": fields}
    raise Bug(f"Material holds a {type(node).__name__}, which the codec does not know.")


def _build(node: Any, arrays: list[npt.NDArray[Any]]) -> Any:
    if not isinstance(node, dict):
        return node
    match node:
        case {"array": index}:
            return arrays[index]
        case {"comparison": text}:
            return Comparison(text)
        case {"bytes": text}:
            return bytes.fromhex(text)
        case {"map": entries}:
            return {key: _build(value, arrays) for key, value in entries.items()}
        case {"record": name, "fields": fields}:
            return _RECORDS[name](**{key: _build(value, arrays) for key, value in fields.items()})
        case _:
            raise ValueError("node")
