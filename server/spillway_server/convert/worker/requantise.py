"""Rewrite a GGUF file in another quantisation with the gguf package's own quantiser, for tests and demonstrations.

The package can quantise to Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, F16 and BF16; but not to the K types.
"""

from __future__ import annotations

from pathlib import Path

import gguf

from spillway_server.convert.worker.report import JobError


def requantise(source: Path, target: Path, kind: str) -> None:
    """Rewrite `source` with its matrices stored as `kind`; metadata is copied. Raises `JobError`."""
    stored = gguf.GGMLQuantizationType[kind]
    reader = gguf.GGUFReader(source)
    field = reader.get_field("general.architecture")
    if field is None:
        raise JobError(f"{source} names no architecture.", "Give a GGUF file of a model.")
    writer = gguf.GGUFWriter(target, str(field.contents()))
    for name, stored_field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        inner = stored_field.types[1] if stored_field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, stored_field.contents(), stored_field.types[0], sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        target_type = stored if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quants.quantize(values, target_type), raw_dtype=target_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
