"""What bfloat16 costs on this device: attention while decoding, and the gradients of a shared pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as nnf

from benchmarks import workloads
from benchmarks.gpu_proof.scale import Row, Scale, free_memory
from internvl_chat.model.shared_prompt import additive_bias, attend_to_shared_prompts
from internvl_chat.vision import moved

_ROWS_OF_AN_ASK, _NEW_TOKENS = 8, 5
# Standard deviation of scores, what is added to all of them, as the biases of keys do, and positions that are padding.
_SCORES = ((1, 0, 0), (10, 0, 0), (10, 200, 0), (10, 200, 5))


def decoding_error(scale: Scale) -> Iterator[Row]:
    """Of attention to a shared prompt, relative to float32, beside that of torch's own."""
    text, length = scale.workload.text, scale.prompt_positions
    heads, groups = text["num_attention_heads"], text["num_key_value_heads"]
    head, rows = text["hidden_size"] // heads, _ROWS_OF_AN_ASK
    generator = torch.Generator(scale.device).manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, head, generator=generator, device=scale.device)

    for spread, offset, hidden in _SCORES:
        along = nnf.normalize(drawn(), dim=0)
        query = drawn(rows, heads, 1) * spread
        query += (offset**0.5 * head**0.25 - query @ along)[..., None] * along
        keys = [drawn(1, groups, length), drawn(rows, groups, _NEW_TOKENS)]
        keys = [key + offset**0.5 * head**0.25 * along for key in keys]
        values = [drawn(1, groups, length), drawn(rows, groups, _NEW_TOKENS)]
        query, *given = (tensor.bfloat16() for tensor in (query, *keys, *values))
        prompt_key, new_key, prompt_value, new_value = given

        counts = torch.ones(1, length + _NEW_TOKENS, dtype=torch.bool, device=scale.device)
        counts[:, :hidden] = False

        def plain(
            dtype: torch.dtype,
            query: torch.Tensor = query,
            pairs: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ((prompt_key, new_key), (prompt_value, new_value)),
            mask: torch.Tensor | None = counts if hidden else None,
        ) -> torch.Tensor:
            key, value = (
                torch.cat([old.repeat_interleave(rows, 0), new], dim=2).repeat_interleave(heads // groups, 1).to(dtype)
                for old, new in pairs
            )
            return nnf.scaled_dot_product_attention(query.to(dtype), key, value, mask, scale=head**-0.5).transpose(1, 2)

        exact = plain(torch.float32)
        bias = additive_bias(counts[:, :length], torch.bfloat16) if hidden else None
        ours = attend_to_shared_prompts(query, new_key, new_value, prompt_key, prompt_value, bias, head**-0.5)
        errors = [((found.float() - exact).norm() / exact.norm()).item() for found in (ours, plain(torch.bfloat16))]
        yield {
            "measure": f"scores of {spread} +{offset}{', padded' * bool(hidden)}",
            "error": errors[0],
            "sdpa_error": errors[1],
        }


def gradients(scale: Scale) -> Iterator[Row]:
    """Of two layers at full width: all captions in one pass against one a pass, in bfloat16 and in float32."""
    batch, *others = workloads.shared_batch(scale.workload), *workloads.separate_batches(scale.workload)
    found: dict[str, torch.Tensor] = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = scale.model(num_hidden_layers=2).to(dtype).eval()
        trained = [p for name, p in model.named_parameters() if ".lora_B." in name]
        for name, passes in (("shared", [batch]), ("separate", others)):
            for one in passes:
                on_device = {k: v.to(scale.device) if isinstance(v, torch.Tensor) else v for k, v in one.items()}
                vision = moved(one["vision"], scale.device, dtype)
                (model(**{**on_device, "vision": vision}).loss / len(passes)).backward()
            found[f"{name} {dtype}"] = torch.cat([p.grad.flatten().float() for p in trained if p.grad is not None])
            model.zero_grad(set_to_none=True)
        del model, trained
        free_memory()
    exact = found.pop(f"separate {torch.float32}")
    for name, gradient in found.items():
        yield {"measure": f"gradients, {name}", "cosine": nnf.cosine_similarity(gradient, exact, dim=0).item()}
