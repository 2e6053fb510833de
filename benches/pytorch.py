#!/usr/bin/env python3
"""The work of `cargo bench`, done by PyTorch on the same machine, for comparison.

    python3 benches/pytorch.py [--filter conv] [--csv FILE]

Needs torch with CUDA (or ROCm). Each kernel runs from a graph of several replays, timed with GPU events, warm, the median
of many. Names and shapes are those that `cargo bench` prints; behind them stands how a network was run:

    graph            eager kernels, replayed from a CUDA graph
    reduce-overhead  torch.compile(mode="reduce-overhead"), called as a user calls it
    compiled         torch.compile, all of it replayed from one CUDA graph

The network is in the form that PyTorch runs fastest: channels last, attention as linear layers over tokens. Training steps
are autocast, with AdamW and an average of the parameters; `train/memory` is the peak of what they allocated.
"""

import argparse
import csv
import gc
import math
import statistics
import sys

import torch
import torch.nn.functional as F
from torch import nn

DEVICE = "cuda"


def seconds(work, repeats=20, inner=8, graph=True):
    """Median seconds of `work()`, captured into a graph where that is wanted and possible."""
    torch.cuda.synchronize()
    run, count = work, 1
    if graph:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(3):
                work()
        torch.cuda.synchronize()
        try:
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                for _ in range(inner):
                    work()
            run, count = captured.replay, inner
        except Exception as error:  # what synchronises or allocates on the way cannot be captured
            print(f"  not from a graph: {type(error).__name__}: {str(error).splitlines()[0]}")
    torch.cuda.synchronize()
    for _ in range(5):
        run()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e-3 / count)
    return statistics.median(times)


class Table:
    def __init__(self, wanted):
        self.wanted, self.rows = wanted, []

    def wants(self, label):
        return not self.wanted or any(part in label for part in self.wanted.split("|"))

    def measure(self, name, shape, work, unit, make, **options):
        """`make()` returns the closure to time; `work` is in FLOP or bytes."""
        label = f"{name} {shape}"
        if not self.wants(label):
            return
        try:
            time = seconds(make(), **options)
        except Exception as error:
            print(f"{label} is left out: {type(error).__name__}: {str(error).splitlines()[0]}")
            return
        finally:
            torch.cuda.empty_cache()
        rate = work / time * {"TFLOP/s": 1e-12, "GB/s": 1e-9, "images/s": 1.0}[unit]
        self.rows.append((name, shape, f"{time:.4e}", f"{rate:.4g}", unit))
        print(f"{name:<28} {shape:<40} {time * 1e6:>12.1f} us {rate:>10.1f} {unit}", flush=True)


    def note(self, name, shape, value, unit):
        """A number that is no time."""
        self.rows.append((name, shape, "", f"{value:.4g}", unit))
        print(f"{name:<28} {shape:<40} {value:>15.2f} {unit}", flush=True)


