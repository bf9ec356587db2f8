"""Tiny models of the diffusers library, of random weights, made and never downloaded."""

from __future__ import annotations

import json
import os
import warnings

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
with warnings.catch_warnings():  # of what they import, at their import
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers", reason="not run: pip install 'driftfield[diffusers]'")
    from diffusers import AutoencoderKL, DiTTransformer2DModel, UNet2DConditionModel, UNet2DModel

LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def seeded(make):
    """A model with the weights of one seed, in float64, that does not learn."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double().eval().requires_grad_(False)


def unet(out: int = 3, **more) -> UNet2DModel:
    """A U-Net on `(3, 8, 8)`."""
    return seeded(
        lambda: UNet2DModel(
            sample_size=8,
            in_channels=3,
            out_channels=out,
            block_out_channels=(16, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=8,
            norm_num_groups=8,
            **more,
        )
    )


def told_unet() -> UNet2DConditionModel:
    """A U-Net on `(4, 8, 8)` that reads an encoded text of width 16."""
    return seeded(
        lambda: UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=8,
            norm_num_groups=8,
        )
    )


def dit() -> DiTTransformer2DModel:
    """A transformer on `(4, 8, 8)` with 5 classes, that also predicts variances."""
    return seeded(
        lambda: DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=1,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=5,
        )
    )


def pipeline(folder):
    """A Stable Diffusion pipeline on pictures of 16 pixels, whose tokens are letters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers", reason="not run: pip install 'driftfield[diffusers]'")
        from diffusers import DDIMScheduler, StableDiffusionPipeline

        ends = ["<|startoftext|>", "<|endoftext|>"]
        letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
        tokens = [*ends, *letters, *(letter + "</w>" for letter in letters)]
        (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
        (folder / "merges.txt").write_text("#version: 0.2\n")
        tokenizer = transformers.CLIPTokenizer(
            str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=12
        )
        text = seeded(
            lambda: transformers.CLIPTextModel(
                transformers.CLIPTextConfig(
                    vocab_size=len(tokens),
                    hidden_size=16,
                    intermediate_size=16,
                    num_attention_heads=2,
                    num_hidden_layers=1,
                    max_position_embeddings=12,
                    bos_token_id=0,
                    eos_token_id=1,
                    pad_token_id=1,
                )
            )
        )
        vae = seeded(
            lambda: AutoencoderKL(
                block_out_channels=[8, 8],
                down_block_types=["DownEncoderBlock2D"] * 2,
                up_block_types=["UpDecoderBlock2D"] * 2,
                latent_channels=4,
                norm_num_groups=8,
            )
        )
        scheduler = DDIMScheduler(**LATENT, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
        pipe = StableDiffusionPipeline(
            vae=vae,
            text_encoder=text,
            tokenizer=tokenizer,
            unet=told_unet(),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe
