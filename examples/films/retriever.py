"""The trained model as a function from prompts and the codes so far to the next code's logits."""

import torch
from paths import DATA, TOKENIZER
from tokenizers import Tokenizer
from tokens import BEGIN, CODES
from transformers import Qwen3ForCausalLM


class Retriever:
    """The shipped half precision weights, run in float32."""

    def __init__(self) -> None:
        self.tokenizer = Tokenizer.from_file(str(TOKENIZER))
        self.model = Qwen3ForCausalLM.from_pretrained(DATA, dtype=torch.float32).eval()
        self.first = torch.tensor([self.tokenizer.token_to_id(f"<s_{level}_0>") for level in "abcd"])

    def encode(self, prompt: str) -> list[int]:
        """The token ids of a prompt, up to where its answer's first code belongs."""
        return self.tokenizer.encode(prompt + BEGIN).ids

    @torch.inference_mode()
    def logits(self, prompts: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Logits [B, m, 256] of the next code.

        Args:
            prompts: [B, P] token ids of B prompts of one length.
            codes: [B, m, level] the codes so far of m beams a prompt; -1 in a dead beam, whose logits mean nothing.
        """
        batch, beams, level = codes.shape
        answers = codes.clamp(min=0) + self.first[:level]
        asked = prompts[:, None].expand(batch, beams, -1)
        ids = torch.cat([asked, answers], dim=-1).flatten(0, 1)
        hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
        rows = self.model.get_input_embeddings().weight[self.first[level] + torch.arange(CODES)]
        return (hidden @ rows.T).unflatten(0, (batch, beams))
