"""Small SAMs of random weights, in folders as transformers writes them."""

from pathlib import Path

import pytest
import torch
import transformers

SIDE = 64


def sam(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.SamConfig(
        vision_config=dict(
            hidden_size=16, output_channels=16, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=8,
            window_size=4, global_attn_indexes=[1], num_pos_feats=8, mlp_dim=32,
        ),
        prompt_encoder_config=dict(hidden_size=16, image_size=SIDE, patch_size=8, mask_input_channels=4),
        mask_decoder_config=dict(hidden_size=16, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16),
    )  # fmt: skip
    transformers.SamModel(config).save_pretrained(folder)
    sizes = dict(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})
    transformers.SamImageProcessor(**sizes, mask_size={"longest_edge": 16}).save_pretrained(folder)
    return folder


def sam2(folder: Path) -> Path:
    if not hasattr(transformers, "Sam2Model"):
        pytest.skip(f"transformers {transformers.__version__} has no SAM 2")
    torch.manual_seed(0)
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=16, num_attention_heads=1, image_size=[SIDE, SIDE], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128], num_attention_heads_per_stage=[1, 1, 2, 4], window_size_per_stage=[4, 4, 4, 4],
        global_attention_blocks=[3], window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[128, 64, 32, 16], backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=32,
    )  # fmt: skip
    config = transformers.Sam2Config(
        vision_config=vision,
        prompt_encoder_config=transformers.Sam2PromptEncoderConfig(hidden_size=32, image_size=SIDE, mask_input_channels=4),
        mask_decoder_config=transformers.Sam2MaskDecoderConfig(
            hidden_size=32, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16
        ),
    )
    transformers.Sam2Model(config).save_pretrained(folder)
    processor = getattr(transformers, "Sam2ImageProcessorFast", None) or transformers.Sam2ImageProcessor
    processor(size={"height": SIDE, "width": SIDE}, mask_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder
