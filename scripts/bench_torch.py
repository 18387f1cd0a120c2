#!/usr/bin/env python3
"""PyTorch's side of the benchmark: the rows of scripts/bench.lua, name by name, one line of JSON each.

usage: scripts/bench_torch.py [--device cuda] [--threads N] [--smoke] [--list] [ROW...]

A row's setup builds its data and gives back one step. A step is repeated until a sample lasts long enough to be timed,
and the median of several samples is printed as {"arm": "torch", "row": NAME, "ms": MILLISECONDS A STEP}.
--smoke takes one step of each, to see that it runs. scripts/bench --against torch interleaves the two sides.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

ROWS = {}
MILLION = 1 << 20


def row(setup):
    ROWS[setup.__name__] = setup
    return setup


def settle():
    """What was launched has run."""
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()


def measure(step, smoke):
    """Median seconds of one step. Warm-up lasts 0.3 s, a sample about 0.15 s; 5 samples, 3 of steps beyond a second."""
    settle()
    if smoke:
        start = time.perf_counter()
        step()
        settle()
        return time.perf_counter() - start
    start, calls = time.perf_counter(), 0
    while calls < 2 or (time.perf_counter() - start < 0.3 and calls < 2000):
        step()
        calls += 1
    settle()
    estimate = (time.perf_counter() - start) / calls
    repeats = max(1, min(100000, round(0.15 / estimate)))
    samples = []
    for _ in range(3 if estimate > 1 else 5):
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        settle()
        samples.append((time.perf_counter() - start) / repeats)
    return statistics.median(samples)


# ---- single calls: what a call costs


@row
def op_add():
    a, b = torch.ones(1), torch.ones(1)
    return lambda: a + b


@row
def op_add_grad():
    a, b = torch.ones(1, requires_grad=True), torch.ones(1)
    return lambda: a + b


@row
def op_view():
    a = torch.ones(4, 8)
    return lambda: a.transpose(0, 1)


@row
def op_linear_fwd_bwd():
    layer, x = nn.Linear(64, 64), torch.randn(8, 64)

    def step():
        layer.zero_grad()
        layer(x).sum().backward()

    return step


# ---- kernels: what memory and arithmetic cost


@row
def copy_64m():
    """What the others that are bound by memory are measured by."""
    a = torch.randn(64 * MILLION)
    out = torch.empty_like(a)
    return lambda: out.copy_(a)


@row
def elementwise_16m():
    a, b = torch.randn(16 * MILLION), torch.randn(16 * MILLION)
    out = torch.empty_like(a)
    return lambda: torch.add(a, b, out=out)


@row
def exp_4m():
    a = torch.randn(4 * MILLION)
    return lambda: torch.exp(a)


@row
def gelu_tanh_4m():
    a = torch.randn(4 * MILLION)
    return lambda: F.gelu(a, approximate="tanh")


@row
def mish_by_hand_4m_fwd_bwd():
    a, g = torch.randn(4 * MILLION, requires_grad=True), torch.randn(4 * MILLION)

    def step():
        a.grad = None
        y = a * a.exp().log1p().tanh()
        y.backward(g)
    return step


@row
def softmax_4096x1000():
    a = torch.randn(4096, 1000)
    return lambda: F.softmax(a, -1)


@row
def cross_entropy_fwd_bwd():
    """GPT-2's head on 256 positions."""
    logits, targets = torch.randn(256, 50257, requires_grad=True), torch.randint(0, 50257, (256,))

    def step():
        logits.grad = None
        F.cross_entropy(logits, targets).backward()

    return step


@row
def linear_cross_entropy_fwd_bwd():
    """The same from what the head sees."""
    hidden, weight = (torch.randn(n, 768, requires_grad=True) for n in (256, 50257))
    targets = torch.randint(0, 50257, (256,))

    def step():
        hidden.grad = weight.grad = None
        F.linear_cross_entropy(hidden, weight, targets).backward()

    return step


@row
def sum_16m():
    a = torch.randn(16 * MILLION)
    return lambda: a.sum()


@row
def sum_dim0_4096():
    a = torch.randn(4096, 4096)
    return lambda: a.sum(0)


@row
def transpose_copy_4096():
    a = torch.randn(4096, 4096)
    return lambda: a.t().contiguous()


@row
def layernorm_8192x768_fwd_bwd():
    layer = nn.LayerNorm(768)
    x, start = torch.randn(8192, 768, requires_grad=True), torch.randn(8192, 768)

    def step():
        x.grad = None
        layer.zero_grad()
        layer(x).backward(start)

    return step


@row
def matmul_2048():
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return lambda: a @ b


@row
def bmm_48x64x64():
    a, b = torch.randn(48, 64, 32), torch.randn(48, 32, 64)
    return lambda: a @ b


@row
def embedding_bwd():
    layer, ids = nn.Embedding(50257, 256), torch.randint(0, 50257, (8, 512))

    def step():
        layer.zero_grad()
        layer(ids).sum().backward()

    return step


@row
def randn_16m():
    return lambda: torch.randn(16 * MILLION)


