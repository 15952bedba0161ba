"""DiCaP: two thresholds per label, and pseudo-labels weighted by how often they are right.

Paper: "[DiCaP: Distribution-Calibrated Pseudo-labeling for Semi-Supervised Multi-Label
Learning](https://arxiv.org/abs/2511.20225)", AAAI 2026; the form implemented here is in docs/methods.md.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from bbam_ray.methods.cap import Cap, CapOptions


class DicapOptions(CapOptions):
    """Options of the method ``dicap``; the defaults are the published settings as far as known."""

    pseudo_labels: Literal["frequency", "metric", "midrange"] = Field(
        "midrange", description=CapOptions.model_fields["pseudo_labels"].description
    )
    pseudo_label_weight: Literal["none", "confidence", "measured"] = Field(
        "measured", description=CapOptions.model_fields["pseudo_label_weight"].description
    )
    negative_keep: float = Field(
        1.0, ge=0, le=1, description=CapOptions.model_fields["negative_keep"].description
    )


class Dicap(Cap):
    """The method ``dicap``: ``cap`` with other defaults of its options.

    Two thresholds per label, and a weight for each pseudo-label, both from validation samples: these are
    the published method's estimation part. Without validation samples it is ``cap``.

    What is left out: the contrastive loss between the views of ambiguous entries, which needs features by
    label (ML-Decoder), while all methods here share a cosine head; and the final fine-tuning of the head
    on the estimation part, since validation samples also measure the run.
    """

    name: ClassVar[str] = "dicap"
    Options = DicapOptions
