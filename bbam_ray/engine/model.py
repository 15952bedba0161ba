"""A trained model in use: scores of new samples, without the data that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bbam_ray.data import ViewSettings
from bbam_ray.data.cache.images import UnreadableImageError, read_image, without_warnings
from bbam_ray.data.cache.token_rows import trimmed
from bbam_ray.data.cache.tokenizer import TokenEncoder
from bbam_ray.engine.evaluation import channels_last
from bbam_ray.engine.model_folder import WEIGHTS, ModelDescription, read_description, read_weights
from bbam_ray.errors import UsageError, shown
from bbam_ray.methods import METHODS
from bbam_ray.methods.method import Method, TaskInfo
from bbam_ray.models import Network, build_network
from bbam_ray.results.remote import local_copy


class ScoringModule(nn.Module):
    """Samples as they are stored to logits at y = 1/2 (method, section 1): what is exported.

    Args:
        network: in evaluation mode.
        method: gives logits of cosines.
        views: normalisation.
        images: whether samples are images with values 0 to 255.
    """

    def __init__(
        self, network: Network, method: Method, views: ViewSettings, *, images: bool
    ) -> None:
        super().__init__()
        self.network, self._method, self._images = network, method, images
        self._texts = views.vocabulary > 0
        shape = (1, -1, 1, 1) if images else (1, -1)
        self.input_mean: Tensor
        self.input_std: Tensor
        self.register_buffer("input_mean", torch.tensor(views.mean).view(shape))
        self.register_buffer("input_std", torch.tensor(views.std).view(shape))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) with values 0 to 255, (B, F), or (B, L) tokens, to (B, K) logits."""
        if self._texts:
            _, cosine = self.network(inputs)
            return self._method.logits(cosine.float())
        scaled = inputs.float()
        if self._images:
            scaled = scaled / 255
        _, cosine = self.network(channels_last((scaled - self.input_mean) / self.input_std))
        return self._method.logits(cosine.float())


class Model:
    """Scores and decides labels of new samples.

    Args:
        folder: of a model: ``model.safetensors`` and what belongs to it.
        device: "auto" takes a GPU where there is one.

    Raises:
        UsageError: files that are missing, damaged, not finite or not of one model.
    """

    def __init__(self, folder: Path | str, device: str = "auto") -> None:
        self.folder = Path(folder)
        self.description: ModelDescription = read_description(self.folder)
        has_gpu = torch.cuda.is_available()
        self.device = torch.device(("cuda" if has_gpu else "cpu") if device == "auto" else device)
        self.module = _build(self.folder, self.description, self.device)
        views = self.description.views
        self._encode: TokenEncoder | None = None
        if views.vocabulary:
            self._encode = TokenEncoder(views.tokenizer, self.input_shape[0])

    @property
    def takes_texts(self) -> bool:
        return self._encode is not None

    @property
    def label_names(self) -> list[str]:
        """K names, in the order of all columns."""
        return list(self.description.label_names)

    @property
    def thresholds(self) -> np.ndarray:
        """(K,) float32, on logits: tuned on validation data, never on the test part."""
        return np.array(self.description.thresholds, dtype=np.float32)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample: (C, H, W), (F,) or, of texts, (L,) tokens at most."""
        return self.description.input_shape

    @torch.inference_mode()
    def logits(self, inputs: Any) -> np.ndarray:
        """Scores z (N, K) float32; above its threshold a label is decided to be there.

        Args:
            inputs: (N, C, H, W) uint8 or (N, F) numbers, as array or tensor; for a model of images also
                a sequence of file names; for one of texts a sequence of texts, or (N, l) int32 tokens.

        Raises:
            UsageError: another shape, or a file that is no image.
        """
        samples, batch = self._samples(inputs), self.description.config.training.evaluation_batch
        parts = []
        for start in range(0, len(samples), batch):
            part = samples[start : start + batch]
            if self.takes_texts:
                part = trimmed(part)
            block = torch.from_numpy(np.ascontiguousarray(part))
            parts.append(self.module(block.to(self.device)).cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, len(self.label_names)), np.float32)

    def predict_proba(self, inputs: Any) -> np.ndarray:
        """Sigmoid of the logits, (N, K) float64: in their order, not calibrated; arguments as above."""
        return probabilities(self.logits(inputs))

    def predict(self, inputs: Any) -> np.ndarray:
        """Decided labels (N, K) uint8, by the thresholds; inputs as ``logits``."""
        return (self.logits(inputs) > self.thresholds).astype(np.uint8)

    def stored(self, inputs: Any) -> np.ndarray:
        """Samples (N, ...) as they are stored: what ``ScoringModule`` takes; inputs as ``logits``."""
        if not self.takes_texts and isinstance(inputs, list):
            inputs = np.stack(inputs)
        return self._samples(inputs)

    def _samples(self, inputs: Any) -> np.ndarray:
        if self._encode is not None:
            return self._tokens(self._encode, inputs)
        if _are_files(inputs):
            return self._read_files(inputs)
        samples = inputs.detach().cpu().numpy() if isinstance(inputs, Tensor) else inputs
        samples = np.asarray(samples)
        images = len(self.input_shape) > 1
        wanted = "uint8" if images else "numbers"
        fits = samples.dtype == np.uint8 if images else samples.dtype.kind in "fiub"
        if samples.shape[1:] != self.input_shape or samples.ndim == 0 or not fits:
            sides = ", ".join(str(side) for side in self.input_shape)
            raise UsageError(
                f"inputs are {samples.dtype} {samples.shape}; this model takes {wanted} in (N, {sides})"
            )
        return samples if images else samples.astype(np.float32)

    def _tokens(self, encode: TokenEncoder, inputs: Any) -> np.ndarray:
        if isinstance(inputs, str):
            raise UsageError("inputs are one text; give a list of texts")
        if not isinstance(inputs, (np.ndarray, Tensor)) and all(isinstance(i, str) for i in inputs):
            return encode(list(inputs))
        tokens = np.asarray(inputs)
        (longest,), vocabulary = self.input_shape, self.description.views.vocabulary
        if tokens.ndim != 2 or tokens.dtype.kind not in "iu" or tokens.shape[1] > longest:
            raise UsageError(
                f"inputs are {tokens.dtype} {tokens.shape}; this model takes texts, or int32 tokens "
                f"in (N, l) with l up to {longest}"
            )
        if tokens.size and tokens.max() >= vocabulary:
            raise UsageError(
                f"inputs hold token {tokens.max()}; this model's vocabulary has {vocabulary}"
            )
        return tokens.astype(np.int32)

    def _read_files(self, names: Sequence[Path | str]) -> np.ndarray:
        if len(self.input_shape) != 3:
            raise UsageError("this model takes feature vectors, not files; give an array (N, F)")
        channels, side, _ = self.input_shape
        samples = np.empty((len(names), *self.input_shape), np.uint8)
        for row, name in enumerate(names):
            try:
                with without_warnings():
                    samples[row] = read_image(Path(name), side, channels)
            except UnreadableImageError as error:
                raise UsageError(f"{shown(str(name), 300)}: {error}; leave it out") from None
        return samples


def load_model(folder: Path | str, device: str = "auto") -> Model:
    """Open a trained model for use.

    Args:
        folder: of an exported or confirmed model, of a run, or of a study (its best configuration,
            first seed).
        device: "auto", "cpu", "cuda" and so on.

    Raises:
        UsageError: no model there, or files that are damaged or not of one model.
    """
    return Model(find_model(Path(folder)), device)


def find_model(folder: Path) -> Path:
    """The folder that holds the weights: the one given, or that of a run or a study.

    Raises:
        UsageError: there is none.
    """
    folder = local_copy(folder)
    for candidate in (folder, folder / "model", folder / "checkpoints" / "model"):
        if (candidate / WEIGHTS).is_file():
            return candidate
    if (folder / "confirm.parquet").is_file():
        from bbam_ray.results.loading import load_study

        rows = load_study(folder).confirm
        for _, row in rows[rows["rank"].notna()].sort_values(["rank", "seed"]).iterrows():
            candidate = folder / "checkpoints" / f"confirm-{row.trial_id}-seed{row.seed}"
            if (candidate / WEIGHTS).is_file():
                return candidate
    raise UsageError(
        f"{folder}: no {WEIGHTS} in it; give the folder of an exported model, of a run, or of a study "
        "that has confirmed its best configuration"
    )


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Sigmoid in float64, where scores up to 36 keep their order."""
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def _are_files(inputs: Any) -> bool:
    return (
        isinstance(inputs, Sequence)
        and not isinstance(inputs, (str, bytes))
        and len(inputs) > 0
        and all(isinstance(name, (str, Path)) for name in inputs)
    )