@row
def sdpa_causal_fwd_bwd():
    q, k, v = (torch.randn(4, 12, 512, 64, requires_grad=True) for _ in range(3))
    start = torch.randn(4, 12, 512, 64)

    def step():
        q.grad = k.grad = v.grad = None
        F.scaled_dot_product_attention(q, k, v, is_causal=True).backward(start)

    return step


@row
def sdpa_bf16_causal_fwd_bwd():
    q, k, v = (torch.randn(16, 12, 1024, 64, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    start = torch.randn(16, 12, 1024, 64, dtype=torch.bfloat16)

    def step():
        q.grad = k.grad = v.grad = None
        F.scaled_dot_product_attention(q, k, v, is_causal=True).backward(start)

    return step


# ---- training steps


def adamw(**options):
    """17 layers of GPT-2's width: 10.05 million parameters in 51 tensors."""
    shapes = [shape for _ in range(17) for shape in ((768, 768), (768,), (768,))]
    params = [torch.randn(shape, requires_grad=True) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    return torch.optim.AdamW(params, lr=1e-3, weight_decay=0.1, **options).step


@row
def adamw_10m():
    return adamw()


@row
def adamw_10m_fused():
    """PyTorch's faster choice, which a user must ask for; the other side runs the same code as for adamw_10m."""
    return adamw(fused=True)


@row
def mnist_mlp():
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    images, labels = torch.randn(64, 784), torch.randint(0, 10, (64,))

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


class Block(nn.Module):
    def __init__(self, n_embd, n_head, bias):
        super().__init__()
        self.n_head = n_head
        self.ln_1, self.ln_2 = nn.LayerNorm(n_embd, bias=bias), nn.LayerNorm(n_embd, bias=bias)
        self.c_attn, self.c_proj = nn.Linear(n_embd, 3 * n_embd, bias=bias), nn.Linear(n_embd, n_embd, bias=bias)
        self.c_fc, self.c_out = nn.Linear(n_embd, 4 * n_embd, bias=bias), nn.Linear(4 * n_embd, n_embd, bias=bias)

    def forward(self, x):
        B, T, C = x.shape
        heads = (part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
                 for part in self.c_attn(self.ln_1(x)).split(C, dim=2))
        y = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, vocab_size, block_size, n_layer, n_head, n_embd, bias):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab_size, n_embd), nn.Embedding(block_size, n_embd)
        self.h = nn.ModuleList(Block(n_embd, n_head, bias) for _ in range(n_layer))
        self.ln_f = nn.LayerNorm(n_embd, bias=bias)
        for p in self.parameters():
            if p.dim() >= 2:
                nn.init.normal_(p, 0.0, 0.02)

    def forward(self, ids, targets):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def gpt(batch_size, vocab_size, block_size, n_layer, n_head, n_embd, bias):
    """Forward, backward, clip, AdamW with decay on matrices alone."""
    model = GPT(vocab_size, block_size, n_layer, n_head, n_embd, bias)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    ids, targets = (torch.randint(0, vocab_size, (batch_size, block_size)) for _ in range(2))

    def step():
        optimizer.zero_grad(set_to_none=True)
        model(ids, targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


@row
def nanogpt_char():
    return gpt(12, vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128, bias=False)


@row
def gpt2_124m():
    return gpt(4, vocab_size=50257, block_size=64, n_layer=12, n_head=12, n_embd=768, bias=True)


@row
def gpt2_124m_bf16():
    """A step of 65,536 tokens in four parts, bfloat16 by autocast, vocabulary padded; the model is compiled."""
    parts, shape = 4, (16, 1024)
    model = GPT(50304, 1024, 12, 12, 768, True)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=True)
    compiled = torch.compile(model)
    ids, targets = (torch.randint(0, 50257, shape) for _ in range(2))

    def step():
        optimizer.zero_grad(set_to_none=True)
        for _ in range(parts):
            with torch.autocast(ids.device.type, dtype=torch.bfloat16):
                loss = compiled(ids, targets)
            (loss / parts).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


GPU_ONLY = {"sdpa_bf16_causal_fwd_bwd", "gpt2_124m_bf16"}  # hours on a cpu: run there only by name


@row
def start_up():
    """A process that loads the library and ends."""
    return lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="threads (default: torch's own choice)")
    parser.add_argument("--smoke", action="store_true", help="one step a row")
    parser.add_argument("--list", action="store_true", help="print the rows' names")
    parser.add_argument("rows", nargs="*", metavar="ROW")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.rows if name not in ROWS]
    if unknown:
        parser.error(f"unknown row {unknown[0]}; known: {', '.join(ROWS)}")
    if arguments.list:
        print("\n".join(ROWS))
        return
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device={arguments.device}: torch sees no GPU here")
    torch.set_default_device(arguments.device)
    on_cpu = arguments.device == "cpu"
    for name in arguments.rows or [name for name in ROWS if not (on_cpu and name in GPU_ONLY)]:
        torch.manual_seed(0)
        seconds = measure(ROWS[name](), arguments.smoke)
        print(json.dumps({
            "arm": "torch", "row": name, "ms": round(seconds * 1e3, 7), "version": torch.__version__.split("+")[0],
            "threads": torch.get_num_threads(),
        }), flush=True)


if __name__ == "__main__":
    main()
