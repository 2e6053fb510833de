#!/usr/bin/env bash
# transformers 5.24.0 (tokenizers 0.23.3), CLIPTokenizer: where "!" is the padding token, as in the tokenizers of Stable Diffusion 2
# and of SDXL's second encoder, every "!" of a prompt becomes the padding token as well. One would expect the word "!</w>" (256 in
# CLIP's vocabulary), which the same tokenizer gives with another padding token, and which original code that pads with 0 gives.
#
# Seen: with padding "<|endoftext|>" the text "wow!" ends with token 256 before the end token; with padding "!" it ends with token 0.
# Only a comparison of numbers shows it: the text is encoded all the same.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3

"$folder/env/bin/python" - "$folder" <<'PYTHON'
import json
import pathlib
import sys

from transformers import CLIPTokenizer

# CLIP's own byte symbols, alone and at the end of a word, without merges: numbers 0 to 511, then the two specials.
folder = pathlib.Path(sys.argv[1])
printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
symbols = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
words = symbols + [symbol + "</w>" for symbol in symbols] + ["<|startoftext|>", "<|endoftext|>"]
(folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}, ensure_ascii=False))
(folder / "merges.txt").write_text("#version: 0.2\n")

seen = {}
for padding in ("<|endoftext|>", "!"):
    made = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token=padding)
    seen[padding] = made("wow!").input_ids
    print(f"padding {padding!r}: 'wow!' is {seen[padding]}")
assert words[0] == "!" and words[256] == "!</w>"
assert seen["<|endoftext|>"] == [512, 86, 78, 342, 256, 513], "the behaviour has changed"
assert seen["!"] == [512, 86, 78, 342, 0, 513], "the behaviour has changed"
PYTHON
