"""The network of lambda-ECLIPSE (Patel et al., arXiv 2402.05195): a text, in which regions may stand, to one image embedding.

It is diffusers' `PriorTransformer` without time, for it is no diffusion model: one pass gives the embedding. The modules carry the
names of the published weights' keys.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BESIDE = 4  # places after the text: a picture of edges, the whole text, noise, and the place where the embedding comes out


@dataclass(frozen=True)
class PriorConfig:
    """As in the config.json of the published weights. embedding_dim: of the image embedding, and of what stands for each piece of
    the text. num_embeddings: the most pieces of a text. norm_in_type, embedding_proj_norm_type: None or "layer".
    """

    num_attention_heads: int = 32
    attention_head_dim: int = 64
    num_layers: int = 20
    embedding_dim: int = 768
    num_embeddings: int = 77
    additional_embeddings: int = BESIDE
    norm_in_type: str | None = None
    embedding_proj_norm_type: str | None = None

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim


class PriorModel(nn.Module):
    def __init__(self, config: PriorConfig):
        super().__init__()
        self.config = config
        width, given = config.width, config.embedding_dim
        self.proj_in = nn.Linear(given, width)
        self.embedding_proj_norm = nn.LayerNorm(given) if config.embedding_proj_norm_type else None
        self.embedding_proj = nn.Linear(given, width)
        self.embedding_control = nn.Linear(given, width)
        self.encoder_hidden_states_proj = nn.Linear(given, width)
        self.positional_embedding = nn.Parameter(torch.zeros(1, config.num_embeddings + BESIDE, width))
        self.prd_embedding = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer_blocks = nn.ModuleList(Block(width, config.num_attention_heads) for _ in range(config.num_layers))
        self.norm_in = nn.LayerNorm(width) if config.norm_in_type else None
        self.norm_out = nn.LayerNorm(width)
        self.proj_to_clip_embeddings = nn.Linear(width, given)
        # In the published file, and not applied by its authors' own code either.
        self.register_buffer("clip_mean", torch.zeros(1, given))
        self.register_buffer("clip_std", torch.zeros(1, given))

    def forward(self, states: Tensor, lengths: Tensor, text: Tensor, control: Tensor, noise: Tensor) -> Tensor:
        """Image embeddings [B, D].

        states [B, L, D]: what stands for each piece of B texts. lengths [B]: how many of these are of the text. text [B, D]: the
        embedding of the whole. control [B, D]: the image embedding of a picture of edges; of nothing, where there is none.
        noise [B, D].
        """
        whole = text if self.embedding_proj_norm is None else self.embedding_proj_norm(text)
        beside = [self.embedding_control(control), self.embedding_proj(whole), self.proj_in(noise)]
        sequence = torch.cat(
            [
                self.encoder_hidden_states_proj(states),
                *(one[:, None] for one in beside),
                self.prd_embedding.expand(len(states), -1, -1),
            ],
            1,
        )
        count = states.shape[1]
        places = self.positional_embedding
        sequence = sequence + torch.cat([places[:, :count], places[:, -BESIDE:]], 1)
        if self.norm_in is not None:
            sequence = self.norm_in(sequence)
        # Each looks at what is before it, and nothing at what is after the text's end.
        there = torch.arange(sequence.shape[1], device=states.device)
        earlier = there[:, None] >= there
        seen = earlier & ((there < lengths[:, None]) | (there >= count))[:, None]
        for block in self.transformer_blocks:
            sequence = block(sequence, seen[:, None])
        return self.proj_to_clip_embeddings(self.norm_out(sequence[:, -1]))


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn1 = Attention(width, heads)
        self.ff = nn.ModuleDict({"net": nn.Sequential(Gelu(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))})

    def forward(self, sequence: Tensor, seen: Tensor) -> Tensor:
        sequence = sequence + self.attn1(self.norm1(sequence), seen)
        return sequence + self.ff["net"](self.norm3(sequence))


class Gelu(nn.Module):
    def __init__(self, width: int, wider: int):
        super().__init__()
        self.proj = nn.Linear(width, wider)

    def forward(self, sequence: Tensor) -> Tensor:
        return F.gelu(self.proj(sequence))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, sequence: Tensor, seen: Tensor) -> Tensor:
        """seen [B, 1, N, N]: True where a place (row) looks at another."""
        query, key, value = (
            layer(sequence).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.to_q, self.to_k, self.to_v)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.to_out(mixed.transpose(1, 2).flatten(2))