def convolutions(table):
    for n, c, side, k, kernel in [
        (16, 192, 64, 192, 3),
        (16, 384, 32, 384, 3),
        (16, 768, 8, 768, 3),
        (1, 192, 64, 192, 3),
        (16, 384, 32, 1152, 1),
    ]:
        flops = 2.0 * n * side * side * c * k * kernel * kernel
        for dtype, layout, kind in [
            (torch.float16, torch.channels_last, "f16 NHWC"),
            (torch.float16, torch.contiguous_format, "f16 NCHW"),
            (torch.float32, torch.contiguous_format, "f32 NCHW"),
        ]:
            shape = f"{n}x{side}x{side}x{c} to {k} {kind}"

            def tensors():
                x = torch.randn(n, c, side, side, device=DEVICE, dtype=dtype).to(memory_format=layout)
                w = torch.randn(k, c, kernel, kernel, device=DEVICE, dtype=dtype).to(memory_format=layout)
                return x, w, torch.randn(k, device=DEVICE, dtype=dtype)

            def forward():
                x, w, b = tensors()
                return lambda: F.conv2d(x, w, b, padding=kernel // 2)

            def backward(mask):
                x, w, b = tensors()
                dy = torch.randn_like(F.conv2d(x, w, b, padding=kernel // 2))
                pad = [kernel // 2] * 2
                arguments = ([k], [1, 1], pad, [1, 1], False, [0, 0], 1, mask)
                return lambda: torch.ops.aten.convolution_backward(dy, x, w, *arguments)

            name = f"conv/{kernel}x{kernel}"
            table.measure(f"{name} forward", shape, flops, "TFLOP/s", forward)
            if n > 1 and kind != "f32 NCHW":
                table.measure(f"{name} input gradient", shape, flops, "TFLOP/s", lambda: backward([True, False, False]))
                table.measure(f"{name} weight gradient", shape, flops, "TFLOP/s", lambda: backward([False, True, True]))


def group_norm(table):
    n, h, w, c = 16, 64, 64, 192

    def plain(x, scale, shift, norm):
        return F.silu(norm(x) * (1 + scale) + shift)

    for kind, layout in [("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)]:
        for how, wrap in [("eager", lambda f: f), ("compiled", torch.compile)]:

            def make():
                x = torch.randn(n, c, h, w, device=DEVICE, dtype=torch.float16).to(memory_format=layout)
                scale, shift = torch.randn(2, n, c, 1, 1, device=DEVICE, dtype=torch.float16)
                norm = nn.GroupNorm(32, c).to(DEVICE, torch.float16)
                function = wrap(plain)
                with torch.no_grad():
                    function(x, scale, shift, norm)

                def run():
                    with torch.no_grad():
                        return function(x, scale, shift, norm)

                return run

            table.measure("group_norm/forward", f"{n}x{h}x{w}x{c} f16 {kind} {how}", 2 * 2 * n * h * w * c, "GB/s", make)


def attention(table):
    for n, heads, tokens, d in [(16, 6, 1024, 64), (16, 9, 256, 64), (1, 8, 4096, 64)]:
        product = 2.0 * n * heads * tokens * tokens * d
        shape = f"{n}x{heads} heads x{tokens}x{d} f16"

        def forward():
            q, k, v = torch.randn(3, n, heads, tokens, d, device=DEVICE, dtype=torch.float16)
            return lambda: F.scaled_dot_product_attention(q, k, v)

        def both():
            qkv = torch.randn(3, n, heads, tokens, d, device=DEVICE, dtype=torch.float16, requires_grad=True)
            dy = torch.randn(n, heads, tokens, d, device=DEVICE, dtype=torch.float16)

            def run():
                y = F.scaled_dot_product_attention(*qkv)
                return torch.autograd.grad(y, qkv, dy)

            return run

        table.measure("attention/forward", shape, 2 * product, "TFLOP/s", forward)
        table.measure("attention/forward and backward", shape, 7 * product, "TFLOP/s", both)


def guided_step(table):
    def step(z, eps, w, sigma, alpha, mean_x, mean_z, deviation):
        conditional, unconditional = eps.chunk(2)
        guided = (1 + w) * conditional - w * unconditional
        x = ((z - sigma * guided) / alpha).clamp(-1, 1)
        return mean_z * z + mean_x * x + deviation * torch.randn_like(z)

    for n, side in [(64, 256), (16, 64)]:
        elements = n * 3 * side * side
        for how, wrap in [("eager", lambda f: f), ("compiled", torch.compile)]:

            def make():
                z = torch.randn(n, 3, side, side, device=DEVICE)
                eps = torch.randn(2 * n, 3, side, side, device=DEVICE)
                function = wrap(step)
                return lambda: function(z, eps, 2.0, 0.6, 0.8, 0.3, 0.7, 0.1)

            table.measure("guided_step/static clip", f"{n}x{side}x{side}x3 f32 {how}", 16 * elements, "GB/s", make)


class Res(nn.Module):
    """ADM's residual block with scale-shift norms; `scale` is "", "down" or "up"."""

    def __init__(self, inputs, outputs, embedded, scale=""):
        super().__init__()
        self.norm_in, self.conv_in = nn.GroupNorm(32, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.embedding = nn.Linear(embedded, 2 * outputs)
        self.norm_out, self.conv_out = nn.GroupNorm(32, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.resample = {
            "": lambda x: x,
            "down": lambda x: F.avg_pool2d(x, 2),
            "up": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
        }[scale]

    def forward(self, x, emb):
        h = self.conv_in(self.resample(F.silu(self.norm_in(x))))
        scale, shift = self.embedding(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.conv_out(F.silu(self.norm_out(h) * (1 + scale) + shift))
        return self.skip(self.resample(x)) + h


class Attention(nn.Module):
    def __init__(self, channels, head):
        super().__init__()
        self.heads, self.norm = channels // head, nn.GroupNorm(32, channels)
        self.qkv, self.projection = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x, _):
        n, c, h, w = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(n, h * w, c)
        q, k, v = self.qkv(tokens).reshape(n, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, h * w, c)
        return x + self.projection(y).reshape(n, h, w, c).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """ADM's UNet (Dhariwal & Nichol 2021), class-conditional."""

    def __init__(self, size, channels, mult, blocks, attention_at, head, classes):
        super().__init__()
        self.channels, embedded = channels, 4 * channels
        self.time = nn.Sequential(nn.Linear(channels, embedded), nn.SiLU(), nn.Linear(embedded, embedded))
        self.label = nn.Embedding(classes, embedded)
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width, skips = channels, [channels]
        for level, factor in enumerate(mult):
            for _ in range(blocks):
                layers = [Res(width, channels * factor, embedded)]
                width = channels * factor
                if size >> level in attention_at:
                    layers.append(Attention(width, head))
                self.down.append(nn.ModuleList(layers))
                skips.append(width)
            if level + 1 < len(mult):
                self.down.append(nn.ModuleList([Res(width, width, embedded, "down")]))
                skips.append(width)
        middle = [Res(width, width, embedded), Attention(width, head), Res(width, width, embedded)]
        self.middle = nn.ModuleList(middle)
        for level, factor in reversed(list(enumerate(mult))):
            for i in range(blocks + 1):
                layers = [Res(width + skips.pop(), channels * factor, embedded)]
                width = channels * factor
                if size >> level in attention_at:
                    layers.append(Attention(width, head))
                if level and i == blocks:
                    layers.append(Res(width, width, embedded, "up"))
                self.up.append(nn.ModuleList(layers))
        self.out = nn.Sequential(nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, x, time, label):
        half = self.channels // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=x.device) / half)
        angles = time[:, None] * frequencies
        emb = torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype)
        emb = F.silu(self.time(emb) + self.label(label))
        h = self.stem(x)
        kept = [h]
        for layers in self.down:
            for layer in layers:
                h = layer(h, emb)
            kept.append(h)
        for layer in self.middle:
            h = layer(h, emb)
        for layers in self.up:
            h = torch.cat([h, kept.pop()], dim=1)
            for layer in layers:
                h = layer(h, emb)
        return self.out(h)


NETWORKS = {
    "imagenet64": (dict(size=64, channels=192, mult=(1, 2, 3, 4), blocks=3, attention_at=(32, 16, 8), head=64, classes=1000), (2, 16, 64), 32),
    "cifar": (dict(size=32, channels=128, mult=(1, 2, 2, 2), blocks=2, attention_at=(16,), head=64, classes=10), (1, 128), 128),
}


def inputs(shape, n, dtype):
    size = shape["size"]
    x = torch.randn(n, 3, size, size, device=DEVICE, dtype=dtype).to(memory_format=torch.channels_last)
    return x, torch.arange(n, device=DEVICE) * 37.0 % 1000, torch.arange(n, device=DEVICE) % 10


def evaluation(shape, n, compile):
    """The network on `n` images in f16; `compile` makes it from the eager one."""
    network = compile(UNet(**shape).to(DEVICE, torch.float16, memory_format=torch.channels_last).eval())
    data = inputs(shape, n, torch.float16)

    def work():
        with torch.no_grad():
            return network(*data)

    for _ in range(3):
        work()
    return work


def training_step(shape, n, dtype, compile):
    """Loss, backward, AdamW and the average of the parameters; of f16 the loss is scaled."""
    network = UNet(**shape).to(DEVICE, memory_format=torch.channels_last)
    run = compile(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True, capturable=True)
    scaler = torch.amp.GradScaler(DEVICE, enabled=dtype == torch.float16)
    average = [p.detach().clone() for p in network.parameters()]
    x, time, label = inputs(shape, n, torch.float32)
    target = torch.randn_like(x)

    def work():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, dtype):
            loss = F.mse_loss(run(x, time, label).float(), target)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        torch._foreach_lerp_(average, list(network.parameters()), 1e-4)

    return work


def reduce_overhead(network):
    return torch.compile(network, mode="reduce-overhead")


def networks(table, compiled):
    compilers = {"graph": lambda network: network}
    if compiled:
        compilers |= {"reduce-overhead": reduce_overhead, "compiled": torch.compile}
    for name, (shape, batches, training) in NETWORKS.items():
        for n in batches:
            for how, compile in compilers.items():
                torch.compiler.reset()
                # What reduce-overhead captured cannot be captured again.
                options = dict(inner=1, graph=how != "reduce-overhead")
                label = f"{name} {n} images f16 {how}"
                table.measure("unet/forward", label, n, "images/s", lambda: evaluation(shape, n, compile), **options)
        for dtype, kind in [(torch.bfloat16, "bf16"), (torch.float16, "f16")]:
            for how, compile in compilers.items():
                label = f"{name} {training} images {kind} {how}"
                if how == "reduce-overhead" or not table.wants(f"train/step {label}"):
                    continue
                torch.compiler.reset()
                gc.collect()
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                make = lambda: training_step(shape, training, dtype, compile)  # noqa: B023, E731
                table.measure("train/step", label, training, "images/s", make, inner=1)
                table.note("train/memory", label, torch.cuda.max_memory_allocated() / 2**30, "GiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--filter", default="", help="measure only what has this in its name; several, divided by |")
    parser.add_argument("--csv", help="write the table here")
    parser.add_argument("--no-compile", action="store_true", help="leave networks through torch.compile out: minutes each")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this needs a GPU that torch can use")
    torch.backends.cudnn.benchmark = True
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    table = Table(arguments.filter)
    convolutions(table)
    group_norm(table)
    attention(table)
    guided_step(table)
    networks(table, not arguments.no_compile)
    if arguments.csv:
        with open(arguments.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["bench", "shape", "median_seconds", "rate", "unit"])
            writer.writerows(table.rows)


if __name__ == "__main__":
    main()
