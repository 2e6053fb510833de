"""Writes clip-merges.zlib: the merges of CLIP's tokenizer as pairs of token numbers.

The vocabulary follows from the merges: tokens 0 to 255 are the bytes in the order below, 256 to 511 the same at the end of a
word (`</w>`), 512 + k is what merge k makes, and behind them stand `<|startoftext|>` and `<|endoftext|>`. A merge is two
numbers of tokens before it. They lie in four planes, one byte each: left low, left high, right low, right high, deflated.

    pip install open_clip_torch && python clip_merges.py
"""

import gzip
import zlib
from pathlib import Path

import open_clip

MERGES = 48894


def symbols():
    """Bytes as text, in the order of the vocabulary: those that can be printed first."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    return [chr(byte) for byte in printed] + [chr(256 + i) for i in range(len(others))]


source = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
lines = gzip.decompress(source.read_bytes()).decode("utf-8").split("\n")[1 : 1 + MERGES]
tokens = symbols() + [symbol + "</w>" for symbol in symbols()]
number = {token: i for i, token in enumerate(tokens)}
left, right = [], []
for line in lines:
    a, b = line.split()
    left.append(number[a])
    right.append(number[b])
    assert a + b not in number, "a token that two merges make needs a table of its own"
    number[a + b] = len(number)
assert len(number) == 49406
planes = b"".join(bytes(n >> shift & 255 for n in side) for side in (left, right) for shift in (0, 8))
Path(__file__).with_name("clip-merges.zlib").write_bytes(zlib.compress(planes, 9))
