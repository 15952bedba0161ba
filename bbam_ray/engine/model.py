"""A trained model for prediction: scores of new samples, without the training data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bbam_ray.data import ViewSettings
from bbam_ray.data.cache.token_rows import trimmed
from bbam_ray.data.formats.image_decoding import UnreadableImageError, read_image, without_warnings
from bbam_ray.data.formats.tokenizer import TokenEncoder
from bbam_ray.engine.evaluation import channels_last
from bbam_ray.engine.model_folder import WEIGHTS, ModelDescription, read_description, read_weights
from bbam_ray.errors import UsageError, brief
from bbam_ray.methods import METHODS
from bbam_ray.methods.method import Method, TaskInfo
from bbam_ray.models import Network, build_network
from bbam_ray.results.remote import local_copy


class ScoringModule(nn.Module):
    """The module that is exported: stored samples to logits at y = 1/2 (docs/method.md, section 2).

    Args:
        network: in evaluation mode.
        method: maps cosines to logits.
        views: normalisation of the inputs.
        images: whether samples are images with values 0 to 255.
    """

    def __init__(
        self, network: Network, method: Method[Any], views: ViewSettings, *, images: bool
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
        """Map (B, C, H, W) with values 0 to 255, (B, F) features or (B, L) tokens to (B, K) logits."""
        if self._texts:
            _, cosine = self.network(inputs)
            return self._method.logits(cosine.float())
        scaled = inputs.float()
        if self._images:
            scaled = scaled / 255
        _, cosine = self.network(channels_last((scaled - self.input_mean) / self.input_std))
        return self._method.logits(cosine.float())


class Model:
    """Predicts scores and labels of new samples.

    Args:
        folder: model folder, with ``model.safetensors`` and its JSON files.
        device: "auto" uses a GPU if one is available.

    Raises:
        UsageError: files that are missing, damaged, not finite or from different models.
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
        """(K,) float32, on logits; tuned on validation data, never on the test part."""
        return np.array(self.description.thresholds, dtype=np.float32)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (C, H, W), (F,), or (L,) for texts of at most L tokens."""
        return self.description.input_shape

    @torch.inference_mode()
    def logits(self, inputs: Any) -> np.ndarray:
        """Scores z (N, K) float32; a label is predicted if its score is above its threshold.

        Args:
            inputs: (N, C, H, W) uint8 or (N, F) numbers, as array or tensor; for a model of images also
                a sequence of file names; for a model of texts a sequence of texts, or (N, l) int32
                tokens.

        Raises:
            UsageError: another shape or type, or a file that is not an image.
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
        """Sigmoid of the logits, (N, K) float64; same order as the logits, not calibrated.

        Args:
            inputs: see ``logits``.
        """
        return probabilities(self.logits(inputs))

    def predict(self, inputs: Any) -> np.ndarray:
        """Predicted labels (N, K) uint8: 1 where the logit is above its threshold.

        Args:
            inputs: see ``logits``.
        """
        return (self.logits(inputs) > self.thresholds).astype(np.uint8)

    def stored(self, inputs: Any) -> np.ndarray:
        """Samples (N, ...) in stored form, the input of ``ScoringModule``.

        Args:
            inputs: see ``logits``.
        """
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
        expected = "uint8" if images else "numbers"
        fits = samples.dtype == np.uint8 if images else samples.dtype.kind in "fiub"
        if samples.shape[1:] != self.input_shape or samples.ndim == 0 or not fits:
            sides = ", ".join(str(side) for side in self.input_shape)
            raise UsageError(
                f"inputs are {samples.dtype} {samples.shape}; this model takes {expected} of shape "
                f"(N, {sides})"
            )
        return samples if images else samples.astype(np.float32)

    def _tokens(self, encode: TokenEncoder, inputs: Any) -> np.ndarray:
        if isinstance(inputs, str):
            raise UsageError("inputs is a single text; give a list of texts")
        if not isinstance(inputs, (np.ndarray, Tensor)) and all(isinstance(i, str) for i in inputs):
            return encode(list(inputs))
        tokens = np.asarray(inputs)
        (longest,), vocabulary = self.input_shape, self.description.views.vocabulary
        if tokens.ndim != 2 or tokens.dtype.kind not in "iu" or tokens.shape[1] > longest:
            raise UsageError(
                f"inputs are {tokens.dtype} {tokens.shape}; this model takes texts, or int32 tokens "
                f"of shape (N, l) with l up to {longest}"
            )
        if tokens.size and tokens.max() >= vocabulary:
            raise UsageError(
                f"inputs contain token {tokens.max()}; this model's vocabulary has {vocabulary} tokens"
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
                raise UsageError(f"{brief(str(name), 300)}: {error}; leave it out") from None
        return samples


def load_model(folder: Path | str, device: str = "auto") -> Model:
    """Load a trained model for prediction.

    Args:
        folder: of an exported or confirmed model, of a run, or of a study (its best configuration,
            first seed).
        device: "auto", or a device of torch such as "cpu" or "cuda".

    Raises:
        UsageError: no model in the folder, or files that are damaged or from different models.
    """
    return Model(find_model(Path(folder)), device)


def find_model(folder: Path) -> Path:
    """The model folder with the weights: the folder itself, or one inside a run or a study.

    Raises:
        UsageError: no model found.
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
        f"{folder}: contains no {WEIGHTS}; give the folder of an exported model, of a run, or of a study "
        "that has confirmed its best configuration"
    )


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Sigmoid in float64, which keeps the order of scores up to 36."""
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def _are_files(inputs: Any) -> bool:
    return (
        isinstance(inputs, Sequence)
        and not isinstance(inputs, (str, bytes))
        and len(inputs) > 0
        and all(isinstance(name, (str, Path)) for name in inputs)
    )


def _build(folder: Path, description: ModelDescription, device: torch.device) -> ScoringModule:
    """Network and method with the stored weights."""
    common, labels = description.config.training, len(description.label_names)
    weights, scoring = read_weights(folder)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UsageError(
                f"{folder / WEIGHTS}: {name} holds numbers that are not finite; train again or use "
                "another checkpoint"
            )
    head = weights.get("head.weight")
    if head is not None and len(head) != labels:
        raise UsageError(
            f"{folder}: the weights are for {len(head)} labels, labels.json names {labels}; these files "
            "are from different models"
        )
    # Check sizes first: a wrong size in config.json would allocate a network of that size.
    sides = {side for tensor in weights.values() for side in tensor.shape}
    sizes: dict[str, int] = {}
    if common.projector == "mlp":
        sizes["hidden_dim"] = common.hidden_dim
    if common.projector != "none":
        sizes["feature_dim"] = common.feature_dim
    if description.views.vocabulary:
        if common.backbone != "transformer":  # its table of tokens may be larger
            sizes["input_vocabulary"] = description.views.vocabulary
    elif common.backbone in ("mlp", "identity"):
        sizes["input_shape"] = description.input_shape[0]
    for entry, size in sizes.items():
        if size not in sides:
            raise UsageError(
                f"{folder / WEIGHTS}: does not fit config.json ({entry} = {size}); these files are from "
                "different models"
            )
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            common.backbone,
            description.input_shape,
            labels,
            hidden_dim=common.hidden_dim,
            feature_dim=common.feature_dim,
            projector=common.projector,
            vocabulary=description.views.vocabulary,
            architecture=description.architecture,
        )
        network.auxiliary = METHODS[common.method].auxiliary(
            description.config.method, network.feature_dim, labels
        )
    task = TaskInfo(
        num_labels=labels,
        labels=torch.zeros(0, labels, dtype=torch.int8, device=device),
        positive_frequency=torch.zeros(labels, dtype=torch.float64, device=device),
        labeled_batch=common.labeled_batch,
        unlabeled_batch=common.unlabeled_batch,
    )
    method = METHODS[common.method](description.config.method, task)
    try:
        network.load_state_dict(weights)
        method.load_scoring_state(scoring)
    except (RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{folder / WEIGHTS}: does not fit config.json ({reason}); these files are from different "
            "models"
        ) from None
    network.to(device).to(memory_format=torch.channels_last).eval()
    images = len(description.input_shape) > 1
    return ScoringModule(network, method, description.views, images=images).to(device).eval()
