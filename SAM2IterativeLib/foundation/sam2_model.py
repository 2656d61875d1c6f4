"""Which SAM2 architectures we build, all from the ``sam2`` package's own classes.

The official sizes come from the package's own configuration files; ``compact`` is ours: the same parts, small enough for a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import torch
from torch import nn

from ..errors import MissingPackageError, SettingsError, WeightsError

try:
    import sam2
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
    from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine
    from sam2.modeling.sam.transformer import RoPEAttention
    from sam2.modeling.sam2_base import SAM2Base
except ImportError as error:
    raise MissingPackageError(
        "the package 'sam2' is not installed.",
        cure="Install torch and torchvision, then: SAM2_BUILD_CUDA=0 pip install --no-build-isolation sam2==1.1.0",
    ) from error


@dataclass(frozen=True)
class CompactArchitecture:
    """The sizes of our compact SAM2; stored beside its weights so that a file rebuilds its own model.

    Raises:
        SettingsError: sizes of which no model can be built.
    """

    image_size: int = 192
    """Side of the square input in pixels; features have stride 16, mask logits stride 4."""
    embed_dim: int = 32
    stages: tuple[int, ...] = (1, 2, 4, 2)
    global_blocks: tuple[int, ...] = (5, 6, 8)
    """Blocks with global attention; none may be the first of a stage (Hiera divides by its window size there)."""
    windows: tuple[int, ...] = (8, 4, 8, 4)
    model_dim: int = 128
    memory_dim: int = 32
    attention_layers: int = 2
    feedforward: int = 512

    def __post_init__(self) -> None:
        sizes = (self.image_size, self.embed_dim, self.model_dim, self.memory_dim, self.attention_layers, self.feedforward)
        firsts = [0, *accumulate(self.stages)][:-1]
        rules = {
            "every size lies in 1..4096": all(0 < n <= 4096 for n in (*sizes, *self.stages, *self.windows)),
            "there are four stages, each with its window": len(self.stages) == len(self.windows) == 4,
            "image_size is a multiple of 32 and of four times the first window": not any(
                self.image_size % (n or 1) for n in (32, *(4 * w for w in self.windows[:1]))
            ),
            "model_dim is a multiple of 32 and of memory_dim": not any(self.model_dim % (n or 1) for n in (32, self.memory_dim)),
            "no global block is the first of a stage": not set(firsts) & set(self.global_blocks),
        }
        broken = next((rule for rule, holds in rules.items() if not holds), None)
        if broken is not None:
            raise SettingsError(f"no model can be built of {self}: it must hold that {broken}.")


def build_compact(architecture: CompactArchitecture | None = None, kind: type[SAM2Base] = SAM2Base) -> SAM2Base:
    """A compact SAM2 with random weights, in training mode.

    Args:
        kind: the class to build, ``SAM2Base`` or one that takes the same arguments, such as the stock video predictor.

    The object score's last bias starts at +3: at random it is often below 0, and then every mask logit becomes -1024, without
    gradient (``SAM2Base._forward_sam_heads``).
    """
    a = architecture or CompactArchitecture()
    model = kind(
        image_encoder=_image_encoder(a),
        memory_attention=_memory_attention(a),
        memory_encoder=_memory_encoder(a),
        num_maskmem=7,
        image_size=a.image_size,
        sigmoid_scale_for_mem_enc=20.0,
        sigmoid_bias_for_mem_enc=-10.0,
        use_mask_input_as_output_without_sam=True,
        directly_add_no_mem_embed=True,
        no_obj_embed_spatial=True,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=True,
        multimask_output_for_tracking=False,
        use_multimask_token_for_obj_ptr=True,
        multimask_min_pt_num=1,
        multimask_max_pt_num=1,
        iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True,
        add_tpos_enc_to_obj_ptrs=True,
        proj_tpos_enc_in_obj_ptrs=True,
        use_signed_tpos_enc_to_obj_ptrs=True,
        only_obj_ptrs_in_the_past_for_eval=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True,
        use_mlp_for_obj_ptr_proj=True,
    )
    nn.init.constant_(object_score_bias(model), 3.0)
    return model


def object_score_bias(model: SAM2Base) -> torch.Tensor:
    """The last bias of the head that scores whether the object is on the slice, (1,): its threshold."""
    bias: torch.Tensor = model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias
    return bias


def _image_encoder(a: CompactArchitecture) -> ImageEncoder:
    channels = [a.embed_dim * 2**i for i in range(len(a.stages))]
    trunk = Hiera(
        embed_dim=a.embed_dim,
        num_heads=1,
        stages=a.stages,
        window_spec=a.windows,
        global_att_blocks=a.global_blocks,
        window_pos_embed_bkg_spatial_size=(8, 8),
    )
    neck = FpnNeck(
        position_encoding=PositionEmbeddingSine(num_pos_feats=a.model_dim, normalize=True, scale=None, temperature=10000),
        d_model=a.model_dim,
        backbone_channel_list=channels[::-1],
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    return ImageEncoder(trunk=trunk, neck=neck, scalp=1)


def _memory_attention(a: CompactArchitecture) -> MemoryAttention:
    grid = [a.image_size // 16, a.image_size // 16]

    def attention(**extra: object) -> RoPEAttention:
        return RoPEAttention(
            rope_theta=10000.0, feat_sizes=grid, embedding_dim=a.model_dim, num_heads=1, downsample_rate=1, dropout=0.0, **extra
        )

    layer = MemoryAttentionLayer(
        activation="relu",
        dim_feedforward=a.feedforward,
        dropout=0.0,
        pos_enc_at_attn=False,
        self_attention=attention(),
        d_model=a.model_dim,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        cross_attention=attention(rope_k_repeat=True, kv_in_dim=a.memory_dim),
    )
    return MemoryAttention(d_model=a.model_dim, pos_enc_at_input=True, layer=layer, num_layers=a.attention_layers)


def _memory_encoder(a: CompactArchitecture) -> MemoryEncoder:
    return MemoryEncoder(
        out_dim=a.memory_dim,
        in_dim=a.model_dim,
        position_encoding=PositionEmbeddingSine(num_pos_feats=a.memory_dim, normalize=True, scale=None, temperature=10000),
        mask_downsampler=MaskDownSampler(embed_dim=a.model_dim, kernel_size=3, stride=2, padding=1),
        # The official 1e-6 keeps these blocks switched off for thousands of steps; ours has no such time.
        fuser=Fuser(CXBlock(dim=a.model_dim, kernel_size=7, padding=3, layer_scale_init_value=0.1, use_dwconv=True), num_layers=2),
    )


OFFICIAL_CONFIGURATIONS = {
    "sam2.1-tiny": "sam2.1/sam2.1_hiera_t.yaml",
    "sam2.1-small": "sam2.1/sam2.1_hiera_s.yaml",
    "sam2.1-base-plus": "sam2.1/sam2.1_hiera_b+.yaml",
    "sam2.1-large": "sam2.1/sam2.1_hiera_l.yaml",
    "medsam2": "sam2.1/sam2.1_hiera_t.yaml",
}
IMAGE_SIZES = {"medsam2": 512}
"""Sides that differ from the configuration's own 1024 pixels."""


