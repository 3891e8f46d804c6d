"""The text generator beside a plain GPT of the same shape, and its key-value cache beside none.

    python benchmarks/text.py FILE [--turns 16] [--repeats 5]
    python benchmarks/text.py --smoke

Training: ``experiment=shakespeare_char`` on the text FILE, with records, W&B offline,
progress and checkpoints, beside the loop that one would write: a GPT-2 of as many layers, heads and
channels, learned positions, torch's own layers, batches cut from the text one by one, AdamW,
clipping and schedule. The two take turns within one process, every few updates.

Generation: 255 tokens after one, from random weights, with the cache and without; both write the
same text. Wall time, on a quiet machine. Prints Markdown: medians and quartiles, or the range.
"""

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.speed import PRECISIONS, Rival, print_circumstances, quartiles, spread
from models.generation import generate
from models.transformer import Transformer
from trainer.distributed.device import keep_freed_memory
from trainer.trainer import Trainer

CONTEXTS = (64, 256)
NEW_TOKENS = 255


class PlainBlock(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norms = nn.ModuleList([nn.LayerNorm(width, bias=False) for _ in range(2)])
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.widen = nn.Linear(width, 4 * width, bias=False)
        self.narrow = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        count, length, width = x.shape
        parts = self.qkv(self.norms[0](x)).split(width, 2)
        queries, keys, values = (
            part.view(count, length, self.num_heads, -1).transpose(1, 2) for part in parts
        )
        seen = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).reshape(count, length, width))
        return x + self.narrow(F.gelu(self.widen(self.norms[1](x))))


class PlainGPT(nn.Module):
    """GPT-2 with learned positions and tied weights."""

    def __init__(
        self, vocab_size: int, context_length: int, num_layers: int, num_heads: int, width: int
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(context_length, width)
        self.blocks = nn.Sequential(*(PlainBlock(width, num_heads) for _ in range(num_layers)))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, vocab_size, bias=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        return self.head(self.norm(self.blocks(x)))


class TextRival(Rival):
    """The plain loop on the same text, batch and context."""

    def prepare(self, trainer: Trainer) -> None:
        ours = trainer.objective.model
        assert isinstance(ours, Transformer)
        width = ours.embedding.weight.shape[1]
        self.context = ours.context_length
        self.batch_size = trainer.data.batch_size
        self.text = trainer.data.splits["train"].tensors[0].long()
        self.plain = PlainGPT(
            len(ours.embedding.weight), self.context, len(ours.blocks), ours.num_heads, width
        )
        settings = trainer.phases[0].optimizer.defaults
        decayed = [p for p in self.plain.parameters() if p.ndim == 2]
        others = [p for p in self.plain.parameters() if p.ndim < 2]
        groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        self.lr = settings["lr"]
        self.plain_optimizer = torch.optim.AdamW(
            groups, self.lr, settings["betas"], weight_decay=settings["weight_decay"]
        )
        self.is_bf16 = trainer.precision == "bf16"
        self.done = 0

    def update(self) -> None:
        progress = min(self.done / 2000, 1.0)
        self.done += 1
        for group in self.plain_optimizer.param_groups:
            group["lr"] = self.lr * (0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2)
        starts = torch.randint(len(self.text) - self.context, (self.batch_size,)).tolist()
        inputs = torch.stack([self.text[i : i + self.context] for i in starts])
        targets = torch.stack([self.text[i + 1 : i + 1 + self.context] for i in starts])
        with torch.autocast("cpu", torch.bfloat16, enabled=self.is_bf16):
            logits = self.plain(inputs).float()
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(self.plain.parameters(), 1.0)
        self.plain_optimizer.step()
        self.plain_optimizer.zero_grad(set_to_none=True)


def compare_training(file: Path, turns: int) -> None:
    overrides = ["experiment=shakespeare_char", f"data.path={file.absolute()}"]
    overrides += ["scheduler.warmup_steps=0", "wandb.mode=offline"]
    print(f"\n| ms an update of 12 x 64 tokens, n = {turns} | ours | plain loop | plain / ours |")
    print("| --- | --- | --- | --- |")
    for precision in PRECISIONS:
        ours, plain = TextRival(turns).race(*overrides, f"trainer.precision={precision}")
        ratios = [theirs / mine for mine, theirs in zip(ours, plain, strict=True)]
        shown = " | ".join(quartiles(values) for values in (ours, plain, ratios))
        print(f"| {precision} | {shown} |", flush=True)


def compare_generation(repeats: int, new_tokens: int) -> None:
    print(f"\n| {new_tokens} tokens, n = {repeats} | with the cache, s | without, s | ratio |")
    print("| --- | --- | --- | --- |")
    for context in CONTEXTS:
        torch.manual_seed(0)
        model = Transformer(65, context, num_layers=4, num_heads=4, width=128)
        pairs = [
            [timed_generation(model, use_cache, new_tokens) for use_cache in (True, False)]
            for _ in range(repeats + 1)
        ][1:]  # the first one warms up
        for (_, cached), (_, anew) in pairs:
            assert torch.equal(cached, anew)
        fast, slow = ([seconds for seconds, _ in column] for column in zip(*pairs, strict=True))
        ratios = [without / given for given, without in zip(fast, slow, strict=True)]
        print(
            f"| context of {context} | {spread(fast)} | {spread(slow)} | {spread(ratios)} |",
            flush=True,
        )


def timed_generation(model: Transformer, use_cache: bool, new_tokens: int) -> tuple[float, Tensor]:
    """Seconds, and the text."""
    start = torch.zeros(1, 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    text = generate(
        model, start, new_tokens, 1.0, 20, 0.95, generator=generator, use_cache=use_cache
    )
    return time.perf_counter() - began, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", help="Tiny Shakespeare, or another text")
    parser.add_argument("--turns", type=int, default=16, help="of each loop, for training")
    parser.add_argument("--repeats", type=int, default=5, help="of each generation")
    parser.add_argument("--smoke", action="store_true", help="next to nothing: it runs")
    options = parser.parse_args()
    if options.file is None and not options.smoke:
        parser.error("which text? Give a file, or --smoke")
    if not options.smoke and not options.file.is_file():
        parser.error(f"there is no file {options.file}")
    print_circumstances()
    keep_freed_memory()
    if options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            text = Path(folder) / "text.txt"
            text.write_text("To be, or not to be, that is the question:\n" * 200)
            compare_training(text, 3)
        compare_generation(1, 20)
        return
    compare_training(options.file, options.turns)
    compare_generation(options.repeats, NEW_TOKENS)


if __name__ == "__main__":
    main()