def _build(folder: Path, described: ModelDescription, device: torch.device) -> ScoringModule:
    """Network and method with the stored weights."""
    common, labels = described.config.training, len(described.label_names)
    weights, scoring = read_weights(folder)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UsageError(
                f"{folder / WEIGHTS}: {name} holds numbers that are not finite; train again or take "
                "another checkpoint"
            )
    head = weights.get("head.weight")
    if head is not None and len(head) != labels:
        raise UsageError(
            f"{folder}: the weights are for {len(head)} labels, labels.json names {labels}; these files "
            "are not of one model"
        )
    # A network of another size would be made before it is seen not to fit, however large.
    sides = {side for tensor in weights.values() for side in tensor.shape}
    sizes = {"hidden_dim": common.hidden_dim, "feature_dim": common.feature_dim}
    if described.views.vocabulary:
        if common.backbone != "transformer":  # whose table of tokens may be larger
            sizes["input_vocabulary"] = described.views.vocabulary
    elif common.backbone == "mlp":
        sizes["input_shape"] = described.input_shape[0]
    for entry, size in sizes.items():
        if size not in sides:
            raise UsageError(
                f"{folder / WEIGHTS}: does not fit config.json ({entry} = {size}); these files are not of "
                "one model"
            )
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            common.backbone,
            described.input_shape,
            labels,
            hidden_dim=common.hidden_dim,
            feature_dim=common.feature_dim,
            vocabulary=described.views.vocabulary,
            architecture=described.architecture,
        )
        network.auxiliary = METHODS[common.method].auxiliary(
            described.config.method, common.feature_dim, labels
        )
    setting = TaskInfo(
        num_labels=labels,
        labels=torch.zeros(0, labels, dtype=torch.int8, device=device),
        positive_frequency=torch.zeros(labels, dtype=torch.float64, device=device),
        labeled_batch=common.labeled_batch,
        unlabeled_batch=common.unlabeled_batch,
    )
    method = METHODS[common.method](described.config.method, setting)
    try:
        network.load_state_dict(weights)
        method.load_scoring_state(scoring)
    except (RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{folder / WEIGHTS}: does not fit config.json ({reason}); these files are not of one model"
        ) from None
    network.to(device).to(memory_format=torch.channels_last).eval()
    images = len(described.input_shape) > 1
    return ScoringModule(network, method, described.views, images=images).to(device).eval()
