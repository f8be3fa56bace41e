"""Run by .venv-llama's Python: `k_quants.py SOURCE.gguf TARGET.gguf KIND`: llama.cpp's own quantiser (and, for F32, its
own way back), which the gguf package doesn't have for the K types."""

from __future__ import annotations

import ctypes
import sys

import llama_cpp

source, target, kind = sys.argv[1:]
parameters = llama_cpp.llama_model_quantize_default_params()
parameters.ftype = llama_cpp.LLAMA_FTYPE_ALL_F32 if kind == "F32" else getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
parameters.allow_requantize = True
parameters.nthread = 1
sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters)))