def build_official(name: str, image_size: int | None = None) -> SAM2Base:
    """An official architecture with random weights, from the package's own configuration file.

    With what ``sam2.build_sam.build_sam2_video_predictor`` sets beyond the file: an unstable single mask gives way to the best of
    three, and masks of prompted frames enter memory binarised.

    Args:
        name: a key of ``OFFICIAL_CONFIGURATIONS``.
        image_size: side in pixels where it differs from the configuration (a multiple of 32); small ones serve tests.

    Raises:
        WeightsError: an unknown name.
    """
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    if name not in OFFICIAL_CONFIGURATIONS:
        raise WeightsError(f"unknown architecture '{name}'.", cure=f"Known are: {', '.join(OFFICIAL_CONFIGURATIONS)}.")
    file = Path(sam2.__file__).parent / "configs" / OFFICIAL_CONFIGURATIONS[name]
    configuration = OmegaConf.load(file).model
    configuration.binarize_mask_from_pts_for_mem_enc = True
    configuration.sam_mask_decoder_extra_args = {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    size = image_size or IMAGE_SIZES.get(name)
    if size is not None:
        configuration.image_size = size
        grid = [size // 16, size // 16]
        configuration.memory_attention.layer.self_attention.feat_sizes = grid
        configuration.memory_attention.layer.cross_attention.feat_sizes = grid
    return instantiate(configuration, _recursive_=True)


@dataclass
class SliceFeatures:
    """What the frozen encoder makes of n slices; computed once, used by every class, direction and round.

    Attributes:
        levels: feature maps, finest first, each (n, channels, height, width); strides 4, 8, 16.
        positions: the position codes of the same shapes, without the slice axis.
    """

    levels: list[torch.Tensor]
    positions: list[torch.Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        return self.levels[0].shape[0]

    def select(self, indices: torch.Tensor) -> SliceFeatures:
        """The features of some slices, repeated where an index is repeated."""
        return SliceFeatures([level.index_select(0, indices.to(level.device)) for level in self.levels], self.positions)

    def to(self, device: torch.device) -> SliceFeatures:
        """The same on a device."""
        return SliceFeatures([level.to(device) for level in self.levels], [p.to(device) for p in self.positions])

    def in_float(self) -> SliceFeatures:
        """The same in single precision; caches keep half."""
        return SliceFeatures([level.float() for level in self.levels], [p.float() for p in self.positions])

    def tokens(self) -> tuple[list[torch.Tensor], list[torch.Tensor], list[tuple[int, int]]]:
        """As ``SAM2Base.track_step`` takes them: features (HW, n, C), position codes (HW, n, C), sizes (H, W)."""
        sizes = [(level.shape[-2], level.shape[-1]) for level in self.levels]
        features = [level.flatten(2).permute(2, 0, 1) for level in self.levels]
        positions = [p.expand(len(self), -1, -1, -1).flatten(2).permute(2, 0, 1) for p in self.positions]
        return features, positions, sizes


def encode_images(model: SAM2Base, images: torch.Tensor) -> SliceFeatures:
    """Run the image encoder.

    Args:
        images: (n, 3, side, side), normalised as ``features.prepare_images`` does.
    """
    output = model.forward_image(images)
    count = model.num_feature_levels
    levels = list(output["backbone_fpn"][-count:])
    positions = [p[:1] for p in output["vision_pos_enc"][-count:]]
    return SliceFeatures(levels, positions)
