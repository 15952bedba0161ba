"""Networks: a backbone, a projector and the cosine head, which is the same on every backbone.

Here belong modules and their initial weights; losses and pseudo-labels belong to core/ and methods/.
"""

from bbam_ray.models.backbones import BACKBONES, check_backbone, has_batch_norm
from bbam_ray.models.network import Network, build_network
from bbam_ray.models.text_encoders import HubEncoder

__all__ = [
    "BACKBONES",
    "HubEncoder",
    "Network",
    "build_network",
    "check_backbone",
    "has_batch_norm",
]
